"""The training of a study's runs: one after another, or in parallel processes."""

import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout

import torch

from nestnet.config.imports import import_modules
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.image_record import ImageRecord
from nestnet.runtime.interrupts import hold_signals, leave_signals_to_parent
from nestnet.runtime.log import get_logging_setup, set_up_logging
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.study import Study
from nestnet.tuning.study_run import StudyRun

Results = Generator[FoldResult, None, None]

START_METHOD = "spawn"
"""How the processes are started. A fork would copy torch's threads in an undefined state."""


def train_in_turn(study: Study, images: ImageData, runs: Sequence[StudyRun], threads: int) -> Results:
    """Train runs one after another.

    Args:
        study: study that the runs belong to.
        images: images of the study.
        runs: runs of the study to train.
        threads: number of threads of torch while a run trains.

    Yields:
        The result of each run.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for run in runs:
            yield study.train(images, run)
    finally:
        torch.set_num_threads(threads_before)


def train_side_by_side(study: Study, record: ImageRecord, runs: Sequence[StudyRun], jobs: int, threads: int) -> Results:
    """Train runs in several processes. No process is left running, even after an error.

    Args:
        study: study that the runs belong to.
        record: record of the images. Each process reads the images again, and without the record an image that
            was added in the meantime would change the folds.
        runs: runs of the study to train.
        jobs: number of processes.
        threads: number of threads of torch in each process.

    Yields:
        Each result as soon as it is available.

    Raises:
        ChildProcessError: If a process is killed.
    """
    context = multiprocessing.get_context(START_METHOD)
    other_children = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, context, _start_child, (threads, record, get_logging_setup())) as pool:
        try:
            # A signal during this block would leave an orphaned process.
            with hold_signals():
                futures = [pool.submit(_train_in_child, study, run) for run in runs]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of the {jobs} processes was killed, perhaps because memory ran out: use fewer jobs; "
                "finished runs are kept"
            ) from error
        except BaseException:
            # Leaving the context of the pool would wait for runs that take hours.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()).difference(other_children):
                # A process that is still importing torch has blocked SIGTERM, and would finish the import first.
                child.kill()
            raise


# The functions below run in a child process, which loads the images once for all its runs, by the record.

_record: ImageRecord | None = None
_images: ImageData | None = None


def _start_child(threads: int, record: ImageRecord, set_up: Callable[[], object] | None) -> None:
    global _record
    _record = record
    set_up_logging(set_up)
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End this process when its parent ends, even if the parent is killed.

    Otherwise it would continue to train, even in the folders of a command that resumes the study.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train_in_child(study: Study, run: StudyRun) -> FoldResult:
    global _images
    # Load the images here, because an error in `_start_child` would not reach the parent.
    if _images is None:
        import_modules(study.config.imports)
        _images = load_data(study.config.data, study.config.model, _record)
    # Suppress the progress, because that of several runs would mix: the parent reports each finished run.
    with redirect_stdout(io.StringIO()):
        return study.train(_images, run)
