"""What runs achieved: those that differ only in their seed make a row for each network that they trained.

The figures are those of arXiv 2602.21064: top-1 after the last epoch, the average cost of a forward pass in training, and
ACC/FLOPs and F_Ratio against the networks trained alone (section 4).
"""

import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nestnet.conditions.base import JOINT
from nestnet.config.schema import Config
from nestnet.cost.network import Convention, Point, average_cost, flops_efficiency, flops_ratio, forward_cost
from nestnet.models import cifar_resnet
from nestnet.models.registry import list_models
from nestnet.paper.published import Published, Role, classical, nested, row_name
from nestnet.runs.contents import TABLE_REMEDY
from nestnet.runs.history import read_epochs
from nestnet.runs.reading import read_cost
from nestnet.runs.same_training import apart, training_fields
from nestnet.runtime.notices import log_notice
from nestnet.storage.read_back import damaged


@dataclass(frozen=True)
class Row:
    """A network as the runs of one configuration trained it.

    Attributes:
        config: of the runs; they differ in their seed.
        role: `"C"`, trained alone; `"B"` or `"M"`, base or motivated network of nested training.
        top1: of each run after its last epoch, in percent.
        cost: operations of an average forward pass in training, in the mean over the runs.
        setting: the fields in which its configuration differs from those of other rows of its name.
        acc_flops: percentage points an operation gained over the base alone; `None` if no runs trained that.
        f_ratio: the quotient with the motivated network's; `None` if no runs trained both networks alone.
    """

    config: Config
    role: Role
    top1: tuple[float, ...]
    cost: float
    setting: str = ""
    acc_flops: float | None = None
    f_ratio: float | None = None

    @property
    def dataset(self) -> str:
        return self.config.data.name

    @property
    def condition(self) -> str:
        return self.config.motivation.name

    @property
    def pair(self) -> tuple[str, str]:
        return self.config.model.base, self.config.model.motivated

    @property
    def network(self) -> str:
        """timm's name of the network whose top-1 this is."""
        return self.pair[self.role == "M" or self.condition == "always"]

    @property
    def name(self) -> str:
        """As the paper names it, with the condition where that is not the paper's."""
        name = row_name(self.network, self.role, self.pair)
        return name if self.role == "C" or self.condition == "loss_decrease" else f"{name}-{self.condition}"

    @property
    def point(self) -> Point:
        """Mean top-1 and cost."""
        return statistics.fmean(self.top1), self.cost

    @property
    def convention(self) -> Convention:
        return _convention(self.config)

    @property
    def published(self) -> Published | None:
        """The paper's row of this network. A run from given weights has none: it is not known what they were trained on."""
        if self.config.model.base_weights or self.config.model.motivated_weights:
            return None
        if self.role == "C":
            return classical(self.network, self.dataset)
        k = self.config.motivation.k
        return nested(*self.pair, self.dataset, self.role, condition=self.condition, k=k)


def rows(run_dirs: Sequence[Path]) -> list[Row]:
    """The rows of these runs, sorted by data, pair of networks, and role: C, B, M.

    Args:
        run_dirs: folders of runs. An unfinished one, or a second one that trains the same with the same seed, is left out with
            a notice.

    Raises:
        ValueError: for a folder that is no run directory, or if no run is finished.
    """
    groups: dict[str, dict[int, _Run]] = {}
    for path in dict.fromkeys(map(Path, run_dirs)):
        run = _read(path)
        if run is None:
            continue
        seeds = groups.setdefault(json.dumps(training_fields(run.config)), {})
        seed = run.config.seed
        if seed in seeds:
            log_notice(f"{path} is left out: {seeds[seed].path} has the same configuration and seed")
        else:
            seeds[seed] = run
    if not groups:
        raise ValueError("no run is finished: name at least one run directory with all its epochs")
    found = [row for seeds in groups.values() for row in _rows(list(seeds.values()))]
    return sorted((replace(_compared(row, found), setting=_setting(row, found)) for row in found), key=_order)


@dataclass(frozen=True)
class _Run:
    path: Path
    config: Config
    base_top1: float
    motivated_top1: float
    cost: float


def _read(path: Path) -> _Run | None:
    """A run; `None`, with a notice, if it is not finished."""
    config, epochs = read_epochs(path, ("motivated_fraction",))
    finished = len(epochs["epoch"])
    if finished < config.epochs:
        log_notice(f"{path} is left out: {finished} of its {config.epochs} epochs are finished")
        return None
    base = float(epochs["base_top1"][-1])
    motivated = float(epochs["motivated_top1"][-1])
    return _Run(path, config, base, motivated, _average_cost(path, config, epochs))


def _convention(config: Config) -> Convention:
    """The paper's, where it counts CIFAR ResNets in one of its own; elsewhere both are multiply-accumulates."""
    cifar = config.model.base in cifar_resnet.default_cfgs and config.data.name in ("cifar10", "cifar100")
    return "paper" if cifar else "macs"


def _average_cost(path: Path, config: Config, epochs: dict[str, np.ndarray]) -> float:
    """Operations of an average forward pass of a run."""
    if _convention(config) == "macs":
        actual = read_cost(path)["actual"]
        if actual is None:
            raise damaged(path / "cost.json", "it has no `actual` cost, and the run is finished", TABLE_REMEDY)
        return float(actual)
    model = config.model
    sizes: Any = {"img_size": config.data.img_size, "num_classes": model.num_classes, "in_chans": model.in_chans}
    base, motivated = (forward_cost(name, **sizes, convention="paper") for name in (model.base, model.motivated))
    if config.motivation.name == JOINT:
        return base + motivated
    fraction = statistics.fmean(epochs["motivated_fraction"])
    return average_cost(base, motivated, motivated_fraction=fraction)


def _rows(runs: list[_Run]) -> list[Row]:
    """The rows of one configuration: of a network trained alone, or of a base and a motivated network."""
    config, cost = runs[0].config, statistics.fmean(run.cost for run in runs)
    base, motivated = tuple(run.base_top1 for run in runs), tuple(run.motivated_top1 for run in runs)
    match config.motivation.name:
        case "never":
            return [Row(config, "C", base, cost)]
        case "always":
            return [Row(config, "C", motivated, cost)]
        case _:
            return [Row(config, "B", base, cost), Row(config, "M", motivated, cost)]


def _compared(row: Row, others: list[Row]) -> Row:
    """The row with ACC/FLOPs and F_Ratio where the paper has them: of a nested base, and of a motivated network alone."""
    base, motivated = (_alone(network, row, others) for network in row.pair)
    if row.role == "M" or base is None or (row.role == "C" and row.network == base.network):
        return row
    with suppress(ValueError):  # of equal costs, or equally accurate networks, there is no quotient
        row = replace(row, acc_flops=flops_efficiency(row.point, base.point))
        if row.role == "B" and motivated is not None:
            row = replace(row, f_ratio=flops_ratio(nested=row.point, base=base.point, motivated=motivated.point))
    return row


def _alone(network: str, row: Row, others: list[Row]) -> Row | None:
    """The row of this network trained alone, on the same data for as many epochs, that is configured most like `row`."""
    wanted = ("C", network, row.dataset, row.config.epochs)
    found = [other for other in others if (other.role, other.network, other.dataset, other.config.epochs) == wanted]
    return min(found, key=lambda other: len(apart(row.config, other.config)), default=None)


def _setting(row: Row, others: list[Row]) -> str:
    """`motivation.k=3`: what sets a row apart from others of its name on the same data."""
    namesakes = [other for other in others if (other.name, other.dataset) == (row.name, row.dataset)]
    differing = {name for other in namesakes for name in apart(row.config, other.config)}
    shown = []
    for name, value in training_fields(row.config).items():
        if name in differing:
            shown.append(f"{name}={'null' if value is None else value}")
    return ", ".join(shown)


def _order(row: Row) -> tuple[Any, ...]:
    base, motivated, own = (list_models().index(network) for network in (*row.pair, row.network))
    return row.dataset, base, motivated, "CBM".index(row.role), own, row.name, row.setting
