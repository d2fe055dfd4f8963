"""Runs commands of Python in this process, which has imported torch already, where a process of their own is not the point."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from nestnet.cli.main import main


@contextmanager
def written_to(log: IO[bytes]) -> Iterator[None]:
    """Within, what is printed goes to a binary file."""
    with (
        open(log.fileno(), "w", encoding="utf-8", closefd=False) as text,
        redirect_stdout(text),
        redirect_stderr(text),
    ):
        yield


def run_nestnet(command: list[str]) -> int:
    """Run `python -m nestnet ...`, and return its exit code."""
    assert command[:3] == [sys.executable, "-m", "nestnet"]
    return main(command[3:])


def start_nestnet(command: list[str], log: IO[bytes], environment: dict[str, str]) -> Any:
    """Stand in for `study_runner.start_process`; the process that it returns has ended already."""
    with written_to(log):
        code = run_nestnet(command)
    return SimpleNamespace(poll=lambda: code)


def run_program(command: list[str]) -> int:
    """Run `python PROGRAM.py ...`, whose folder is in the path of modules, and return its exit code."""
    assert command[0] == sys.executable
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command[1:])
        try:
            importlib.import_module(Path(command[1]).stem).main()
        except SystemExit as stopped:
            return stopped.code if isinstance(stopped.code, int) else 1
    return 0
