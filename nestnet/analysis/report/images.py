"""What a report says of the test images: both subnets' answers, what they confuse, and the images on which they differ."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from torch import Tensor

from nestnet.analysis.report.figures import NAMED, Drawn, pooled
from nestnet.analysis.report.markup import Html, figure, table, tag
from nestnet.analysis.report.predictions import RULES, Kind, Predictions
from nestnet.analysis.report.words import batches, percent
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_html

PIXELS = 112
"""Height and width of an image on the page; larger images are made this small, smaller ones shown with visible pixels."""
CONFUSED = 12
"""Pairs of classes in the table of confusions."""


@dataclass(frozen=True)
class Picture:
    """A test image, as it is shown.

    Attributes:
        index: its place among the test images, from 0.
        pixels: `[C, H, W]` bytes.
        file: its file's name; empty if it has none.
    """

    index: int
    pixels: Tensor
    file: str


@dataclass(frozen=True)
class Judged:
    """What both subnets say of the test images.

    Attributes:
        predictions: of all of them.
        steps: batches that the weights had been trained on.
        pictures: some of each kind on which the subnets differ.
    """

    predictions: Predictions
    steps: int
    pictures: dict[Kind, list[Picture]]


def judged_parts(judged: Judged, figures: Mapping[str, Drawn]) -> Iterable[Html]:
    """Both subnets' answers: how they relate, what they confuse, and the images on which they differ."""
    predictions, number = judged.predictions, len(judged.predictions)
    rows = []
    for kind in Kind:
        count = len(predictions.which(kind))
        rows.append([kind, f"{count:,}", percent(count / number)])
    lead, error = predictions.lead
    leads = "leads" if lead >= 0 else "is behind"
    accuracy = ", ".join(f"{mode} {predictions.top1(mode):.2f} %" for mode in Mode)
    yield tag(
        "p",
        f"With the weights after {batches(judged.steps)} the subnets get {accuracy} of {number:,} test images right; the "
        f"motivated network {leads} by {abs(lead):.2f} points, with a standard error of {error:.2f}.",
    )
    yield table(["the two answers", "images", "share"], rows, class_="numbers")
    classes, (_, group) = len(predictions.class_names), pooled(predictions.confusion(Mode.BASE))
    caption = "images by true class and answer." if classes <= NAMED else "share of each true class by answer."
    caption += f" {group} neighbouring classes share a point." if group > 1 else ""
    matrices = [figure(figures[f"confusion_{mode}"], f"{mode}: {caption}", class_="half matrix") for mode in Mode]
    yield tag("div", *matrices, class_="figures")
    yield confusions_table(predictions)
    for kind in RULES:
        yield from gallery(predictions, kind, judged.pictures[kind])


def confusions_table(predictions: Predictions) -> Html:
    """The pairs of classes that are confused most."""
    pairs, names = predictions.most_confused(CONFUSED), predictions.class_names
    if not pairs:
        return tag("p", "No image is taken for one of another class.")
    counts = [predictions.confusion(mode) for mode in Mode]
    rows = []
    for label, answer in pairs:
        total = int(counts[0][label].sum())
        shares = [f"{count[label, answer]:,} ({percent(count[label, answer] / total, 1)})" for count in counts]
        rows.append([f"{names[label]} taken for {names[answer]}", *shares, f"{total:,}"])
    head = ["most confused", *(tag("span", mode, class_=mode) for mode in Mode), "images of the class"]
    return table(head, rows, class_="numbers")


def gallery(predictions: Predictions, kind: Kind, pictures: Sequence[Picture]) -> Iterable[Html]:
    """Images of a kind with both answers."""
    count = len(predictions.which(kind))
    yield tag("h4", f"{kind}: {count:,} {'image' if count == 1 else 'images'}")
    if not pictures:
        return
    first = f"The {len(pictures)} on which" if count > len(pictures) else "In the order in which"
    yield tag("p", f"{first} {RULES[kind]}.", class_="note")
    yield tag("ul", *(_card(predictions, picture) for picture in pictures), class_="gallery")


def _card(predictions: Predictions, picture: Picture) -> Html:
    index, names = picture.index, predictions.class_names
    label = int(predictions.labels[index])
    lines = [tag("b", names[label])]
    for mode in Mode:
        answers = predictions.answers.of(mode)
        answer, sure = int(answers.classes[index]), percent(answers.probabilities[index], 0)
        mark = "✓" if answer == label else "✗"
        lines.append(tag("span", f"{mark} {mode}: {names[answer]}, {sure}", class_=mode))
    return tag(
        "li", _image(picture.pixels, f"test image {index}"), *lines, tag("small", picture.file or f"no. {index}")
    )


def _image(pixels: Tensor, alt: str) -> Html:
    """An `<img>` that holds its image: PNG where it is small, else JPEG."""
    from torchvision.transforms.functional import to_pil_image

    image, content = to_pil_image(pixels), BytesIO()
    small = max(image.size) <= PIXELS // 2
    if small:
        image.save(content, "PNG")
    else:
        image.thumbnail((2 * PIXELS, 2 * PIXELS))  # for screens with two pixels where the page counts one
        image.save(content, "JPEG", quality=80)
    source = f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(content.getvalue()).decode()}"
    size = f'width="{PIXELS}" height="{PIXELS}"'
    return Html(f'<img src="{source}" alt="{for_html(alt)}" {size}{" class=pixels" if small else ""}>')
