"""Training epochs of a nested run, from the plain default to the best configuration, compared with timm's networks alone.

    python benchmarks/epochs.py [--rounds 6] [--batches 6] [--device cpu] [--case resnet20:resnet32:32:128 ...]
    python benchmarks/epochs.py --root FOLDER --images 5000     # your own images, and longer epochs

`plain` is eager, in float32, with images read one by one from JPEG files. The other configurations add:

    channels_last         channels last
    resident              the same, and images on the device as bytes
    compile               the same as resident, compiled
    bfloat16              the same as resident, in bfloat16
    bfloat16_compile      the same as bfloat16, compiled
    cuda_graphs           the same as bfloat16, with each step captured as CUDA graphs
    cuda_graphs_compile   the same as bfloat16_compile, with each step captured as CUDA graphs

Configurations that a case does not support are left out: resident images above 64 pixels, channels last for a ViT,
CUDA graphs on a CPU, and bfloat16 where `precision: auto` does not choose it. `--configurations` selects the
configurations to measure.

All of them train in `Trainer`: nested, with every 6th batch motivated, as often as k = 2 falling losses are expected
to motivate; and timm's standalone base and motivated network in place of the nested one. One epoch of each is timed in
every round, in turn, so that other load on the machine affects all equally; epochs that compile and capture are left
out.

The table has the median and the quartiles of the ratios of each round. The ideal is f * T_motivated + (1 - f) *
T_base, with the times T of timm's networks in the same round and configuration, and f the motivated fraction. The
epoch in seconds is one of 50,000 images, at the median speed. Data wait is the share of the epoch in which the host
waited for images. Raw samples are written to benchmarks/results/epochs-DEVICE.json, with a figure beside them.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch
from common import (
    EPOCH,
    Case,
    add_common_options,
    add_figure_options,
    draw_figure,
    machine_name,
    make_images,
    ratio,
    show,
    spread,
    time_in_turn,
    write,
)
from torch import nn

from nestnet import Mode, NestedModel, TrainStep
from nestnet.analysis.plotting import MODE_COLOURS, style_axes
from nestnet.conditions.base import Condition
from nestnet.config.schema import Config
from nestnet.config.schema_sections import DataConfig, ModelConfig, MotivationConfig, OptimizerConfig, ScheduleConfig
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.transformed_images import TrainImages
from nestnet.optim.factory import create_optimizer
from nestnet.precision import detect_bfloat16
from nestnet.runs.directory import RunDirectory
from nestnet.step.cuda_graphs import WARM_UP
from nestnet.training.epoch_totals import EpochTotals
from nestnet.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CASES = {
    "cpu": [Case("resnet20", "resnet32", 32, 128)],
    "cuda": [
        Case("resnet20", "resnet32", 32, 128),
        Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 64),
        Case("efficientnet_b0", "efficientnet_b1", 224, 64),
    ],
}
BATCHES = {"cpu": 6, "cuda": 96}
RESIDENT = ("channels_last", "resident")
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "channels_last": ("channels_last",),
    "resident": RESIDENT,
    "compile": (*RESIDENT, "compile"),
    "bfloat16": (*RESIDENT, "bfloat16"),
    "bfloat16_compile": (*RESIDENT, "bfloat16", "compile"),
    "cuda_graphs": (*RESIDENT, "bfloat16", "cuda_graphs"),
    "cuda_graphs_compile": (*RESIDENT, "bfloat16", "compile", "cuda_graphs"),
}
"""Settings that each configuration adds to the plain one."""

TRAININGS: dict[str, Mode | None] = {"nested": None, "timm base": Mode.BASE, "timm motivated": Mode.MOTIVATED}
"""Networks that are trained: the nested one, or timm's network of a mode."""

PERIOD = 6
"""(k+1)! for k = 2: the batches among which one is motivated, if successive losses are independent."""


class FixedModes(Condition):
    """Condition with the same sequence of modes in every epoch."""

    def __init__(self, modes: list[Mode]) -> None:
        self.modes, self.position = modes, 0

    @property
    def mode(self) -> Mode:
        return self.modes[self.position % len(self.modes)]

    def update(self, loss: float) -> None:
        self.position += 1

    def reset(self) -> None:
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class StandaloneNetwork(nn.Module):
    """timm's network in place of a nested one: it is trained in every mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def subnet(self, mode: Mode) -> nn.Module:
        return self.network


def choose_configurations(case: Case, images: ImageData, device: torch.device) -> dict[str, tuple[str, ...]]:
    """Return the configurations of a case without the settings that it does not support; repeated ones are left out."""
    cannot_have = {
        "channels_last": case.base.startswith("vit"),
        "resident": images.reason_not_resident is not None,
        "bfloat16": not detect_bfloat16(device).is_native,
        "cuda_graphs": device.type != "cuda",
    }
    found: dict[str, tuple[str, ...]] = {}
    for name, settings in CONFIGURATIONS.items():
        had = tuple(setting for setting in settings if not cannot_have.get(setting))
        if had not in found.values():
            found[name] = had
    return found


def plain(case: Case, root: Path, options: argparse.Namespace) -> Config:
    data = DataConfig(name="folder", root=str(root), img_size=case.img_size, batch_size=case.batch_size)
    return Config(
        model=ModelConfig(base=case.base, motivated=case.motivated),
        data=replace(data, loader="files", workers=options.workers),
        optimizer=OptimizerConfig(lr=0.01),  # nothing can be learnt from random labels; training must only not diverge
        schedule=ScheduleConfig(name="none"),
        motivation=MotivationConfig(k=2),
        device=str(options.device),
    )


def with_settings(config: Config, settings: tuple[str, ...]) -> Config:
    """Return the plain configuration with the named settings."""
    for name in settings:
        if name == "resident":
            config = replace(config, data=replace(config.data, loader="resident"))
        elif name == "bfloat16":
            config = replace(config, precision="bfloat16")
        else:
            switched_on: dict[str, Any] = {name: True}
            config = replace(config, **switched_on)
    return config


def build(config: Config, images: ImageData, modes: list[Mode], alone: Mode | None) -> Trainer:
    """Build a trainer of the nested network, or of timm's network of a mode in its place."""
    trainer = Trainer(config, images=images, condition=FixedModes(modes if alone is None else [alone]))
    if alone is not None:
        network = StandaloneNetwork(trainer.net.standalone(alone)).to(trainer.device)
        if config.channels_last:
            network = network.to(memory_format=torch.channels_last)
        trainer.net = cast(NestedModel, network)
        trainer.optimizer = create_optimizer(network, trainer.config)
        trainer.step = TrainStep(
            trainer.net,
            trainer.optimizer,
            trainer.objectives,
            precision=config.precision,
            compile="inductor" if config.compile else None,
            cuda_graphs=config.cuda_graphs,
            skip_non_finite=True,  # as in the nested run
        )
    return trainer


def load_into_memory(images: ImageData) -> ImageData:
    """Return the same images in memory, so that a trainer with resident images only has to copy them to its device."""
    stored = images.train.dataset
    read = [stored[index] for index in range(len(stored))]
    return replace(images, train=TrainImages(read, images.train.transform, torch_only=images.train.torch_only))


def epoch(trainer: Trainer, waits: list[float]) -> None:
    trainer.epoch()
    waits.append(trainer.totals.metrics(trainer.config.data.images_per_batch)["data_wait"])
    trainer.epochs_done, trainer.totals = trainer.epochs_done + 1, EpochTotals()


def measure(case: Case, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the seconds and data wait of each epoch, by configuration and by network."""
    batches = options.batches or BATCHES[options.device.type]
    if options.images:
        batches = max(options.images // case.batch_size, 1)
    modes = [Mode.MOTIVATED if number % PERIOD == PERIOD - 1 else Mode.BASE for number in range(batches)]
    count = batches * case.batch_size
    root = options.root or folder / f"{case.img_size}px {count}"
    if not root.exists():
        make_images(root, count, case.img_size)
    config = plain(case, root, options)
    images = load_data(config.data, config.model)
    if len(images.train) < count:
        raise SystemExit(
            f"--batches {batches}: {root} has only {len(images.train)} training images, and {count} are due"
        )
    images = images.resplit(range(count), range(1))
    read = load_into_memory(images) if images.reason_not_resident is None else images
    # A mode is compiled at its first step, and captured after some more. A capture releases cached memory, which the other
    # trainings have to allocate again in the following epoch.
    rarest = min(modes.count(mode) for mode in set(modes))
    warmup = -(-(WARM_UP + 1) // rarest) + 1 if options.device.type == "cuda" else 1
    functions: dict[str, Callable[[], None]] = {}
    waits: dict[str, list[float]] = {}
    names = choose_configurations(case, images, options.device)
    if options.configurations:
        names = {name: CONFIGURATIONS[name] for name in options.configurations}
    with ExitStack() as stack:
        for name, settings in names.items():
            config = with_settings(plain(case, root, options), settings)
            for training, alone in TRAININGS.items():
                key = f"{name}: {training}"
                trainer = build(config, read if "resident" in settings else images, modes, alone)
                trainer.config = replace(trainer.config, run_dir=str(folder / "runs" / case.name / key))
                trainer.run = stack.enter_context(RunDirectory.new(trainer.config))
                trainer.run.begin(trainer.config, trainer.record, steps=0, epochs=0)
                waits[key] = []
                functions[key] = partial(epoch, trainer, waits[key])
        print(
            f"{case.name}: {', '.join(names)}; {warmup + options.rounds} epochs of {batches} batches each", flush=True
        )
        taken = time_in_turn(functions, options.rounds, warmup)
    torch.compiler.reset()  # the next case does not use the compiled code of this one
    samples = {
        name: {
            training: {"seconds": taken[f"{name}: {training}"], "data_wait": waits[f"{name}: {training}"][warmup:]}
            for training in TRAININGS
        }
        for name in names
    }
    fraction = modes.count(Mode.MOTIVATED) / batches
    return {"case": vars(case), "batches": batches, "motivated_fraction": fraction, "samples": samples}


def summarise(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with medians and ratios by configuration."""
    count, fraction = result["batches"] * result["case"]["batch_size"], result["motivated_fraction"]
    first, summary = next(iter(result["samples"])), {}
    for name, by_training in result["samples"].items():
        times = {training: samples["seconds"] for training, samples in by_training.items()}
        ideal = [
            fraction * motivated + (1 - fraction) * base
            for base, motivated in zip(times["timm base"], times["timm motivated"], strict=True)
        ]
        summary[name] = {
            "images_per_second": {t: [count / s for s in quartiles(samples)] for t, samples in times.items()},
            "epoch_seconds": EPOCH / count * median(times["nested"]),
            "data_wait": median(by_training["nested"]["data_wait"]),
            "faster_than_first": ratio(result["samples"][first]["nested"]["seconds"], times["nested"]),
            "over_ideal": ratio(times["nested"], ideal),
        }
    best = max(summary, key=lambda name: summary[name]["faster_than_first"][0])
    return result | {"summary": summary, "best": best}


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    """Return the median, and the first and third quartile."""
    return ratio(samples, [1.0] * len(samples))


def draw(document: dict[str, Any], output: Path) -> Path:
    """Draw the images per second of each configuration and network, and the ratio of the nested epoch to the ideal one."""
    from matplotlib.figure import Figure

    results = document["results"]
    bars = sum(len(result["summary"]) for result in results)
    figure = Figure(figsize=(11, 1.3 + 0.75 * bars + 0.5 * len(results)), layout="constrained")
    rows = figure.subplots(
        len(results), 2, squeeze=False, width_ratios=(3, 2), height_ratios=[len(r["summary"]) for r in results]
    )
    for result, (left, right) in zip(results, rows, strict=True):
        _draw_speeds(left, result)
        _draw_ideal(right, result)
        left.set_title(f"{Case(**result['case']).name}, {result['motivated_fraction']:.0%} motivated", fontsize=10)
    figure.legend(
        *rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    rows[-1][0].set_xlabel("images per second (median; lines: quartiles)")
    rows[-1][1].set_xlabel("epoch / ideal of timm's networks (median, quartiles)")
    figure.suptitle(f"Training epochs ({machine_name(document)})", fontsize=11)
    figure.savefig(output, dpi=120)
    return output


def _draw_speeds(axes: "Axes", result: dict[str, Any]) -> None:
    colours = {
        "nested": MODE_COLOURS["both"],
        "timm base": MODE_COLOURS["base"],
        "timm motivated": MODE_COLOURS["motivated"],
    }
    for offset, (training, colour) in enumerate(colours.items()):
        speeds = [summary["images_per_second"][training] for summary in result["summary"].values()]
        middles = [middle for middle, _, _ in speeds]
        # more seconds mean fewer images per second, so the quartiles are swapped
        errors = [[middle - high for middle, _, high in speeds], [low - middle for middle, low, _ in speeds]]
        heights = [place + 0.26 * (offset - 1) for place in range(len(speeds))]
        label = training if training == "nested" else f"{training} alone"
        axes.barh(heights, middles, 0.24, color=colour, label=label, xerr=errors, error_kw={"lw": 1, "alpha": 0.7})
    for place, summary in enumerate(result["summary"].values()):
        speed = summary["images_per_second"]["nested"]
        text = f"{speed[0]:,.0f}: {summary['faster_than_first'][0]:.2f} times"
        axes.annotate(text, (speed[1], place - 0.26), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(result["summary"])), _labels(result))
    axes.invert_yaxis()
    axes.margins(x=0.2)
    style_axes(axes)


def _draw_ideal(axes: "Axes", result: dict[str, Any]) -> None:
    ratios = [summary["over_ideal"] for summary in result["summary"].values()]
    errors = [[middle - low for middle, low, _ in ratios], [high - middle for middle, _, high in ratios]]
    places = list(range(len(ratios)))
    axes.errorbar(
        [middle for middle, _, _ in ratios], places, xerr=errors, fmt="o", color=MODE_COLOURS["both"], capsize=3
    )
    axes.axvline(1, color="0.4", lw=1, ls="--")
    axes.set_yticks(places, [""] * len(places))
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.margins(x=0.15)
    style_axes(axes)


def _labels(result: dict[str, Any]) -> list[str]:
    return [name.replace("_", " ") for name in result["summary"]]


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    rows = []
    for result in results:
        for label, summary in zip(_labels(result), result["summary"].values(), strict=True):
            rows.append(
                [
                    Case(**result["case"]).name,
                    label,
                    *(f"{summary['images_per_second'][training][0]:.0f}" for training in TRAININGS),
                    f"{summary['epoch_seconds']:.1f}",
                    f"{summary['data_wait']:.1%}",
                    spread(summary["faster_than_first"]),
                    spread(summary["over_ideal"]),
                ]
            )
    columns = ["networks and batch", "configuration", "nested, images/s", "timm base alone", "timm motivated alone"]
    columns += [f"nested: {EPOCH:,} images, s", "data wait", "times as fast as the first", "epoch / ideal"]
    show(f"training epochs on {options.device}, n = {options.rounds}; workers: {options.workers}", columns, rows)
    for result in results:
        best, names = result["best"], list(result["summary"])
        gained = spread(result["summary"][best]["faster_than_first"])
        print(f"\n{Case(**result['case']).name}: with {best} {gained} times as fast as {names[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=6, help="number of measured epochs of each configuration and network"
    )
    parser.add_argument("--batches", type=int, help="number of batches of an epoch; by default 6 on a CPU, 96 on CUDA")
    parser.add_argument("--images", type=int, help="number of images of an epoch, in place of --batches")
    parser.add_argument(
        "--root", type=Path, help="folder with train/ and test/ of your own, in place of generated images"
    )
    parser.add_argument(
        "--workers", type=int, help="processes that read JPEG files; by default 0 on a CPU, on CUDA up to 8"
    )
    parser.add_argument(
        "--configurations",
        nargs="+",
        choices=CONFIGURATIONS,
        help="configurations to measure; by default all that the case supports",
    )
    add_common_options(parser, [])
    add_figure_options(parser)
    options = parser.parse_args()
    if options.draw:
        draw_figure(draw, options.draw)
        return
    if options.workers is None:  # on a CPU they would compete with training for cores
        options.workers = min(os.cpu_count() or 1, 8) if options.device.type == "cuda" else 0

    with tempfile.TemporaryDirectory() as folder:
        results: list[dict[str, Any]] = []
        for case in options.case or CASES[options.device.type]:
            results.append(summarise(measure(case, Path(folder), options)))
            content = {"rounds": options.rounds, "workers": options.workers, "results": results}
            path = write("epochs", content, options.output, options.device)
    report(results, options)
    print(path)
    if not options.no_figure:
        draw_figure(draw, path)


if __name__ == "__main__":
    main()
