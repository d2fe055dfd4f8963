"""The numbers of a run in a report, read from its tables. The run need not be finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nestnet.conditions.description import trained_alone
from nestnet.config.schema import Config
from nestnet.cost.network import Cost, network_cost
from nestnet.cost.run import expected_cost
from nestnet.models.build import structural_options_of
from nestnet.nn.mode import BOTH, FINISH, Mode, PerMode
from nestnet.runs.contents import choose_criterion
from nestnet.runs.history import Steps, read_run_tables, select_steps, without_finish
from nestnet.runs.parts import RunPart, read_parts
from nestnet.runs.reading import name_runs
from nestnet.runs.result import RunResult, read_result
from nestnet.storage.paths import real_path
from nestnet.training.condition_plan import build_condition
from nestnet.training.motivation_plan import build_limits, build_policy


@dataclass(frozen=True)
class RunSummary:
    """A run with the values that follow from its tables.

    Attributes:
        path: run directory.
        name: name of the run in the report.
        config: resolved configuration of the run.
        steps: batches that were trained, including those of an unfinished epoch.
        epochs: columns of `metrics.csv`, each with a value per finished epoch [E]. Optional columns may be absent.
        network_costs: cost of training either network alone.
        expected_fraction: forecast of the share of motivated batches, from 0 to 1, without those that extend the finished
            base; `None` where the condition has no forecast, and before an epoch is finished, because a forecast depends on
            its length.
        expected_cost: forecast of the multiply-accumulates of an average forward pass; `None` where there is none.
        parts: parts of the run: a run that is resumed for more epochs begins another one.
        result: how the run ended, with its accuracy on the test images if it has validation images; `None` if it has
            not ended.
    """

    path: Path
    name: str
    config: Config
    steps: Steps
    epochs: dict[str, np.ndarray]
    network_costs: PerMode[Cost]
    expected_fraction: float | None
    expected_cost: float | None
    parts: list[RunPart]
    result: RunResult | None

    @property
    def network_names(self) -> PerMode[str]:
        """Names of both networks in timm."""
        return PerMode(self.config.model.base, self.config.model.motivated)

    @property
    def finished_epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.epochs["epoch"])

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are finished, or the run has ended before."""
        return self.finished_epochs >= self.config.total_epochs or self.result is not None

    @property
    def unfinished_batches(self) -> int:
        """Number of batches trained in the epoch that is not finished."""
        return int((self.steps.epoch > self.finished_epochs).sum())

    @property
    def trained_modes(self) -> tuple[Mode, ...]:
        """Modes that the condition trains: a single one in classical training."""
        # Decide by the configuration, because a nested run may not have had a motivated batch yet.
        mode = trained_alone(self.config)
        if mode is None:
            return tuple(Mode)
        return (mode,)

    @property
    def trained_steps(self) -> Steps:
        """Batches that changed weights; those that were skipped cost a forward pass, but count nowhere."""
        # A skipped batch has a mode, but no finite loss.
        return select_steps(self.steps, np.isfinite(self.steps.loss))

    @property
    def trained_batches(self) -> dict[str, int]:
        """Number of batches that trained the subnet of each mode; skipped batches trained none."""
        trained = self.trained_steps.mode
        counts = {}
        for mode in Mode:
            counts[str(mode)] = int(np.isin(trained, (mode.value, BOTH)).sum())
        counts[Mode.MOTIVATED.value] += int((trained == FINISH).sum())
        return counts

    @property
    def skipped_batches(self) -> int:
        """Number of batches that changed no weights, because their loss was NaN or infinite."""
        # Older runs have no such column; an unfinished epoch has no row yet.
        recorded = 0
        if "skipped_steps" in self.epochs:
            recorded = int(self.epochs["skipped_steps"].sum())
        not_finite = int((~np.isfinite(self.steps.loss)).sum())
        return max(recorded, not_finite)

    @property
    def motivated_fraction(self) -> float | None:
        """Share of the batches that trained the motivated network, from 0 to 1; `None` before the first batch.

        Batches that extend the finished base do not count: no condition chose them.
        """
        chosen = without_finish(self.trained_steps)
        if not len(chosen):
            return None
        return float(np.mean(chosen.mode != Mode.BASE))

    @property
    def average_cost(self) -> float | None:
        """Multiply-accumulates of a forward pass of one training image, averaged over all batches; `None` before the first."""
        steps = self.trained_steps
        if not len(steps):
            return None
        # A batch may run both networks.
        base = self.network_costs.base.macs
        motivated = self.network_costs.motivated.macs
        macs_of_batch = {
            Mode.BASE.value: base,
            Mode.MOTIVATED.value: motivated,
            BOTH: base + motivated,
            FINISH: motivated,
        }
        average = 0.0
        for mode, macs in macs_of_batch.items():
            average += float(macs * np.mean(steps.mode == mode))
        return average

    @property
    def training_cost(self) -> float | None:
        """Multiply-accumulates of the whole run per batch that trained the base: comparable with a network trained alone.

        It is the average forward pass unless the run extends its base at the end. `None` before the first batch, and for a
        run that extends a given base.
        """
        steps = self.trained_steps
        base_steps = len(without_finish(steps))
        if self.average_cost is None or not base_steps:
            return None
        return self.average_cost * len(steps) / base_steps

    @property
    def expected_training_cost(self) -> float | None:
        """Forecast of `training_cost`; `None` where there is none."""
        if self.expected_cost is None or self.config.extends_given_base:
            return None
        return self.expected_cost * self.config.total_epochs / self.config.epochs

    @property
    def has_validation(self) -> bool:
        """Whether the run has validation images, on which its epochs are evaluated."""
        return "val_images" in self.epochs

    @property
    def evaluated_images(self) -> str:
        """Name of the images on which the epochs are evaluated."""
        return "validation images" if self.has_validation else "test images"

    @property
    def tested(self) -> Mapping[str, float] | None:
        """Accuracies of the exports on the test images, by column of `metrics.csv`; `None` unless evaluated at the end only."""
        return None if self.result is None else self.result.test

    @property
    def training_seconds(self) -> float:
        """Time of training without evaluation, in seconds."""
        return float(self.epochs["seconds"].sum())

    def top1(self, mode: Mode) -> np.ndarray:
        """Return the top-1 of a subnet on `evaluated_images` after each finished epoch [E], in percent."""
        return self.epochs[f"{mode}_top1"]

    def final_top1(self, mode: Mode) -> float:
        """Return the top-1 of a subnet after the last finished epoch, in percent; there must be one.

        It is that on the test images, except for a run with validation images that has not ended.
        """
        if self.tested is not None:
            return self.tested[f"{mode}_top1"]
        return float(self.top1(mode)[-1])

    def best_epoch(self, mode: Mode) -> tuple[float, int]:
        """Return the top-1 of a subnet on `evaluated_images` after its best epoch, and the number of this epoch.

        The best epoch is the first one with the highest top-1 on these images; with several labels per image, that with the
        highest mean average precision. At least one epoch must be finished.
        """
        # `argmax` returns the first of equal maxima.
        index = int(self.epochs[choose_criterion(mode, self.epochs)].argmax())
        return float(self.top1(mode)[index]), int(self.epochs["epoch"][index])

    def mean_average_precision(self, mode: Mode) -> np.ndarray | None:
        """Return the mean average precision of a subnet on `evaluated_images` after each epoch [E], in percent.

        It is `None` unless images may have several labels.
        """
        return self.epochs.get(f"{mode}_map")

    def mean_metric(self, column: str) -> float | None:
        """Return a column of `metrics.csv`, averaged over the time of training; `None` where the run has no such column."""
        if column not in self.epochs or not self.finished_epochs:
            return None
        # Weights by time: the mean of a speed is then the number of images over the total time.
        return float(np.average(self.epochs[column], weights=self.epochs["seconds"]))


def read_summaries(run_dirs: Sequence[Path]) -> list[RunSummary]:
    """Read runs, each of them once even if its folder is given repeatedly.

    Args:
        run_dirs: run directories, at least one.

    Returns:
        The runs, each named after its folder, or by its path where folders share a name.

    Raises:
        ValueError: If no folder is given, or a folder is not a run directory.
    """
    # A folder may be given by several names, such as `run` and `run/`.
    paths = list({real_path(path): path for path in run_dirs}.values())
    return [read_summary(path, name) for path, name in zip(paths, name_runs(paths), strict=True)]


def read_summary(run_dir: Path, name: str | None = None) -> RunSummary:
    """Read a run, finished or not.

    Args:
        run_dir: run directory.
        name: name of the run in the report; the name of its folder by default.

    Returns:
        The run.

    Raises:
        ValueError: If the folder is not a run directory, or a file is damaged.
    """
    config, steps, epochs = read_run_tables(run_dir, ("motivated_fraction", "seconds"))
    costs = _count_network_costs(run_dir, config)
    macs = PerMode(costs.base.macs, costs.motivated.macs)
    # The forecast depends on the length of an epoch, which is known when one is finished.
    fraction = None
    if len(epochs["epoch"]):
        epoch_length = max(int((steps.epoch == 1).sum()), 1)
        fraction = build_limits(config, epoch_length, macs).expected_fraction(build_condition(config, epoch_length))
    return RunSummary(
        path=run_dir,
        name=name or real_path(run_dir).name,
        config=config,
        steps=steps,
        epochs=epochs,
        network_costs=costs,
        expected_fraction=fraction,
        expected_cost=expected_cost(macs, fraction, build_policy(config), config.epochs, config.finish_epochs),
        parts=read_parts(run_dir, config),
        result=read_result(run_dir, config, len(epochs["epoch"])),
    )


def _count_network_costs(run_dir: Path, config: Config) -> PerMode[Cost]:
    """Return the cost of both networks of a run.

    Args:
        run_dir: run directory, for the message.
        config: resolved configuration of the run.

    Raises:
        ValueError: If the configuration is not resolved.
    """
    model = config.model
    img_size = config.data.img_size
    if img_size is None or model.num_classes is None or model.in_chans is None:
        path = run_dir / "config.yaml"
        raise ValueError(f"{path} is not the configuration of a run: it lacks data.img_size or model.num_classes")
    sizes: dict[str, Any] = {"img_size": img_size, "num_classes": model.num_classes, "in_chans": model.in_chans}
    options = structural_options_of(config)
    base = network_cost(model.base, **sizes, options=options.base)
    return PerMode(base, network_cost(model.motivated, **sizes, options=options.motivated))
