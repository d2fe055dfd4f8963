"""The accuracy and the cost of one finished run."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nestnet.config.schema import Config
from nestnet.cost.network import forward_cost
from nestnet.cost.operations import Convention
from nestnet.cost.run import average_cost, batch_costs
from nestnet.models.registry import find_architecture
from nestnet.nn.mode import Mode, PerMode
from nestnet.runs.contents import TABLE_REMEDY
from nestnet.runs.history import read_metrics
from nestnet.runs.parts import RunPart, read_parts
from nestnet.runs.reading import read_cost
from nestnet.runs.result import read_result
from nestnet.runtime.log import log_notice
from nestnet.storage.read_back import damaged
from nestnet.training.motivation_plan import build_policy


@dataclass(frozen=True)
class FinishedRun:
    """Run that has finished all its epochs.

    Attributes:
        path: run directory.
        config: configuration of the run.
        base_top1: top-1 of the base on the test images, in percent: after the last epoch, or that of the export if the
            run has validation images.
        motivated_top1: the same of the motivated network.
        cost: operations of the run's forward passes in the convention of `choose_convention`, per batch of `epochs`. It is
            the average forward pass unless the run extends its base at the end.
        parts: parts of the run.
    """

    path: Path
    config: Config
    base_top1: float
    motivated_top1: float
    cost: float
    parts: list[RunPart]


def read_finished_run(path: Path) -> FinishedRun | None:
    """Read a run directory, and log a notice if the run is not finished.

    Args:
        path: run directory.

    Returns:
        The run, or `None` if it is not finished.

    Raises:
        ValueError: If the folder is not a run directory, or a file is damaged.
    """
    config, metrics = read_metrics(path, ("motivated_fraction",))
    finished_epochs = len(metrics["epoch"])
    result = read_result(path, config, finished_epochs)
    if finished_epochs < config.total_epochs and result is None:
        log_notice(f"{path} is left out: {finished_epochs} of its {config.total_epochs} epochs are finished")
        return None
    if config.extends_given_base:
        log_notice(f"{path} is left out: it extends a finished base, and the cost of that base is not known")
        return None
    top1 = {mode: float(metrics[f"{mode}_top1"][-1]) for mode in Mode}
    if "val_images" in metrics:
        # The accuracies of the epochs are of the validation images.
        if result is None or result.test is None:
            log_notice(f"{path} is left out: it was not evaluated on the test images, as resuming it would do")
            return None
        top1 = {mode: result.test[f"{mode}_top1"] for mode in Mode}
    return FinishedRun(
        path,
        config,
        base_top1=top1[Mode.BASE],
        motivated_top1=top1[Mode.MOTIVATED],
        cost=_training_cost(path, config, metrics),
        parts=read_parts(path, config),
    )


def choose_convention(config: Config) -> Convention:
    """Choose the convention in which the costs of a run are comparable with the paper's.

    Args:
        config: configuration of the run.

    Returns:
        `"paper"` for the CIFAR ResNets, for which the paper has its own convention; otherwise `"macs"`, because
        the paper counts multiply-accumulates.
    """
    has_own_convention = find_architecture("model.base", config.model.base).paper_counts_flops
    # No table of the paper has these networks with other image sizes than those of CIFAR.
    if has_own_convention and config.data.name in ("cifar10", "cifar100"):
        return "paper"
    return "macs"


def _training_cost(path: Path, config: Config, metrics: dict[str, np.ndarray]) -> float:
    """Return the operations of a run's forward passes, per batch of `epochs`."""
    # The epochs that extend the base are additional: they are not among those that a network alone is trained for.
    extension = config.finish_epochs / config.epochs
    if choose_convention(config) == "macs":
        actual = read_cost(path)["actual"]
        if actual is None:
            raise damaged(path / "cost.json", "it has no `actual` cost, and the run is finished", TABLE_REMEDY)
        return float(actual) * (1 + extension)

    # A run records multiply-accumulates only, so the paper's operations are counted here.
    model = config.model
    sizes: dict[str, Any] = {
        "img_size": config.data.img_size,
        "num_classes": model.num_classes,
        "in_chans": model.in_chans,
    }
    base = forward_cost(model.base, **sizes, convention="paper")
    motivated = forward_cost(model.motivated, **sizes, convention="paper")
    # A motivated batch may run both networks.
    costs = batch_costs(PerMode(base, motivated), build_policy(config))
    motivated_fraction = statistics.fmean(metrics["motivated_fraction"][: config.epochs])
    average = average_cost(costs.base, costs.motivated, motivated_fraction=motivated_fraction)
    return average + extension * motivated
