"""The tables of numbers of one run in a report."""

from nestnet.analysis.report.html import Html, element, format_percent, mode_label, table
from nestnet.analysis.report.summary import RunSummary
from nestnet.conditions.description import describe_motivation
from nestnet.config.schema_rules import as_size
from nestnet.nn.mode import Mode
from nestnet.runs.parts import describe_parts
from nestnet.text.units import format_count, format_duration, format_macs, format_size

NOT_TRAINED = "not trained"
"""Cell for the accuracy of a subnet that was not trained."""


def build_network_table(run: RunSummary) -> Html:
    """Build the table that shows both networks side by side.

    Args:
        run: run, which may have no batch yet.

    Returns:
        A table with a column for each mode.
    """
    columns = [_describe_network(run, mode) for mode in Mode]
    # Both columns have the same rows, because the rows depend on the run only.
    rows = []
    for label in columns[0]:
        rows.append([label, *(column[label] for column in columns)])
    return table(["", *(mode_label(mode) for mode in Mode)], rows, class_="numbers")


def _describe_network(run: RunSummary, mode: Mode) -> dict[str, str]:
    """Return the cells of one mode's column, by the label of their row.

    Args:
        run: run, which may have no batch yet.
        mode: mode of the network.
    """
    network_cost = run.network_costs.of(mode)
    cells = {
        "network": run.network_names.of(mode),
        "parameters": f"{network_cost.parameters:,}",
        "forward pass, MACs": format_macs(network_cost.macs),
    }
    if run.finished_epochs:
        final_label = f"top-1 after epoch {run.finished_epochs}"
        best_label = "top-1 after the best epoch"
        if run.has_validation:
            final_label = f"validation {final_label}"
            best_label = f"validation {best_label}"
        # After classical training, the top-1 of the other subnet is meaningless.
        cells[final_label] = NOT_TRAINED
        cells[best_label] = NOT_TRAINED
        if mode in run.trained_modes:
            best_top1, best_epoch = run.best_epoch(mode)
            cells[final_label] = f"{run.top1(mode)[-1]:.2f} %"
            cells[best_label] = f"{best_top1:.2f} % (epoch {best_epoch})"
        precisions = run.mean_average_precision(mode)
        if precisions is not None and mode in run.trained_modes:
            cells[f"mAP after epoch {run.finished_epochs}"] = f"{precisions[-1]:.2f} %"
            cells["mAP after the best epoch"] = f"{precisions[best_epoch - 1]:.2f} % (epoch {best_epoch})"
    if run.result is not None and run.tested is not None:
        cells["top-1 on the test images, once"] = NOT_TRAINED
        if mode in run.trained_modes:
            epoch = run.result.exported_epochs[mode]
            cells["top-1 on the test images, once"] = f"{run.final_top1(mode):.2f} % (export of epoch {epoch})"
    if run.training_cost is not None:
        cells["cost of this run / of it alone"] = f"{run.training_cost / network_cost.macs:.3f}"
    return cells


def build_facts(run: RunSummary, version: str | None) -> Html:
    """Build the list of a run's other numbers.

    Args:
        run: run, which may have no batch yet.
        version: version of nestnet that exported the run; `None` if it is not known.

    Returns:
        A `<dl>`.
    """
    config = run.config
    data = config.data
    batches = format_count(len(run.steps), "batch", "batches")
    # The configuration of a run is resolved.
    assert data.img_size is not None
    facts = {
        "data": f"{data.name}: {config.model.num_classes} classes, {format_size(as_size(data.img_size))} pixels",
        "epochs": f"{run.finished_epochs} of {config.total_epochs}; {batches} of {data.images_per_batch} images",
    }
    if run.result is not None and run.result.ended_by != "epochs":
        facts["epochs"] += f"; ended by {run.result.ended_by}"
    if len(run.parts) > 1:
        facts["parts"] = describe_parts(run.parts)
    if config.epochs:
        facts["condition"] = describe_motivation(config.motivation)
    if config.finish_epochs:
        facts["base unchanged"] = f"in the last {format_count(config.finish_epochs, 'epoch', 'epochs')}"
    # Values that are not known yet, or were not recorded by an older version, have no entry.
    facts |= _describe_training(run)
    facts["seed, precision"] = f"{config.seed}, {config.precision}"
    if version:
        facts["trained with"] = f"nestnet {version}"
    entries = []
    for term, value in facts.items():
        entries.append(element("div", element("dt", term), element("dd", value)))
    return element("dl", *entries)


def _describe_training(run: RunSummary) -> dict[str, str]:
    """Return the measurements of the training and their forecasts; missing measurements are left out."""
    facts = {}
    if run.motivated_fraction is not None:
        forecast = "no forecast"
        if run.expected_fraction is not None:
            forecast = f"forecast {format_percent(run.expected_fraction)}"
        facts["motivated batches"] = f"{format_percent(run.motivated_fraction)}; {forecast}"
    if run.average_cost is not None:
        facts["average forward pass"] = f"{format_macs(run.average_cost)} MACs"
        if run.expected_cost is not None:
            facts["average forward pass"] += f"; forecast {format_macs(run.expected_cost)}"
    if run.finished_epochs:
        facts["training time"] = f"{format_duration(run.training_seconds)} without evaluation"
    # Runs of older versions lack these columns of `metrics.csv`.
    images_per_second = run.mean_metric("images_per_second")
    if images_per_second is not None:
        facts["speed"] = f"{images_per_second:,.0f} images per second"
    data_wait = run.mean_metric("data_wait")
    if data_wait is not None:
        facts["waited for data"] = f"{format_percent(data_wait, 1)} of the time"
    return facts
