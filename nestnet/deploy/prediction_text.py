"""The formatting of predictions as text, CSV or JSON."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from nestnet.deploy.predictor import Prediction
from nestnet.text.escape import csv_row, for_data, for_terminal

Layout = Literal["text", "csv", "json"]


def as_text(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield a readable line per file: the file, then names of classes with percentages.

    Args:
        predictions: predictions of files that can be read.

    Yields:
        The lines, without line breaks.
    """
    for prediction in predictions:
        classes = [f"{for_terminal(each.name)} {each.probability:.1%}" for each in prediction.top]
        yield f"{for_terminal(prediction.file)}  {', '.join(classes)}"


def as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield a header and a row per file and class. Names are written by `nestnet.text.escape.for_data`.

    Args:
        predictions: predictions of files that can be read.

    Yields:
        The lines, without line breaks.
    """
    yield csv_row(["file", "rank", "class", "name", "probability"])
    for prediction in predictions:
        for rank, each in enumerate(prediction.top, start=1):
            yield csv_row([prediction.file, rank, each.index, each.name, f"{each.probability:.6f}"])


def as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield one list with an object per file, each on a line.

    Names are written by `nestnet.text.escape.for_data`.

    Args:
        predictions: predictions of files that can be read.

    Yields:
        The lines, without line breaks.
    """
    # Yield a line once the next one is known, because the last object is not followed by a comma.
    line = "["
    for prediction in predictions:
        top = []
        for each in prediction.top:
            top.append({"class": each.index, "name": for_data(each.name), "probability": round(each.probability, 6)})
        yield line
        entry: dict[str, object] = {"file": for_data(prediction.file), "top": top}
        if prediction.passed_on is not None:
            entry["passed_on"] = prediction.passed_on
        line = json.dumps(entry) + ","
    yield line.removesuffix(",")
    yield "]"


# Functions from predictions to lines, by the name of the layout.
LAYOUTS: dict[Layout, Callable[[Iterable[Prediction]], Iterator[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
