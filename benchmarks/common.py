"""Common parts of the benchmarks: interleaved timing, tables, and result files that state their origin."""

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import nn

import nestnet
from nestnet.models.registry import find_architecture
from nestnet.storage.atomic import write_atomically

CLASSES = 10
"""Number of classes of generated images."""

EPOCH = 50_000
"""Number of images of the epoch for which seconds are reported: that of CIFAR."""

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """Pair of networks, and the batch that they are measured on."""

    base: str
    motivated: str
    img_size: int
    batch_size: int

    @property
    def name(self) -> str:
        names = f"{self.base} in {self.motivated}".replace("_patch16_224", "")
        return f"{names}, {self.batch_size} x {self.img_size} px"

    def nested(self, device: torch.device) -> nestnet.NestedModel:
        takes_img_size = find_architecture("motivated", self.motivated).takes_img_size
        options = {"img_size": self.img_size} if takes_img_size else {}
        return nestnet.create_model(self.base, self.motivated, num_classes=10, **options).to(device)

    def batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.randn(self.batch_size, 3, self.img_size, self.img_size, device=device)
        return images, torch.randint(10, (self.batch_size,), device=device)

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Parse `BASE:MOTIVATED:PIXELS:BATCH`."""
        base, motivated, pixels, images = text.split(":")
        return cls(base, motivated, int(pixels), int(images))


def choose_cases(options: argparse.Namespace, cases: list[Case], cuda_cases: list[Case]) -> list[Case]:
    """Return the requested cases, or the standard ones for the device: a GPU gets bigger batches."""
    return cuda_cases if options.device.type == "cuda" and options.case is cases else options.case


def add_common_options(parser: argparse.ArgumentParser, cases: list[Case]) -> None:
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument(
        "--case",
        nargs="*",
        type=Case.parse,
        default=cases,
        help="BASE:MOTIVATED:PIXELS:BATCH, instead of the standard cases",
    )
    parser.add_argument("--output", type=Path, help="the result file")


def add_figure_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-figure", action="store_true", help="do not draw the figure; --draw can draw it later")
    parser.add_argument(
        "--draw", type=Path, metavar="RESULT", help="draw the figure of this result file, and measure nothing"
    )


def draw_figure(draw: Callable[[dict[str, Any], Path], Path], result: Path) -> None:
    """Draw what a result file holds, beside it.

    Args:
        draw: function that draws the figure of a result to a path, and returns the path.
        result: result file of the same program.
    """
    document = json.loads(result.read_text())
    print(draw(document, result.with_suffix(".png")))


def machine_name(document: dict[str, Any]) -> str:
    """Return the name of the GPU or processor in a result file, for titles."""
    found = document["hardware"]
    return found["accelerator"] or found["processor"]


def sgd(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def step(
    forward: Callable[[torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    """Run a complete training step, including the reading of the loss."""
    loss = nn.functional.cross_entropy(forward(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def seconds(function: Callable[[], Any]) -> float:
    """Return the seconds that one call takes, including the work that it queues on the device."""
    started = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def time_in_turn(
    functions: dict[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 2,
    *,
    before: dict[str, Callable[[], Any]] | None = None,
    limit: float = math.inf,
) -> dict[str, list[float]]:
    """Time each function once per round, in rotating order, so that other load on the machine affects all equally.

    Args:
        before: function to call, untimed, before each timing of a function, by name.
        limit: seconds after which no further round begins, once three rounds are finished.
    """
    names, before = list(functions), before or {}
    samples: dict[str, list[float]] = {name: [] for name in names}
    started = math.inf
    for round_number in range(-warmup, rounds):
        if round_number == 0:
            started = time.perf_counter()
        elif round_number >= 3 and time.perf_counter() - started > limit:
            break
        for shift in range(len(names)):
            name = names[(round_number + shift) % len(names)]
            if name in before:
                seconds(before[name])
            taken = seconds(functions[name])
            if round_number >= 0:
                samples[name].append(taken)
    return samples


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return the median of the ratios of each round, and their first and third quartiles."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, low, high


def spread(values: tuple[float, float, float]) -> str:
    """Format a median with its quartiles for a table."""
    middle, low, high = values
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def make_images(root: Path, count: int, size: int) -> None:
    """Generate `count` JPEG files to train on, and one per class to test on, as hard to decode as photographs."""
    generator = torch.Generator().manual_seed(0)
    for part, number in (("train", count), ("test", CLASSES)):
        for index in range(number):
            blotches = torch.rand(1, 3, 8, 8, generator=generator)
            pixels = nn.functional.interpolate(blotches, (size, size), mode="bicubic")[0].permute(1, 2, 0)  # H W C
            pixels = (pixels + 0.05 * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
            folder = root / part / f"class {index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * pixels).byte().numpy()).save(folder / f"{index}.jpg", quality=90)


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table as Markdown with aligned columns."""
    print(f"\n{title}\n\n{format_table(columns, rows)}")


def format_table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table as Markdown with aligned columns."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = []
    for cells in (columns, ["-" * width for width in widths], *rows):
        lines.append("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |")
    return "\n".join(lines)


def write(name: str, content: dict[str, Any], output: Path | None, device: torch.device) -> Path:
    """Write a result file: the command, the hardware, the versions, and the raw samples.

    A program calls this function after each result, with all results so far, because it may be stopped at any time.
    """
    path = output or RESULTS / f"{name}-{device.type}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**describe_origin(device), **content}, indent=1) + "\n")
    return path


def describe_origin(device: torch.device) -> dict[str, Any]:
    """Return the command, the date, the hardware and the versions, which every result file states."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(shorten_path, sys.argv[1:])]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": hardware(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "nestnet": nestnet.__version__,
        },
    }


def shorten_path(argument: str) -> str:
    """Return an argument as it is, or the last part of a path that only exists on this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def hardware(device: torch.device) -> dict[str, Any]:
    """Return the processor, and the GPU if one was measured."""
    found: dict[str, Any] = {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "accelerator": properties.name,
            "accelerator_memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
