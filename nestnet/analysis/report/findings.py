"""The findings of a run in sentences: its progress, its cost, and the accuracy of its subnets."""

from datetime import datetime

from nestnet.analysis.report.predictions import Predictions
from nestnet.analysis.report.summary import RunSummary
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_shell
from nestnet.text.units import format_count

NOTABLE_POINTS = 1.0
"""Percentage points of top-1 by which the best epoch must exceed the last, for a sentence on it."""
# With two standard errors, about 5 % of the comparisons of equally accurate networks show a difference.
STANDARD_ERRORS = 2
"""Number of standard errors below which a difference in top-1 is attributed to chance."""


def describe_progress(run: RunSummary) -> str:
    """Describe how far an unfinished run is, when it last wrote a batch, and how to resume it.

    Args:
        run: unfinished run.

    Returns:
        Sentences.
    """
    # The time of the last write distinguishes a run that is training from one that was killed.
    last_written = datetime.fromtimestamp((run.path / "steps.csv").stat().st_mtime)
    done = f"{run.finished_epochs} of its {run.config.total_epochs} epochs"
    if run.unfinished_batches:
        batches = format_count(run.unfinished_batches, "batch", "batches")
        epoch = "next" if run.finished_epochs else "first"
        done += f" and {batches} of the {epoch}"
    command = f"nestnet resume {for_shell(run.path)}"
    return (
        f"Not finished: {done} were trained when this page was made; its last batch was written on "
        f"{last_written:%Y-%m-%d at %H:%M}. If the run was killed, `{command}` resumes it."
    )


def describe_results(run: RunSummary, predictions: Predictions | None = None) -> list[str]:
    """Describe the cost of a run and the accuracy of its subnets.

    Args:
        run: run with at least one batch.
        predictions: predictions of the weights after the last finished epoch. With them, a difference in
            top-1 is compared with its standard error.

    Returns:
        Sentences.
    """
    sentences = [_describe_cost(run)]
    # Accuracies are known from the end of the first epoch on.
    if run.finished_epochs:
        sentences.append(_describe_accuracy(run, predictions))
        sentences += _describe_better_epochs(run)
    return sentences


def _describe_cost(run: RunSummary) -> str:
    """Describe the cost of training, relative to training each network alone and both in succession."""
    names = run.network_names
    base_macs = run.network_costs.base.macs
    motivated_macs = run.network_costs.motivated.macs
    if run.config.extends_given_base:
        batches = format_count(len(run.steps), "batch", "batches")
        return (
            f"{names.base} was finished and is unchanged: {batches} of {names.motivated}, at "
            f"{motivated_macs / base_macs:.2f} times the cost of one of {names.base}, trained what it has beside it."
        )
    if run.training_cost is None:
        return "No batch has been trained."
    multiple = run.training_cost / base_macs

    # The cost of classical training can only be compared with the base's.
    if len(run.trained_modes) == 1:
        trained = names.of(run.trained_modes[0])
        return f"Classical training: {trained} alone, at {multiple:.2f} times the cost of {names.base}."

    trained = "Both networks together cost"
    if run.config.motivation.trains == "both" and run.motivated_fraction == 1:
        trained = "Every batch trained both networks, which cost"
    if run.config.finish_epochs:
        extension = format_count(run.config.finish_epochs, "epoch", "epochs")
        trained = f"Both networks together, with {extension} in which the finished base stood still, cost"
    if not run.is_finished:
        trained += " so far"
    return (
        f"{trained} {multiple:.2f} times what {names.base} costs alone, {run.training_cost / motivated_macs:.2f} times what "
        f"{names.motivated} costs alone, and {run.training_cost / (base_macs + motivated_macs):.2f} times what training one "
        "after the other costs."
    )


def _describe_accuracy(run: RunSummary, predictions: Predictions | None) -> str:
    """Describe the top-1 after the last finished epoch, and whether the motivated network leads."""
    after = f"After epoch {run.finished_epochs} of {run.config.total_epochs}"
    images = "test images" if run.tested is not None else run.evaluated_images
    if run.result is not None and set(run.result.exported_epochs.values()) != {run.finished_epochs}:
        epochs = run.result.exported_epochs
        after = f"With the weights of epochs {epochs[Mode.BASE]} and {epochs[Mode.MOTIVATED]}"
        # Those are of the last epoch.
        predictions = None
    if len(run.trained_modes) == 1:
        top1 = run.final_top1(run.trained_modes[0])
        return f"{after} its top-1 on the {images} is {top1:.2f} %."

    base = run.final_top1(Mode.BASE)
    motivated = run.final_top1(Mode.MOTIVATED)
    lead = motivated - base
    both = f"{after} the base has a top-1 of {base:.2f} % on the {images} and the motivated network {motivated:.2f} %"
    # Without predictions for each image, the standard error of the difference is not known.
    error_note = ""
    if predictions is not None:
        _, error = predictions.top1_difference()
        if abs(lead) < STANDARD_ERRORS * error:
            images = f"{len(predictions):,} images"
            return f"{both}: {images} cannot tell them apart ({lead:+.2f} points, standard error {error:.2f})."
        error_note = f" (standard error {error:.2f})"

    # A motivated network that does not lead is of no use, and the report says so.
    if lead > 0:
        return f"{both}: the bigger network leads by {lead:.2f} points{error_note}."
    if lead == 0:
        return f"{both}: there is no difference."
    behind = f"the bigger network is {-lead:.2f} points behind the smaller one inside it{error_note}"
    if not run.is_finished:
        return f"{both}: so far {behind}."
    remedy = "More motivated batches (motivation.name = always for a part of the run, or periodic) or more epochs"
    if run.config.finish_epochs:
        remedy = "More finish_epochs"
    return f"{both}: {behind}, and not worth deploying as it is. {remedy} would train it more."


def _describe_better_epochs(run: RunSummary) -> list[str]:
    """Return a sentence for each subnet that was notably better after an earlier epoch than after the last one."""
    sentences = []
    for mode in run.trained_modes:
        top1, epoch = run.best_epoch(mode)
        if top1 - float(run.top1(mode)[-1]) >= NOTABLE_POINTS:
            where = f"on the {run.evaluated_images} " if run.has_validation else ""
            sentences.append(f"The {mode} network was better {where}earlier: {top1:.2f} % after epoch {epoch}.")
    return sentences
