"""The worker processes that read images for a `DataLoader`: how they start, and the file handles they need."""

import os
import resource
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from nestnet.runtime.interrupts import hold_signals, leave_signals_to_parent
from nestnet.runtime.log import get_logging_setup, set_up_logging

# A worker has two pipes to its parent. Each batch in transit lies in shared memory, with a handle for its images
# and one for its labels on either side. Both numbers include a margin.
HANDLES_PER_LOADER = 32
HANDLES_PER_WORKER = 8


def create_worker_initialiser() -> Callable[[int], None]:
    """Return the function that each worker calls as it starts, the `worker_init_fn` of a loader."""
    return partial(_initialise_worker, get_logging_setup())


def _initialise_worker(set_up: Callable[[], object] | None, worker: int) -> None:
    """Leave signals to the parent process, and configure logging as in the parent.

    A forked worker inherits the parent's logging; a spawned one does not.
    """
    leave_signals_to_parent()
    if set_up is not None:
        set_up_logging(set_up)


def iterate_loader(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return an iterator over a loader's batches; the workers it starts block signals until their handlers are set.

    Args:
        loader: loader whose workers call the function of `create_worker_initialiser`.
    """
    with hold_signals():
        return iter(loader)


def check_file_handles(workers: int, *, loaders: int = 1) -> None:
    """Check that the system allows enough file handles, and raise the limit of this process if necessary.

    With too few handles a worker fails while it sends a batch, and the process that waits for the batch hangs.

    Args:
        workers: number of worker processes of each loader.
        loaders: number of loaders that have workers at the same time.

    Raises:
        ValueError: If there are too few, with the command that allows more.
    """
    if workers == 0:
        return
    # Each entry is an open file of this process, on Linux and on macOS.
    in_use = len(os.listdir("/dev/fd"))
    needed = in_use + loaders * (HANDLES_PER_LOADER + workers * HANDLES_PER_WORKER)
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= soft_limit or soft_limit == resource.RLIM_INFINITY:
        return
    if hard_limit != resource.RLIM_INFINITY and needed > hard_limit:
        raise ValueError(
            f"data.workers = {workers}: they take about {needed} open files, and this process may have {hard_limit}; run "
            "`ulimit -n 4096` before, or set data.workers to 0"
        )
    # A process may raise its soft limit up to the hard one; workers inherit it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard_limit))
