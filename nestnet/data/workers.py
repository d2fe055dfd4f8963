"""The processes that read images for a loader of torch's: how they start, and what they need of the system."""

import os
import resource
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from nestnet.runtime.interrupts import leave_to_parent, signals_held

HANDLES_OF_A_LOADER = 32
HANDLES_OF_A_WORKER = 8
"""File handles that a loader takes, with some to spare: a worker has two pipes to its parent, and each batch that is on its way
between them lies in shared memory, which has a handle for its images and one for its labels on either side."""


def initialise_worker(worker: int) -> None:
    """To be called by each worker as it starts (`worker_init_fn`)."""
    leave_to_parent()


def iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return an iterator over the loader's batches; workers that it starts hold signals until they know how to answer them."""
    with signals_held():
        return iter(loader)


def check_file_handles(workers: int, *, loaders: int = 1) -> None:
    """See that the system grants enough file handles, and raise this process's own limit where it is lower.

    With too few, workers fail in the middle of sending a batch, and what waits for it would wait for ever.

    Args:
        workers: processes that read images, of each loader.
        loaders: number of loaders that have workers at the same time.

    Raises:
        ValueError: if there are too few, with the command that allows more.
    """
    if workers == 0:
        return
    in_use = len(os.listdir("/dev/fd"))
    needed = in_use + loaders * (HANDLES_OF_A_LOADER + workers * HANDLES_OF_A_WORKER)
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= limit or limit == resource.RLIM_INFINITY:
        return
    if highest != resource.RLIM_INFINITY and needed > highest:
        raise ValueError(
            f"data.workers = {workers}: they take about {needed} open files, and this process may have {highest}; run "
            "`ulimit -n 4096` before, or give --data.workers 0"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, highest))
