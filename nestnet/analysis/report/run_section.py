"""The part of a report on one run, from its results to its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass

from nestnet.analysis.report.comparison import NO_COMPARISON
from nestnet.analysis.report.evaluation import Evaluation, NoEvaluation
from nestnet.analysis.report.evaluation_section import build_evaluation
from nestnet.analysis.report.findings import describe_progress, describe_results
from nestnet.analysis.report.html import Html, element, figure, preformatted
from nestnet.analysis.report.predictions import Predictions
from nestnet.analysis.report.rendering import RenderedFigure
from nestnet.analysis.report.run_tables import build_facts, build_network_table
from nestnet.analysis.report.summary import RunSummary
from nestnet.analysis.run_figure import MANY_BATCHES
from nestnet.nn.mode import Mode
from nestnet.text.units import format_count
from nestnet.training.subnet_warnings import describe_untrained

# These conditions compare successive batches, which the forecast assumes to be independent.
CONDITIONS_BY_BATCH = ("loss_decrease", "held_out_loss_decrease", "gradient_norm_increase")
"""Names of the conditions whose forecast assumes independent batches."""


@dataclass(frozen=True)
class RunReport:
    """Content of a report's part on one run.

    Attributes:
        run: numbers of the run.
        figures: figures by name: `loss`, `top1`, `motivated_fraction`, `cost`, `confusion_base` and `confusion_motivated`.
            Those for which the run has no data yet are absent.
        evaluation: evaluation of the test images, or the reason why there is none.
        configuration: text of the run's `config.yaml`.
        version: version of nestnet that exported the run; `None` if it is not known.
    """

    run: RunSummary
    figures: Mapping[str, RenderedFigure]
    evaluation: Evaluation | NoEvaluation
    configuration: str
    version: str | None = None

    @property
    def final_predictions(self) -> Predictions | None:
        """Predictions of the weights after the last finished epoch; `None` if other weights were evaluated, or none."""
        if isinstance(self.evaluation, NoEvaluation):
            return None
        # A checkpoint may also have been written in the middle of an epoch.
        steps_of_finished_epochs = len(self.run.steps) - self.run.unfinished_batches
        if self.evaluation.steps_done != steps_of_finished_epochs:
            return None
        return self.evaluation.predictions


def build_run(report: RunReport, number: int, *, is_single: bool) -> Html:
    """Build the part of a report on one run.

    Args:
        report: content of the part.
        number: number of the run on the page, from 1.
        is_single: whether the page has no other run.

    Returns:
        A `<section>`.
    """
    run = report.run
    # The page of a single run is named after it; otherwise the page has its own heading.
    heading = element("h1" if is_single else "h2", run.name)
    networks = f"{run.network_names.base} in {run.network_names.motivated}: {run.path}"
    parts = [heading, element("p", networks, class_="note")]
    parts += _build_results(report, is_single=is_single)
    parts += _build_warnings(run)
    # Proceed from the configuration and the counts to single images.
    parts += [build_network_table(run), build_facts(run, report.version)]
    parts += _build_training(report)
    parts += _build_test_images(report)
    parts.append(_build_configuration(report.configuration))
    return element("section", *parts, id=f"run-{number}")


def _build_results(report: RunReport, *, is_single: bool) -> list[Html]:
    """Build the sentences on the findings of the run."""
    run = report.run
    parts = []
    if not run.is_finished:
        parts.append(_build_warning(describe_progress(run)))
    # Before the first batch there is nothing to report.
    if not len(run.steps):
        return parts
    sentences = describe_results(run, report.final_predictions)
    # For several runs, the comparison is a separate part.
    is_nested = len(run.trained_modes) > 1
    if is_single and run.is_finished and is_nested:
        sentences.append(NO_COMPARISON)
    for sentence in sentences:
        parts.append(element("p", sentence, class_="lead"))
    return parts


def _build_warnings(run: RunSummary) -> list[Html]:
    """Build the warnings of skipped batches and of subnets that were not trained."""
    warnings = []
    if run.skipped_batches:
        skipped = format_count(run.skipped_batches, "batch", "batches")
        warnings.append(_build_warning(f"Skipped: {skipped}, whose loss was NaN or infinite."))
    # A subnet of an unfinished run may still be trained.
    if run.is_finished:
        for mode in Mode:
            reason = describe_untrained(mode, run.trained_batches, base_is_given=run.config.extends_given_base)
            if reason is not None:
                warnings.append(_build_warning(f"{reason[0].upper()}{reason[1:]}."))
    return warnings


def _build_warning(text: str) -> Html:
    """Build a paragraph that stands out."""
    return element("p", text, class_="warning")


def _build_training(report: RunReport) -> list[Html]:
    """Build the figures of the training with their heading; nothing before the first batch."""
    run = report.run
    loss_caption = "The loss of each batch, and the learning rate."
    if len(run.steps) > MANY_BATCHES:
        loss_caption = "The loss of each batch; lines are running medians, and the learning rate."
    top1_caption = f"Top-1 on the {run.evaluated_images} after each epoch; a ring marks the best."
    # A figure is shown if the run has data for it.
    captions = {
        "loss": loss_caption,
        "top1": top1_caption,
        "motivated_fraction": f"Motivated batches in each epoch. {_explain_forecast(run)}",
        "cost": "Average forward pass in training, in multiply-accumulates, against that of the base alone.",
    }
    figures = []
    for name, caption in captions.items():
        if name in report.figures:
            # The loss takes a full row, and the other figures share one.
            width = "wide" if name == "loss" else "third"
            figures.append(figure(report.figures[name], caption, class_=width))
    if not figures:
        return []
    return [element("h3", "Training"), element("div", *figures, class_="figures three")]


def _explain_forecast(run: RunSummary) -> str:
    """Return a sentence on what the forecast of motivated batches assumes; empty if it assumes nothing."""
    condition = run.config.motivation.name
    if run.expected_fraction is None:
        return f"There is no forecast for {condition}."
    if condition in CONDITIONS_BY_BATCH:
        return "The forecast is that of independent batches, in epochs of this length."
    return ""


def _build_test_images(report: RunReport) -> list[Html]:
    """Build the part on the test images, or the reason why there is none."""
    heading = element("h3", "Test images")
    if isinstance(report.evaluation, NoEvaluation):
        return [heading, _build_warning(f"No confusion matrices and no images: {report.evaluation.reason}")]
    return [heading, *build_evaluation(report.evaluation, report.figures)]


def _build_configuration(configuration: str) -> Html:
    """Build the configuration as a collapsed element."""
    return element(
        "details",
        element("summary", "Configuration"),
        element("pre", preformatted(configuration), class_="scroll"),
    )
