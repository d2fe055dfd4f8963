"""A study: the runs of one configuration with several values of k, in one folder.

Each run has an ordinary run directory, such as `k-2/fold-1`. Its `result.json` is written last: a run without
it was interrupted.
"""

import os
import re
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

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
from nestnet.storage.unfinished import is_unfinished, remove_unfinished
from nestnet.text.escape import quoted
from nestnet.training.trainer import Trainer
from nestnet.tuning.fold_result import RESULT_FILE, RESULT_REMEDY, FoldResult, read_fold_result, write_fold_result
from nestnet.tuning.report import REPORT_FILES

RECORD_FILE = "tune-k.yaml"
RECORD_REMEDY = "put back a copy of it, or name another folder"

# A field of the record may hold any value, which is then compared with this study's.
ANY_VALUE = Rule("a value of a field", lambda value: True)

RUN_FOLDER = re.compile(r"k-([1-9]\d*)/fold-([1-9]\d*)", re.ASCII)


@dataclass(frozen=True)
class Study:
    """Runs of one configuration, with several values of k, in one folder.

    Attributes:
        config: configuration of the runs, whose `motivation.k` and `run_dir` are not used.
        folder: folder that holds the runs.
        folds: number of folds of the training images.
    """

    config: Config
    folder: Path
    folds: int

    def run_dir(self, k: int, fold: int) -> Path:
        """Return the run directory of a k and a fold, counted from 1."""
        return self.folder / f"k-{k}" / f"fold-{fold}"

    def run_config(self, k: int, fold: int) -> Config:
        """Return the configuration of one run."""
        motivation = replace(self.config.motivation, k=k)
        return replace(self.config, motivation=motivation, run_dir=str(self.run_dir(k, fold)))

    # Training

    def create_trainer(self, images: ImageData, k: int, fold: int) -> Trainer:
        """Create the trainer of one run, with the fold in place of the test images.

        Args:
            images: images of the study.
            k: k of the run.
            fold: fold of the run, from 1.

        Returns:
            The trainer.
        """
        return Trainer(self.run_config(k, fold), images=images.fold(fold - 1, self.folds))

    def train(self, images: ImageData, k: int, fold: int) -> FoldResult:
        """Train one run from its beginning, and write its result to its directory.

        Args:
            images: images of the study.
            k: k of the run.
            fold: fold of the run, from 1.

        Returns:
            The result.

        Raises:
            FloatingPointError: When a loss is NaN or infinite.
        """
        start = time.perf_counter()
        run_dir = self.run_dir(k, fold)
        # An interrupted run starts again from its beginning.
        if run_dir.exists():
            delete_run(run_dir)
        trainer = self.create_trainer(images, k, fold)
        try:
            trainer.fit()
        except FloatingPointError as error:
            raise FloatingPointError(f"k = {k}, fold {fold}: {error}") from error

        # The accuracies are those of the last epoch, the shares and costs those of all epochs.
        epochs = read_table(run_dir / "metrics.csv")
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
            return Lock(self.folder, "tune k")
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
        for name in REPORT_FILES:
            check_output(self.folder / name)
        fields = {"folds": self.folds, "images": images.record().fingerprint, **dotted(asdict(self.config))}
        # Leave out k, which differs between the runs, and the locations of a run and of its code.
        for name in ("motivation.k", "run_dir", "imports"):
            del fields[name]

        # Record a new study; compare an existing one with its record.
        record = self.folder / RECORD_FILE
        where = f"folder = {quoted(self.folder)}"
        if not os.path.lexists(record):
            if self._holds_something():
                raise ValueError(f"{where}: it holds something else; name another folder, or remove this one")
            remove_unfinished(self.folder)
            write_atomically(record, yaml.safe_dump(fields, sort_keys=False))
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

    def is_finished(self, k: int, fold: int) -> bool:
        """Return whether a run has its result."""
        return os.path.lexists(self.run_dir(k, fold) / RESULT_FILE)

    def read_results(self) -> list[FoldResult]:
        """Return the results of every k whose folds are all finished, by k and fold.

        Raises:
            ValueError: If a result is damaged.
        """
        results = []
        for path in self.folder.glob("k-*/fold-*"):
            # A copy of a run, such as `fold-1 (copy)`, is no run of the study.
            numbers = RUN_FOLDER.fullmatch(f"{path.parent.name}/{path.name}")
            if numbers is None:
                continue
            k = int(numbers[1])
            fold = int(numbers[2])
            if self.is_finished(k, fold):
                results.append(self._read_result(k, fold))
        # Values of k are only compared on the same folds.
        ks = [result.k for result in results]
        return sorted(result for result in results if ks.count(result.k) == self.folds)

    def _read_result(self, k: int, fold: int) -> FoldResult:
        """Return the result of a finished run, after checking that it belongs to the run."""
        path = self.run_dir(k, fold) / RESULT_FILE
        result = read_fold_result(path)
        if (result.k, result.fold) != (k, fold) or fold > self.folds:
            raise damaged(path, f"it is of fold {result.fold} of {self.folds} with k = {result.k}", RESULT_REMEDY)
        return result
