"""The table of the results of `gpu.py`: a line for each fact, from the result files of its parts.

python benchmarks/gpu_table.py FOLDER
"""

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import EPOCH, Case, machine_name
from study_headlines import Study
from study_report import bounded, spread

Fact = tuple[str, str]
"""Measured quantity, and its result."""


LONGEST = 10_000
"""Largest number of characters of the table."""


def table(folder: Path) -> str:
    """Return all facts of a run as Markdown, truncated if it is too long.

    Args:
        folder: folder of the result files. A part that was stopped may have one too.
    """
    document = json.loads((folder / "gpu.json").read_text())
    parts = document["parts"]
    facts: list[Fact] = [("on", machine_name(document))]
    if "--quick" in document["command"]:
        facts.append(("a quick run", "its figures mean nothing"))
    if "tests" in parts:
        facts += facts_of_tests(parts["tests"]["log"])
    documents: dict[str, dict[str, Any]] = {}
    for name, facts_of in FACTS.items():
        path = folder / f"{name}.json"
        if path.is_file():
            documents[name] = json.loads(path.read_text())
            facts += facts_of(documents[name])
    facts += facts_of_goal(documents)
    for name, part in parts.items():
        if part["status"] != "done":
            facts.append((name, f"{part['status']}: {part['reason']}"))
    lines = ["| measured | found |", "| --- | --- |"]
    for what, found in facts:
        cells = [text.replace("|", "/") for text in (what, found)]  # a bar would end a cell
        lines.append(f"| {cells[0]} | {cells[1]} |")
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}\n... (cut)"


def facts_of_tests(log: str) -> Iterator[Fact]:
    """Yield the number of passed tests, from pytest's summary line or from the lines of each test, and the failures."""
    closing = re.findall(r"^=+ (.*(?:passed|failed|skipped|error).*) =+$", log, re.MULTILINE)
    if closing:
        yield "tests", closing[-1]
    else:
        counts = {word: len(re.findall(rf" {word} ", log)) for word in ("PASSED", "FAILED", "SKIPPED")}
        yield "tests, until they were stopped", ", ".join(f"{count} {word.lower()}" for word, count in counts.items())
    failed = dict.fromkeys(re.findall(r"\] (?:FAILED|ERROR) (\S+)", log), "")
    failed |= dict(re.findall(r"^(?:FAILED|ERROR) (\S+)(?: - (.*))?$", log, re.MULTILINE))
    for name, reason in failed.items():
        yield f"failed: {name.removeprefix('tests/')}", reason[:160]


def epoch_seconds(summary: dict[str, Any]) -> dict[str, float]:
    """Return the seconds per epoch of the nested run and of timm's networks, from a summary of `epochs.py`."""
    trainings = ("nested", "timm base", "timm motivated")
    return {training: EPOCH / summary["images_per_second"][training][0] for training in trainings}


def facts_of_epochs(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield the seconds per epoch of each configuration, nested and for timm's networks alone."""
    for result in document["results"]:
        first = next(iter(result["summary"]))
        for name, summary in result["summary"].items():
            taken = epoch_seconds(summary)
            yield (
                f"epoch of {EPOCH:,} images, {Case(**result['case']).name}, {name.replace('_', ' ')}",
                f"nested {summary['epoch_seconds']:.2f} s, timm base {taken['timm base']:.2f} s, "
                f"motivated {taken['timm motivated']:.2f} s; "
                f"over ideal {summary['over_ideal'][0]:.2f}; {summary['faster_than_first'][0]:.2f} times as fast as "
                f"{first.replace('_', ' ')}",
            )


def facts_of_limits(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield the time of each step and its bound of arithmetic and launches."""
    for result in document["results"]:
        bound = "" if result["seconds_per_launch"] is None else "; the profiler saw no launches"
        if result["bound_seconds"] is not None:
            bound = (
                f"; {result['launches']:.0f} launches of {1e6 * result['seconds_per_launch']:.2f} us; arithmetic and launches "
                f"{1000 * result['bound_seconds']:.3f} ms, the step over them "
                f"{result['step_seconds'] / result['bound_seconds']:.2f}"
            )
        yield (
            f"step, {Case(**result['case']).name}, {result['mode']}, {result['way']}",
            f"{1000 * result['step_seconds']:.3f} ms, limited by {result['limit']}{bound}",
        )


def facts_of_steps(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield the time of the nested step relative to timm's."""
    for result in document["results"]:
        ratios = [
            f"{mode} {result['ratios_to_timm'][f'nested {mode}']['median']:.3f} "
            f"(timm {1000 * statistics.median(result['seconds'][f'timm {mode}']):.2f} ms)"
            for mode in ("base", "motivated")
        ]
        compiled = ", compiled" if result["compiled"] else ""
        yield (
            f"step over timm's, {Case(**result['case']).name}, {result['precision']}{compiled}",
            f"{', '.join(ratios)}; n = {result['rounds']}",
        )


def facts_of_decisions(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield the cost of reading each loss."""
    for result in document["results"]:
        unread = result["overlap_over_unread"]
        costs = f"over unread losses {unread[0]:.3f}, " if unread else ""
        yield (
            f"decision, {result['step']}, {result['sequence']}",
            f"{costs}waiting over overlap {result['waiting_over_overlap'][0]:.3f}, "
            f"same modes: {'yes' if result['alike'] else 'NO'}",
        )


def facts_of_memory(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield the peak memory of a base step relative to the standalone base's, and of both steps."""
    for result in document["results"]:
        totals = [
            f"{mode} {ways['nested']['total'] / 2**20:.0f} MiB (timm {ways['timm']['total'] / 2**20:.0f})"
            for mode, ways in result["bytes"].items()
        ]
        promise = result["base_step_beyond_differential_over_timm"]
        yield (
            f"peak memory, {Case(**result['case']).name}",
            f"{', '.join(totals)}; base over timm's without the differential {promise:.3f}",
        )


def facts_of_cifar10(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield the top-1 of each subnet over the finished seeds, and the progress of the others."""
    groups: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for row in document["results"]:
        groups.setdefault((row["way"], row["mode"], row["finished"]), []).append(row)
    for (way, mode, finished), rows in groups.items():
        accuracies = [row["top1"] for row in rows]
        deviation = f" ± {statistics.stdev(accuracies):.2f}" if len(rows) > 1 else ""
        epochs = [row["epochs"] for row in rows]
        state = "" if finished else ", NOT FINISHED"
        yield (
            f"CIFAR-10, {way}, {mode}",
            f"{statistics.mean(accuracies):.2f}{deviation} % after {min(epochs)} epoch(s), {len(rows)} seed(s){state}; "
            f"{statistics.mean(row['motivated_fraction'] for row in rows):.1%} motivated",
        )


def facts_of_study(document: dict[str, Any]) -> Iterator[Fact]:
    """Yield what each way and length of the study reached."""
    for line in Study(document).headlines():
        top1 = ", ".join(f"{network} {spread(found)} %" for network, found in line.top1.items())
        found = f"{top1}, cost {line.cost.mean:.2f}, n = {line.cost.n}"
        if not line.is_alone:
            found += f"; gap closed {spread(line.gap_closed, 0, 100, ' %')}, saving {bounded(line.saving)}"
        yield f"study, {line.way}, {line.epochs} epochs", found


def facts_of_goal(documents: dict[str, dict[str, Any]]) -> Iterator[Fact]:
    """Yield the epoch with CUDA graphs relative to arithmetic and launches, and to the eager one."""
    epochs = documents.get("epochs", {}).get("results", [])
    for result in epochs:
        graphs = result["summary"].get("cuda_graphs")
        if graphs is None:
            continue
        for eager, precision in (("resident", "float32"), ("bfloat16", "bfloat16")):
            if eager in result["summary"]:
                faster = result["summary"][eager]["epoch_seconds"] / graphs["epoch_seconds"]
                yield f"goal: with CUDA graphs at least 4 times as fast as eager {precision}", f"{faster:.2f} times"
        bounds = {
            row["mode"]: row["bound_seconds"]
            for row in documents.get("limits", {}).get("results", [])
            if row["way"] == "captured" and row["case"] == result["case"] and row["bound_seconds"] is not None
        }
        if len(bounds) == 2:
            fraction = result["motivated_fraction"]
            step = (1 - fraction) * bounds["base"] + fraction * bounds["motivated"]
            bound = EPOCH / result["case"]["batch_size"] * step
            yield (
                "goal: an epoch within 2 times of arithmetic and launches",
                f"{graphs['epoch_seconds'] / bound:.2f} times ({graphs['epoch_seconds']:.2f} s over {bound:.2f} s)",
            )


FACTS: dict[str, Callable[[dict[str, Any]], Iterator[Fact]]] = {
    "epochs": facts_of_epochs,
    "epochs-compiled": facts_of_epochs,
    "limits": facts_of_limits,
    "step_time": facts_of_steps,
    "decision": facts_of_decisions,
    "memory": facts_of_memory,
    "cifar10": facts_of_cifar10,
    "study": facts_of_study,
}
"""Function that reads the facts from the result file of each part."""


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
