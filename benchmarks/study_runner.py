"""Training the runs of a study side by side, each in a process of its own, until all are done or the program must stop."""

import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from study_runs import ROOT, StudyRun, Training, note_session

from nestnet.text.messages import last_line

POLL = 1.0
"""Seconds between two looks at the processes."""

LAST_CHECKPOINT = 120.0
"""Seconds that a run has to write a checkpoint after the signal to end, before it is killed."""


class Runner:
    """Trains runs side by side, in their order, until all are done, a signal arrives, or the time is over.

    Args:
        training: what the runs have in common.
        jobs: number of runs side by side.
        seconds: time limit in seconds.
        on_finished: function that is called with each finished run, also with those that were finished before.

    Attributes:
        failed: runs that failed, with the reason.
        signal: number of the signal that arrived; 0 for none.
    """

    def __init__(self, training: Training, jobs: int, seconds: float, on_finished: Callable[[StudyRun], None]) -> None:
        self.training = training
        self.jobs = jobs
        self.deadline = time.monotonic() + seconds
        self.on_finished = on_finished
        self.processes: dict[StudyRun, subprocess.Popen[bytes]] = {}
        self.failed: dict[StudyRun, str] = {}
        self.signal = 0

    def train(self, runs: list[StudyRun]) -> list[StudyRun]:
        """Train the runs.

        Args:
            runs: runs in the order in which they start. Finished ones are not trained again.

        Returns:
            The runs that are neither finished nor failed.
        """
        answers = {number: signal.signal(number, self._note_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        waiting = deque(runs)
        held: deque[StudyRun] = deque()
        try:
            while (waiting or held or self.processes) and not self.must_stop:
                self._start_next(waiting, held)
                time.sleep(POLL)
                self._collect_ended()
        finally:
            stopped = list(self.processes)
            self._stop_all()
            for number, answer in answers.items():
                signal.signal(number, answer)
        return [*stopped, *waiting, *held]

    @property
    def must_stop(self) -> bool:
        return self.signal != 0 or time.monotonic() > self.deadline

    def _note_signal(self, number: int, _: Any) -> None:
        self.signal = number

    def _start_next(self, waiting: deque[StudyRun], held: deque[StudyRun]) -> None:
        """Start runs until enough train. Those that other processes train come last."""
        while waiting and len(self.processes) < self.jobs and not self.must_stop:
            run = waiting.popleft()
            if run.is_finished:
                self._finish(run)
            elif run.is_held:
                print(f"{run}: another process trains it; it is looked at again after all others", flush=True)
                held.append(run)
            else:
                self._start(run)
        # All that is left is trained elsewhere. Whichever of these processes ends, its run is taken over here.
        if not waiting and len(self.processes) < self.jobs:
            free = [run for run in held if not run.is_held]
            for run in free:
                held.remove(run)
            waiting.extend(free)

    def _start(self, run: StudyRun) -> None:
        command = self.training.command(run)
        run.folder.mkdir(parents=True, exist_ok=True)
        note_session(run, command)
        # The order of a sum depends on the number of threads, and two processes that spin on the same cores slow each
        # other down many times.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
        print(f"{run}: {'resuming' if run.is_started else 'training'}", flush=True)
        with run.log.open("ab") as log:
            self.processes[run] = start_process(command, log, environment)

    def _collect_ended(self) -> None:
        for run, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[run]
            if code == 0 and run.is_finished:
                self._finish(run)
            else:
                reason = last_line(run.log.read_text(errors="replace")) or f"exit code {code}"
                self._fail(run, reason)

    def _finish(self, run: StudyRun) -> None:
        # A run that cannot be measured must not end the others.
        try:
            self.on_finished(run)
        except (OSError, ValueError, LookupError) as error:
            self._fail(run, str(error))

    def _fail(self, run: StudyRun, reason: str) -> None:
        self.failed[run] = reason
        print(f"{run}: failed: {reason}", flush=True)

    def _stop_all(self) -> None:
        """End all processes: each writes a checkpoint on the signal."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        until = time.monotonic() + LAST_CHECKPOINT
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0))
            # Also what the process may have left running.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()


def start_process(command: list[str], log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, which Ctrl-C on the terminal does not reach."""
    return subprocess.Popen(
        command,
        # `python -m` looks for nestnet in this folder first.
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
