"""The measured time of a cascade and of its networks, beside the time that their costs predict."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nestnet.cascade.module import Cascade, Network
from nestnet.cost.cascade import CascadeCosts

ROUNDS = 5
"""Number of rounds in which everything is timed once. Whatever slows the machine down slows a whole round."""

FEWEST_BATCHES = 4
"""Smallest number of batches that are timed: on fewer, the last and incomplete batch of passed-on images would weigh
too much."""


@dataclass(frozen=True)
class TimedPoint:
    """Measured time of a cascade at one threshold.

    Attributes:
        threshold: threshold of the cascade.
        passed_on: share of the timed images that were passed on.
        seconds: seconds per image, the median over the rounds.
        over_predicted: measured over predicted seconds, the median over the rounds. The prediction adds the base's time for all
            images to the motivated network's time for those that were passed on.
    """

    threshold: float
    passed_on: float
    seconds: float
    over_predicted: float


@dataclass(frozen=True)
class Timing:
    """Measured times on one device.

    Attributes:
        device: device that the networks ran on.
        threads: number of threads of a CPU.
        batch_size: number of images per batch, of both networks.
        images: number of images that each round timed.
        rounds: number of rounds.
        seconds: seconds of an image in each network alone, medians over the rounds.
        points: times of the cascade, in the order of the thresholds.
    """

    device: str
    threads: int
    batch_size: int
    images: int
    rounds: int
    seconds: CascadeCosts
    points: list[TimedPoint]


@torch.inference_mode()
def time_cascade(
    cascade: Cascade, thresholds: Sequence[float], batches: Sequence[Tensor], batch_size: int, seconds: float
) -> Timing:
    """Time a cascade at some thresholds, and its networks alone, in alternation.

    Args:
        cascade: cascade in evaluation mode.
        thresholds: thresholds to time it with.
        batches: batches of normalised images `[B, C, H, W]` on the device of the networks, at least one.
        batch_size: number of images per batch.
        seconds: seconds that the measurement may take. It determines how many of the batches are timed, at least 4.

    Returns:
        The times.
    """
    device = batches[0].device
    programs: dict[str | float, Callable[[Sequence[Tensor]], int]] = {
        "base": lambda chosen: _run_alone(cascade.base, chosen),
        "motivated": lambda chosen: _run_alone(cascade.motivated, chosen),
    }
    for threshold in thresholds:
        programs[threshold] = _at_threshold(cascade, threshold, batch_size)

    # The first pass also warms up the caches and the memory of both networks.
    for program in programs.values():
        program(batches[:1])
    once = Stopwatch(device)
    with once:
        for program in programs.values():
            program(batches[:1])
    affordable = int(seconds / (ROUNDS * once.seconds))
    batches = batches[: max(affordable, FEWEST_BATCHES)]

    taken: dict[str | float, list[float]] = {name: [] for name in programs}
    passed_on: dict[str | float, int] = {}
    for number in range(ROUNDS):
        # Every second round runs backwards, so that a machine that grows slower or faster favours none.
        names = list(programs)
        if number % 2:
            names.reverse()
        for name in names:
            stopwatch = Stopwatch(device)
            with stopwatch:
                passed_on[name] = programs[name](batches)
            taken[name].append(stopwatch.seconds)
    images = sum(map(len, batches))
    alone = CascadeCosts(statistics.median(taken["base"]) / images, statistics.median(taken["motivated"]) / images)
    points: list[TimedPoint] = []
    for threshold in thresholds:
        share = passed_on[threshold] / images
        ratios: list[float] = []
        for base, motivated, measured in zip(taken["base"], taken["motivated"], taken[threshold], strict=True):
            ratios.append(measured / (base + share * motivated))
        per_image = statistics.median(taken[threshold]) / images
        points.append(TimedPoint(threshold, share, per_image, statistics.median(ratios)))
    return Timing(str(device), torch.get_num_threads(), batch_size, images, ROUNDS, alone, points)


def _run_alone(network: Network, batches: Sequence[Tensor]) -> int:
    """Run a network on all batches. It passes no image on."""
    for images in batches:
        network(images)
    return 0


def _at_threshold(cascade: Cascade, threshold: float, batch_size: int) -> Callable[[Sequence[Tensor]], int]:
    """Return a function that runs the cascade with a threshold on some batches, and counts the images passed on."""
    timed = Cascade(
        cascade.base,
        cascade.motivated,
        threshold,
        base_temperature=cascade.base_temperature,
        motivated_temperature=cascade.motivated_temperature,
    ).eval()

    def run(batches: Sequence[Tensor]) -> int:
        passed_on = 0
        for output in timed.stream(batches, batch_size):
            passed_on += int(output.passed_on.sum())
        return passed_on

    return run


class Stopwatch:
    """Context manager that adds up the seconds of the work within it, until the device has done it.

    Args:
        device: device that does the work.

    Attributes:
        seconds: seconds of all the work so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.begun = 0.0

    def __enter__(self) -> "Stopwatch":
        _synchronise(self.device)
        self.begun = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        _synchronise(self.device)
        self.seconds += time.perf_counter() - self.begun


def _synchronise(device: torch.device) -> None:
    """Wait until a device has done its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
