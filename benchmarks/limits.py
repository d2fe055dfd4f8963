"""The limit of a nested training step, from profiles: arithmetic, memory traffic, launches, or the loader.

    python benchmarks/limits.py [--steps 3] [--device cpu] [--case resnet20:resnet32:32:128 ...]
                                [--ways eager compiled captured]

Some steps of each case and mode run under torch.profiler, eager, compiled (on a CPU only ResNets are compiled, because
the others take minutes) and on CUDA captured as CUDA graphs, with channels last except for ViTs. Time is reported by
kind of operation: on a CPU the self time of operators, on CUDA that of the kernels they launch. Everything that the
optimizer does counts as `optimizer`; `fused` are compiled kernels, which combine normalisation and element-wise
operations; `copies` are the joining of divided weights and all other copies. `host` is the rest of the step's time:
Python, autograd, views and allocation, and on CUDA the time in which the device is idle. On a CPU it is that of the
profiled steps; on CUDA, where the profiler slows the host, it is that of separate steps.

The arithmetic of a step is 2 * 3 operations per multiply-accumulate of the forward pass (`nestnet.cost.forward_cost`):
the backward pass has two products for each of the forward pass. The machine's peak is the fastest of some large
products (`torch.mm`) in the same run and in the format of the case's products, TF32 if torch uses it. The wait for
images is the time to make a batch (resident up to 64 pixels, otherwise generated JPEG files); with --workers only the
excess over a step.

The limit is determined as follows. The time of a batch, step and wait, is divided into four:

    arithmetic       the step's operations at the machine's peak, at most the time of its products (attention included)
    memory traffic   the products' other time, in which they wait for operands, and all kinds that hardly compute
    launches         host
    loader           the wait for images

The largest of them is the limit, which is reported with its share of the total.

On CUDA the table also has the bound of arithmetic and launches: the step's operations at the machine's peak, plus, for
each kernel in the profile, the time of a kernel on one number, measured in a long sequence that is launched in the
same way, one by one or as a graph. A step of small kernels can hardly be faster. Prints a table, and writes
benchmarks/results/limits-DEVICE.json with a figure beside it.
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
from nestnet.analysis.plotting import style_axes
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.cost.network import forward_cost
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_train_loader, is_resident
from nestnet.device import DeviceContext, configure_algorithms
from nestnet.step.cuda_graphs import WARM_UP

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
"""Number of batches for measuring the loader's time."""

MATRIX = {"cpu": 2048, "cuda": 8192}

WAYS = {"cpu": ["eager", "compiled"], "cuda": ["eager", "compiled", "captured"]}

LAUNCHES = 1000
"""Number of kernels in the sequence that measures the time of a launch."""

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

PARTS = {  # parts of an operation's name, by kind; the first match decides
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


KERNELS = {  # parts of the name of a kernel without a known operator, by kind; the first match decides
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
    """Return the kind of a kernel by its name, which is all that is known of kernels in a replayed graph."""
    name = name.lower()
    for found, parts in KERNELS.items():
        if any(part in name for part in parts):
            return found
    return "loss and rest"


def kind(operation: str) -> str | None:
    """Return the kind of an operator (`aten::cat`) or a compiled CPU kernel; `None` for control, allocation and views."""
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
    """Return the seconds by kind in the events of a profile: self time of operators, or on CUDA time of kernels."""
    total: dict[str, float] = defaultdict(float)
    kernels: dict[str, float] = defaultdict(float)  # kernels without a known operator
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
    """Return the number of kernels, copies and fills of the device in a profile; 0 on a CPU."""
    on_device = (event for event in events if event.device_type != torch.autograd.DeviceType.CPU)
    return sum(not event.is_user_annotation for event in on_device)


def seconds_per_launch(device: torch.device, *, captured: bool) -> float:
    """Return the time of a kernel on one number, in a long sequence launched one by one or at once as a graph."""
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


def time_without_profiler(step: Any, number: int) -> float:
    """Return the time of a step without the profiler."""
    return median(seconds(partial(take_steps, step, number)) for _ in range(3)) / number


def profile_steps(step: Any, number: int, device: torch.device) -> tuple[float, dict[str, float], float | None]:
    """Return the time of a profiled step, the time of each kind of operation, and on CUDA the number of launches.

    The number of launches is `None` if the profiler recorded no kernel, which can happen.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as prof:
        within = seconds(partial(take_steps, step, number))
    events = list(prof.events() or [])
    kinds = {name: value / number for name, value in by_kind(events, device).items()}
    return within / number, kinds, launches(events) / number or None


def peak(size: int, device: torch.device, precision: str, *, tf32: bool) -> float:
    """Return the operations per second of the fastest of some products of square matrices."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    matrix = torch.randn(size, size, device=device).to(getattr(torch, precision))
    times = [seconds(partial(torch.mm, matrix, matrix)) for _ in range(6)]
    torch.set_float32_matmul_precision(before)
    return 2 * size**3 / min(times)


def loader_seconds(case: Case, device_context: DeviceContext, workers: int, folder: Path) -> tuple[float, bool]:
    """Return the time to make a batch without training, and whether its images are resident."""
    batches = BATCHES[device_context.device.type]
    count = batches * case.batch_size
    root = folder / f"{case.img_size}px {count}"
    if not root.exists():
        make_images(root, count, case.img_size)
    config = DataConfig(
        name="folder", root=str(root), img_size=case.img_size, batch_size=case.batch_size, workers=workers
    )
    images = load_data(config, ModelConfig(base=case.base, motivated=case.motivated))
    images = images.resplit(range(count), range(1))
    loader = create_train_loader(images, config, 0, device_context)

    def epoch() -> None:
        for _ in loader.epoch(0):
            pass

    epoch()
    return min(seconds(epoch) for _ in range(3)) / batches, is_resident(images, config)


def limits(taken: float, kinds: dict[str, float], arithmetic: float, wait: float) -> dict[str, float]:
    """Divide the time of a batch into the four parts that are defined above."""
    at_peak = min(arithmetic, kinds.get("products", 0.0) + kinds.get("attention", 0.0))
    return {
        "arithmetic": at_peak,
        "memory traffic": sum(kinds.values()) - kinds["host"] - at_peak,
        "launches": kinds["host"],
        "loader": wait,
    }


@dataclass
class PreparedStep:
    """Step that is ready for profiling, with its measurements on CUDA from before any profiler was started."""

    way: str
    mode: Mode
    step: Callable[[], Any]
    architecture: str
    seconds: float | None
    seconds_per_launch: float | None


def prepare(case: Case, device_context: DeviceContext, options: argparse.Namespace) -> Iterator[PreparedStep]:
    """Yield all steps of a case after their warm-up, which compiles, captures, and selects algorithms."""
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
        images, labels = device_context.to_device(*case.batch(device))
        for mode in Mode:
            print(f"{case.name}, {mode}, {way}", flush=True)
            step = partial(train, images, labels, mode)
            with name_kernels() if compiler else nullcontext():
                for _ in range(WARM_UP + 1 if on_cuda else 1):
                    step().loss()
            taken = time_without_profiler(step, options.steps) if on_cuda else None
            yield PreparedStep(way, mode, step, getattr(net.architectures, mode), taken, launch)


def measure(case: Case, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure the time of each mode's step by kind of operation, for each way of running it."""
    device, vit = options.device, case.base.startswith("vit")
    configure_algorithms(device, deterministic=False)  # as a run does
    device_context = DeviceContext(device, torch.preserve_format if vit else torch.channels_last)
    made, resident = loader_seconds(case, device_context, options.workers, folder)
    tf32 = device.type == "cuda" and (torch.backends.cuda.matmul.allow_tf32 if vit else torch.backends.cudnn.allow_tf32)
    fastest = peak(options.matrix or MATRIX[device.type], device, options.precision, tf32=tf32)
    # A profiler slows the device until the end of the process, so everything is timed before the first profile.
    for prepared in list(prepare(case, device_context, options)):
        within, kinds, count = profile_steps(prepared.step, options.steps, device)
        taken = prepared.seconds or within
        kinds["host"] = max(taken - sum(kinds.values()), 0.0)
        operations = 6 * case.batch_size * forward_cost(prepared.architecture, img_size=case.img_size, num_classes=10)
        beside = options.workers > 0 and not resident  # workers read during the step
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
    torch.compiler.reset()  # the next case does not use the compiled code of this one


def name_kernels() -> AbstractContextManager[None]:
    """Return a context in which compiled CPU kernels get names in profiles."""
    from torch._inductor import config

    return config.patch({"cpp.enable_kernel_profile": True})


def shares(result: dict[str, Any]) -> dict[str, float]:
    """Return the shares of a batch's time, step and wait, by kind, in percent."""
    whole = result["step_seconds"] + result["wait_seconds"]
    kinds = result["seconds_by_kind"] | {"loader": result["wait_seconds"]}
    return {name: 100 * kinds.get(name, 0.0) / whole for name in COLOURS}


def speeds(result: dict[str, Any]) -> tuple[float, float]:
    """Return the operations per second of the step and of its products, relative to the machine's peak."""
    kinds, at_peak = result["seconds_by_kind"], result["operations"] / result["peak"]
    products = kinds.get("products", 0.0) + kinds.get("attention", 0.0)
    return at_peak / result["step_seconds"], at_peak / products if products else 0.0


def draw(document: dict[str, Any], output: Path) -> Path:
    """Draw a bar for each step, divided by kind of operation, with its limit beside it."""
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
    style_axes(axes)
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(f"Time of a batch by kind of operation, and its limit ({machine_name(document)})", fontsize=11)
    figure.savefig(output, dpi=120)
    return output


def bound_cells(result: dict[str, Any]) -> list[str]:
    """Return the cells on arithmetic and launches; an empty list on a CPU."""
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
    show(
        f"training steps on {options.device}, {options.precision}, n = {options.steps} steps per profile", columns, rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="number of steps in a profile; by default 3 on a CPU, 20 on CUDA")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS["cuda"],
        help="ways of running a step; by default all that the device supports",
    )
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--matrix", type=int, help="side of the matrices for the peak; by default 2048 on a CPU, 8192 on CUDA"
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
