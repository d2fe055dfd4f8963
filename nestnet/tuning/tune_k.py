"""Choosing k by cross-validation on the training images, as the paper does (arXiv 2602.21064, section 4).

A run for each k and each fold trains on the other folds and is tested on its own; the test images are never used. Every
run is an ordinary run directory. Its `result.json` is written last, so that a run without one was interrupted.
"""

import inspect
import io
import json
import multiprocessing
import os
import re
import statistics
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema import Config, dotted
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.image_record import ImageRecord
from nestnet.device import choose_device
from nestnet.runs.directory import delete_run
from nestnet.runs.reading import read_table
from nestnet.runs.resumable import changes
from nestnet.runtime.interrupts import Interrupted, interrupted, leave_to_parent, signals_held
from nestnet.runtime.terminal import say
from nestnet.storage.files import check_output, is_unfinished, make_output_folder, remove_unfinished, write_atomically
from nestnet.storage.lock import Lock
from nestnet.storage.read_back import Rule, damaged, number, or_null, read_json, read_yaml, whole
from nestnet.text.arguments import is_whole
from nestnet.text.escape import for_terminal, quoted
from nestnet.training.condition_plan import plan_condition
from nestnet.training.trainer import Trainer
from nestnet.tuning.report import FoldResult, write_report

RESULT = "result.json"
RESULT_FIELDS = {
    "k": whole(1),
    "fold": whole(1),
    "base_top1": number(0, 100),
    "motivated_top1": number(0, 100),
    "motivated_fraction": number(0, 1),
    "expected_fraction": or_null(number(0, 1)),
    "average_cost": number(0),
    "base_cost": whole(1),
    "motivated_cost": whole(1),
    "seconds": number(0),
}
RESULT_REMEDY = "remove it, and the same command trains this run again"
ANYTHING = Rule("a value of a field", lambda value: True)
RECORD = "tune-k.yaml"
RECORD_REMEDY = "put back a copy of it, or name another folder"
REPORT = ("tune-k.md", "tune-k.csv", "tune-k-folds.csv", "tune-k.png")
Outcomes = Generator[FoldResult, None, None]


def tune_k(
    config: Config, ks: Sequence[int], folder: Path, *, folds: int = 5, jobs: int | None = 1
) -> list[FoldResult]:
    """Train a configuration with each k on each fold of the training images, and write what comes out.

    It goes fold by fold over all k, so that whenever it is stopped, every k has been tried on the same folds, but for the
    last. The same call goes on from there: finished runs are kept, an interrupted one starts again. Further values of k can
    be added later.

    Args:
        config: of the runs. Its `motivation.k` and `run_dir` are not used.
        ks: the values of k to try.
        folder: gets the runs, as `k-2/fold-1`, and in the end `tune-k.md` and `tune-k.csv` with a row a k, `tune-k-folds.csv`
            with a row a run, and `tune-k.png`.
        folds: parts of the training images, with equal shares of each class; the same for every k and seed.
        jobs: runs that train beside each other, each in a process of its own. `None`: one a core on a CPU, else one.
            On a CPU the results do not depend on it. With more than one, a script must call this under
            `if __name__ == "__main__"`, because the processes import it.

    Returns:
        The runs of every k of which the folder has all folds, also of earlier calls, by k and fold.

    Raises:
        ValueError: for an argument out of range, a condition without k, a configuration that cannot be trained or another
            one than the folder was begun with; nothing has been trained then.
        FloatingPointError: when a loss is NaN or infinite.
        ChildProcessError: if one of the processes is killed.
    """
    _check(config, ks, folds, jobs)
    images = load_data(config.data, config.model)
    study = Study(config, folder, folds)
    study.trainer(images, ks[0], fold=1)  # finds what else is wrong: this fold leaves the fewest images for training
    fewest = len(images.fold(0, folds).train)
    for k in ks:
        plan_condition(study.run_config(k, fold=1), fewest)
    with closing(study.lock()):
        study.begin(images)
        return _train_all(study, images, ks, jobs)


def _train_all(study: "Study", images: ImageData, ks: Sequence[int], jobs: int | None) -> list[FoldResult]:
    config, folder = study.config, study.folder
    runs = [(k, fold) for fold in range(1, study.folds + 1) for k in ks]
    pending = [run for run in runs if not study.is_finished(*run)]
    say(f"{len(pending)} of {len(runs)} runs to train in {for_terminal(folder)}")
    on_cpu = choose_device(config.device).type == "cpu"
    if jobs is None:
        jobs = torch.get_num_threads() if on_cpu else 1
    # One thread a run: the last bits of a sum depend on their number, and runs side by side use the cores better.
    threads = 1 if on_cpu else max(1, torch.get_num_threads() // jobs)
    jobs = min(jobs, len(pending))
    if jobs > 1:
        outcomes = _side_by_side(study, images.record(), pending, jobs, threads)
    else:
        outcomes = _in_turn(study, images, pending, threads)
    try:
        with closing(outcomes):
            for done, result in enumerate(outcomes, start=1):
                say(f"{result} ({done} of {len(pending)})")
    except Interrupted as error:
        # a run that was interrupted starts again: to resume it by itself would be no use
        raise interrupted(
            error.number, "; finished runs are kept, and the same command goes on with the others"
        ) from None
    results = study.results()
    say(write_report(results, folder).rstrip("\n"))
    return results


@dataclass(frozen=True)
class Study:
    """The runs of one configuration in one folder."""

    config: Config
    folder: Path
    folds: int

    def path(self, k: int, fold: int) -> Path:
        """The run directory of a k and a fold, counted from 1."""
        return self.folder / f"k-{k}" / f"fold-{fold}"

    def run_config(self, k: int, fold: int) -> Config:
        """The configuration of one run."""
        motivation = replace(self.config.motivation, k=k)
        return replace(self.config, motivation=motivation, run_dir=str(self.path(k, fold)))

    def trainer(self, images: ImageData, k: int, fold: int) -> Trainer:
        """Of one run, with the fold in place of the test images."""
        return Trainer(self.run_config(k, fold), images=images.fold(fold - 1, self.folds))

    def train(self, images: ImageData, k: int, fold: int) -> FoldResult:
        """Train one run from its start, and leave its result in its directory."""
        path, started = self.path(k, fold), time.perf_counter()
        if path.exists():
            delete_run(path)  # it was interrupted
        trainer = self.trainer(images, k, fold)
        try:
            trainer.fit()
        except FloatingPointError as error:
            raise FloatingPointError(f"k = {k}, fold {fold}: {error}") from error
        epochs = read_table(path / "metrics.csv")
        cost = trainer.cost.summary()
        result = FoldResult(
            k,
            fold,
            base_top1=float(epochs[-1]["base_top1"]),
            motivated_top1=float(epochs[-1]["motivated_top1"]),
            motivated_fraction=statistics.fmean(float(epoch["motivated_fraction"]) for epoch in epochs),
            expected_fraction=trainer.expected_fraction,
            average_cost=cost["actual"],
            base_cost=cost["base"],
            motivated_cost=cost["motivated"],
            seconds=round(time.perf_counter() - started, 3),
        )
        write_atomically(path / RESULT, json.dumps(asdict(result), indent=1) + "\n")
        return result

    def lock(self) -> Lock:
        """Make the folder, and keep other processes out of it.

        Raises:
            ValueError: if it cannot be made, or another process is at work there.
        """
        try:
            make_output_folder(self.folder, "folder")
            return Lock(self.folder, "tune k")
        except OSError as error:
            raise ValueError(f"folder = {quoted(self.folder)}: it cannot be written to: {error.strerror}") from error

    def begin(self, images: ImageData) -> None:
        """Record configuration and images in the folder, or go on with a folder that was begun with the same ones.

        With other training images the folds would be others too, and a run would be tested on images of another's training.

        Raises:
            ValueError: if the folder was begun with others, has other contents, or holds a damaged file.
        """
        record = self.folder / RECORD
        where = f"folder = {quoted(self.folder)}"
        fields = {"folds": self.folds, "images": images.record().fingerprint, **dotted(asdict(self.config))}
        del fields["motivation.k"], fields["run_dir"]
        for name in REPORT:
            check_output(self.folder / name)
        if not os.path.lexists(record):
            if any(path.name != ".lock" and not is_unfinished(path) for path in self.folder.iterdir()):
                raise ValueError(f"{where}: it holds something else; name another folder, or remove this one")
            remove_unfinished(self.folder)
            write_atomically(record, yaml.safe_dump(fields, sort_keys=False))
            return
        begun = read_yaml(record, dict.fromkeys(fields, ANYTHING), RECORD_REMEDY)
        others = changes(begun, fields)
        if others:
            raise ValueError(f"{where}: it was begun with {', '.join(others)}; go back to that, or name another folder")
        remove_unfinished(self.folder)
        self.results()  # what is damaged is found before anything is trained

    def is_finished(self, k: int, fold: int) -> bool:
        """Whether a run has its result."""
        return os.path.lexists(self.path(k, fold) / RESULT)

    def results(self) -> list[FoldResult]:
        """All runs of every k of which all folds are finished, by k and fold.

        Raises:
            ValueError: if a result is damaged.
        """
        found = []
        for path in self.folder.glob("k-*/fold-*"):
            place = re.fullmatch(r"k-([1-9]\d*)/fold-([1-9]\d*)", f"{path.parent.name}/{path.name}", re.ASCII)
            if place is not None and self.is_finished(int(place[1]), int(place[2])):
                found.append(self.result(int(place[1]), int(place[2])))
        ks = [result.k for result in found]
        return sorted(result for result in found if ks.count(result.k) == self.folds)

    def result(self, k: int, fold: int) -> FoldResult:
        """The result of a finished run.

        Raises:
            ValueError: if it is damaged, or of another run.
        """
        path = self.path(k, fold) / RESULT
        found = FoldResult(**read_json(path, RESULT_FIELDS, RESULT_REMEDY))
        if (found.k, found.fold) != (k, fold) or fold > self.folds:
            raise damaged(path, f"it is of fold {found.fold} of {self.folds} with k = {found.k}", RESULT_REMEDY)
        return found


def _check(config: Config, ks: Sequence[int], folds: int, jobs: int | None) -> None:
    m = config.motivation
    tunable = [name for name, factory in CONDITIONS.items() if "k" in inspect.signature(factory).parameters]
    rules: list[tuple[str, Any, bool, str]] = [
        ("k", ks, len(ks) > 0, "at least one value to try"),
        ("k", ks, len(set(ks)) == len(ks), "values that differ; leave out the repeated ones"),
        *(("k", k, is_whole(k, 1), "a whole number of at least 1") for k in ks),
        ("folds", folds, is_whole(folds, 2), "a whole number of at least 2; the paper has 5"),
        ("jobs", jobs, jobs is None or is_whole(jobs, 1), "a whole number of at least 1"),
        ("motivation.name", m.name, m.name in tunable, f"a condition that has a k: {', '.join(tunable)}"),
    ]
    for name, value, fine, rule in rules:
        if not fine:
            raise ValueError(f"{name} = {value!r}: it must be {rule}")


# Runs one after another, and side by side


def _in_turn(study: Study, images: ImageData, runs: list[tuple[int, int]], threads: int) -> Outcomes:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for k, fold in runs:
            yield study.train(images, k, fold)
    finally:
        torch.set_num_threads(before)


def _side_by_side(study: Study, record: ImageRecord, runs: list[tuple[int, int]], jobs: int, threads: int) -> Outcomes:
    """Each result as it comes. However this ends, no process is left that still trains.

    Args:
        record: of the images. Each process reads them again, and an image that is added meanwhile would make other folds.
    """
    context, others = multiprocessing.get_context("spawn"), multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, context, _start_child, (threads, record)) as pool:
        try:
            with signals_held():
                futures = [pool.submit(_train_in_child, study, k, fold) for k, fold in runs]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of the {jobs} processes was killed, perhaps for want of memory: take fewer jobs; finished runs are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()).difference(others):
                child.terminate()
            raise


_record: ImageRecord | None = None
_images: ImageData | None = None
"""Of a child process, which loads them once for all its runs, by the record."""


def _start_child(threads: int, record: ImageRecord) -> None:
    global _record
    _record = record
    leave_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """A child whose parent was killed would go on training, also in the folders of a command that goes on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train_in_child(study: Study, k: int, fold: int) -> FoldResult:
    global _images
    if _images is None:  # here, and not as the process starts, where an error would not reach the parent
        _images = load_data(study.config.data, study.config.model, _record)
    with redirect_stdout(io.StringIO()):  # epochs of several runs would mix; the parent prints a line a run
        return study.train(_images, k, fold)
