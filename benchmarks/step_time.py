"""Time of a training step: nested, copy-based and slicing against timm's standalone networks.

    python benchmarks/step_time.py [--rounds 20] [--seconds 20] [--device cpu] [--case resnet20:resnet32:32:64 ...]
                                   [--precision float32 bfloat16] [--compile false true]

All methods (`benchmarks/methods.py`) run their steps in turn in one process, in both modes: forward and backward pass,
SGD with momentum and weight decay, and the reading of the loss. A copy-based step does not include a switch; switches
are timed separately. Without `--precision` and `--compile` a GPU measures all four settings of every case; a CPU
measures all cases in float32, eager, and one pair of each family also in bfloat16 (which many CPUs only emulate) and
compiled.

Prints the median step of timm's networks and, for each method, images per second (of the median) and its time relative
to timm's: the median and the quartiles of the ratios of each round. A setting that does not compile is reported and
left out. The raw samples, in seconds, are in benchmarks/results/step_time-DEVICE.json, with a figure beside them.
"""

import argparse
import gc
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import (
    Case,
    add_common_options,
    add_figure_options,
    choose_cases,
    draw_figure,
    machine_name,
    ratio,
    show,
    time_in_turn,
    write,
)
from methods import METHOD_COLOURS, Setting, create_methods

from nestnet import Mode
from nestnet.analysis.plotting import style_axes
from nestnet.text.messages import first_line

CASES = [
    Case("resnet20", "resnet32", 32, 32),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 96, 4),
    Case("efficientnet_b0", "efficientnet_b1", 64, 8),
    Case("resnet44", "resnet56", 32, 32),
    Case("resnet50", "resnet101", 64, 8),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 2),
    Case("efficientnet_b1", "efficientnet_b2", 224, 2),
]
FAMILIES = CASES[:3]
"""One pair of each family, for settings that take long on a CPU."""

CUDA_CASES = [
    Case("resnet20", "resnet32", 32, 128),
    Case("resnet44", "resnet56", 32, 128),
    Case("resnet50", "resnet101", 224, 128),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 128),
    Case("efficientnet_b0", "efficientnet_b1", 224, 128),
    Case("efficientnet_b1", "efficientnet_b2", 224, 128),
]
RIVALS = ("nested", "copy-based", "slicing")


def settings(options: argparse.Namespace) -> list[tuple[Case, Setting]]:
    """Return the cases and settings to measure, by the options and the device."""
    cases = choose_cases(options, CASES, CUDA_CASES)
    precisions, compiled = options.precision or ["float32", "bfloat16"], options.compile or ["false", "true"]
    chosen = [Setting(precision, word == "true") for word, precision in itertools.product(compiled, precisions)]
    if options.precision or options.compile or options.device.type == "cuda":
        return [(case, setting) for setting in chosen for case in cases]
    families = FAMILIES if options.case is CASES else cases
    quick = [(case, Setting()) for case in cases]
    return quick + [(case, s) for s in (Setting("bfloat16"), Setting(compiled=True)) for case in families]


def measure(case: Case, setting: Setting, options: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the seconds of each kind of step and of the copy-based switches in each round."""
    torch.manual_seed(0)
    batch = case.batch(options.device)
    ways = create_methods(case.nested(options.device), setting, options.device)
    functions: dict[str, Callable[[], Any]] = {}
    before: dict[str, Callable[[], Any]] = {}
    for mode in Mode:
        for name, way in ways.items():
            functions[f"{name} {mode}"] = partial(way.step, mode, *batch)
            before[f"{name} {mode}"] = partial(way.switch, mode)
        other = Mode.MOTIVATED if mode is Mode.BASE else Mode.BASE
        functions[f"switch to {mode}"] = partial(ways["copy-based"].switch, mode)
        before[f"switch to {mode}"] = partial(ways["copy-based"].switch, other)
    warmup = 5 if options.device.type == "cuda" else 1
    return time_in_turn(functions, options.rounds, warmup, before=before, limit=options.seconds)


def summary(case: Case, setting: Setting, samples: dict[str, list[float]]) -> dict[str, Any]:
    """Return the values for the table and the figure, and the raw samples."""
    ratios = {
        f"{name} {mode}": dict(
            zip(("median", "q1", "q3"), ratio(samples[f"{name} {mode}"], samples[f"timm {mode}"]), strict=True)
        )
        for mode in Mode
        for name in RIVALS
    }
    return {
        "case": vars(case),
        "precision": setting.precision,
        "compiled": setting.compiled,
        "rounds": len(samples["timm base"]),
        "images_per_second": {
            name: case.batch_size / median(taken) for name, taken in samples.items() if "switch" not in name
        },
        "ratios_to_timm": ratios,
        "seconds": samples,
    }


def rows(case: Case, setting: Setting, result: dict[str, Any]) -> list[list[str]]:
    """Return a row per mode."""
    found = []
    for mode in Mode:
        row = [case.name, str(setting), str(mode), str(result["rounds"])]
        row += [f"{1000 * median(result['seconds'][f'timm {mode}']):.1f}"]
        row += [f"{result['images_per_second'][f'timm {mode}']:.4g}"]
        for name in RIVALS:
            middle, low, high = result["ratios_to_timm"][f"{name} {mode}"].values()
            row += [
                f"{result['images_per_second'][f'{name} {mode}']:.4g}",
                f"{middle:.3f} ({low:.3f} to {high:.3f})",
            ]
        found.append(row)
    return found


def draw(document: dict[str, Any], output: Path) -> Path:
    """Draw each method's step time relative to timm's, with quartiles: a panel per mode, a line per case and setting."""
    from matplotlib.figure import Figure

    results = document["results"]
    figure = Figure(figsize=(11, 1.7 + 0.42 * len(results)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    for axes, mode in zip(panels, Mode, strict=True):
        for shift, name in zip((-0.22, 0, 0.22), RIVALS, strict=True):
            ratios = [result["ratios_to_timm"][f"{name} {mode}"] for result in results]
            middle = [r["median"] for r in ratios]
            spread = [[r["median"] - r["q1"] for r in ratios], [r["q3"] - r["median"] for r in ratios]]
            axes.errorbar(
                middle,
                [line + shift for line in range(len(results))],
                xerr=spread,
                fmt="o",
                markersize=4,
                color=METHOD_COLOURS[name],
                label=name,
            )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(title=f"{mode} step", xlabel="time / timm's standalone network")
        style_axes(axes)
    labels = [f"{Case(**r['case']).name}\n{Setting(r['precision'], r['compiled'])}" for r in results]
    panels[0].set_yticks(range(len(results)), labels, fontsize=8)
    panels[0].set_ylim(len(results) - 0.5, -0.5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"A training step on {machine_name(document)}", fontsize=11)
    figure.savefig(output, dpi=120)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="largest number of measurements of each step")
    parser.add_argument(
        "--seconds", type=float, default=20, help="seconds for a case in a setting; three rounds are always run"
    )
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", nargs="+", choices=["false", "true"])
    add_common_options(parser, CASES)
    add_figure_options(parser)
    options = parser.parse_args()
    if options.draw:
        draw_figure(draw, options.draw)
        return

    measured, failed = [], []
    for case, setting in settings(options):
        print(f"{case.name}, {setting} ...", flush=True)
        try:
            samples = measure(case, setting, options)
        except RuntimeError as error:  # raised by the compiler, with a long message
            if not setting.compiled:
                raise
            reason = first_line(error)
            print(f"not compiled: {reason}")
            failed.append({"case": vars(case), "setting": str(setting), "reason": reason})
        else:
            measured.append((case, setting, summary(case, setting, samples)))
        content = {"rounds": options.rounds, "results": [result for _, _, result in measured], "failed": failed}
        path = write("step_time", content, options.output, options.device)
        torch.compiler.reset()
        gc.collect()

    columns = ["networks and batch", "setting", "mode", "n", "timm: ms", "images/s"]
    columns += [column for name in RIVALS for column in (f"{name}: images/s", "time / timm")]
    show("training step, SGD", columns, [row for each in measured for row in rows(*each)])
    switches = [
        [case.name, str(setting), *(f"{1000 * median(result['seconds'][f'switch to {m}']):.2f}" for m in Mode)]
        for case, setting, result in measured
    ]
    columns = ["networks and batch", "setting", "to base, ms", "to motivated, ms"]
    show("a switch of the copy-based method, which no other method has", columns, switches)
    print(path)
    if measured and not options.no_figure:
        draw_figure(draw, path)


if __name__ == "__main__":
    main()
