"""The results of runs: runs that differ only in their seed share a row for each network that they trained.

The measures are those of arXiv 2602.21064: top-1 after the last epoch, the average cost of a forward pass in
training, and ACC/FLOPs and F_Ratio against the networks trained alone (section 4).
"""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nestnet.conditions.description import has_paper_policy, trained_alone
from nestnet.config.schema import Config
from nestnet.cost.efficiency import Point, flops_efficiency, flops_ratio
from nestnet.cost.operations import Convention
from nestnet.models.registry import list_models
from nestnet.nn.mode import Mode
from nestnet.paper.finished_run import FinishedRun, choose_convention, read_finished_run
from nestnet.paper.network_names import Role, format_network_name
from nestnet.paper.published import PublishedResult, find_classical_result, find_nested_result
from nestnet.runs.grouping import group_by_training, training_differences, training_fields
from nestnet.runtime.log import log_notice

# In the order of the table's rows.
ROLES: tuple[Role, ...] = ("C", "B", "M")


@dataclass(frozen=True)
class ResultRow:
    """Result of a network, over the runs of one configuration.

    Attributes:
        config: configuration of the runs, which differ in their seed.
        role: `"C"`, trained alone; `"B"` or `"M"`, the base or the motivated network of nested training.
        top1: accuracy of each run after its last epoch, in percent.
        cost: operations of an average forward pass in training, to which the epochs that extend the base are added; the
            mean over the runs.
        setting: fields in which its configuration differs from those of other rows with the same name, and its parts.
        parts: number of epochs of each part of the runs, such as `20 + 40`, if they were resumed for more.
        acc_flops: percentage points per operation gained over the base trained alone; `None` if there are no
            such runs.
        f_ratio: quotient of `acc_flops` and that of the motivated network trained alone; `None` without runs of
            both networks alone.
    """

    config: Config
    role: Role
    top1: tuple[float, ...]
    cost: float
    setting: str = ""
    parts: str = ""
    acc_flops: float | None = None
    f_ratio: float | None = None

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.config.data.name

    @property
    def condition(self) -> str:
        """Name of the motivation condition."""
        return self.config.motivation.name

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the base and the motivated network in timm."""
        return self.config.model.base, self.config.model.motivated

    @property
    def network(self) -> str:
        """Name in timm of the network whose top-1 this is."""
        base, motivated = self.pair
        is_motivated_alone = trained_alone(self.config) is Mode.MOTIVATED
        if self.role == "M" or is_motivated_alone:
            return motivated
        return base

    @property
    def name(self) -> str:
        """The paper's name of the network, followed by the condition and the policy if they are not the paper's."""
        name = format_network_name(self.network, self.role, self.pair)
        if self.role == "C":
            return name
        if self.condition != "loss_decrease":
            name += f"-{self.condition}"
        if self.config.motivation.trains == "both":
            name += "-both"
        if self.config.finish_epochs:
            name += "-finish"
        return name

    @property
    def point(self) -> Point:
        """Mean top-1 and cost."""
        return statistics.fmean(self.top1), self.cost

    @property
    def convention(self) -> Convention:
        """Convention in which the cost is counted."""
        return choose_convention(self.config)

    @property
    def published(self) -> PublishedResult | None:
        """The paper's result of this network, if there is one.

        A run that starts from given weights has none, because their training is not known, and neither has a
        run with another policy than the paper's, in several parts, or that extends its base at the end.
        """
        model = self.config.model
        if model.base_weights or model.motivated_weights or self.parts:
            return None
        if self.role == "C":
            return find_classical_result(self.network, self.dataset)
        if not has_paper_policy(self.config.motivation) or self.config.finish_epochs:
            return None
        k = self.config.motivation.k
        return find_nested_result(*self.pair, self.dataset, self.role, condition=self.condition, k=k)


def collect_rows(run_dirs: Sequence[Path]) -> list[ResultRow]:
    """Collect the rows of some runs, sorted by data, pair of networks, and role: C, B, M.

    Args:
        run_dirs: run directories. An unfinished run, or a second one with the same configuration and seed, is
            left out with a notice.

    Returns:
        A row for each network that was trained.

    Raises:
        ValueError: For a folder that is not a run directory, or if no run has a row.
    """
    # Read each folder once, even if it is named twice.
    runs = []
    for path in dict.fromkeys(map(Path, run_dirs)):
        run = read_finished_run(path)
        if run is not None:
            runs.append(run)
    if not runs:
        raise ValueError(
            "no run has a row: name at least one run directory with all its epochs, in which the base was trained"
        )

    # Make one row per network and configuration, over its seeds.
    rows: list[ResultRow] = []
    for group in group_by_training(runs):
        rows += _rows_of_group(_leave_out_repeated_seeds(group))
    # Measures that compare a row with others need all rows.
    compared = []
    for row in rows:
        with_efficiency = _add_efficiency(row, rows)
        compared.append(replace(with_efficiency, setting=_describe_setting(row, rows)))
    return sorted(compared, key=_sort_key)


def _leave_out_repeated_seeds(runs: list[FinishedRun]) -> list[FinishedRun]:
    """Return the first run of each seed: a repeated run would distort the deviation."""
    by_seed: dict[int, FinishedRun] = {}
    for run in runs:
        first = by_seed.setdefault(run.config.seed, run)
        if first is not run:
            log_notice(f"{run.path} is left out: {first.path} has the same configuration and seed")
    return list(by_seed.values())


def _rows_of_group(runs: list[FinishedRun]) -> list[ResultRow]:
    """Return the rows of one configuration: of a network trained alone, or of both networks of a pair."""
    config = runs[0].config
    parts = _count_epochs_of_parts(runs[0])
    cost = statistics.fmean(run.cost for run in runs)
    base_top1 = tuple(run.base_top1 for run in runs)
    motivated_top1 = tuple(run.motivated_top1 for run in runs)
    match trained_alone(config):
        case Mode.BASE:
            return [ResultRow(config, "C", base_top1, cost, parts=parts)]
        case Mode.MOTIVATED:
            return [ResultRow(config, "C", motivated_top1, cost, parts=parts)]
        case _:
            base = ResultRow(config, "B", base_top1, cost, parts=parts)
            return [base, ResultRow(config, "M", motivated_top1, cost, parts=parts)]


def _count_epochs_of_parts(run: FinishedRun) -> str:
    """Return the numbers of epochs of a run's parts, such as `20 + 40`; empty for a run of one part."""
    if len(run.parts) == 1:
        return ""
    ends = [part.start_epoch for part in run.parts[1:]] + [run.config.epochs]
    numbers = []
    for part, end in zip(run.parts, ends, strict=True):
        numbers.append(str(end - part.start_epoch))
    return " + ".join(numbers)


def _add_efficiency(row: ResultRow, rows: list[ResultRow]) -> ResultRow:
    """Return the row with ACC/FLOPs and F_Ratio if the paper defines them for it.

    The paper defines both for the base of a nested training, and ACC/FLOPs for a motivated network trained alone.
    """
    base_name, motivated_name = row.pair
    base = _find_alone(base_name, row, rows)
    motivated = _find_alone(motivated_name, row, rows)
    if base is None or row.role == "M":
        return row
    if row.role == "C" and row.network == base.network:
        return row
    # See section 4 of the paper. The quotients do not exist if costs are equal or both networks are equally accurate.
    with suppress(ValueError):
        row = replace(row, acc_flops=flops_efficiency(row.point, base.point))
        if row.role == "B" and motivated is not None:
            f_ratio = flops_ratio(nested=row.point, base=base.point, motivated=motivated.point)
            row = replace(row, f_ratio=f_ratio)
    return row


def _find_alone(network: str, row: ResultRow, rows: list[ResultRow]) -> ResultRow | None:
    """Return the row of a network trained alone whose configuration is most similar to that of `row`.

    It has to be on the same data, for as many epochs; `None` if there is none.
    """
    wanted = ("C", network, row.dataset, row.config.epochs)
    candidates = []
    for other in rows:
        if (other.role, other.network, other.dataset, other.config.epochs) == wanted:
            candidates.append(other)

    def count_differences(other: ResultRow) -> int:
        return len(training_differences(row.config, other.config))

    return min(candidates, key=count_differences, default=None)


def _describe_setting(row: ResultRow, rows: list[ResultRow]) -> str:
    """Describe how a row differs from others with its name on the same data, such as `motivation.k=3`."""
    # Fields that differ between any two of these rows are shown for each of them.
    differing: set[str] = set()
    for other in rows:
        if (other.name, other.dataset) == (row.name, row.dataset):
            differing.update(training_differences(row.config, other.config))
    settings = []
    for name, value in training_fields(row.config).items():
        if name in differing:
            text = "null" if value is None else value  # as in YAML
            settings.append(f"{name}={text}")
    # No published result and no run of one part was trained in this way.
    if row.parts:
        settings.append(f"{row.parts} epochs")
    return ", ".join(settings)


def _sort_key(row: ResultRow) -> tuple[Any, ...]:
    """Return the sort key of a row; networks are sorted by size, in the order of the registry."""
    names = list_models()
    base, motivated = row.pair
    pair = (names.index(base), names.index(motivated))
    return row.dataset, pair, ROLES.index(row.role), names.index(row.network), row.name, row.setting
