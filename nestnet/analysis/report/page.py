"""The page of a report: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nestnet.analysis.figures import MANY
from nestnet.analysis.report.figures import Drawn
from nestnet.analysis.report.images import Judged, judged_parts
from nestnet.analysis.report.markup import Html, figure, joined, lines, table, tag, words
from nestnet.analysis.report.predictions import Predictions
from nestnet.analysis.report.style import PAGE, STYLE
from nestnet.analysis.report.summary import RunSummary
from nestnet.analysis.report.words import (
    ALONE,
    against_alone,
    batches,
    condition,
    differing,
    duration,
    macs,
    outcome,
    percent,
    progress,
    spread,
)
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_html
from nestnet.training.subnet_warnings import untrained


@dataclass(frozen=True)
class Section:
    """All that the page says of a run.

    Attributes:
        run: its numbers.
        figures: by name: `loss`, `top1`, `motivated_fraction`, `cost`, and `confusion_base`, `confusion_motivated`, as
            far as there are such.
        judged: or why there is nothing of the kind, in words.
        configuration: the run's `config.yaml`.
        version: of nestnet, which exported the run; `None` if it is not known.
    """

    run: RunSummary
    figures: Mapping[str, Drawn]
    judged: Judged | str
    configuration: str
    version: str | None = None

    @property
    def last_judged(self) -> Predictions | None:
        """Predictions of the weights that the last finished epoch left."""
        judged, run = self.judged, self.run
        if isinstance(judged, str) or judged.steps != len(run.steps) - run.steps_beyond:
            return None
        return judged.predictions


def page(
    sections: Sequence[Section], groups: Sequence[Sequence[RunSummary]], comparison: Drawn | None, made: str
) -> str:
    """The whole page.

    Args:
        groups: of the runs; those that differ in their seed alone are together.
        comparison: a figure of several runs.
        made: when, and with what.
    """
    several = len(sections) > 1
    title = f"Report of {len(sections)} runs" if several else f"Report of {sections[0].run.name}"
    parts: list[Html] = []
    if several:
        parts.append(tag("h1", title))
        links = (tag("li", tag("a", s.run.name, href=f"#run-{n}")) for n, s in enumerate(sections, start=1))
        parts += [tag("nav", tag("ul", *links)), compared(groups, comparison)]
    parts += [run_section(section, number, single=not several) for number, section in enumerate(sections, start=1)]
    parts.append(tag("footer", made))
    return PAGE.substitute(title=for_html(f"{title} - nestnet"), style=STYLE, body=joined(parts))


def compared(groups: Sequence[Sequence[RunSummary]], comparison: Drawn | None) -> Html:
    """Several runs side by side: a row a group of seeds."""
    head = ["runs", "networks, data", "condition", "epochs", "base: top-1, %", "motivated: top-1, %"]
    head += ["motivated batches (forecast), %", "cost / base alone", "training time"]
    rows = []
    for group, apart in zip(groups, differing(groups), strict=True):
        run, started = group[0], [run for run in group if run.epochs_done]
        done = {f"{run.epochs_done}" if run.finished else f"{run.epochs_done} of {run.config.epochs}" for run in group}
        fraction = [100 * run.motivated_fraction for run in group if run.motivated_fraction is not None]
        cost = [run.cost / run.networks.base.macs for run in group if run.cost is not None]
        expected = "" if run.expected_fraction is None else f" ({100 * run.expected_fraction:.2f})"
        top1 = [
            spread([float(run.top1(mode)[-1]) for run in started]) if started and mode in run.trained else "-"
            for mode in Mode
        ]
        rows.append(
            [
                ", ".join(f"{run.name} (seed {run.config.seed})" for run in group),
                words(f"{run.names.base} in {run.names.motivated}, {run.config.data.name}"),
                words("; ".join(filter(None, [condition(run.config), apart]))),
                ", ".join(sorted(done)),
                *top1,
                words(f"{spread(fraction) if fraction else '-'}{expected}"),
                spread(cost, 3) if cost else "-",
                duration(sum(run.seconds for run in group) / len(group)),
            ]
        )
    note = "Top-1 on the test images after the last epoch. Runs that differ in their seed alone make one row: mean ± sample "
    note += "standard deviation; of a single run there is no telling how much another seed would change. Cost: "
    note += "multiply-accumulates of an average forward pass in training. Time: mean of a run, without evaluation."
    said = [tag("p", sentence, class_="lead") for sentence in against_alone(groups)]
    drawn = (
        [figure(comparison, "Top-1 over the epochs; the runs of a row share a colour.", class_="wide")]
        if comparison
        else []
    )
    return tag(
        "section",
        tag("h2", "Side by side"),
        *said,
        table(head, rows, class_="numbers compared"),
        tag("p", note, class_="note"),
        *drawn,
    )


def run_section(section: Section, number: int, *, single: bool) -> Html:
    """A run, from its summary to its configuration."""
    run, figures = section.run, section.figures
    parts = [tag("h1" if single else "h2", run.name)]
    parts.append(tag("p", f"{run.names.base} in {run.names.motivated}: {run.path}", class_="note"))
    if not run.finished:
        parts.append(tag("p", progress(run), class_="warning"))
    if len(run.steps):
        parts += [tag("p", sentence, class_="lead") for sentence in outcome(run, section.last_judged)]
        if single and run.finished and len(run.trained) > 1:
            parts.append(tag("p", ALONE, class_="lead"))
    if run.skipped:
        parts.append(tag("p", f"Skipped: {batches(run.skipped)}, whose loss was NaN or infinite.", class_="warning"))
    if run.finished:
        said = (untrained(mode, run.trained_batches) for mode in Mode)
        parts += [tag("p", f"{sentence[0].upper()}{sentence[1:]}.", class_="warning") for sentence in said if sentence]
    parts += [networks_table(run), facts(section)]
    medians = "; lines are running medians" if len(run.steps) > MANY else ""
    by_validation = ", chosen on the validation images" if run.has_validation else ""
    captions = {
        "loss": f"The loss of each batch{medians}, and the learning rate.",
        "top1": f"Top-1 on the test images after each epoch; a ring marks the best{by_validation}.",
        "motivated_fraction": f"Motivated batches in each epoch. {forecast_note(run)}",
        "cost": "Average forward pass in training, in multiply-accumulates, against that of the base alone.",
    }
    drawn = [
        figure(figures[n], c, class_="wide" if n == "loss" else "third") for n, c in captions.items() if n in figures
    ]
    parts += [tag("h3", "Training"), tag("div", *drawn, class_="figures three")] if drawn else []
    parts += [tag("h3", "Test images")]
    if isinstance(section.judged, str):
        parts.append(tag("p", f"No confusion matrices and no images: {section.judged}", class_="warning"))
    else:
        parts += [*judged_parts(section.judged, figures)]
    parts.append(
        tag("details", tag("summary", "Configuration"), tag("pre", lines(section.configuration), class_="scroll"))
    )
    return tag("section", *parts, id=f"run-{number}")


def forecast_note(run: RunSummary) -> str:
    """What the forecast of motivated batches rests on."""
    if run.expected_fraction is None:
        return f"There is no forecast for {run.config.motivation.name}."
    if run.config.motivation.name in ("loss_decrease", "held_out_loss_decrease", "gradient_norm_increase"):
        return "The forecast is that of independent batches, in epochs of this length."
    return ""


def networks_table(run: RunSummary) -> Html:
    """Both networks beside each other."""
    cost = run.cost
    rows: list[list[object]] = [["network", *(run.names.of(mode) for mode in Mode)]]
    rows.append(["parameters", *(f"{run.networks.of(mode).parameters:,}" for mode in Mode)])
    rows.append(["forward pass, MACs", *(macs(run.networks.of(mode).macs) for mode in Mode)])
    if run.epochs_done:
        trained = [mode in run.trained for mode in Mode]
        final = [f"{run.top1(mode)[-1]:.2f} %" for mode in Mode]
        best = [f"{top1:.2f} % (epoch {epoch})" for top1, epoch in (run.best(mode) for mode in Mode)]
        none = "not trained"
        rows.append([f"top-1 after epoch {run.epochs_done}", *np.where(trained, final, none)])
        rows.append(
            [
                "top-1 after the best epoch" + (" by validation" if run.has_validation else ""),
                *np.where(trained, best, none),
            ]
        )
    if cost is not None:
        rows.append(["cost of this run / of it alone", *(f"{cost / run.networks.of(mode).macs:.3f}" for mode in Mode)])
    return table(["", *(tag("span", mode, class_=mode) for mode in Mode)], rows, class_="numbers")


def facts(section: Section) -> Html:
    """The other numbers of a run, as a list of terms."""
    run, config = section.run, section.run.config
    fraction, cost, rate, wait = run.motivated_fraction, run.cost, run.mean("images_per_second"), run.mean("data_wait")
    model, data = config.model, config.data
    said = {
        "data": f"{data.name}: {model.num_classes} classes, {data.img_size} x {data.img_size} pixels",
        "epochs": f"{run.epochs_done} of {config.epochs}; {batches(len(run.steps))} of {data.batch_size} images",
        "condition": condition(config),
    }
    if fraction is not None:
        expected = "no forecast" if run.expected_fraction is None else f"forecast {percent(run.expected_fraction)}"
        said["motivated batches"] = f"{percent(fraction)}; {expected}"
    if cost is not None:
        expected = "" if run.expected_cost is None else f"; forecast {macs(run.expected_cost)}"
        said["average forward pass"] = f"{macs(cost)} MACs{expected}"
    if run.epochs_done:
        said["training time"] = f"{duration(run.seconds)} without evaluation"
    if rate is not None:
        said["speed"] = f"{rate:,.0f} images a second"
    if wait is not None:
        said["waited for data"] = f"{percent(wait, 1)} of the time"
    said["seed, precision"] = f"{config.seed}, {config.precision}"
    if section.version:
        said["trained with"] = f"nestnet {section.version}"
    return tag("dl", *(tag("div", tag("dt", term), tag("dd", value)) for term, value in said.items()))
