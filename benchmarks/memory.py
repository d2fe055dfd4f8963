"""Peak memory of a training step: nested, timm's standalone networks, copy-based, and slicing in the forward pass.

    python benchmarks/memory.py [--device cpu] [--case resnet20:resnet32:32:128 ...]

For each mode: the memory held between steps (weights, BatchNorm statistics, the optimizer's momentum), and the peak
that a step takes beyond it (activations, gradients, workspaces). A step begins without gradients, as with
`nestnet.TrainStep` and torch's `zero_grad`. The copy-based method holds both networks; its step begins with the copies
of a switch. Slicing (`benchmarks/slicing.py`) also holds the masks of its optimizer.

The peak of a base step should be at most 1.05 times that of the standalone base, after subtracting the differential
weights and their momentum, which belong to the motivated network alone. The table has this ratio.

On CUDA the caching allocator reports its peak. On a CPU torch's profiler reports every allocation and release of a
tensor's memory, and the peak is that of the running sum, which is the same in every run. It does not include oneDNN's
scratch memory.

Prints a table, and writes benchmarks/results/memory-DEVICE.json with all numbers in bytes, and a figure beside it.
"""

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from common import Case, add_common_options, add_figure_options, draw_figure, machine_name, sgd, show, step, write
from methods import Setting, Slicing
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from nestnet import Mode, TrainStep
from nestnet.analysis.plotting import MODE_COLOURS, style_axes
from nestnet.verification.reference import CopyReference

CASES = [
    Case("resnet20", "resnet32", 32, 128),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 8),
    Case("efficientnet_b0", "efficientnet_b1", 96, 16),
]
WAYS = ("timm", "nested", "copy-based", "slicing")
MIB = 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes that a method takes in a mode: between steps, and at a step's peak beyond that."""

    held: int
    step: int

    @property
    def total(self) -> int:
        return self.held + self.step


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Return the peak number of bytes on the device while a function runs, beyond those allocated before.

    Memory that is released must have been allocated by the function, because on a CPU older memory is not known.

    >>> def two_at_a_time() -> None:
    ...     first, second = torch.zeros(1000), torch.zeros(500)  # 4 bytes a number
    ...     del first
    ...     third = torch.zeros(750)
    >>> peak_bytes(two_at_a_time, torch.device("cpu"))
    6000
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        function()
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0))


def measure(case: Case, device: torch.device) -> dict[str, dict[str, Memory]]:
    """Measure the memory by mode and method."""
    torch.manual_seed(0)
    images, labels = case.batch(device)
    found: dict[str, dict[str, Memory]] = {mode: {} for mode in Mode}

    net = case.nested(device)
    optimizer = sgd(net)
    for mode in Mode:
        alone = net.standalone(mode)
        own = sgd(alone)
        alone_step = partial(step, alone, own, images, labels)
        found[mode]["timm"] = peak([alone_step], alone_step, [alone], [own], device)

    train = TrainStep(net, optimizer, cross_entropy)
    nested = {mode: partial(train, images, labels, mode) for mode in Mode}
    for mode in Mode:
        found[mode]["nested"] = peak(nested.values(), nested[mode], [net], [optimizer], device)

    reference = CopyReference(net, sgd, step_count="literal")
    copying = {mode: partial(reference.step, images, labels, mode, cross_entropy) for mode in Mode}
    for mode, other in zip(Mode, reversed(Mode), strict=True):
        models, optimizers = reference.models.values(), reference.optimizers.values()
        found[mode]["copy-based"] = peak([copying[mode], copying[other]], copying[mode], models, optimizers, device)

    way = Slicing(net, Setting(), device)
    slicing = {mode: partial(way.step, mode, images, labels) for mode in Mode}
    for mode in Mode:
        memory = peak(slicing.values(), slicing[mode], [way.network.motivated], [way.optimizer.optimizer], device)
        masks = size([*way.optimizer.masks, *way.optimizer.decays])
        found[mode]["slicing"] = replace(memory, held=memory.held + masks)
    return found


def peak(
    before: Iterable[Callable[[], Any]],
    measured: Callable[[], Any],
    modules: Iterable[nn.Module],
    optimizers: Iterable[torch.optim.Optimizer],
    device: torch.device,
) -> Memory:
    """Measure a step after others, which allocate everything that is allocated only once."""
    for other in before:
        other()
    for optimizer in optimizers:
        optimizer.zero_grad()
    held = sum(held_bytes(module) for module in modules) + sum(state_bytes(optimizer) for optimizer in optimizers)
    return Memory(held, peak_bytes(measured, device))


def size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def held_bytes(module: nn.Module) -> int:
    return size(module.parameters()) + size(module.buffers())


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    values = (value for state in optimizer.state.values() for value in state.values())
    return size(value for value in values if isinstance(value, Tensor))


def differential_bytes(case: Case) -> int:
    """Return the bytes of the weights that only the motivated network has, and of their momentum."""
    net = case.nested(torch.device("cpu"))
    base, motivated = (size(net.standalone(mode).parameters()) for mode in Mode)
    return 2 * (motivated - base)


def draw(document: dict[str, Any], path: Path) -> Path:
    """Draw the held memory and the memory of a step by mode and method, with a panel per pair of networks."""
    from matplotlib.figure import Figure

    results = document["results"]
    figure = Figure(figsize=(1 + 5 * len(results), 4.2), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        places, names = [], []
        for group, mode in enumerate(Mode):
            for column, (way, memory) in enumerate(result["bytes"][mode].items()):
                place = group * (len(WAYS) + 0.6) + column
                held, step = memory["held"] / MIB, memory["step"] / MIB
                axes.bar(place, held, 0.8, color=MODE_COLOURS[mode])
                axes.bar(place, step, 0.8, bottom=held, color=MODE_COLOURS[mode], alpha=0.4)
                axes.text(place, held + step, f"{held + step:.0f}", ha="center", va="bottom", fontsize=9)
                places.append(place)
                names.append(f"{way}\n\n{f'{mode} step' if column == 1 else ' '}")
        axes.set_xticks(places, names, fontsize=8)
        axes.tick_params(axis="x", length=0)
        axes.set_axisbelow(True)
        axes.margins(y=0.1)
        axes.set_title(Case(**result["case"]).name, fontsize=10)
        style_axes(axes)
        axes.grid(visible=False, axis="x")
    figure.supylabel("peak memory, MiB", fontsize=10)
    title = "full colour: weights and optimizer state; pale: additional memory of a step"
    figure.suptitle(f"{title} ({machine_name(document)})", fontsize=10)
    figure.savefig(path, dpi=120)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, CASES)
    add_figure_options(parser)
    options = parser.parse_args()
    if options.draw:
        draw_figure(draw, options.draw)
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler reports each start and end

    rows, results = [], []
    for case in options.case:
        found, differential = measure(case, options.device), differential_bytes(case)
        promise = (found[Mode.BASE]["nested"].total - differential) / found[Mode.BASE]["timm"].total
        for mode in Mode:
            for way in WAYS:
                memory = found[mode][way]
                rows.append(
                    [
                        case.name,
                        str(mode),
                        way,
                        *(f"{value / MIB:.2f}" for value in (memory.held, memory.step, memory.total)),
                        f"{memory.step / found[mode]['timm'].step:.3f}",
                        f"{promise:.3f}" if (mode, way) == (Mode.BASE, "nested") else "",
                    ]
                )
        results.append(
            {
                "case": vars(case),
                "bytes": {
                    mode: {way: asdict(memory) | {"total": memory.total} for way, memory in methods.items()}
                    for mode, methods in found.items()
                },
                "differential_bytes": differential,
                "base_step_beyond_differential_over_timm": promise,
            }
        )
        path = write("memory", {"results": results}, options.output, options.device)
    columns = ["networks and batch", "step", "way", "held, MiB", "beyond, MiB", "total, MiB", "beyond / timm"]
    show("peak memory of a training step, float32, SGD", [*columns, "total less differential / timm"], rows)
    print(path)
    if not options.no_figure:
        draw_figure(draw, path)


if __name__ == "__main__":
    main()
