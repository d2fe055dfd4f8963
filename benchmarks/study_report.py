"""The report of a study from its result file: a table, the verdict on the aim in sentences, and two figures.

    python benchmarks/study_report.py [RESULT.json ...]     # by default all of benchmarks/results/study-*.json

`study.py` writes the result file. The report needs nothing else, and can be written while runs are still missing: it
says which. Beside RESULT.json it writes RESULT.md, RESULT.png (accuracy against cost, and one run against two) and
RESULT-updates.png (how far the gap is closed against the number of motivated batches).
"""

import argparse
import json
from pathlib import Path

from common import RESULTS, format_table, machine_name
from study_headlines import CONTROLS, GAP_AIM, SAVING_AIM, Headline, Study
from study_numbers import Bounded, Estimate
from study_plots import draw_pareto, draw_updates

from nestnet.storage.atomic import write_atomically

ABSENT = "-"

DEFINITIONS = f"""\
Cost is the arithmetic of all forward passes of a run, in units of training the base alone for the same epochs.
*Base gain* is the top-1 of the base minus that of the base alone at the same epochs, in points. *Gap closed* is (motivated -
base alone) / (motivated alone - base alone) at the same epochs. *Saving* is the cost of two separate runs that reach both
accuracies, divided by the cost of the nested run. Accuracies are compared within a seed: base gain is a mean of differences,
gap closed a ratio of mean differences, and the cost of a network alone that is as accurate is interpolated between its
lengths at the same difference from it; ">" marks a lower bound (no control is that accurate), "<" an upper bound (the shortest
control is more accurate already), and "?" that both meet. Numbers are mean ± standard error over seeds (standard deviation);
n is the number of seeds, and stands beside a figure that has fewer. The spread of the saving leaves out that of the curves.

The aim: a base gain above 0 by more than one standard error, at least {100 * GAP_AIM:.0f} % of the gap closed, and a saving
of at least {SAVING_AIM}."""


def spread(
    found: Estimate | None, decimals: int = 2, factor: float = 1, unit: str = "", sign: str = "", n: int | None = None
) -> str:
    """Format an estimate for the table, with its number of seeds unless that is n.

    >>> spread(Estimate((77.0, 78.0)))
    '77.50 ± 0.50 (0.71)'
    >>> spread(Estimate((0.77,)), 0, 100, " %", n=3)
    '77 %, n = 1'
    """
    if found is None:
        return ABSENT
    text = f"{factor * found.mean:{sign}.{decimals}f}"
    if found.standard_error is not None and found.sd is not None:
        text += f" ± {factor * found.standard_error:.{decimals}f} ({factor * found.sd:.{decimals}f})"
    text += unit
    if n is not None and found.n != n:
        text += f", n = {found.n}"
    return text


def with_error(found: Estimate, decimals: int, factor: float = 1) -> str:
    """Format an estimate for a sentence.

    >>> with_error(Estimate((0.7, 0.8)), 0, 100)
    '75 ± 5'
    """
    text = f"{factor * found.mean:.{decimals}f}"
    if found.standard_error is not None:
        text += f" ± {abs(factor) * found.standard_error:.{decimals}f}"
    return text


def bounded(found: Bounded | None) -> str:
    """Format a number with its bound for the table."""
    if found is None:
        return ABSENT
    if found.bound == "?":
        return "?"
    return f"{found.bound}{found.value:.2f}"


def bounded_in_words(found: Bounded, decimals: int = 2) -> str:
    """Format a number with its bound for a sentence.

    >>> bounded_in_words(Bounded(1.5, ">"))
    'more than 1.50'
    """
    words = {"": "", ">": "more than ", "<": "less than "}
    return f"{words[found.bound]}{found.value:.{decimals}f}"


def make_table(headlines: list[Headline]) -> str:
    """Return the table of all ways and lengths."""
    rows = []
    for line in headlines:
        saving = bounded(line.saving)
        if line.savings is not None and line.savings.standard_error is not None:
            saving += f" ± {line.savings.standard_error:.2f}"
        rows.append(
            [
                line.way,
                str(line.epochs),
                str(line.cost.n),
                spread(line.top1.get("base")),
                spread(line.top1.get("motivated")),
                f"{line.cost.mean:.2f}",
                spread(line.base_gain, sign="+", n=line.cost.n),
                spread(line.gap_closed, 0, 100, " %", n=line.cost.n),
                bounded(line.separate),
                saving,
                spread(line.agreement, 1, 100, " %"),
                spread(line.separate_agreement, 1, 100, " %", n=line.cost.n),
            ]
        )
    columns = ["way", "epochs", "n", "base, %", "motivated, %", "cost", "base gain", "gap closed"]
    return format_table([*columns, "two runs", "saving", "agreement", "of separate"], rows)


def describe(line: Headline) -> str:
    """Return what a way reached in one sentence."""
    parts = []
    if line.gap_closed is not None:
        parts.append(describe_gap(line.gap_closed))
    if line.base_gain is not None:
        parts.append(describe_gain(line.base_gain))
    parts.append(f"costs {line.cost.mean:.2f} times as much as the base alone")
    text = f"{line.way} at {line.epochs} epochs (n = {line.cost.n}) {join_words(parts)}."
    if line.separate is None or line.saving is None:
        return text + " Without controls the cost of two separate runs is not known."
    base, motivated = (bounded_in_words(line.epochs_alone[network], 1) for network in CONTROLS)
    text += f" Alone, the base is as good after {base} epochs, and the motivated network after {motivated}"
    if line.saving.bound == "?":
        return text + ": no saving is known."
    separate, saving = bounded_in_words(line.separate), bounded_in_words(line.saving)
    return text + f": two separate runs that are as good cost {separate}, which is {saving} times the cost of this run."


def describe_gap(closed: Estimate) -> str:
    """Return the gap closed as part of a sentence.

    >>> describe_gap(Estimate((-0.2,)))
    'closes none of the gap (-20 %)'
    """
    amount = with_error(closed, 0, 100)
    if closed.mean <= 0:
        return f"closes none of the gap ({amount} %)"
    return f"closes {amount} % of the gap"


def describe_gain(gain: Estimate) -> str:
    """Return the base gain as part of a sentence.

    >>> describe_gain(Estimate((-0.5,)))
    'loses 0.50 points for the base'
    """
    if not any(gain.values):
        return "leaves the base as it is alone"
    if gain.mean >= 0:
        return f"gains {with_error(gain, 2)} points for the base"
    return f"loses {with_error(gain, 2, -1)} points for the base"


def join_words(parts: list[str]) -> str:
    """Join parts of a sentence.

    >>> join_words(["closes", "gains", "costs"])
    'closes, gains and costs'
    """
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def judge(line: Headline) -> str:
    """Return which parts of the aim a way reaches, and how near the others are."""
    gains, closes, saves = line.met
    gain = "base gain: not known"
    if line.base_gain is not None:
        reason = "not beyond its standard error"
        if gains is None:
            reason = "no spread yet"
        if line.base_gain.mean < 0:
            reason = "a loss"
        gain = f"base gain {with_error(line.base_gain, 2)} ({reached_or(gains, reason)})"
    closed = "gap closed: not known"
    if line.gap_closed is not None:
        reason = f"{100 * (GAP_AIM - line.gap_closed.mean):.2f} points short"
        closed = f"gap closed {100 * line.gap_closed.mean:.1f} % ({reached_or(closes, reason)})"
    saving = "saving: not known"
    if line.saving is not None:
        saving = f"saving {bounded(line.saving)} ({reached_or(saves, describe_shortfall(line.saving, saves))})"
    return f"{line.way}, {line.epochs} epochs: {gain}, {closed}, {saving}."


def describe_shortfall(saving: Bounded, saves: bool | None) -> str:
    """Return by how much a saving misses the aim, in words."""
    if saves is None:
        return "the bound does not tell"
    at_least = "at least " if saving.bound else ""
    return f"{at_least}{SAVING_AIM - saving.value:.2f} short"


def reached_or(is_reached: bool | None, reason: str) -> str:
    return "reached" if is_reached else reason


def verdict(headlines: list[Headline]) -> list[str]:
    """Return the sentences on the aim: who reaches it, and how near the others come, the nearest first."""
    nested = [line for line in headlines if not line.is_alone]
    if not nested:
        return ["No nested run is finished."]
    nearest = sorted(nested, key=lambda line: line.nearness, reverse=True)
    reached = [f"{line.way} at {line.epochs} epochs" for line in nested if all(line.met)]
    undecided = [
        f"{line.way} at {line.epochs} epochs" for line in nested if not all(line.met) and False not in line.met
    ]
    sentences = []
    if reached:
        sentences.append(f"The aim is reached by {'; '.join(reached)}.")
    elif not undecided:
        sentences.append("No way reaches the aim.")
    if undecided:
        sentences.append(f"Not known yet: {'; '.join(undecided)}.")
    order = "By the number of parts that are reached, and then by gap closed and saving together:"
    return [*sentences, order, *(f"- {judge(line)}" for line in nearest)]


def describe_costs(study: Study) -> str:
    """Return what the costs of the two networks allow, whatever a way of training does, in sentences."""
    if not study.lengths(CONTROLS["motivated"]):
        return f"{CONTROLS['motivated']} is missing."
    base, motivated = study.pair
    ratio = study.cost_per_epoch("motivated")
    return (
        f"{motivated} costs {ratio:.2f} times as much as {base}, and two separate runs of the same length cost "
        f"{1 + ratio:.2f}. "
        "A nested run that gives each network its own loss on every batch costs the same: it saves only if it makes them "
        "better than they are alone. If the base cost nothing, and both were as good as they are alone, the saving would be "
        f"{(1 + ratio) / ratio:.2f}. More than that needs a bigger network that learns from fewer batches than alone, or "
        "networks that become better than they are alone."
    )


def find_notes(study: Study, headlines: list[Headline]) -> list[str]:
    """Return what is missing, and what does not belong together, in sentences."""
    notes = []
    for line in headlines:
        if not line.is_alone:
            notes += find_missing_controls(study, line.way, line.epochs)
    for control in CONTROLS.values():
        number = len(study.lengths(control))
        if number < 2:
            notes.append(f"{control} has {number} length(s): costs between lengths cannot be interpolated.")
    for field in ("precision", "train_images"):
        found = sorted({str(row[field]) for row in study.document["runs"]})
        if len(found) > 1:
            notes.append(f"The runs differ in {field}: {', '.join(found)}.")
    singles = list_single_runs(study)
    if singles:
        notes.append(f"One seed, and so no spread: {'; '.join(singles)}.")
    return notes


def list_single_runs(study: Study) -> list[str]:
    """Return the ways and lengths with one seed, in words."""
    lengths: dict[str, list[str]] = {}
    for way, epochs in sorted(study.rows, key=lambda key: key[1]):
        if len(study.rows[way, epochs]) == 1:
            lengths.setdefault(way, []).append(str(epochs))
    return [f"{way} at {join_words(found)} epochs" for way, found in lengths.items()]


def find_missing_controls(study: Study, way: str, epochs: int) -> list[str]:
    """Return what the headline figures of a way and length lack, in sentences."""
    notes = []
    name, seeds = f"{way}, {epochs} epochs", set(study.rows[way, epochs])
    for network, control in CONTROLS.items():
        absent = sorted(seeds - set(study.alone(network, epochs)))
        if absent:
            listed = ", ".join(map(str, absent))
            notes.append(f"{name}: {control} of the same length has no run with seed {listed}.")
    if not study.has_gap(epochs, seeds):
        notes.append(f"{name}: {study.pair[1]} alone is no better than {study.pair[0]}, and there is no gap to close.")
    return notes


def write_report(result: Path) -> str:
    """Write the report of a result file beside it, and return its text."""
    study = Study(json.loads(result.read_text()))
    headlines = study.headlines()
    base, motivated = study.pair
    origin = f"{len(study.document['runs'])} runs, {machine_name(study.document)}, {study.document['date']}."
    nested = [f"- {describe(line)}" for line in headlines if not line.is_alone]
    missing = [f"- {note}" for note in find_notes(study, headlines)]
    pareto, updates = result.with_suffix(".png"), result.with_name(f"{result.stem}-updates.png")
    draw_pareto(study, headlines, pareto)
    draw_updates(study, headlines, updates)
    sections = [
        f"# {base} in {motivated}: one run or two?",
        f"{origin} Written by `python benchmarks/study_report.py` from `{result.name}`.",
        DEFINITIONS,
        make_table(headlines),
        f"![accuracy against cost, and one run against two]({pareto.name})",
        f"![gap closed against motivated batches]({updates.name})",
        "## What the costs allow",
        describe_costs(study),
        "## The aim",
        "\n".join(verdict(headlines)),
        "## Each way",
        "\n".join(nested),
        "## What is missing",
        "\n".join(missing) or "Nothing.",
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    write_atomically(result.with_suffix(".md"), text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT", help="result files of study.py")
    options = parser.parse_args()
    results = options.results or sorted(RESULTS.glob("study-*.json"))
    if not results:
        parser.error(f"there is no study-*.json in {RESULTS}; name a result file of study.py")
    for result in results:
        print(write_report(result))


if __name__ == "__main__":
    main()
