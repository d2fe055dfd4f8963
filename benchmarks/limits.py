"""What limits a nested training step: arithmetic, memory traffic, launches, or the loader. From profiles.

    python benchmarks/limits.py [--steps 3] [--device cpu] [--case resnet20:resnet32:32:128 ...]
                                [--ways eager compiled captured]

Some steps of each case and mode run under torch.profiler, eager, compiled (on a CPU only ResNets are compiled, the others
take minutes) and on CUDA captured as CUDA graphs, channels last but for ViTs. Time is told by kind of operation: on a CPU the
operators' own time, on CUDA that of the kernels they launch. What the optimizer does is the optimizer's, whatever the
operation; `fused` are compiled kernels, of normalisation and element-wise operations together; `copies` are divided weights
joined to whole ones, and all other copies. `host` is the step's time less all of that: Python, autograd, views and
allocation, and on CUDA the time in which the device has nothing to do. It is of the profiled steps on a CPU, and on CUDA,
where the profiler slows the host, of steps beside.

The arithmetic of a step is 2 * 3 operations a multiply-accumulate of the forward pass (`nestnet.cost.forward_cost`): the
backward pass has two products for each of the forward pass. The machine's peak is the fastest of some large products
(`torch.mm`) in the same run and in the format of the case's products, TF32 where torch takes it. The wait for images is what
making a batch takes (resident up to 64 pixels, else made-up JPEG files); with --workers only what it takes longer than a step.

The limit is named by this rule. The time of a batch, step and wait, is divided in four:

    arithmetic       the step's operations at the machine's peak, at most the time of its products (attention included)
    memory traffic   the products' other time, in which they wait for operands, and all kinds that hardly compute
    launches         host
    loader           the wait for images

The largest of them is the limit, told with its part of the whole.

On CUDA the table also has the bound of arithmetic and launches: the step's operations at the machine's peak, and for each
kernel that the profile counts the time of a kernel on one number, in a long row of them that is launched in the same way,
one by one or as a graph. A step of small kernels can hardly be faster. Writes a table,
benchmarks/results/limits-DEVICE.json, and a figure beside it.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import (
    Case,
    add_common_options,
    add_figure_options,
    draw_figure,
    machine_name,
    make_images,
    seconds,
    sgd,
    show,
    write,
)
from torch import nn
from torch.profiler import ProfilerActivity, profile

from nestnet import Mode, TrainStep
from nestnet.analysis.figures import tidy
from nestnet.config.schema import DataConfig, ModelConfig
from nestnet.cost.network import forward_cost
from nestnet.data.image_data import load_data
from nestnet.data.loaders import is_resident, train_batches
from nestnet.device import DeviceContext, configure_algorithms
from nestnet.training.graphs import WARM_UP

CASES = {
    "cpu": [
        Case("resnet20", "resnet32", 32, 128),
        Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 8),
        Case("efficientnet_b0", "efficientnet_b1", 96, 16),
    ],
    "cuda": [
        Case("resnet20", "resnet32", 32, 128),
        Case("resnet50", "resnet101", 224, 64),
        Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 64),
        Case("efficientnet_b0", "efficientnet_b1", 224, 64),
    ],
}
BATCHES = {"cpu": 4, "cuda": 48}
"""For the loader's time."""

MATRIX = {"cpu": 2048, "cuda": 8192}

WAYS = {"cpu": ["eager", "compiled"], "cuda": ["eager", "compiled", "captured"]}

LAUNCHES = 1000
"""Kernels in the row that tells what a launch takes."""

COLOURS = {  # Paul Tol's bright scheme and two of his light one
    "products": "#4477aa",
    "attention": "#66ccee",
    "normalisation": "#228833",
    "element-wise": "#ccbb44",
    "fused": "#bbcc33",
    "copies": "#ee6677",
    "optimizer": "#aa3377",
    "loss and rest": "#bbbbbb",
    "host": "#555555",
    "loader": "#ee8866",
}
DARK = ("products", "normalisation", "optimizer", "host")

PARTS = {  # of an operation's name; the first that is found decides
    "attention": ("attention",),
    "loss and rest": ("log_softmax", "nll_loss", "cross_entropy", "fill_", "zero_"),
    "products": ("conv", "mm", "gemm", "linear", "matmul"),
    "normalisation": ("norm",),
    "copies": ("cat", "copy", "clone"),
    "element-wise": (
        *("relu", "gelu", "silu", "sigmoid", "clamp", "threshold", "softmax"),
        *("add", "mul", "div", "sub", "sum", "mean", "pool"),
    ),
}


KERNELS = {  # of a kernel's name, for those that no operator is known to have launched; the first that is found decides
    "fused": ("triton_",),
    "attention": ("fmha", "flash", "attention"),
    "optimizer": ("multi_tensor_apply", "sgd"),
    "normalisation": ("batch_norm", "batchnorm", "bn_", "layer_norm"),
    "loss and rest": ("softmax", "nll_loss"),
    "products": ("xmma", "cutlass", "gemm", "fprop", "dgrad", "wgrad", "conv"),
    "copies": ("memcpy", "copy", "cat", "nchwtonhwc", "nhwctonchw"),
    "element-wise": ("elementwise", "pool", "reduce"),
}


def kind_of_kernel(name: str) -> str:
    """The kind of a kernel by its name alone: those of a graph that is replayed have nothing else."""
    name = name.lower()
    for found, parts in KERNELS.items():
        if any(part in name for part in parts):
            return found
    return "loss and rest"


def kind(operation: str) -> str | None:
    """The kind of an operator (`aten::cat`) or of a CPU's compiled kernel; `None` for what only steers, allocates or views."""
    name = operation.lower()
    if "_fused_" in name and "::" not in name:
        return "fused"
    if "::" not in name or name.startswith(("autograd", "torch")):
        return None
    for found, parts in PARTS.items():
        if any(part in name.rpartition("::")[2] for part in parts):
            return found
    return None


def by_kind(events: Iterable[Any], device: torch.device) -> dict[str, float]:
    """Seconds by kind in the events of a profile: operators' own time, or on CUDA that of kernels."""
    total: dict[str, float] = defaultdict(float)
    kernels: dict[str, float] = defaultdict(float)  # that no operator is known to have launched
    for event in events:
        if event.device_type != torch.autograd.DeviceType.CPU:
            if not event.is_user_annotation:
                kernels[event.name] += event.time_range.elapsed_us()
            continue
        found = "optimizer" if in_optimizer(event) else kind(event.name)
        if device.type == "cuda":
            for kernel in event.kernels:
                total[found or "loss and rest"] += kernel.duration
                kernels[kernel.name] -= kernel.duration
        elif found:
            total[found] += event.self_cpu_time_total
    for name, duration in kernels.items():
        total[kind_of_kernel(name)] += duration
    return {name: duration / 1e6 for name, duration in total.items()}


def in_optimizer(event: Any) -> bool:
    while event is not None:
        if event.name.startswith("Optimizer."):
            return True
        event = event.cpu_parent
    return False


def launches(events: Iterable[Any]) -> int:
    """How many kernels, copies and fills of the device a profile has; on a CPU none."""
    on_device = (event for event in events if event.device_type != torch.autograd.DeviceType.CPU)
    return sum(not event.is_user_annotation for event in on_device)


def seconds_per_launch(device: torch.device, *, captured: bool) -> float:
    """What a kernel on one number takes, in a long row of them, launched one by one or all at once as a graph."""
    number = torch.zeros(1, device=device)

    def row() -> None:
        for _ in range(LAUNCHES):
            number.add_(1)

    row()
    launch = row
    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            row()
        launch = graph.replay
        launch()
    return min(seconds(launch) for _ in range(6)) / LAUNCHES


def take_steps(step: Any, number: int) -> None:
    for _ in range(number):
        step().loss()


def beside_profiles(step: Any, number: int) -> float:
    """The time of a step on a device that no profiler watches."""
    return median(seconds(partial(take_steps, step, number)) for _ in range(3)) / number


def profiled(step: Any, number: int, device: torch.device) -> tuple[float, dict[str, float], float | None]:
    """The time of a step in a profile, that of each kind of operation, and on CUDA how many launches it takes.

    There are none to tell where the profiler saw no kernel, which happens to it.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as prof:
        within = seconds(partial(take_steps, step, number))
    events = list(prof.events() or [])
    kinds = {name: value / number for name, value in by_kind(events, device).items()}
    return within / number, kinds, launches(events) / number or None


def peak(size: int, device: torch.device, precision: str, *, tf32: bool) -> float:
    """Operations a second of the fastest of some products of square matrices."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    matrix = torch.randn(size, size, device=device).to(getattr(torch, precision))
    times = [seconds(partial(torch.mm, matrix, matrix)) for _ in range(6)]
    torch.set_float32_matmul_precision(before)
    return 2 * size**3 / min(times)


def loader_seconds(case: Case, device_context: DeviceContext, workers: int, folder: Path) -> tuple[float, bool]:
    """How long a batch takes to be made when nothing else is done, and whether its images are resident."""
    batches = BATCHES[device_context.device.type]
    count = batches * case.batch_size
    root = folder / f"{case.img_size}px {count}"
    if not root.exists():
        make_images(root, count, case.img_size)
    config = DataConfig(
        name="folder", root=str(root), img_size=case.img_size, batch_size=case.batch_size, workers=workers
    )
    images = load_data(config, ModelConfig(base=case.base, motivated=case.motivated))
    images = images.split(range(count), range(1))
    loader = train_batches(images, config, 0, device_context)

    def epoch() -> None:
        for _ in loader.epoch(0):
            pass

    epoch()
    return min(seconds(epoch) for _ in range(3)) / batches, is_resident(images, config)


def limits(taken: float, kinds: dict[str, float], arithmetic: float, wait: float) -> dict[str, float]:
    """The time of a batch by what it is spent on: see the rule above."""
    at_peak = min(arithmetic, kinds.get("products", 0.0) + kinds.get("attention", 0.0))
    return {
        "arithmetic": at_peak,
        "memory traffic": sum(kinds.values()) - kinds["host"] - at_peak,
        "launches": kinds["host"],
        "loader": wait,
    }


@dataclass
class Prepared:
    """A step that is ready to be profiled, and what was measured of it on CUDA before any profiler was started."""

    way: str
    mode: Mode
    step: Callable[[], Any]
    architecture: str
    seconds: float | None
    seconds_per_launch: float | None


def prepare(case: Case, device_context: DeviceContext, options: argparse.Namespace) -> Iterator[Prepared]:
    """All steps of a case, each with the first ones behind it, which compile, capture, and choose algorithms."""
    device, on_cuda = device_context.device, device_context.device.type == "cuda"
    for way in options.ways:
        if way == "compiled" and not on_cuda and not case.base.startswith("resnet"):
            continue
        torch.manual_seed(0)
        net = case.nested(device).to(memory_format=device_context.memory_format)
        compiler = "inductor" if way == "compiled" else None
        train = TrainStep(
            net,
            sgd(net),
            nn.functional.cross_entropy,
            precision=options.precision,
            compile=compiler,
            cuda_graphs=way == "captured",
        )
        launch = seconds_per_launch(device, captured=way == "captured") if on_cuda else None
        images, labels = device_context.put(*case.batch(device))
        for mode in Mode:
            print(f"{case.name}, {mode}, {way}", flush=True)
            step = partial(train, images, labels, mode)
            with named_kernels() if compiler else nullcontext():
                for _ in range(WARM_UP + 1 if on_cuda else 1):
                    step().loss()
            taken = beside_profiles(step, options.steps) if on_cuda else None
            yield Prepared(way, mode, step, getattr(net.architectures, mode), taken, launch)


def measure(case: Case, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What each mode's step of each way takes, and what for."""
    device, vit = options.device, case.base.startswith("vit")
    configure_algorithms(device, deterministic=False)  # as a run does
    device_context = DeviceContext(device, torch.preserve_format if vit else torch.channels_last)
    made, resident = loader_seconds(case, device_context, options.workers, folder)
    tf32 = device.type == "cuda" and (torch.backends.cuda.matmul.allow_tf32 if vit else torch.backends.cudnn.allow_tf32)
    fastest = peak(options.matrix or MATRIX[device.type], device, options.precision, tf32=tf32)
    # A profiler slows the device for as long as the process lives: everything is timed before the first one.
    for prepared in list(prepare(case, device_context, options)):
        within, kinds, count = profiled(prepared.step, options.steps, device)
        taken = prepared.seconds or within
        kinds["host"] = max(taken - sum(kinds.values()), 0.0)
        operations = 6 * case.batch_size * forward_cost(prepared.architecture, img_size=case.img_size, num_classes=10)
        beside = options.workers > 0 and not resident  # while the step goes on
        wait = max(made - taken, 0.0) if beside else made
        parts = limits(taken, kinds, operations / fastest, wait)
        bound = None
        if count is not None and prepared.seconds_per_launch is not None:
            bound = operations / fastest + count * prepared.seconds_per_launch
        yield {
            "case": vars(case),
            "mode": str(prepared.mode),
            "way": prepared.way,
            "step_seconds": taken,
            "seconds_by_kind": kinds,
            "loader_seconds": made,
            "wait_seconds": wait,
            "operations": operations,
            "peak": fastest,
            "seconds_by_limit": parts,
            "limit": max(parts, key=lambda part: parts[part]),
            "launches": count,
            "seconds_per_launch": prepared.seconds_per_launch,
            "bound_seconds": bound,
        }
    torch.compiler.reset()  # compiled code of one case is of no use to the next


def named_kernels() -> AbstractContextManager[None]:
    """While compiled kernels for a CPU are made: let a profile tell them by name."""
    from torch._inductor import config

    return config.patch({"cpp.enable_kernel_profile": True})


def shares(result: dict[str, Any]) -> dict[str, float]:
    """Of a batch's time, step and wait, by kind, in percent."""
    whole = result["step_seconds"] + result["wait_seconds"]
    kinds = result["seconds_by_kind"] | {"loader": result["wait_seconds"]}
    return {name: 100 * kinds.get(name, 0.0) / whole for name in COLOURS}


def speeds(result: dict[str, Any]) -> tuple[float, float]:
    """Operations a second as parts of the machine's peak: of the step, and of its products."""
    kinds, at_peak = result["seconds_by_kind"], result["operations"] / result["peak"]
    products = kinds.get("products", 0.0) + kinds.get("attention", 0.0)
    return at_peak / result["step_seconds"], at_peak / products if products else 0.0


def draw(document: dict[str, Any], output: Path) -> Path:
    """A bar for each step, divided by kind of operation, with what limits it beside."""
    from matplotlib.figure import Figure

    results = document["results"]
    figure = Figure(figsize=(11, 1.8 + 0.42 * len(results)), layout="constrained")
    axes = figure.subplots()
    used = [name for name in COLOURS if any(shares(result)[name] >= 0.05 for result in results)]
    for place, result in enumerate(results):
        left, by_kind = 0.0, shares(result)
        for name in used:
            axes.barh(place, by_kind[name], 0.7, left, color=COLOURS[name], label=None if place else name)
            if by_kind[name] >= 4:
                text: dict[str, Any] = {
                    "color": "white" if name in DARK else "black",
                    "ha": "center",
                    "va": "center",
                    "fontsize": 8,
                }
                axes.text(left + by_kind[name] / 2, place, f"{by_kind[name]:.0f}", **text)
            left += by_kind[name]
        axes.text(
            101, place, f"{result['limit']}; products at {speeds(result)[1]:.0%} of the peak", va="center", fontsize=8
        )
    labels = [f"{Case(**r['case']).name}\n{r['mode']}, {r['way']}: {1000 * r['step_seconds']:,.1f} ms" for r in results]
    axes.set_yticks(range(len(results)), labels, fontsize=8)
    axes.set_xticks(range(0, 101, 20))
    axes.set(xlabel="time of a batch, %", xlim=(0, 135), ylim=(len(results) - 0.5, -0.5))
    tidy(axes)
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(f"What a batch spends its time on, and what limits it ({machine_name(document)})", fontsize=11)
    figure.savefig(output, dpi=120)
    return output


def bound_cells(result: dict[str, Any]) -> list[str]:
    """What the table has of arithmetic and launches; nothing on a CPU."""
    bound = result["bound_seconds"]
    if result["seconds_per_launch"] is None:
        return []
    if bound is None:
        return ["not seen by the profiler", "", "", ""]
    return [
        f"{result['launches']:.0f}",
        f"{1e6 * result['seconds_per_launch']:.2f}",
        f"{1000 * bound:.2f}",
        f"{result['step_seconds'] / bound:.2f}",
    ]


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    rows = []
    for result in results:
        of_step, of_products = speeds(result)
        parts = result["seconds_by_limit"]
        rows.append(
            [
                f"{Case(**result['case']).name}: {result['mode']}, {result['way']}",
                f"{1000 * result['step_seconds']:.1f}",
                *(f"{share:.1f}" for share in shares(result).values()),
                f"{result['peak'] * of_step / 1e9:.4g}",
                f"{result['peak'] / 1e9:.4g}",
                f"{of_products:.0%}",
                f"{result['limit']} ({parts[result['limit']] / sum(parts.values()):.0%})",
                *bound_cells(result),
            ]
        )
    columns = ["step", "ms", *(f"{name}, %" for name in COLOURS)]
    columns += ["step, GFLOP/s", "peak, GFLOP/s", "products / peak", "limit"]
    if options.device.type == "cuda":
        columns += ["launches", "us each", "arithmetic and launches, ms", "step over these"]
    show(f"training steps on {options.device}, {options.precision}, n = {options.steps} steps a profile", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="in a profile; by default 3 on a CPU, 20 on CUDA")
    parser.add_argument("--ways", nargs="+", choices=WAYS["cuda"], help="by default all that the device can")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--matrix", type=int, help="side of the matrices of the peak; by default 2048 on a CPU, 8192 on CUDA"
    )
    parser.add_argument(
        "--workers", type=int, help="processes that read JPEG files; by default 0 on a CPU, on CUDA up to 8"
    )
    add_common_options(parser, [])
    add_figure_options(parser)
    options = parser.parse_args()
    if options.draw:
        draw_figure(draw, options.draw)
        return
    options.ways = options.ways or WAYS[options.device.type]
    for way in options.ways:
        if way not in WAYS[options.device.type]:
            parser.error(f"--ways {way}: it is for CUDA alone")
    on_cuda = options.device.type == "cuda"
    options.steps = options.steps or (20 if on_cuda else 3)
    if options.workers is None:
        options.workers = min(os.cpu_count() or 1, 8) if on_cuda else 0

    results: list[dict[str, Any]] = []
    facts = {"steps": options.steps, "precision": options.precision, "workers": options.workers}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.case or CASES[options.device.type]:
            for result in measure(case, Path(folder), options):
                results.append(result)
                path = write("limits", {**facts, "results": results}, options.output, options.device)
    report(results, options)
    print(path)
    if not options.no_figure:
        draw_figure(draw, path)


if __name__ == "__main__":
    main()
