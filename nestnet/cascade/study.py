"""The study of a run's cascade: the threshold is chosen on held-out images, and the test images judge it."""

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from nestnet.cascade.curve import CascadeCurve, trace_curve
from nestnet.cascade.module import Cascade
from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.recommendation import Recommendation, recommend
from nestnet.cascade.targets import Target
from nestnet.cascade.timing import Stopwatch, Timing, time_cascade
from nestnet.cost.cascade import CascadeCosts
from nestnet.data.transformed_images import EvalImages
from nestnet.nn.mode import Mode
from nestnet.training.calibration import calibration_error, confidence, fit_temperature

TIMED_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of passed-on images at which the cascade is timed."""

MAX_TIMED_BYTES = 1 << 29
"""Largest size of the images that are kept in memory for timing."""

CHUNK_BATCHES = 16
"""Number of test batches that both networks and the cascade take by turns, so that noise slows all of them."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of one network.

    Attributes:
        temperature: temperature that was fitted on the held-out images.
        error: expected calibration error on the test images in percent, of the network as it was trained.
        calibrated_error: the same with the temperature.
    """

    temperature: float
    error: float
    calibrated_error: float


@dataclass(frozen=True)
class Verdict:
    """What the test images say of both networks, and of the cascade with the chosen threshold.

    Attributes:
        images: number of test images.
        top1: top-1 accuracy of each network alone in percent.
        cascade_top1: top-1 accuracy of the cascade in percent.
        standard_error: standard error of its difference to the motivated network's accuracy, in percentage points.
        passed_on: share of the images that were passed on, from 0 to 1.
        seconds: measured seconds of an image in each network alone.
        cascade_seconds: measured seconds of an image in the cascade.
    """

    images: int
    top1: dict[Mode, float]
    cascade_top1: float
    standard_error: float
    passed_on: float
    seconds: CascadeCosts
    cascade_seconds: float

    @property
    def over_motivated(self) -> float:
        """Measured seconds of the cascade over those of the motivated network alone."""
        return self.cascade_seconds / self.seconds.motivated

    @property
    def over_predicted(self) -> float:
        """Measured seconds of the cascade over those that the networks' times and the share passed on predict."""
        return self.cascade_seconds / self.seconds.of_share(self.passed_on)


@dataclass(frozen=True)
class CascadeStudy:
    """What was found out about the cascade of a run.

    Attributes:
        networks: timm's name of the network of each mode.
        target: what the cascade is to reach.
        macs: multiply-accumulates of an image in each network.
        curve: curve on the held-out images.
        timing: measured times.
        recommendation: the chosen point, or why no cascade is recommended.
        calibrations: calibration of the network of each mode.
        cascade: cascade with the chosen threshold and the fitted temperatures, on the device; the base alone if no
            point reaches the target.
        verdict: what the test images say.
    """

    networks: dict[Mode, str]
    target: Target
    macs: CascadeCosts
    curve: CascadeCurve
    timing: Timing
    recommendation: Recommendation
    calibrations: dict[Mode, Calibration]
    cascade: Cascade
    verdict: Verdict


def study_cascade(
    networks: CascadeNetworks, target: Target, *, batch_size: int = 64, seconds: float = 60.0
) -> CascadeStudy:
    """Choose the threshold of a cascade on held-out images, and judge it on the test images.

    Args:
        networks: networks and images of a run.
        target: what the cascade is to reach.
        batch_size: number of images per batch, at least 1.
        seconds: seconds that timing the cascade on held-out images may take, above 0.

    Returns:
        The study.

    Raises:
        ValueError: If `batch_size` or `seconds` is out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: it must be at least 1")
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds:g}: it must be above 0")
    logits, labels = networks.logits(networks.held_out, batch_size)
    temperatures = {mode: fit_temperature(logits[mode], labels) for mode in Mode}
    curve = trace_curve(
        confidence(logits[Mode.BASE] / temperatures[Mode.BASE]).numpy(),
        is_correct(logits[Mode.BASE], labels).numpy(),
        is_correct(logits[Mode.MOTIVATED], labels).numpy(),
    )
    cascade = Cascade(
        networks.networks[Mode.BASE],
        networks.networks[Mode.MOTIVATED],
        threshold=0.0,
        base_temperature=temperatures[Mode.BASE],
        motivated_temperature=temperatures[Mode.MOTIVATED],
    ).eval()
    points = sorted({curve.nearest(share) for share in TIMED_SHARES})
    thresholds = [float(curve.thresholds[point]) for point in points]
    timed = take_images(networks, networks.held_out, batch_size)
    timing = time_cascade(cascade, thresholds, timed, batch_size, seconds)
    recommendation = recommend(curve, target, networks.macs, timing.seconds)
    if recommendation.point is not None:
        cascade.threshold = float(curve.thresholds[recommendation.point])
    architectures = networks.run.net.architectures
    return CascadeStudy(
        networks={mode: architectures.of(mode) for mode in Mode},
        target=target,
        macs=networks.macs,
        curve=curve,
        timing=timing,
        recommendation=recommendation,
        calibrations=calibrate(networks, temperatures, batch_size),
        cascade=cascade,
        verdict=judge(networks, cascade, batch_size),
    )


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether the class with the largest logit is the true one.

    Args:
        logits: logits `[N, K]`.
        labels: true classes `[N]`.
    """
    return logits.argmax(dim=1) == labels


def take_images(networks: CascadeNetworks, dataset: EvalImages, batch_size: int) -> list[Tensor]:
    """Return the first batches of some images, as many as fit in 512 MiB, and at least one.

    Args:
        networks: networks and images of a run.
        dataset: images.
        batch_size: number of images per batch.
    """
    taken: list[Tensor] = []
    size = 0
    for images, _ in networks.batches(dataset, batch_size):
        taken.append(images)
        size += images.nbytes
        if size > MAX_TIMED_BYTES:
            break
    return taken


def calibrate(networks: CascadeNetworks, temperatures: dict[Mode, float], batch_size: int) -> dict[Mode, Calibration]:
    """Return the calibration of both networks on the test images.

    Args:
        networks: networks and images of a run.
        temperatures: temperature of each mode, from the held-out images.
        batch_size: number of images per forward pass.
    """
    logits, labels = networks.logits(networks.images.test, batch_size)
    calibrations: dict[Mode, Calibration] = {}
    for mode, temperature in temperatures.items():
        correct = is_correct(logits[mode], labels)
        calibrations[mode] = Calibration(
            temperature=temperature,
            error=calibration_error(confidence(logits[mode]), correct),
            calibrated_error=calibration_error(confidence(logits[mode] / temperature), correct),
        )
    return calibrations


@torch.inference_mode()
def judge(networks: CascadeNetworks, cascade: Cascade, batch_size: int) -> Verdict:
    """Run both networks and the cascade on the test images.

    Args:
        networks: networks and images of a run.
        cascade: cascade with the chosen threshold.
        batch_size: number of images per batch.

    Returns:
        The accuracies and the measured seconds.
    """
    batches = iter(networks.batches(networks.images.test, batch_size))
    watches = {name: Stopwatch(networks.device) for name in (*Mode, "cascade")}
    correct = dict.fromkeys(watches, 0)
    different = 0
    passed_on = 0
    count = 0
    while chunk := list(islice(batches, CHUNK_BATCHES)):
        images = [batch for batch, _ in chunk]
        labels = torch.cat([batch_labels for _, batch_labels in chunk])
        count += len(labels)
        answers: dict[str, Tensor] = {}
        for mode in Mode:
            with watches[mode]:
                logits = torch.cat([networks.networks[mode](batch) for batch in images])
            answers[mode] = is_correct(logits, labels)
        with watches["cascade"]:
            outputs = list(cascade.stream(images, batch_size))
        answers["cascade"] = is_correct(torch.cat([output.logits for output in outputs]), labels)
        for name, is_right in answers.items():
            correct[name] += int(is_right.sum())
        different += int((answers["cascade"] != answers[Mode.MOTIVATED]).sum())
        passed_on += sum(int(output.passed_on.sum()) for output in outputs)
    mean = (correct["cascade"] - correct[Mode.MOTIVATED]) / count
    return Verdict(
        images=count,
        top1={mode: 100 * correct[mode] / count for mode in Mode},
        cascade_top1=100 * correct["cascade"] / count,
        standard_error=100 * math.sqrt((different / count - mean**2) / count),
        passed_on=passed_on / count,
        seconds=CascadeCosts(watches[Mode.BASE].seconds / count, watches[Mode.MOTIVATED].seconds / count),
        cascade_seconds=watches["cascade"].seconds / count,
    )
