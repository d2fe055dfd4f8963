"""Runs the `nestnet` command many times for the price of one import, and sends signals to it: a program for tests.

It reads cases from standard input and writes what came of each, both as JSON. A case has
    arguments: of the command
    environments: one for each process that runs it at the same time; by default a single one without additions
    place: a function, such as `nestnet.training.trainer:Trainer.mix_batch`
    number: the call of it at which the signals are sent; by default the first
    signals: numbers, sent one after another to the process, or to those that it has started too
    signalled: the process that gets them; by default the first
    values: seconds of constants that are others in these processes, such as
        `{"nestnet.distributed.rendezvous:RENDEZVOUS_TIMEOUT": 1}`
    handles: how many files each process may have open
Each process is forked from this one and has a process group of its own, as a shell gives it.
"""

import atexit
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from datetime import timedelta
from typing import IO, Any, NamedTuple

IMPORTED_ONCE = (
    "nestnet.training.trainer",
    "nestnet.tuning.tune_k",
    "nestnet.deploy.predict",
    "nestnet.analysis.report.write_report",
    # nestnet imports these where it needs them, and they take longer than what the commands do.
    "sklearn.datasets",
    "fvcore.nn",
)
"""Modules that this process imports for all that it forks."""

PAUSE = 0.03
"""Seconds between two signals."""


class Started(NamedTuple):
    pid: int
    at_place: int
    output: dict[str, IO[bytes]]


def found(name: str) -> tuple[Any, str]:
    """The owner of what `module:attribute.attribute` names, and its last part."""
    module, _, path = name.partition(":")
    *owners, last = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, last


def tell(place: str, number: int, ready: int) -> None:
    """Let the `number`-th call of a function write a byte to a pipe before it does its work."""
    owner, name = found(place)
    original = getattr(owner, name)
    calls = 0

    def telling(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            os.write(ready, b"!")
        return original(*arguments, **named)

    setattr(owner, name, telling)


def be_command(case: dict[str, Any], environment: dict[str, str], ready: int, output: dict[str, IO[bytes]]) -> None:
    os.setpgid(0, 0)
    os.dup2(output["out"].fileno(), 1)
    os.dup2(output["err"].fileno(), 2)
    os.environ |= environment
    # a process that a shell has started in the background ignores SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from nestnet.cli import main as cli

    for name, seconds in case.get("values", {}).items():
        owner, last = found(name)
        setattr(owner, last, timedelta(seconds=seconds))
    if "place" in case:
        tell(case["place"], case.get("number", 1), ready)
    if "handles" in case:
        resource.setrlimit(resource.RLIMIT_NOFILE, (case["handles"], case["handles"]))
    sys.argv = ["nestnet", *case["arguments"]]
    code = cli.main()
    sys.stdout.flush()
    # As Python does at the end of a program. What watches over semaphores would complain of those that are left.
    atexit._run_exitfuncs()
    os._exit(code)


def start(case: dict[str, Any], environment: dict[str, str]) -> Started:
    at_place, ready = os.pipe()
    output = {"out": tempfile.TemporaryFile(), "err": tempfile.TemporaryFile()}  # noqa: SIM115  # closed when read
    pid = os.fork()
    if pid == 0:
        try:
            be_command(case, environment, ready, output)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(70)
    os.close(ready)
    return Started(pid, at_place, output)


def run(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The exit code, the output, and the seconds of each process."""
    begun = time.monotonic()
    processes = [start(case, environment) for environment in case.get("environments", [{}])]
    target = processes[case.get("signalled", 0)]
    if os.read(target.at_place, 1):
        for number in case["signals"]:
            try:
                os.killpg(target.pid, number)
            except ProcessLookupError:
                break
            time.sleep(PAUSE)
    results = []
    for process in processes:
        os.close(process.at_place)
        _, status = os.waitpid(process.pid, 0)
        result: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begun}
        for name, file in process.output.items():
            file.seek(0)
            result[name] = file.read().decode()
            file.close()
        results.append(result)
    return results


if __name__ == "__main__":
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    print(json.dumps([run(case) for case in json.load(sys.stdin)]))
