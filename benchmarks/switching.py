"""A training epoch with the mode sequence of k = 2, 3, 4: nested, copy-based, and the ideal.

    python benchmarks/switching.py [--batches 60] [--k 2 3 4] [--device cpu] [--case resnet20:resnet32:32:128 ...]

The sequence is the one that `LossDecrease(k)` gives on independent random losses, so that about 1 batch in (k+1)! is
motivated. Every batch is trained by the nested network and by the copy-based reference (its copies included), one after the
other, and every third one by both of timm's standalone networks too. The ideal is f * T_motivated + (1 - f) * T_base for one
batch, with T the mean step times of timm's standalone networks in the same run and f the motivated fraction. The second table
counts the bytes held: weights, optimizer state, and gradients after a step of each mode. The raw samples, in seconds, are in
benchmarks/results/switching-DEVICE.json.
"""

import argparse
import random
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import Any

import torch
from common import Case, add_common_options, seconds, sgd, show, step, write
from torch import nn

from nestnet import LossDecrease, Mode
from nestnet.reference import CopyReference

CASES = [
    Case("resnet20", "resnet32", 32, 128),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 4),
    Case("efficientnet_b0", "efficientnet_b1", 96, 8),
]


def mode_sequence(k: int, batches: int) -> list[Mode]:
    """The modes that k falling losses give when successive losses are independent."""
    draw, condition, modes = random.Random(k), LossDecrease(k), []
    for _ in range(batches):
        modes.append(condition.mode)
        condition.update(draw.random())
    return modes


def measure(case: Case, modes: list[Mode], device: torch.device) -> dict[str, list[float]]:
    """Seconds of each batch by each of the ways."""
    torch.manual_seed(0)
    net, (images, labels) = case.nested(device), case.batch(device)
    optimizer, reference = sgd(net), CopyReference(net, sgd, step_count="literal")
    alone = {mode: net.standalone(mode) for mode in Mode}
    alone_steps = {mode: partial(step, model, sgd(model), images, labels) for mode, model in alone.items()}

    def ways(mode: Mode) -> dict[str, Any]:
        return {
            "nested": partial(step, partial(net, mode=mode), optimizer, images, labels),
            "copy-based": partial(reference.step, images, labels, mode, nn.functional.cross_entropy),
            **{f"timm {m}": alone_step for m, alone_step in alone_steps.items()},
        }

    for mode in (Mode.BASE, Mode.MOTIVATED, Mode.BASE):  # warm up
        for way in ways(mode).values():
            way()
    samples: dict[str, list[float]] = {name: [] for name in ways(Mode.BASE)}
    for number, mode in enumerate(modes):
        order = [(name, way) for name, way in ways(mode).items() if number % 3 == 0 or not name.startswith("timm")]
        for name, way in order[number % len(order) :] + order[: number % len(order)]:
            samples[name].append(seconds(way))
    return samples


def held(case: Case, device: torch.device) -> dict[str, dict[str, int]]:
    """Bytes of weights, optimizer state, and gradients after a base and after a motivated step, of each way."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60, help="of an epoch")
    parser.add_argument("--k", type=int, nargs="+", default=[2, 3, 4])
    add_common_options(parser, CASES)
    options = parser.parse_args()

    times, memory, results = [], [], []
    for case in options.case:
        counts = held(case, options.device)
        memory += [
            [f"{case.name}: {name}", *(f"{n / 2**20:.2f}" for n in kinds.values())] for name, kinds in counts.items()
        ]
        for k in options.k:
            modes = mode_sequence(k, options.batches)
            samples = measure(case, modes, options.device)
            fraction = modes.count(Mode.MOTIVATED) / len(modes)
            switches = sum(a is not b for a, b in pairwise(modes))
            ideal = fraction * mean(samples["timm motivated"]) + (1 - fraction) * mean(samples["timm base"])
            nested, copied = mean(samples["nested"]) / ideal, mean(samples["copy-based"]) / ideal
            epoch = len(modes) * ideal
            times.append(
                [
                    f"{case.name}, k = {k}",
                    f"{fraction:.1%}",
                    str(switches),
                    f"{epoch:.2f}",
                    f"{nested:.3f}",
                    f"{copied:.3f}",
                ]
            )
            results.append(
                {
                    "case": vars(case),
                    "k": k,
                    "motivated_fraction": fraction,
                    "switches": switches,
                    "nested_over_ideal": nested,
                    "copy_based_over_ideal": copied,
                    "bytes": counts,
                    "modes": [str(mode) for mode in modes],
                    "seconds": samples,
                }
            )
    title = f"an epoch of {options.batches} batches, float32, SGD"
    columns = ["networks and batch", "motivated", "switches", "ideal, s", "nested / ideal", "copy-based / ideal"]
    show(title, columns, times)
    show(
        "held, MiB", ["way", "weights", "optimizer state", "gradients, base step", "gradients, motivated step"], memory
    )
    print(write("switching", {"batches": options.batches, "results": results}, options.output, options.device))


if __name__ == "__main__":
    main()
