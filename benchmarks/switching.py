"""A training epoch with the mode sequence of k = 2, 3, 4, and one switch: nested, copy-based, slicing, and ideal.

    python benchmarks/switching.py [--batches 48] [--k 2 3 4] [--compile] [--precision float32] [--device cpu]
                                   [--case resnet20:resnet32:32:64 ...]

**Epochs.** The sequence is one that `LossDecrease(k)` gives on independent random losses: the first one, in the order
of the seeds, with at least three motivated batches. On average 1 batch in (k+1)! is motivated, so for k = 3 and 4 a
short epoch has more motivated batches and switches here than an average one. Each batch is trained by all methods
(`benchmarks/methods.py`) and by timm's standalone network of its mode in turn, and switches are timed separately from
steps. An epoch's time is computed from medians, because a few outliers on a shared machine would dominate a sum: the
number of batches of each mode times the median step of that mode, plus the number of switches in each direction times
its median. The ideal is f * T_motivated + (1 - f) * T_base for one batch, with T the median steps of timm's standalone
networks and f the motivated fraction; with `--compile` they are trained both compiled and eager, and T is the smaller
median. The result file also has the plain sums over all batches.

**A switch.** The seconds and bytes that a change of mode takes, each after a training step in the previous mode. A
nested network and slicing have nothing to do: only the call is timed.

**Memory.** The bytes held: weights, optimizer state, and gradients after a step of each mode. The masks of slicing are
additional.

The raw samples, in seconds, are written to benchmarks/results/switching-DEVICE.json, with a figure beside them.
"""

import argparse
import gc
import itertools
import random
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Case, add_common_options, choose_cases, seconds, sgd, show, step, write
from methods import METHOD_COLOURS, CopyBased, Method, Setting, Slicing, Standalone, create_methods
from torch import nn

from nestnet import LossDecrease, Mode
from nestnet.analysis.plotting import style_axes
from nestnet.verification.reference import CopyReference

CASES = [
    Case("resnet20", "resnet32", 32, 64),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 4),
    Case("efficientnet_b0", "efficientnet_b1", 96, 8),
]
CUDA_CASES = [
    Case("resnet20", "resnet32", 32, 128),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 128),
    Case("efficientnet_b0", "efficientnet_b1", 224, 128),
]
METHODS = ("nested", "copy-based", "slicing")
FEWEST_MOTIVATED = 3


def mode_sequence(k: int, batches: int) -> list[Mode]:
    """Return the modes of `LossDecrease(k)` for independent losses, with at least three motivated batches."""
    enough = min(FEWEST_MOTIVATED, batches // 4)
    for seed in itertools.count():
        draw, condition, modes = random.Random(seed), LossDecrease(k), []
        for _ in range(batches):
            modes.append(condition.mode)
            condition.update(draw.random())
        if modes.count(Mode.MOTIVATED) >= enough:
            break
    return modes


def prepare_methods(case: Case, setting: Setting, device: torch.device) -> tuple[dict[str, Method], tuple[Any, Any]]:
    """Return all methods after their warm-up, and a batch."""
    torch.manual_seed(0)
    net, batch = case.nested(device), case.batch(device)
    ways = create_methods(net, setting, device)
    if setting.compiled:
        ways["timm, eager"] = Standalone(net, replace(setting, compiled=False), device)
    for mode in (Mode.BASE, Mode.MOTIVATED) * (3 if device.type == "cuda" else 1):
        for way in ways.values():
            way.switch(mode)
            way.step(mode, *batch)
    for way in ways.values():
        way.switch(Mode.BASE)
    return ways, batch


Samples = dict[str, dict[str, list[float]]]
"""Seconds of `step base`, `step motivated`, `switch to base` and `switch to motivated`, by method."""


def epoch(ways: dict[str, Method], batch: tuple[Any, Any], modes: list[Mode]) -> Samples:
    """Train an epoch by all methods, batch by batch."""
    for way in ways.values():
        way.switch(modes[0])
    samples: Samples = {name: {f"{what} {m}": [] for what in ("step", "switch to") for m in Mode} for name in ways}
    names, before = list(ways), modes[0]
    for number, mode in enumerate(modes):
        for shift in range(len(names)):
            name = names[(number + shift) % len(names)]
            if mode is not before:
                samples[name][f"switch to {mode}"].append(seconds(partial(ways[name].switch, mode)))
            samples[name][f"step {mode}"].append(seconds(partial(ways[name].step, mode, *batch)))
        before = mode
    return samples


def epoch_seconds(samples: dict[str, list[float]]) -> float:
    """Return the seconds of an epoch of one method: the number of steps and switches of each kind times its median."""
    return sum(len(taken) * median(taken) for taken in samples.values() if taken)


def epoch_result(case: Case, k: int, modes: list[Mode], samples: Samples) -> dict[str, Any]:
    counts = {mode: modes.count(mode) for mode in Mode}
    alone = [samples[name] for name in samples if name.startswith("timm")]
    ideal = sum(counts[mode] * min(median(each[f"step {mode}"]) for each in alone) for mode in Mode if counts[mode])
    return {
        "case": vars(case),
        "k": k,
        "motivated_fraction": counts[Mode.MOTIVATED] / len(modes),
        "switches": sum(a is not b for a, b in pairwise(modes)),
        "ideal_seconds": ideal,
        "over_ideal": {name: epoch_seconds(samples[name]) / ideal for name in METHODS},
        "sums": {name: sum(sum(taken) for taken in kinds.values()) for name, kinds in samples.items()},
        "modes": [str(mode) for mode in modes],
        "seconds": samples,
    }


def measure_switch(ways: dict[str, Method], batch: tuple[Any, Any], rounds: int) -> dict[str, dict[str, Any]]:
    """Return the bytes copied and the seconds of a switch, by method and direction."""
    found: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    for _, mode, name in itertools.product(range(rounds), (Mode.MOTIVATED, Mode.BASE), METHODS):
        way, before = ways[name], Mode.BASE if mode is Mode.MOTIVATED else Mode.MOTIVATED
        way.switch(before)
        seconds(partial(way.step, before, *batch))
        taken = seconds(partial(way.switch, mode))
        copied = way.copied_bytes if isinstance(way, CopyBased) else 0
        of_mode = found[name].setdefault(f"to {mode}", {"bytes": copied, "seconds": []})
        of_mode["seconds"].append(taken)
    return found


def measure_held_bytes(case: Case, device: torch.device) -> dict[str, dict[str, int]]:
    """Return the bytes of weights, optimizer state, and gradients after a step of each mode, by method."""
    net, (images, labels) = case.nested(device), case.batch(device)
    reference, counts = CopyReference(net, sgd, step_count="literal"), {}
    for mode in (Mode.BASE, Mode.MOTIVATED, Mode.BASE):
        reference.step(images, labels, mode, nn.functional.cross_entropy)
    counts["copy-based"] = {
        "weights": sum(size(model.parameters()) for model in reference.models.values()),
        "optimizer state": sum(state_size(optimizer) for optimizer in reference.optimizers.values()),
        "gradients, base": sum(size(p.grad for p in model.parameters()) for model in reference.models.values()),
        "gradients, motivated": sum(size(p.grad for p in model.parameters()) for model in reference.models.values()),
    }
    rival = Slicing(net, Setting(), device)
    gradients = []
    for mode in Mode:
        rival.step(mode, images, labels)
        gradients.append(size(p.grad for p in rival.network.motivated.parameters()))
    counts["slicing"] = {
        "weights": size(rival.network.motivated.parameters()),
        "optimizer state": state_size(rival.optimizer.optimizer),
        "gradients, base": gradients[0],
        "gradients, motivated": gradients[1],
    }
    modules: dict[str, tuple[nn.Module, list[Any]]] = {"nested": (net, [partial(net, mode=mode) for mode in Mode])}
    for mode in Mode:
        model = net.standalone(mode)
        modules[f"timm {mode}"] = (model, [model, model])
    for name, (module, forwards) in modules.items():
        optimizer, gradients = sgd(module), []
        for forward in forwards:
            step(forward, optimizer, images, labels)
            gradients.append(size(p.grad for p in module.parameters()))
        counts[name] = {
            "weights": size(module.parameters()),
            "optimizer state": state_size(optimizer),
            "gradients, base": gradients[0],
            "gradients, motivated": gradients[1],
        }
    return counts


def size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def state_size(optimizer: torch.optim.Optimizer) -> int:
    return size(
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    )


def draw(
    epochs: list[tuple[Case, dict[str, Any]]], switches: list[tuple[Case, dict[str, Any]]], title: str, output: Path
) -> None:
    """Draw each epoch's time relative to the ideal, and the time of one switch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.8 + 0.36 * len(epochs)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for shift, name in zip((-0.2, 0, 0.2), METHODS, strict=True):
        over = [result["over_ideal"][name] for _, result in epochs]
        lines = [line + shift for line in range(len(epochs))]
        left.plot(over, lines, "o", markersize=5, color=METHOD_COLOURS[name], label=name)
    labels = [f"{case.name}, k = {result['k']} ({result['motivated_fraction']:.0%})" for case, result in epochs]
    left.axvline(1, color="black", linewidth=0.8)
    left.set_yticks(range(len(epochs)), labels, fontsize=8)
    left.set_ylim(len(epochs) - 0.5, -0.5)
    left.set(title="an epoch (motivated batches in brackets)", xlabel="time / ideal of timm's standalone networks")
    left.legend(frameon=False, fontsize=8)

    for height, mode, hatch in ((-0.17, Mode.MOTIVATED, ""), (0.17, Mode.BASE, "//")):
        taken = [1000 * median(found["copy-based"][f"to {mode}"]["seconds"]) for _, found in switches]
        lines = [line + height for line in range(len(switches))]
        bars = right.barh(
            lines, taken, 0.32, color=METHOD_COLOURS["copy-based"], edgecolor="white", hatch=hatch, label=f"to {mode}"
        )
        right.bar_label(bars, [f"{value:.1f}" for value in taken], fontsize=8, padding=2)
    names = [f"{case.name}\n{found['copy-based']['to motivated']['bytes'] / 2**20:.1f} MiB" for case, found in switches]
    right.set_yticks(range(len(switches)), names, fontsize=8)
    right.set_ylim(len(switches) - 0.5, -0.5)
    right.margins(x=0.3)
    right.set(title="one copy-based switch", xlabel="ms")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        style_axes(axes)
    figure.suptitle(title, fontsize=11)
    figure.savefig(output, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=48, help="number of batches of an epoch")
    parser.add_argument("--k", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument(
        "--switches", type=int, default=10, help="number of measurements of one switch in each direction"
    )
    parser.add_argument("--compile", action="store_true", help="compile the forward and backward passes")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    add_common_options(parser, CASES)
    options = parser.parse_args()
    setting = Setting(options.precision, options.compile)

    epochs, switches, memory = [], [], []
    for case in choose_cases(options, CASES, CUDA_CASES):
        print(f"{case.name} ...", flush=True)
        memory.append((case, measure_held_bytes(case, options.device)))
        ways, batch = prepare_methods(case, setting, options.device)
        switches.append((case, measure_switch(ways, batch, options.switches)))
        for k in options.k:
            modes = mode_sequence(k, options.batches)
            epochs.append((case, epoch_result(case, k, modes, epoch(ways, batch, modes))))
        del ways
        torch.compiler.reset()
        gc.collect()

    columns = ["networks and batch", "motivated", "switches", "ideal, s", *(f"{name} / ideal" for name in METHODS)]
    rows = [
        [
            f"{case.name}, k = {result['k']}",
            f"{result['motivated_fraction']:.1%}",
            str(result["switches"]),
            f"{result['ideal_seconds']:.2f}",
            *(f"{result['over_ideal'][name]:.3f}" for name in METHODS),
        ]
        for case, result in epochs
    ]
    show(f"an epoch of {options.batches} batches, {setting}, SGD", columns, rows)
    columns = ["networks and batch", "way", "to motivated: ms", "MiB copied", "to base: ms", "MiB copied"]
    rows = [
        [case.name, name]
        + [
            cell
            for mode in (Mode.MOTIVATED, Mode.BASE)
            for cell in (
                f"{1000 * median(found[name][f'to {mode}']['seconds']):.3f}",
                f"{found[name][f'to {mode}']['bytes'] / 2**20:.2f}",
            )
        ]
        for case, found in switches
        for name in METHODS
    ]
    show("one switch", columns, rows)
    columns = [
        "networks and batch",
        "way",
        "weights",
        "optimizer state",
        "gradients, base step",
        "gradients, motivated step",
    ]
    rows = [
        [case.name, name, *(f"{n / 2**20:.2f}" for n in kinds.values())]
        for case, counts in memory
        for name, kinds in counts.items()
    ]
    show("held, MiB", columns, rows)
    content = {
        "batches": options.batches,
        "precision": options.precision,
        "compiled": options.compile,
        "results": [result for _, result in epochs],
        "switches": [{"case": vars(case), "ways": found} for case, found in switches],
        "held": [{"case": vars(case), "bytes": counts} for case, counts in memory],
    }
    path = write("switching", content, options.output, options.device)
    draw(epochs, switches, f"Switching on {options.device.type}, {setting}", path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    main()
