"""What came out of runs, in plain sentences and numbers: good or bad."""

import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta
from inspect import signature
from typing import Any

from nestnet.analysis.report.predictions import Predictions
from nestnet.analysis.report.summary import RunSummary
from nestnet.conditions.base import JOINT
from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.runs.same_training import apart
from nestnet.text.escape import for_shell

NOTABLE = 1.0
"""Points of top-1 that the best epoch is above the last, to be worth a sentence."""


def progress(run: RunSummary) -> str:
    """How far an unfinished run is, and when it was last heard of."""
    last = datetime.fromtimestamp((run.path / "steps.csv").stat().st_mtime)
    which = "next" if run.epochs_done else "first"
    beyond = f" and {batches(run.steps_beyond)} of the {which}" if run.steps_beyond else ""
    command = f"nestnet resume {for_shell(run.path)}"
    return (
        f"Not finished: {run.epochs_done} of its {run.config.epochs} epochs{beyond} were trained when this page was made; "
        f"its last batch was written on {last:%Y-%m-%d at %H:%M}. `{command}` goes on with it if it was killed."
    )


def outcome(run: RunSummary, predictions: Predictions | None = None) -> list[str]:
    """What a run with at least one batch cost and what came of it, a sentence each.

    Args:
        predictions: of its last epoch's weights; with them a difference in top-1 is held against its standard error.
    """
    said = [_cost(run)]
    if run.epochs_done:
        said += [_accuracy(run, predictions), *_better_before(run)]
    return said


def _cost(run: RunSummary) -> str:
    names, cost = run.names, run.cost
    assert cost is not None
    base, motivated = run.networks.base.macs, run.networks.motivated.macs
    if len(run.trained) == 1:
        mode = run.trained[0]
        return f"Classical training: {names.of(mode)} alone, at {cost / base:.2f} times the cost of {names.base}."
    joint = "Every batch trained both networks: " if run.config.motivation.name == JOINT else ""
    so_far = "" if run.finished else " so far"
    return (
        f"{joint or 'Both networks together '}cost{so_far} {cost / base:.2f} times what {names.base} costs alone, "
        f"{cost / motivated:.2f} times what {names.motivated} costs alone, and {cost / (base + motivated):.2f} times what "
        "training one after the other costs."
    )


def _accuracy(run: RunSummary, predictions: Predictions | None) -> str:
    base, motivated = (float(run.top1(mode)[-1]) for mode in Mode)
    after = f"After epoch {run.epochs_done} of {run.config.epochs}"
    if len(run.trained) == 1:
        mode = run.trained[0]
        return f"{after} it is right on {run.top1(mode)[-1]:.2f} % of the test images."
    both = (
        f"{after} the base is right on {base:.2f} % of the test images and the motivated network on {motivated:.2f} %"
    )
    lead, error = motivated - base, predictions.lead[1] if predictions else 0.0
    if predictions and abs(lead) < 2 * error:
        return f"{both}: {len(predictions):,} images cannot tell them apart ({lead:+.2f} points, standard error {error:.2f})."
    of = f" (standard error {error:.2f})" if predictions else ""
    if lead > 0:
        return f"{both}: it leads by {lead:.2f} points{of}."
    if lead == 0:
        return f"{both}: it leads by nothing."
    if not run.finished:
        return f"{both}: the bigger one is {-lead:.2f} points behind the smaller one inside it{of}, so far."
    return (
        f"{both}: the bigger network is {-lead:.2f} points behind the smaller one inside it{of}; as it is, it is not worth "
        "deploying. More motivated batches (a smaller motivation.k), more epochs or joint training would train it more."
    )


def _better_before(run: RunSummary) -> list[str]:
    said = []
    for mode in run.trained:
        best, epoch = run.best(mode)
        if best - run.top1(mode)[-1] >= NOTABLE:
            said.append(f"The {mode} network was better before: {best:.2f} % after epoch {epoch}.")
    return said


ALONE = (
    "Whether motivation paid cannot be told from this: it takes runs of the same configuration with --motivation.name never "
    "and always, which train each network alone, in the same report."
)


def against_alone(groups: Sequence[Sequence[RunSummary]]) -> list[str]:
    """Of each group of nested runs, how its subnets compare with the networks that other groups trained alone; sentences."""
    finished = [[run for run in group if run.finished] for group in groups]
    said = []
    for group in filter(None, finished):
        if len(group[0].trained) == 1:
            continue
        found = [(mode, alone(group[0], mode, finished)) for mode in Mode]
        parts = [_against(group, mode, others) for mode, others in found if others]
        if parts:
            said.append(f"{listed(group)}: {'; '.join(parts)}.")
    return said or [ALONE]


def alone(run: RunSummary, mode: Mode, groups: Sequence[Sequence[RunSummary]]) -> Sequence[RunSummary]:
    """The group that trained the network of `mode` alone and is configured as `run` otherwise; empty if there is none."""
    name = {Mode.BASE: "never", Mode.MOTIVATED: "always"}[mode]
    for group in filter(None, groups):
        other = group[0].config
        if other.motivation.name == name and all(field.startswith("motivation.") for field in apart(run.config, other)):
            return group
    return []


def _against(group: Sequence[RunSummary], mode: Mode, others: Sequence[RunSummary]) -> str:
    ours, theirs = ([float(run.top1(mode)[-1]) for run in runs] for runs in (group, others))
    lead = statistics.fmean(ours) - statistics.fmean(theirs)
    costs = [statistics.fmean(run.cost or 0.0 for run in runs) for runs in (group, others)]
    network, word = group[0].names.of(mode), "better" if lead > 0 else "worse"
    return (
        f"{network} is {abs(lead):.2f} points {word} than trained alone, for {costs[0] / costs[1]:.2f} times the cost"
    )


def listed(group: Sequence[RunSummary]) -> str:
    """The names of a group's runs."""
    return ", ".join(run.name for run in group)


def condition(config: Config) -> str:
    """The condition's name, with k where it goes by that."""
    m = config.motivation
    return (
        f"{m.name}, k = {m.k}" if m.name in CONDITIONS and "k" in signature(CONDITIONS[m.name]).parameters else m.name
    )


def differing(groups: Sequence[Sequence[RunSummary]]) -> list[str]:
    """Of each group, what sets it apart from others of its networks, data and condition: `data.batch_size = 64`."""
    configs = [group[0].config for group in groups]
    kinds = [(config.model.base, config.model.motivated, config.data.name, condition(config)) for config in configs]
    said = []
    for config, kind in zip(configs, kinds, strict=True):
        fields: dict[str, Any] = {}
        for other, its in zip(configs, kinds, strict=True):
            fields |= apart(config, other) if its == kind else {}
        said.append(", ".join(f"{name} = {'null' if value is None else value}" for name, value in fields.items()))
    return said


def spread(values: Sequence[float], digits: int = 2) -> str:
    """A mean, with the sample standard deviation of several values.

    >>> spread([92.0]), spread([92.0, 93.0])
    ('92.00', '92.50 ± 0.71')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def batches(number: int) -> str:
    """So many batches.

    >>> batches(1), batches(1200)
    ('1 batch', '1,200 batches')
    """
    return f"{number:,} batch{'' if number == 1 else 'es'}"


def percent(share: float, digits: int = 2) -> str:
    """A share from 0 to 1.

    >>> percent(1 / 6), percent(1.0, 0)
    ('16.67\xa0%', '100\xa0%')
    """
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def macs(number: float) -> str:
    """Multiply-accumulates in millions or thousands of millions.

    >>> macs(2532992), macs(4.6e9)
    ('2.53 M', '4.60 G')
    """
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725.4)
    '1:02:05'
    """
    return str(timedelta(seconds=round(seconds)))
