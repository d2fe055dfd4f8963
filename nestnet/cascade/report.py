"""The report on a cascade as text, and its curve as CSV."""

import json
from typing import Any

from nestnet.cascade.curve import CascadeCurve
from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.study import CascadeStudy, Verdict
from nestnet.nn.mode import Mode
from nestnet.text.escape import csv_row
from nestnet.text.tables import align_columns
from nestnet.text.units import format_count, format_macs

CURVE_COLUMNS = ("threshold", "passed_on", "top1", "macs", "predicted_ms")
"""Columns of the curve as CSV: smallest confidence of the base with which it decides, share of the images passed on,
top-1 on the held-out images in percent, average multiply-accumulates of an image, and its milliseconds as the
networks' times predict them."""


def describe_break_even(networks: CascadeNetworks) -> str:
    """Return from which share of images on a cascade cannot pay, before anything is measured.

    Args:
        networks: networks of a run.
    """
    names = networks.run.net.architectures
    macs = networks.macs
    return (
        f"{names.base} costs {format_macs(macs.base)} multiply-accumulates per image, and {names.motivated} "
        f"{format_macs(macs.motivated)}: a cascade can pay only if fewer than {macs.break_even:.0%} of the images are passed on"
    )


def describe_study(study: CascadeStudy) -> str:
    """Return the report on a cascade: times, curve, calibration, the chosen point, and what the test images say.

    Args:
        study: study of the cascade.

    Returns:
        The lines of the report.
    """
    blocks = [
        [f"On {study.curve.images:,} held-out images:", *_indent(_curve_table(study))],
        [f"On {study.verdict.images:,} test images:", *_indent(_verdict_table(study))],
        ["Calibration on the test images:", *_indent(_calibration_table(study))],
        [_conclusion(study)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _indent(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _curve_table(study: CascadeStudy) -> list[str]:
    """Return the timed points of the curve: predicted from the costs, and measured."""
    timing = study.timing
    rows = [["passed on", "threshold", "top-1, %", "MACs", "predicted, ms", "measured, ms", "measured / predicted"]]
    for timed in timing.points:
        point = int(abs(study.curve.thresholds - timed.threshold).argmin())
        share = study.curve.passed_on[point]
        rows.append(
            [
                f"{share:.1%}",
                _format_threshold(timed.threshold),
                f"{study.curve.accuracy[point]:.2f}",
                format_macs(study.macs.of_share(float(share))),
                _format_ms(timing.seconds.of_share(timed.passed_on)),
                _format_ms(timed.seconds),
                f"{timed.over_predicted:.2f}",
            ]
        )
    threads = format_count(timing.threads, "thread", "threads")
    note = (
        f"Times per image on {timing.device}, {threads}, in batches of {timing.batch_size}; median of {timing.rounds} "
        f"rounds over {timing.images:,} images."
    )
    break_even = (
        f"Break-even: {study.macs.break_even:.0%} of the images in multiply-accumulates, {timing.seconds.break_even:.0%} in "
        "measured seconds."
    )
    return [*align_columns(rows), note, break_even]


def _verdict_table(study: CascadeStudy) -> list[str]:
    verdict = study.verdict
    rows = [["", "top-1, %", "passed on", "MACs", "measured, ms", "of the motivated network's time"]]
    for mode in Mode:
        seconds = getattr(verdict.seconds, mode)
        macs = getattr(study.macs, mode)
        ratio = seconds / verdict.seconds.motivated
        row = [f"{study.networks[mode]} ({mode})", f"{verdict.top1[mode]:.2f}", "", format_macs(macs)]
        rows.append([*row, _format_ms(seconds), f"{ratio:.2f}"])
    row = ["cascade", f"{verdict.cascade_top1:.2f}", f"{verdict.passed_on:.1%}"]
    row += [format_macs(study.macs.of_share(verdict.passed_on)), _format_ms(verdict.cascade_seconds)]
    rows.append([*row, f"{verdict.over_motivated:.2f}"])
    return align_columns(rows)


def _calibration_table(study: CascadeStudy) -> list[str]:
    rows = [["", "temperature", "calibration error, %", "with the temperature, %"]]
    for mode, calibration in study.calibrations.items():
        rows.append(
            [
                f"{study.networks[mode]} ({mode})",
                f"{calibration.temperature:.3f}",
                f"{calibration.error:.2f}",
                f"{calibration.calibrated_error:.2f}",
            ]
        )
    return align_columns(rows)


def _conclusion(study: CascadeStudy) -> str:
    if study.recommendation.refusal is not None:
        return f"No cascade is recommended for {study.target}: {study.recommendation.refusal}."
    verdict = study.verdict
    difference = verdict.cascade_top1 - verdict.top1[Mode.MOTIVATED]
    base_share = verdict.seconds.base / verdict.seconds.motivated
    sentences = [
        f"Recommended for {study.target}: a threshold of {_format_threshold(study.cascade.threshold)}.",
        f"On the test images the cascade is {difference:+.2f} ± {verdict.standard_error:.2f} points from the motivated network "
        f"and takes {verdict.over_motivated:.2f} of its time: {base_share:.2f} for the base on every image, and the rest for "
        f"the motivated network on the {verdict.passed_on:.1%} passed on.",
    ]
    if study.recommendation.point_without_margin is not None:
        sentences.append(_explain_margin(study, study.recommendation.point_without_margin))
    if study.target.is_missed(verdict.cascade_top1, verdict.top1[Mode.MOTIVATED]):
        assert study.recommendation.point is not None
        # Images about which both are right or wrong alike have no error, and still tell no less than one image.
        one_image = 100 / study.curve.images
        error = max(study.curve.standard_error[study.recommendation.point], one_image)
        sentences.append(
            f"That is less accurate than asked for: the {study.curve.images:,} held-out images tell the difference only "
            f"to ± {error:.2f} points. Ask for more accuracy, or hold more images out."
        )
    return " ".join(sentences)


def _explain_margin(study: CascadeStudy, point: int) -> str:
    """Return what the cascade would cost if a loss counted no more than the held-out images show.

    Args:
        study: study of the cascade.
        point: index of the point that would be chosen then.
    """
    share = float(study.curve.passed_on[point])
    seconds = study.verdict.seconds
    return (
        f"A loss counts one standard error more than the {study.curve.images:,} held-out images show, so that it is kept on "
        f"new images; without that, {share:.1%} passed on would do on the held-out images, for about "
        f"{seconds.of_share(share) / seconds.motivated:.2f} of the time. With more images held out the two come closer."
    )


def _format_threshold(threshold: float) -> str:
    if threshold > 1:
        return "above 1"
    return f"{threshold:.4f}"


def _format_ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def curve_as_csv(study: CascadeStudy) -> str:
    """Return the whole curve on the held-out images as CSV, a row per point.

    Args:
        study: study of the cascade.
    """
    lines = [csv_row(CURVE_COLUMNS)]
    curve: CascadeCurve = study.curve
    for threshold, passed_on, top1 in zip(curve.thresholds, curve.passed_on, curve.accuracy, strict=True):
        macs = round(study.macs.of_share(float(passed_on)))
        milliseconds = 1000 * study.timing.seconds.of_share(float(passed_on))
        lines.append(csv_row([f"{threshold:.9g}", f"{passed_on:.6f}", f"{top1:.4f}", macs, f"{milliseconds:.6g}"]))
    return "\n".join([*lines, ""])


def _share_at(study: CascadeStudy, point: int | None) -> float | None:
    """Return the share of held-out images that a point of the curve passes on."""
    return None if point is None else float(study.curve.passed_on[point])


def study_as_json(study: CascadeStudy) -> str:
    """Return the study as JSON, for other programs.

    Args:
        study: study of the cascade.
    """
    verdict: Verdict = study.verdict
    calibrations: dict[str, Any] = {}
    for mode, calibration in study.calibrations.items():
        calibrations[str(mode)] = vars(calibration)
    document = {
        "networks": {str(mode): name for mode, name in study.networks.items()},
        "target": str(study.target),
        "refusal": study.recommendation.refusal,
        "threshold": study.cascade.threshold,
        "macs": vars(study.macs),
        "break_even": {"macs": study.macs.break_even, "seconds": study.timing.seconds.break_even},
        "held_out": {
            "images": study.curve.images,
            "base_top1": study.curve.base_accuracy,
            "motivated_top1": study.curve.motivated_accuracy,
            "passed_on": _share_at(study, study.recommendation.point),
            "passed_on_without_margin": _share_at(study, study.recommendation.point_without_margin),
        },
        "timing": {
            "device": study.timing.device,
            "threads": study.timing.threads,
            "batch_size": study.timing.batch_size,
            "images": study.timing.images,
            "rounds": study.timing.rounds,
            "seconds": vars(study.timing.seconds),
            "points": [vars(point) for point in study.timing.points],
        },
        "calibration": calibrations,
        "test": {
            "images": verdict.images,
            "base_top1": verdict.top1[Mode.BASE],
            "motivated_top1": verdict.top1[Mode.MOTIVATED],
            "cascade_top1": verdict.cascade_top1,
            "standard_error": verdict.standard_error,
            "passed_on": verdict.passed_on,
            "seconds": vars(verdict.seconds),
            "cascade_seconds": verdict.cascade_seconds,
            "over_motivated": verdict.over_motivated,
            "over_predicted": verdict.over_predicted,
        },
    }
    return json.dumps(document, indent=2) + "\n"
