"""The part of a report on the test images: predictions and confusions of both subnets, and images on which they differ."""

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from torch import Tensor

from nestnet.analysis.report.confusion_figure import MAX_LABELLED_CLASSES, pool_classes
from nestnet.analysis.report.evaluation import Evaluation, ExampleImage
from nestnet.analysis.report.html import Html, element, figure, format_percent, join_html, mode_label, table
from nestnet.analysis.report.predictions import EXAMPLE_ORDER, Agreement, Predictions
from nestnet.analysis.report.rendering import RenderedFigure
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_html
from nestnet.text.units import format_count

DISPLAY_SIZE = 112
"""Height and width of an image on the page, in CSS pixels."""
# Screens of phones and of many laptops have at least two physical pixels per CSS pixel.
MAX_EMBEDDED_SIZE = 2 * DISPLAY_SIZE
"""Largest height and width of an image in the file, in pixels."""
MAX_PIXELATED_SIZE = DISPLAY_SIZE // 2
"""Height and width up to which an image is shown with visible pixels."""
MAX_LISTED_CLASSES = 20
"""Largest number of classes in the table of their metrics."""
CONFUSED_PAIRS = 12
"""Largest number of pairs of classes in the table of confusions."""


def build_evaluation(evaluation: Evaluation, figures: Mapping[str, RenderedFigure]) -> list[Html]:
    """Build the part of a report on the test images.

    Args:
        evaluation: evaluation of a run's test images.
        figures: figures of the run; `confusion_base` and `confusion_motivated` are used.

    Returns:
        Elements, in order.
    """
    predictions = evaluation.predictions
    # Proceed from the whole set to single images.
    parts = [
        _build_accuracy(evaluation),
        _build_agreement_table(predictions),
        *_build_class_table(predictions),
        _build_confusion_matrices(predictions, figures),
        _build_confusion_table(predictions),
    ]
    for agreement in EXAMPLE_ORDER:
        parts += _build_gallery(predictions, agreement, evaluation.examples[agreement])
    return parts


def _build_accuracy(evaluation: Evaluation) -> Html:
    """Build the sentences on both subnets' top-1 and calibration."""
    predictions = evaluation.predictions
    batches = format_count(evaluation.steps_done, "batch", "batches")
    accuracies = ", ".join(f"{mode} {predictions.top1(mode):.2f} %" for mode in Mode)
    errors = ", ".join(f"{mode} {predictions.calibration_error(mode):.2f} %" for mode in Mode)
    difference, standard_error = predictions.top1_difference()
    relation = "leads" if difference >= 0 else "is behind"
    return element(
        "p",
        f"With the weights after {batches}, the top-1 on {len(predictions):,} test images is: {accuracies}. The motivated "
        f"network {relation} by {abs(difference):.2f} points, with a standard error of {standard_error:.2f}. "
        "The expected calibration error, by which the probability of a prediction is off from how often it is right, is: "
        f"{errors}.",
    )


def _build_agreement_table(predictions: Predictions) -> Html:
    """Build the table of how the two subnets' predictions relate."""
    rows = []
    for agreement in Agreement:
        count = len(predictions.find_images(agreement))
        rows.append([agreement, f"{count:,}", format_percent(count / len(predictions))])
    return table(["the two predictions", "images", "share"], rows, class_="numbers")


def _build_class_table(predictions: Predictions) -> list[Html]:
    """Build the metrics of each class, or of the worst recognised of many, with a sentence on their means."""
    metrics = [predictions.metrics(mode) for mode in Mode]
    means = ", ".join(f"{mode} {each.balanced_accuracy:.2f} %" for mode, each in zip(Mode, metrics, strict=True))
    sentence = f"The balanced accuracy, which is the mean recall of the classes, is: {means}."
    labels = range(len(predictions.class_names))
    if len(labels) > MAX_LISTED_CLASSES:
        # Classes without images come last, because they have no recall.
        recall = metrics[0].recall + metrics[1].recall
        labels = np.argsort(recall, kind="stable")[:MAX_LISTED_CLASSES].tolist()
        sentence += f" The table has the {MAX_LISTED_CLASSES} classes with the lowest recall."
    head: list[object] = ["class", "images"]
    for mode in Mode:
        for name in ("precision", "recall", "F1"):
            head.append(join_html([mode_label(mode), f" {name}"]))
    rows = []
    for label in labels:
        row = [predictions.class_names[label], f"{metrics[0].images_per_class[label]:,}"]
        for each in metrics:
            row += [_format_metric(values[label]) for values in (each.precision, each.recall, each.f1)]
        rows.append(row)
    return [element("p", sentence), table(head, rows, class_="numbers")]


def _format_metric(percentage: float) -> str:
    """Return a metric of a class for a cell; a dash if the class has no images."""
    if math.isnan(percentage):
        return "-"
    return format_percent(percentage / 100, 1)


def _build_confusion_matrices(predictions: Predictions, figures: Mapping[str, RenderedFigure]) -> Html:
    """Build the confusion matrices of both subnets, side by side."""
    # Both matrices are pooled in the same way: either gives the number of classes that share a row.
    _, classes_per_row = pool_classes(predictions.confusion_matrix(Mode.BASE))
    if len(predictions.class_names) <= MAX_LABELLED_CLASSES:
        caption = "images by true and predicted class."
    else:
        caption = "share of each true class by predicted class."
    if classes_per_row > 1:
        caption += f" {classes_per_row} neighbouring classes share a point."
    matrices = []
    for mode in Mode:
        matrices.append(figure(figures[f"confusion_{mode}"], f"{mode}: {caption}", class_="half matrix"))
    return element("div", *matrices, class_="figures")


def _build_confusion_table(predictions: Predictions) -> Html:
    """Build the table of the pairs of classes that the subnets confuse most."""
    pairs = predictions.find_most_confused(CONFUSED_PAIRS)
    if not pairs:
        return element("p", "No image is predicted as another class.")
    names = predictions.class_names
    matrices = [predictions.confusion_matrix(mode) for mode in Mode]
    # Show the count of each pair and its share of the class, for both subnets.
    rows = []
    for label, prediction in pairs:
        # A row of the matrix sums up to the images of its true class.
        images_of_class = int(matrices[0][label].sum())
        row = [f"{names[label]} predicted as {names[prediction]}"]
        for matrix in matrices:
            count = matrix[label, prediction]
            row.append(f"{count:,} ({format_percent(count / images_of_class, 1)})")
        row.append(f"{images_of_class:,}")
        rows.append(row)
    head = ["most confused", *(mode_label(mode) for mode in Mode), "images of the class"]
    return table(head, rows, class_="numbers")


def _build_gallery(predictions: Predictions, agreement: Agreement, examples: Sequence[ExampleImage]) -> list[Html]:
    """Build the images of one way in which the subnets disagree, with both predictions for each.

    Args:
        predictions: predictions for all test images.
        agreement: way in which the subnets disagree.
        examples: some of its images.

    Returns:
        A heading and, if there are images, the images with a sentence on their order.
    """
    # Count all images of this kind; only some of them are shown.
    count = len(predictions.find_images(agreement))
    heading = element("h4", f"{agreement}: {format_count(count, 'image', 'images')}")
    if not examples:
        return [heading]
    if count > len(examples):
        note = f"The {len(examples)} on which {EXAMPLE_ORDER[agreement]}."
    else:
        note = f"In the order in which {EXAMPLE_ORDER[agreement]}."
    cards = [_build_card(predictions, example) for example in examples]
    return [heading, element("p", note, class_="note"), element("ul", *cards, class_="gallery")]


def _build_card(predictions: Predictions, example: ExampleImage) -> Html:
    """Build an image with its true class and both predictions."""
    index = example.index
    names = predictions.class_names
    label = int(predictions.labels[index])
    parts = [_build_image(example.pixels, f"test image {index}"), element("b", names[label])]
    for mode in Mode:
        subnet = predictions.subnets.of(mode)
        predicted = int(subnet.classes[index])
        confidence = format_percent(subnet.confidences[index], 0)
        mark = "✓" if predicted == label else "✗"
        parts.append(element("span", f"{mark} {mode}: {names[predicted]}, {confidence}", class_=mode))
    parts.append(element("small", example.file_name or f"no. {index}"))
    return element("li", *parts)


def _build_image(pixels: Tensor, description: str) -> Html:
    """Build an `<img>` that holds its image.

    Args:
        pixels: image in bytes [C, H, W].
        description: text in place of the image, for screen readers.

    Returns:
        The element. Small images are PNGs, because JPEG would blur them; large ones are JPEGs, which take less space.
    """
    from torchvision.transforms.functional import to_pil_image

    image = to_pil_image(pixels)
    content = BytesIO()
    if max(image.size) <= MAX_PIXELATED_SIZE:
        image.save(content, "PNG")
        media_type = "image/png"
        style = " class=pixels"
    else:
        image.thumbnail((MAX_EMBEDDED_SIZE, MAX_EMBEDDED_SIZE))
        image.save(content, "JPEG", quality=80)
        media_type = "image/jpeg"
        style = ""
    # Embed the image in base64, so that the page needs no other file.
    source = f"data:{media_type};base64,{base64.b64encode(content.getvalue()).decode()}"
    size = f'width="{DISPLAY_SIZE}" height="{DISPLAY_SIZE}"'
    return Html(f'<img src="{source}" alt="{for_html(description)}" {size}{style}>')
