"""The cost of the host's decision, which has to read each step's loss before it knows the next step's mode.

    python benchmarks/decision.py [--device cuda] [--rounds 10] [--steps 50] [--case resnet20:resnet32:32:128 ...]

A loop that knows its modes beforehand never waits for the device. One that depends on its losses waits at each step,
either for the whole step (`waiting`: `TrainStep(overlap=False)`) or, with `overlap`, for the forward pass only, while
the device continues with the backward pass and the update. The seconds per step of these methods are measured in turn,
eager and on CUDA also with CUDA graphs, for

- a fixed sequence of modes, every 6th batch motivated: with losses that are not read at all, and with losses that are
  read at each step although nothing depends on them;
- the decisions of `LossDecrease(2)`;
- the decisions of `GradientNormIncrease(2)`, whose number is known only after the backward pass.

All methods start from the same weights and train on the same generated batches with deterministic convolutions, so
with and without overlap they must make the same decision in every step; otherwise the program ends with an error. The
cost of a decision is the ratio to the method that reads nothing if the modes are the same, and otherwise the ratio
waiting / overlap. On a CPU nothing overlaps, and both methods are the same.

Writes a table, the raw samples in benchmarks/results/decision-DEVICE.json, and a figure beside them.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
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
    ratio,
    sgd,
    show,
    spread,
    time_in_turn,
    write,
)
from torch import Tensor, nn

from nestnet import GradientNormIncrease, LossDecrease, Mode, TrainStep
from nestnet.analysis.plotting import MODE_COLOURS, style_axes
from nestnet.step.cuda_graphs import WARM_UP

CASES = [Case("resnet20", "resnet32", 32, 128)]
STEPS = {"cpu": 6, "cuda": 50}
PERIOD = 6
"""Period of the motivated batches in a fixed sequence: (k+1)! for k = 2."""

Batches = list[tuple[Tensor, Tensor]]


@dataclass
class Training:
    """Training that proceeds some steps at a time.

    Attributes:
        condition: condition that decides; `None` for the fixed sequence.
        read: whether the loss of each step is read.
        modes: modes of all steps that decided.
    """

    step: TrainStep
    batches: Batches
    condition: LossDecrease | GradientNormIncrease | None
    read: bool
    modes: list[Mode] = field(default_factory=list)

    def warm_up(self) -> None:
        """Run steps of both modes, which capture the CUDA graphs."""
        for mode in Mode:
            for _ in range(WARM_UP + 1):
                self.step(*self.batches[0], mode).loss()

    def run(self, steps: int) -> None:
        if self.condition is not None:
            self.condition.reset()
        for number in range(steps):
            if self.condition is not None:
                mode = self.condition.mode
            else:
                mode = Mode.MOTIVATED if number % PERIOD == PERIOD - 1 else Mode.BASE
            outcome = self.step(*self.batches[number % len(self.batches)], mode)
            self.modes.append(mode)
            if isinstance(self.condition, GradientNormIncrease):
                assert outcome.gradient_norm is not None
                self.condition.update(outcome.gradient_norm())
            elif self.condition is not None:
                self.condition.update(outcome.loss())
            elif self.read:
                outcome.loss()


def ways(case: Case, device: torch.device, *, graphs: bool) -> dict[str, dict[str, Training]]:
    """Return the methods for each sequence of modes, all starting from the same weights."""
    torch.manual_seed(0)
    net = case.nested(device)
    batches, weights = [case.batch(device) for _ in range(8)], net.state_dict()

    def way(condition: LossDecrease | GradientNormIncrease | None, *, overlap: bool, read: bool = True) -> Training:
        copy = case.nested(device)
        copy.load_state_dict(weights)
        watches_norm = isinstance(condition, GradientNormIncrease)
        settings: dict[str, Any] = {"gradient_norm": watches_norm, "cuda_graphs": graphs, "overlap": overlap}
        return Training(TrainStep(copy, sgd(copy), nn.functional.cross_entropy, **settings), batches, condition, read)

    return {
        "fixed": {
            "unread": way(None, overlap=True, read=False),
            "overlap": way(None, overlap=True),
            "waiting": way(None, overlap=False),
        },
        "falling losses": {
            "overlap": way(LossDecrease(2), overlap=True),
            "waiting": way(LossDecrease(2), overlap=False),
        },
        "rising gradient norms": {
            "overlap": way(GradientNormIncrease(2), overlap=True),
            "waiting": way(GradientNormIncrease(2), overlap=False),
        },
    }


def measure(case: Case, device: torch.device, *, graphs: bool, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Measure the seconds per step of each method for each sequence of modes, and the decisions."""
    by_sequence = ways(case, device, graphs=graphs)
    functions: dict[str, Callable[[], None]] = {}
    for sequence, by_name in by_sequence.items():
        for name, way in by_name.items():
            way.warm_up()
            functions[f"{sequence}: {name}"] = partial(way.run, steps)
    samples = time_in_turn(functions, rounds, warmup=1)
    results = []
    for sequence, by_name in by_sequence.items():
        taken = {name: [s / steps for s in samples[f"{sequence}: {name}"]] for name in by_name}
        modes = by_name["overlap"].modes
        results.append(
            {
                "case": vars(case),
                "step": "CUDA graphs" if graphs else "eager",
                "sequence": sequence,
                "alike": all(way.modes == modes for way in by_name.values()),
                "motivated_fraction": modes.count(Mode.MOTIVATED) / len(modes),
                "waiting_over_overlap": ratio(taken["waiting"], taken["overlap"]),
                "overlap_over_unread": ratio(taken["overlap"], taken["unread"]) if "unread" in taken else None,
                "modes": [str(mode) for mode in modes],
                "seconds": taken,
            }
        )
    return results


def draw(document: dict[str, Any], output: Path) -> Path:
    """Draw the milliseconds per step of each method, with quartiles: a panel for each case and kind of step."""
    from matplotlib.figure import Figure

    results = document["results"]
    colours = {"unread": MODE_COLOURS["both"], "overlap": MODE_COLOURS["base"], "waiting": MODE_COLOURS["motivated"]}
    panels: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        panels.setdefault(f"{Case(**result['case']).name}, {result['step']}", []).append(result)
    figure = Figure(figsize=(4 + 3.5 * len(panels), 4), layout="constrained")
    for axes, (title, group) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for offset, (name, colour) in enumerate(colours.items()):
            found = [(place, r["seconds"][name]) for place, r in enumerate(group) if name in r["seconds"]]
            times = [[1000 * value for value in ratio(taken, [1.0] * len(taken))] for _, taken in found]
            errors = [[middle - low for middle, low, _ in times], [high - middle for middle, _, high in times]]
            places, heights = [place + 0.27 * (offset - 1) for place, _ in found], [middle for middle, _, _ in times]
            bars = axes.bar(places, heights, 0.25, color=colour, label=name, yerr=errors, error_kw={"lw": 1})
            axes.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
        axes.set_xticks(range(len(group)), [result["sequence"] for result in group])
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.12)
        style_axes(axes)
    figure.axes[0].set_ylabel("milliseconds per step (median; lines: quartiles)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"What it costs to read each loss before the next step ({machine_name(document)})", fontsize=11)
    figure.savefig(output, dpi=120)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="number of measurements of each method")
    parser.add_argument("--steps", type=int, help="number of steps of a measurement; by default 6 on a CPU, 50 on CUDA")
    add_common_options(parser, CASES)
    add_figure_options(parser)
    options = parser.parse_args()
    if options.draw:
        draw_figure(draw, options.draw)
        return
    steps = options.steps or STEPS[options.device.type]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # see torch.use_deterministic_algorithms
    torch.backends.cudnn.deterministic = True

    results: list[dict[str, Any]] = []
    for case in options.case:
        for graphs in (False, True) if options.device.type == "cuda" else (False,):
            results += measure(case, options.device, graphs=graphs, rounds=options.rounds, steps=steps)
            content = {"rounds": options.rounds, "steps": steps, "results": results}
            path = write("decision", content, options.output, options.device)
    rows = [
        [
            f"{Case(**result['case']).name}, {result['step']}",
            result["sequence"],
            f"{result['motivated_fraction']:.1%}",
            *(
                f"{1000 * median(result['seconds'][name]):.2f}" if name in result["seconds"] else ""
                for name in ("unread", "overlap", "waiting")
            ),
            spread(result["overlap_over_unread"]) if result["overlap_over_unread"] else "",
            spread(result["waiting_over_overlap"]),
            "yes" if result["alike"] else "NO",
        ]
        for result in results
    ]
    columns = ["networks, batch and step", "modes", "motivated", "unread, ms", "overlap, ms", "waiting, ms"]
    columns += ["overlap / unread", "waiting / overlap", "same modes"]
    show(f"a step on {options.device}, float32, SGD, n = {options.rounds} times {steps} steps", columns, rows)
    if options.device.type != "cuda":
        print(
            "\nOn a CPU the loss is known when the step returns: nothing overlaps, and the methods differ only by noise."
        )
    print(path)
    if not options.no_figure:
        draw_figure(draw, path)
    if not all(result["alike"] for result in results):
        raise SystemExit("with and without overlap the modes differ: see `same modes` in the table")


if __name__ == "__main__":
    main()
