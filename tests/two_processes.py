"""Processes that know torch and nestnet already: one fork server imports them, once for all tests of a pytest worker."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Any
from unittest.mock import patch

import torch.multiprocessing as mp
from torch.distributed import run as torchrun

PRELOADED = [
    "nestnet.cli.main",
    "nestnet.training.trainer",
    "nestnet.training.resume",
    "nestnet.tuning.tune_k",
    # These are imported where they are needed, and take longer than what the tests do.
    "sklearn.datasets",
    "sklearn.model_selection",
    "fvcore.nn",
    "torch.distributed.elastic.multiprocessing.api",
    "pytest",
]
"""Modules that are imported once, in the process from which the others are forked. It has no threads yet."""

HANDLED_BY_TORCHRUN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals whose handlers `torchrun` sets and leaves."""


def fork_server() -> ForkServerContext:
    """What starts processes that have imported these modules. Each has one thread, as under torchrun."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


def run_in_two_processes(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in two processes at the same time, with the rank of the process before its other arguments."""
    fork_server()
    mp.start_processes(function, arguments, nprocs=2, start_method="forkserver")


def run_torchrun(*arguments: str) -> None:
    """What `torchrun` does with these arguments, where they end with a script of Python and the script's own.

    Raises:
        ChildFailedError: If a process fails.
    """
    fork_server()
    handlers = {number: signal.getsignal(number) for number in HANDLED_BY_TORCHRUN}
    with patch.dict(os.environ):
        try:
            torchrun.run(torchrun.parse_args(["--run-path", "--start-method", "forkserver", *arguments]))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
