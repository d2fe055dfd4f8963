"""The model card of an exported file: its purpose, accuracy, cost, use and training.

It has the form of Hugging Face's model cards: YAML, then Markdown. Whoever publishes the file must add the
licence.
"""

from dataclasses import dataclass

from nestnet.data.image_data import ImageData
from nestnet.deploy import card_sections
from nestnet.deploy.card_head import render_head
from nestnet.deploy.export_format import ExportFormat, UsageCode
from nestnet.nn.mode import Mode
from nestnet.runs.reading import Run
from nestnet.text.escape import for_markdown, markdown_code
from nestnet.text.units import format_mebibytes
from nestnet.training.subnet_warnings import describe_untrained
from nestnet.weights.metadata import Metadata

LIMITS = """\
It was evaluated on the test images of this data set alone. Nothing is known of images from elsewhere: other cameras, light,
sizes, or people and places that the data set does not show."""

ONE_LABEL = """\
It gives one of its classes for every image, whatever that shows. Its probabilities are a softmax of the logits, and were not
calibrated."""

SEVERAL_LABELS = """\
An image may have several of its classes, or none. The probability of each is the sigmoid of its logit, and was not
calibrated."""


@dataclass(frozen=True)
class Export:
    """Subject of a model card: a file, its network and its run.

    Attributes:
        run: run that trained the network.
        metadata: metadata of the file.
        file: name of the file, or of the folder.
        size: size in bytes of the file, or of that of the weights in a folder.
        export_format: format of the file.
        usage: Python code that uses the file, run in its folder.
        images: images of the run; `None` where they cannot be read.
        recalibration_batches: number of training batches on which the BatchNorm statistics were recomputed;
            0 for the running statistics.
        check: description of how the logits of the file compare with the network's.
    """

    run: Run
    metadata: Metadata
    file: str
    size: int
    export_format: ExportFormat
    usage: UsageCode
    images: ImageData | None
    recalibration_batches: int
    check: str


def render_model_card(export: Export) -> str:
    """Render the model card of a file as Markdown.

    Args:
        export: file, network and run to describe.
    """
    run = export.run
    sections = {
        "Data": card_sections.render_data(export.metadata, run.config.data, export.images),
        "Accuracy": _accuracy(export),
        "Cost": card_sections.render_cost(export.metadata, run.path),
        "Use": card_sections.render_use(export.metadata, export.usage, export.check, export.file, export.export_format),
        "Training": card_sections.render_training(run),
        "Limits": f"{LIMITS} {SEVERAL_LABELS if export.metadata.multi_label else ONE_LABEL}",
    }
    # The introduction below the title has no heading.
    parts = [f"# {_title(export)}\n\n{_introduction(export)}\n"]
    for title, text in sections.items():
        parts.append(f"## {title}\n\n{text}\n")
    body = "\n".join(parts)
    file = export.export_format.weights_name or export.file
    head = render_head(run, export.metadata, export.export_format, file, export.recalibration_batches)
    return f"---\n{head}---\n\n{body}"


def _pair_of(export: Export) -> str:
    architectures = export.run.net.architectures
    return f"{for_markdown(architectures.of(Mode.BASE))} in {for_markdown(architectures.of(Mode.MOTIVATED))}"


def _title(export: Export) -> str:
    mode = export.metadata.mode
    trained = "trained as "
    if describe_untrained(mode, export.run.trained, base_is_given=export.run.config.extends_given_base) is not None:
        trained = "not trained, "
    return f"{for_markdown(export.metadata.architecture)}, {trained}the {mode} network of {_pair_of(export)}"


def _accuracy(export: Export) -> str:
    accuracy = card_sections.render_accuracy(
        export.run, export.metadata.mode, export.images, export.recalibration_batches
    )
    if not export.metadata.quantization:
        return accuracy
    return f"{card_sections.render_quantization(export.metadata)}\n\n{accuracy}"


def _introduction(export: Export) -> str:
    name = export.metadata.architecture
    mode = export.metadata.mode
    text = (
        f"An image classifier of {export.metadata.num_classes:,} classes: timm's {markdown_code(name)}. "
        f"It is the *{mode}* network of a nested pair, {_pair_of(export)}, "
        "whose weights are shared in training by nestnet. "
        f"{markdown_code(export.file)} ({format_mebibytes(export.size)} MiB) holds {for_markdown(name)} alone"
        f"{', in 8-bit integers' if export.metadata.quantization else ''}."
    )
    # The condition of a run may never have motivated a batch, for example.
    warning = describe_untrained(mode, export.run.trained, base_is_given=export.run.config.extends_given_base)
    if warning is not None:
        text += f"\n\n**Do not use this file**: {warning}."
    return text
