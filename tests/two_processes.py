"""Processes that do something together, for the price of one import of torch."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

PRELOADED = ["timm", "nestnet.training.trainer", "nestnet.training.resume", "nestnet.recipes.command_line"]
"""Modules that are imported once, in the process from which the others are forked. It has no threads yet."""


def run_in_two_processes(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in two processes at the same time, with the rank of the process before its other arguments."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(function, arguments, nprocs=2, start_method="forkserver")
