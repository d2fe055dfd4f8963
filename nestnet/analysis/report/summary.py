"""What a run came to, up to now: the numbers behind `nestnet plot` and `nestnet report`. It need not be finished."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from nestnet.conditions.base import JOINT, expected_fraction
from nestnet.config.schema import Config
from nestnet.cost.network import Cost, network_cost
from nestnet.cost.run import expected_cost
from nestnet.nn.mode import Mode, PerMode
from nestnet.runs.history import Steps, read_course
from nestnet.runs.same_training import apart
from nestnet.storage.paths import real_path
from nestnet.training.condition_plan import condition_from_config

_network_cost = cache(network_cost)  # it takes up to seconds, and runs have networks in common


@dataclass(frozen=True)
class RunSummary:
    """A run, as its tables tell it.

    Attributes:
        path: its folder.
        name: what a report calls it.
        config: as the run resolved it.
        steps: every batch that was trained.
        epochs: the columns of `metrics.csv`, each with a value a finished epoch [E]; what a run does not have is absent.
        networks: what it takes to train either network on its own.
        expected_fraction: of motivated batches, from 0 to 1; `None` where the condition gives no forecast, and before an
            epoch is finished, whose length it depends on.
        expected_cost: multiply-accumulates of an average forward pass by that forecast.
    """

    path: Path
    name: str
    config: Config
    steps: Steps
    epochs: dict[str, np.ndarray]
    networks: PerMode[Cost]
    expected_fraction: float | None
    expected_cost: float | None

    @property
    def names(self) -> PerMode[str]:
        """timm's names of both networks."""
        return PerMode(self.config.model.base, self.config.model.motivated)

    @property
    def epochs_done(self) -> int:
        return len(self.epochs["epoch"])

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self.config.epochs

    @property
    def steps_beyond(self) -> int:
        """Batches of an epoch that is not finished."""
        return int((self.steps.epoch > self.epochs_done).sum())

    @property
    def trained(self) -> tuple[Mode, ...]:
        """The subnets that the condition has trained in their own mode: one of them alone in classical training."""
        return {"never": (Mode.BASE,), "always": (Mode.MOTIVATED,)}.get(self.config.motivation.name, tuple(Mode))

    @property
    def trained_batches(self) -> dict[str, int]:
        """How many batches trained the subnet of each mode up to now; skipped ones trained neither."""
        modes = self.steps.mode[np.isfinite(self.steps.loss)]
        return {str(mode): int(np.isin(modes, (mode.value, JOINT)).sum()) for mode in Mode}

    @property
    def motivated_fraction(self) -> float | None:
        """Of all batches, from 0 to 1; joint ones count. `None` before the first."""
        return float(np.mean(self.steps.mode != Mode.BASE)) if len(self.steps) else None

    @property
    def cost(self) -> float | None:
        """Multiply-accumulates of a forward pass of one training image, averaged over all batches; `None` before the first."""
        if not len(self.steps):
            return None
        base, motivated = self.networks.base.macs, self.networks.motivated.macs
        costs = {Mode.BASE.value: base, Mode.MOTIVATED.value: motivated, JOINT: base + motivated}
        return float(sum(cost * np.mean(self.steps.mode == mode) for mode, cost in costs.items()))

    def top1(self, mode: Mode) -> np.ndarray:
        """Of a subnet after each finished epoch [E], in percent."""
        return self.epochs[f"{mode}_top1"]

    @property
    def has_validation(self) -> bool:
        """Whether the best epoch is chosen on images of their own."""
        return f"{Mode.BASE}_val_top1" in self.epochs

    def best(self, mode: Mode) -> tuple[float, int]:
        """A subnet's top-1 in its best epoch, and which that was; at least one must be finished.

        It is the first epoch with the highest top-1 on the validation images, or, in a run without any, on the test images.
        """
        index = int(self.epochs.get(f"{mode}_val_top1", self.top1(mode)).argmax())
        return float(self.top1(mode)[index]), int(self.epochs["epoch"][index])

    def mean(self, column: str) -> float | None:
        """A column of `metrics.csv`, averaged over the time of training; `None` where the run has none."""
        if column not in self.epochs or not self.epochs_done:
            return None
        return float(np.average(self.epochs[column], weights=self.epochs["seconds"]))

    @property
    def seconds(self) -> float:
        """Of training, without evaluations."""
        return float(self.epochs["seconds"].sum())

    @property
    def skipped(self) -> int:
        """Batches that moved no weights, as their loss was NaN or infinite."""
        recorded = int(self.epochs["skipped_steps"].sum()) if "skipped_steps" in self.epochs else 0
        return max(recorded, int((~np.isfinite(self.steps.loss)).sum()))


def read_summary(run_dir: Path, name: str | None = None) -> RunSummary:
    """The run in a folder, finished or not.

    Args:
        name: what a report calls it; by default its folder's name.

    Raises:
        ValueError: if the folder is no run.
    """
    config, steps, epochs = read_course(run_dir, ("motivated_fraction", "seconds"))
    model, size = config.model, config.data.img_size
    if size is None or model.num_classes is None or model.in_chans is None:
        raise ValueError(
            f"{run_dir / 'config.yaml'} is not as a run leaves it: it lacks data.img_size or model.num_classes"
        )
    base, motivated = (
        _network_cost(network, img_size=size, num_classes=model.num_classes, in_chans=model.in_chans)
        for network in (model.base, model.motivated)
    )
    fraction: float | None = None
    if len(epochs["epoch"]):  # the forecast depends on an epoch's length
        batches = max(int((steps.epoch == 1).sum()), 1)
        fraction = expected_fraction(condition_from_config(config, batches), batches)
    return RunSummary(
        path=run_dir,
        name=name or real_path(run_dir).name,
        config=config,
        steps=steps,
        epochs=epochs,
        networks=PerMode(base, motivated),
        expected_fraction=fraction,
        expected_cost=expected_cost(
            PerMode(base.macs, motivated.macs), fraction, joint=config.motivation.name == JOINT
        ),
    )


def grouped(runs: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """The runs, those beside each other that differ in their seed alone."""
    groups: list[list[RunSummary]] = []
    for run in runs:
        same = next((group for group in groups if not apart(run.config, group[0].config)), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    return groups
