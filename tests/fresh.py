"""Runs code in processes that have imported only certain modules, for the price of importing these once: a program for tests.

Its arguments are the modules that it imports for all that it forks. It reads a line of JSON for each process, a program and
its arguments, and answers with a line: the exit code, the output, and the first names of all modules that it has imported.
"""

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Ended(NamedTuple):
    code: int
    output: str
    error: str
    modules: set[str]


class Starter:
    """The process that forks, seen from the tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, program: str, *arguments: str) -> Ended:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([program, arguments]), file=self.process.stdin, flush=True)
        code, output, error, modules = json.loads(self.process.stdout.readline())
        return Ended(code, output, error, set(modules))


@contextmanager
def imported(*modules: str) -> Iterator[Starter]:
    """Within, programs run in processes that have imported these modules. Any warning is an error."""
    command = [sys.executable, "-W", "error", __file__, *modules]
    # numpy would start threads, and from Python 3.12 on a process with threads is warned when it forks.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Starter(process)


def be_program(program: str, arguments: list[str], output: list[Any]) -> None:
    for number, file in enumerate(output, 1):
        os.dup2(file.fileno(), number)
    sys.argv = ["-c", *arguments]
    code = 0
    try:
        exec(program, {"__name__": "__main__"})
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    output[-1].write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})).encode())
    output[-1].flush()
    os._exit(code)


def run(program: str, arguments: list[str]) -> list[Any]:
    """Fork a process, and return its exit code, its output and error, and what it has imported."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error, tempfile.TemporaryFile() as modules:
        pid = os.fork()
        if pid == 0:
            be_program(program, arguments, [out, error, modules])
        _, status = os.waitpid(pid, 0)
        written = []
        for file in (out, error, modules):
            file.seek(0)
            written.append(file.read().decode())
    return [os.waitstatus_to_exitcode(status), *written[:2], json.loads(written[2])]


if __name__ == "__main__":
    # The folder of this file is no place to import from.
    del sys.path[0]
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # the processes need not go through all objects of these modules
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)
