"""Classes of image files by an exported network. All that it takes is in the export: names, sizes and normalisation.

Images are brought to the network as the run's own evaluation does it (`nestnet.preprocessing`).
"""

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from nestnet.data.image_files import USUAL, read_image
from nestnet.data.image_folder import images_below
from nestnet.data.preprocessing import eval_transform
from nestnet.deploy.formats import Classify, Onnx, TorchExport
from nestnet.device import choose_device
from nestnet.runtime.notices import log_notice
from nestnet.runtime.terminal import drop_unwritten_output, give, say
from nestnet.storage.files import utf8_name
from nestnet.text.escape import csv_row, for_data, for_terminal
from nestnet.weights.exporting import read_export
from nestnet.weights.metadata import Metadata

Layout = Literal["text", "csv", "json"]


@dataclass(frozen=True)
class Guess:
    """A class of an image: its number, its name, and its probability (softmax)."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What the network says of a file.

    Attributes:
        guesses: the likeliest classes, the likeliest first; none where the file could not be read.
        error: why it could not.
    """

    file: Path
    guesses: list[Guess]
    error: str | None = None


class Predictor:
    """An exported network that classifies image files.

    Args:
        path: a `.safetensors` or `.onnx` file that `nestnet export` or `nestnet.export` wrote.
        device: where a safetensors file's network runs; an ONNX file's runs on the CPU.

    Attributes:
        metadata: of the file.

    Raises:
        ValueError: if the file is absent, damaged, or no export of nestnet; nothing in it is executed.
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        self.metadata, self.network, self.device = _load(Path(path), torch.device(device))
        self.transform = eval_transform(
            self.metadata.size, self.metadata.mean, self.metadata.std, self.metadata.crop_pct
        )
        self.colours = "L" if self.metadata.input_size[0] == 1 else "RGB"

    def answers(self, files: Iterable[Path], *, top: int = 5, batch_size: int = 32) -> Iterator[Answer]:
        """An answer for each file, in order. A file that cannot be read gets an answer without guesses.

        Args:
            top: guesses a file, at most all classes.
            batch_size: images that the network gets at a time.

        Raises:
            ValueError: if either is below 1.
        """
        for name, value in {"top": top, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} = {value}: it must be at least 1")
        return self._answers(iter(files), min(top, self.metadata.num_classes), batch_size)

    def _answers(self, files: Iterator[Path], top: int, batch_size: int) -> Iterator[Answer]:
        while batch := list(itertools.islice(files, batch_size)):
            read = [self._read(file) for file in batch]
            images = [image for image in read if isinstance(image, Tensor)]
            best = iter(self._best(torch.stack(images), top) if images else ())
            for file, image in zip(batch, read, strict=True):
                yield Answer(file, [], image) if isinstance(image, str) else Answer(file, next(best))

    def _read(self, file: Path) -> Tensor | str:
        """The normalised image `[C, H, W]`, or why there is none."""
        if not os.path.exists(file):  # where the system refuses a name, Path.exists would end all
            return f"{file}: there is no such file"
        try:
            return self.transform(read_image(str(file), self.colours))
        except ValueError as error:
            return str(error)

    @torch.inference_mode()
    def _best(self, images: Tensor, top: int) -> list[list[Guess]]:
        probabilities, classes = self.network(images.to(self.device)).float().softmax(dim=1).topk(top)
        return [
            [Guess(index, self.metadata.name_of(index), p) for index, p in zip(indices, ps, strict=True)]
            for indices, ps in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]


def _load(path: Path, device: torch.device) -> tuple[Metadata, Classify, torch.device]:
    match path.suffix.lower():
        case Onnx.suffix:
            return *Onnx().read(path), torch.device("cpu")
        case TorchExport.suffix:
            raise ValueError(
                f"{path}: torch.export's files can execute what they hold as they are loaded; name a .safetensors or .onnx file"
            )
    metadata = read_export(path)
    model = metadata.model()
    with utf8_name(path) as name:
        model.load_state_dict(load_file(name))
    return metadata, model.to(device), device


def predict(paths: Sequence[Path], model: Path, *, top: int = 5, batch_size: int = 32, layout: Layout = "text") -> None:
    """Print the answers to all images that are named, or lie in folders that are; those that cannot be read at the end.

    Raises:
        ValueError: if the model cannot be used, or an image not be read: of several, the others are named on standard error.
    """
    predictor, errors = Predictor(model, choose_device("auto")), []

    def readable() -> Iterator[Answer]:
        for answer in predictor.answers(image_files(paths), top=top, batch_size=batch_size):
            if answer.error is None:
                yield answer
            else:
                errors.append(answer.error)

    try:
        for line in LAYOUTS[layout](readable()):
            give(line)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has enough, as `head` has
        drop_unwritten_output()
    for error in errors[:-1]:
        say(for_terminal(f"nestnet predict: error: {error}"), file=sys.stderr)
    if errors:
        raise ValueError(errors[-1])


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and all image files below the folders among them, sorted, as training reads a class folder.

    Raises:
        ValueError: for a folder without images.
    """
    files = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        try:
            below, left_out = images_below(str(path))
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}; change its permissions") from error
        if not below:
            found = f"; {left_out}" if left_out else ""
            raise ValueError(f"{path}: this folder has no images ({USUAL}){found}")
        if left_out:
            log_notice(f"{path}: {left_out}")
        files += map(Path, below)
    return files


def as_text(answers: Iterable[Answer]) -> Iterator[str]:
    """The file, then names with percentages, for a person."""
    for answer in answers:
        guesses = [f"{for_terminal(guess.name)} {guess.probability:.1%}" for guess in answer.guesses]
        yield f"{for_terminal(answer.file)}  {', '.join(guesses)}"


def as_csv(answers: Iterable[Answer]) -> Iterator[str]:
    """A row a guess. Names are as `nestnet.escape.for_data` writes them."""
    yield csv_row(["file", "rank", "class", "name", "probability"])
    for answer in answers:
        for rank, guess in enumerate(answer.guesses, start=1):
            yield csv_row([answer.file, rank, guess.index, guess.name, f"{guess.probability:.6f}"])


def as_json(answers: Iterable[Answer]) -> Iterator[str]:
    """One list, with an object a file and a line. Names are as `nestnet.escape.for_data` writes them."""
    before = "["
    for answer in answers:
        top = []
        for guess in answer.guesses:
            top.append({"class": guess.index, "name": for_data(guess.name), "probability": round(guess.probability, 6)})
        yield before
        before = json.dumps({"file": for_data(answer.file), "top": top}) + ","
    yield before.removesuffix(",")
    yield "]"


LAYOUTS = {"text": as_text, "csv": as_csv, "json": as_json}
"""How answers with guesses become lines."""
