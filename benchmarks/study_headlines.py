"""The arithmetic of a study: from the rows of its result file to three headline figures for each way and length.

- **Base gain**: top-1 of the base minus its top-1 when it is trained alone for the same epochs, in points.
- **Gap closed**: how far the motivated network has come from the base alone (0) to itself alone (1) at the same epochs.
- **Saving at parity**: cost of two separate runs that reach both accuracies, divided by the cost of the nested run.

Runs with the same seed begin with the same weights and see the same batches, so accuracies are compared within a seed.
The first figure is the mean difference, and the second one a ratio of mean differences. For the third, the cost of a
network alone that reaches an accuracy is read from the curve of its lengths, between which the logarithm of the cost
is linear in the accuracy. A nested run is placed on this curve by its difference to the network alone with the same
seed and length. Costs are in epochs of the base.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from study_numbers import Bounded, Curve, Estimate, estimate, estimate_ratio

CONTROLS = {"base": "base_alone", "motivated": "motivated_alone"}
"""Names of the ways that train one network alone, by network."""

GAP_AIM = 0.7
SAVING_AIM = 1.5


@dataclass(frozen=True)
class Headline:
    """What a way of training reached with a number of epochs; `None` where runs are missing.

    Attributes:
        way: name of the way.
        title: its description.
        networks: networks that it trains.
        epochs: number of epochs.
        top1: top-1 of each trained network in percent.
        cost: cost in units of training the base alone for the same epochs.
        motivated_batches: number of batches that trained the motivated network.
        base_gain: base gain in points.
        gap_closed: gap closed, 1 for all of it.
        epochs_alone: number of epochs after which each network alone is as accurate, by network.
        separate: cost of two separate runs that are as accurate, in the units of `cost`.
        saving: saving at parity.
        savings: saving at parity of each seed; `None` unless it is known exactly for all of them.
        agreement: share of test images that both networks of a run give the same class.
        separate_agreement: the same for two networks that were trained alone, with the same seed and epochs.
    """

    way: str
    title: str
    networks: tuple[str, ...]
    epochs: int
    top1: dict[str, Estimate]
    cost: Estimate
    motivated_batches: Estimate
    base_gain: Estimate | None = None
    gap_closed: Estimate | None = None
    epochs_alone: dict[str, Bounded] = field(default_factory=dict)
    separate: Bounded | None = None
    saving: Bounded | None = None
    savings: Estimate | None = None
    agreement: Estimate | None = None
    separate_agreement: Estimate | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the way trains one network alone: a control, or a control with other settings."""
        return len(self.networks) < len(CONTROLS)

    @property
    def met(self) -> tuple[bool | None, bool | None, bool | None]:
        """Whether each part of the aim is reached; `None` where it is not known."""
        gains = None
        if self.base_gain is not None and self.base_gain.standard_error is not None:
            gains = self.base_gain.mean > self.base_gain.standard_error
        closes = None
        if self.gap_closed is not None:
            closes = self.gap_closed.mean >= GAP_AIM
        saves = None
        if self.saving is not None:
            saves = self.saving.reaches(SAVING_AIM)
        return gains, closes, saves

    @property
    def nearness(self) -> tuple[int, float]:
        """Number of parts of the aim that are reached, and how near gap and saving are together: larger is better."""
        near = 0.0
        # What is not known, or known to be below a bound only, does not count.
        if self.gap_closed is not None and self.saving is not None and self.saving.bound in ("", ">"):
            near = min(max(self.gap_closed.mean, 0) / GAP_AIM, 1) * min(self.saving.value / SAVING_AIM, 1)
        return sum(part is True for part in self.met), near


class Study:
    """The rows of a result file by way, epochs and seed.

    Args:
        document: content of the file.

    Attributes:
        pair: names of base and motivated network.
        rows: row of each run, by seed, by way and epochs.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.pair: list[str] = document["pair"]
        self.rows: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
        for row in document["runs"]:
            self.rows.setdefault((row["way"], row["epochs"]), {})[row["seed"]] = row
        self.separate_agreement: dict[int, dict[int, float]] = {}
        for row in document["separate_agreement"]:
            self.separate_agreement.setdefault(row["epochs"], {})[row["seed"]] = row["agreement"]

    def lengths(self, way: str) -> list[int]:
        """Return the numbers of epochs of a way's runs, in order."""
        return sorted(epochs for name, epochs in self.rows if name == way)

    def alone(self, network: str, epochs: int) -> dict[int, float]:
        """Return the top-1 of a network alone by seed."""
        rows = self.rows.get((CONTROLS[network], epochs), {})
        return {seed: row["top1"][network] for seed, row in rows.items()}

    def has_gap(self, epochs: int, seeds: Iterable[int]) -> bool:
        """Return whether the motivated network alone is more accurate than the base alone, on average over some seeds."""
        base, motivated = self.alone("base", epochs), self.alone("motivated", epochs)
        gaps = [motivated[seed] - base[seed] for seed in seeds if seed in base and seed in motivated]
        return not gaps or statistics.mean(gaps) > 0

    def curve(self, network: str) -> Curve | None:
        """Return cost and accuracy of a network alone by length; `None` without any run of it."""
        costs = {}
        for epochs in self.lengths(CONTROLS[network]):
            rows = self.rows[CONTROLS[network], epochs].values()
            costs[epochs] = statistics.mean(row["cost"] * epochs for row in rows)
        if not costs:
            return None
        top1 = self.top1_by_length(network)
        return Curve(tuple((costs[epochs], top1[epochs]) for epochs in costs))

    def top1_by_length(self, network: str) -> dict[int, float]:
        """Return the accuracy of a network alone by length, comparable between lengths that have different seeds."""
        alone = {epochs: self.alone(network, epochs) for epochs in self.lengths(CONTROLS[network])}
        # The length with the most seeds is the reference; the others differ from it by what they do within a seed.
        reference = max(alone.values(), key=len)
        top1 = {}
        for epochs, found in alone.items():
            differences = [found[seed] - reference[seed] for seed in found if seed in reference]
            if differences:
                top1[epochs] = statistics.mean(reference.values()) + statistics.mean(differences)
            else:
                top1[epochs] = statistics.mean(found.values())
        return top1

    def top1_on_curve(self, network: str, row: dict[str, Any]) -> float:
        """Return the accuracy of a network of a nested run, less what its seed makes of the network alone."""
        top1 = row["top1"][network]
        alone = self.alone(network, row["epochs"])
        if row["seed"] not in alone:
            return top1
        return self.top1_by_length(network)[row["epochs"]] + (top1 - alone[row["seed"]])

    def curves(self) -> dict[str, Curve] | None:
        """Return the curve of each network alone; `None` unless there are runs of both."""
        found = {}
        for network in CONTROLS:
            curve = self.curve(network)
            if curve is None:
                return None
            found[network] = curve
        return found

    def headlines(self) -> list[Headline]:
        """Return the headline of each way and length, in the order of the file."""
        return [self._headline(way, epochs) for way, epochs in self.rows]

    def _headline(self, way: str, epochs: int) -> Headline:
        rows = self.rows[way, epochs]
        first = next(iter(rows.values()))
        networks = tuple(first["networks"])
        headline = Headline(
            way=way,
            title=first["title"],
            networks=networks,
            epochs=epochs,
            top1={network: estimate(row["top1"][network] for row in rows.values()) for network in networks},
            cost=estimate(row["cost"] for row in rows.values()),
            motivated_batches=estimate(count_motivated(row) for row in rows.values()),
        )
        if headline.is_alone:
            return headline
        headline = replace(
            headline,
            base_gain=self._base_gain(epochs, rows),
            gap_closed=self._gap_closed(epochs, rows),
            agreement=estimate(row["agreement"] for row in rows.values()),
            separate_agreement=self._separate_agreement(epochs, rows),
        )
        curves = self.curves()
        if curves is None:
            return headline
        top1 = [{network: self.top1_on_curve(network, row) for network in CONTROLS} for row in rows.values()]
        means = {network: statistics.mean(of_seed[network] for of_seed in top1) for network in CONTROLS}
        costs = costs_alone(curves, means)
        separate = (costs["base"] + costs["motivated"]) / epochs
        return replace(
            headline,
            epochs_alone={network: cost / self.cost_per_epoch(network) for network, cost in costs.items()},
            separate=separate,
            saving=separate / headline.cost.mean,
            savings=estimate_savings(curves, top1, [row["cost"] * epochs for row in rows.values()]),
        )

    def cost_per_epoch(self, network: str) -> float:
        """Return the cost of an epoch of a network alone, of which there are runs, in epochs of the base."""
        shortest = self.lengths(CONTROLS[network])[0]
        return statistics.mean(row["cost"] for row in self.rows[CONTROLS[network], shortest].values())

    def _base_gain(self, epochs: int, rows: dict[int, dict[str, Any]]) -> Estimate | None:
        alone = self.alone("base", epochs)
        return estimate(rows[seed]["top1"]["base"] - alone[seed] for seed in rows if seed in alone)

    def _gap_closed(self, epochs: int, rows: dict[int, dict[str, Any]]) -> Estimate | None:
        base, motivated = self.alone("base", epochs), self.alone("motivated", epochs)
        seeds = [seed for seed in rows if seed in base and seed in motivated]
        closed = [rows[seed]["top1"]["motivated"] - base[seed] for seed in seeds]
        gaps = [motivated[seed] - base[seed] for seed in seeds]
        return estimate_ratio(closed, gaps)

    def _separate_agreement(self, epochs: int, rows: dict[int, dict[str, Any]]) -> Estimate | None:
        found = self.separate_agreement.get(epochs, {})
        return estimate(found[seed] for seed in rows if seed in found)


def costs_alone(curves: dict[str, Curve], top1: dict[str, float]) -> dict[str, Bounded]:
    """Return the cost of each network alone that is as accurate."""
    return {network: curve.cost_of(top1[network]) for network, curve in curves.items()}


def estimate_savings(
    curves: dict[str, Curve], top1: list[dict[str, float]], nested_costs: list[float]
) -> Estimate | None:
    """Return the saving at parity of each seed; `None` unless it is known exactly for all of them.

    Args:
        curves: curve of each network alone.
        top1: accuracy of each network on its curve, for each seed.
        nested_costs: cost of the nested run in epochs of the base, for each seed.
    """
    savings = []
    for of_seed, nested in zip(top1, nested_costs, strict=True):
        costs = costs_alone(curves, of_seed)
        separate = costs["base"] + costs["motivated"]
        if separate.bound:
            return None
        savings.append(separate.value / nested)
    return estimate(savings)


def count_motivated(row: dict[str, Any]) -> int:
    """Return the number of batches of a run that trained the motivated network."""
    return sum(number for trained, number in row["batches"].items() if trained != "base")
