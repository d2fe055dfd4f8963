"""A study: the runs of one configuration on the folds of its training images, in one folder.

Each run has an ordinary run directory, such as `fold-1`. Its `result.json` is written last: a run without it was
interrupted.
"""

import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from nestnet.config.schema import Config, dotted
from nestnet.data.image_data import ImageData
from nestnet.runs.reading import read_table
from nestnet.runs.resumable import describe_changes
from nestnet.runs.run_files import delete_run
from nestnet.storage.atomic import write_atomically
from nestnet.storage.lock import Lock
from nestnet.storage.outputs import check_output, make_output_folder
from nestnet.storage.read_back import damaged, read_yaml
from nestnet.storage.rules import Rule
from nestnet.storage.safe_yaml import dump_yaml
from nestnet.storage.unfinished import is_unfinished, remove_unfinished
from nestnet.text.escape import quoted
from nestnet.training.trainer import Trainer
from nestnet.tuning.fold_result import RESULT_FILE, RESULT_REMEDY, FoldResult, read_fold_result, write_fold_result
from nestnet.tuning.study_run import StudyRun

RECORD_REMEDY = "put back a copy of it, or name another folder"

# A field of the record may hold any value, which is then compared with this study's.
ANY_VALUE = Rule("a value of a field", lambda value: True)


@dataclass(frozen=True)
class Study(ABC):
    """Runs of one configuration on the folds of its training images, in one folder.

    Attributes:
        config: configuration of the runs, whose `run_dir` is not used.
        folder: folder that holds the runs.
        folds: number of folds of the training images.
        name: name of the kind of study, with which its files begin.
        purpose: verb for the message about a folder that another process uses.
        report_files: names of the files of its report.
        varied_fields: fields of the configuration that differ between the runs.
    """

    config: Config
    folder: Path
    folds: int

    name: ClassVar[str]
    purpose: ClassVar[str]
    report_files: ClassVar[tuple[str, ...]]
    varied_fields: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run_dir(self, run: StudyRun) -> Path:
        """Return the run directory of a run."""

    @abstractmethod
    def find_runs(self) -> Iterator[StudyRun]:
        """Yield the runs whose directories are in the folder."""

    @abstractmethod
    def write_report(self, results: list[FoldResult]) -> str:
        """Write the files of the report to the folder.

        Args:
            results: results of all complete series of folds, in order.

        Returns:
            The report as text.
        """

    def run_config(self, run: StudyRun) -> Config:
        """Return the configuration of one run."""
        return replace(self.config, run_dir=str(self.run_dir(run)))

    # Training

    def create_trainer(self, images: ImageData, run: StudyRun) -> Trainer:
        """Create the trainer of one run, with the fold in place of the test images.

        Args:
            images: images of the study.
            run: run of the study.

        Returns:
            The trainer.
        """
        return Trainer(self.run_config(run), images=images.fold(run.fold - 1, self.folds))

    def train(self, images: ImageData, run: StudyRun) -> FoldResult:
        """Train one run from its beginning, and write its result to its directory.

        Args:
            images: images of the study.
            run: run of the study.

        Returns:
            The result.

        Raises:
            FloatingPointError: When a loss is NaN or infinite.
        """
        start = time.perf_counter()
        run_dir = self.run_dir(run)
        # An interrupted run starts again from its beginning.
        if run_dir.exists():
            delete_run(run_dir)
        trainer = self.create_trainer(images, run)
        try:
            trainer.fit()
        except FloatingPointError as error:
            raise FloatingPointError(f"{run}: {error}") from error

        # The accuracies are those of the last epoch, the shares and costs those of all epochs.
        epochs = read_table(run_dir / "metrics.csv")
        cost = trainer.cost.summary()
        result = FoldResult(
            run.k,
            run.fold,
            base_top1=float(epochs[-1]["base_top1"]),
            motivated_top1=float(epochs[-1]["motivated_top1"]),
            motivated_fraction=statistics.fmean(float(epoch["motivated_fraction"]) for epoch in epochs),
            expected_fraction=trainer.expected_fraction,
            average_cost=cost["actual"],
            base_cost=cost["base"],
            motivated_cost=cost["motivated"],
            seconds=round(time.perf_counter() - start, 3),
        )
        write_fold_result(result, run_dir / RESULT_FILE)
        return result

    # The folder

    def lock(self) -> Lock:
        """Create the folder, and keep other processes out of it.

        Returns:
            The lock, which the caller closes.

        Raises:
            ValueError: If the folder cannot be created, or another process is using it.
        """
        try:
            make_output_folder(self.folder, "folder")
            return Lock(self.folder, self.purpose)
        except OSError as error:
            raise ValueError(f"folder = {quoted(self.folder)}: it cannot be written to: {error.strerror}") from error

    def begin(self, images: ImageData) -> None:
        """Record configuration and images in the folder, or check that they match the record.

        With other training images the folds would be different, and a run could be tested on images that
        another one trained.

        Args:
            images: images of the study.

        Raises:
            ValueError: If the folder belongs to another study, holds something else, or holds a damaged file.
        """
        for name in self.report_files:
            check_output(self.folder / name)
        fields = {"folds": self.folds, "images": images.record().fingerprint, **dotted(asdict(self.config))}
        # Leave out what differs between the runs, and the locations of a run and of its code.
        for name in (*self.varied_fields, "run_dir", "imports"):
            del fields[name]

        # Record a new study; compare an existing one with its record.
        record = self.folder / f"{self.name}.yaml"
        where = f"folder = {quoted(self.folder)}"
        if not os.path.lexists(record):
            if self._holds_something():
                raise ValueError(f"{where}: it holds something else; name another folder, or remove this one")
            remove_unfinished(self.folder)
            write_atomically(record, dump_yaml(fields))
            return

        recorded = read_yaml(record, dict.fromkeys(fields, ANY_VALUE), RECORD_REMEDY)
        differences = describe_changes(recorded, fields)
        if differences:
            raise ValueError(
                f"{where}: it was started with {', '.join(differences)}; use that again, or name another folder"
            )
        remove_unfinished(self.folder)
        # Detect a damaged result before anything is trained.
        self.read_results()

    def _holds_something(self) -> bool:
        """Return whether the folder holds more than a lock and the remains of interrupted writes."""
        paths = [path for path in self.folder.iterdir() if path.name != ".lock"]
        return not all(map(is_unfinished, paths))

    # Results

    def is_finished(self, run: StudyRun) -> bool:
        """Return whether a run has its result."""
        return os.path.lexists(self.run_dir(run) / RESULT_FILE)

    def read_results(self) -> list[FoldResult]:
        """Return the results of every k whose folds are all finished, by k and fold.

        Raises:
            ValueError: If a result is damaged.
        """
        results = [self._read_result(run) for run in self.find_runs() if self.is_finished(run)]
        # Values of k are only compared on the same folds.
        ks = [result.k for result in results]
        return sorted(result for result in results if ks.count(result.k) == self.folds)

    def _read_result(self, run: StudyRun) -> FoldResult:
        """Return the result of a finished run, after checking that it belongs to the run."""
        path = self.run_dir(run) / RESULT_FILE
        result = read_fold_result(path)
        if (result.k, result.fold) != (run.k, run.fold) or run.fold > self.folds:
            raise damaged(path, f"it is of fold {result.fold} of {self.folds}{_describe_k(result)}", RESULT_REMEDY)
        return result


def _describe_k(result: FoldResult) -> str:
    return "" if result.k is None else f" with k = {result.k}"
