"""An exported network that classifies image files.

The export provides everything that is needed: architecture, class names, image size and normalisation. Images
are prepared as in the run's own evaluation (`nestnet.data.preprocessing`).
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nestnet.data.image_decoding import read_image
from nestnet.data.preprocessing import Transform, create_eval_transform
from nestnet.deploy.formats import EXPORT_FORMATS
from nestnet.deploy.loading import LoadedExport, load_export
from nestnet.deploy.raw_pixels import run_raw, to_raw_pixels
from nestnet.weights.metadata import Metadata


@dataclass(frozen=True)
class ClassProbability:
    """Class of an image with its probability.

    Attributes:
        index: index of the class, from 0.
        name: name of the class, or its index if the classes have no names.
        probability: probability that the network gives it, from 0 to 1.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """Prediction of the network for one file.

    Attributes:
        file: image file.
        top: the most probable classes, the most probable first; empty if the file cannot be read.
        error: reason why the file cannot be read; `None` if it can.
        passed_on: whether the motivated network of a cascade decided the image; `None` for a single network.
    """

    file: Path
    top: list[ClassProbability]
    error: str | None = None
    passed_on: bool | None = None


class Predictor:
    """Exported network that classifies image files.

    Args:
        path: `.safetensors`, `.onnx`, `.xml` or `.pte` file that `nestnet export` or `nestnet.export` wrote, or folder of
            timm's format.
        device: device on which the network of a safetensors file runs; a program always runs on the CPU.

    Attributes:
        metadata: metadata of the file.
        network: function from normalised images `[B, C, H, W]`, or from raw pixels `[B, H, W, C]` if the file prepares
            images itself, to logits `[B, K]`.
        device: device on which the network runs.
        transform: function from an image to the network's input, `[C, H, W]` or `[H, W, C]`.
        export_format: format of the file.

    Raises:
        ValueError: If the file is absent, damaged, or no export of nestnet; nothing in it is executed.

    Example:
        ```python
        predictor = Predictor("base.safetensors")
        for prediction in predictor.predict([Path("photo.jpg")], top=3):
            print(prediction.file, prediction.top[0].name)
        ```
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        self._use(load_export(Path(path), torch.device(device)))

    def _use(self, export: LoadedExport) -> None:
        """Take a network, and prepare images as its metadata says."""
        self.metadata = export.metadata
        self.network = export.network
        self.device = export.device
        # Pillow's modes are "L" for grey and "RGB" for colour.
        self.image_mode = "L" if self.metadata.input_size[0] == 1 else "RGB"
        self.transform = _choose_transform(self.metadata)
        self.export_format = EXPORT_FORMATS[export.format]

    def predict(self, files: Iterable[Path], *, top: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
        """Classify image files.

        Args:
            files: image files.
            top: number of classes per image, at least 1; larger numbers are limited to all classes.
            batch_size: number of images per forward pass, at least 1.

        Returns:
            An iterator over a prediction for each file, in order. A file that cannot be read has no classes.

        Raises:
            ValueError: If `top` or `batch_size` is below 1.
        """
        for name, value in {"top": top, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} = {value}: it must be at least 1")
        # The generator is a separate function, so that a wrong argument is refused at once.
        return self._predict_in_batches(iter(files), min(top, self.metadata.num_classes), batch_size)

    def _predict_in_batches(self, files: Iterator[Path], top: int, batch_size: int) -> Iterator[Prediction]:
        batch = list(itertools.islice(files, batch_size))
        while batch:
            yield from self._predict_batch(batch, top)
            batch = list(itertools.islice(files, batch_size))

    def _predict_batch(self, files: list[Path], top: int) -> Iterator[Prediction]:
        # Collect the readable images in a batch, and the errors of the other files.
        images: dict[int, Tensor] = {}
        errors: dict[int, str] = {}
        for position, file in enumerate(files):
            try:
                images[position] = self._read(file)
            except ValueError as error:
                errors[position] = str(error)
        predictions: dict[int, Prediction] = {}
        if images:
            logits, passed_on = self._run(list(images.values()))
            tops = self._name_classes(logits, top)
            for position, classes, is_passed_on in zip(images, tops, passed_on, strict=True):
                predictions[position] = Prediction(files[position], classes, passed_on=is_passed_on)
        # Yield the predictions in the order of the files.
        for position, file in enumerate(files):
            if position in errors:
                yield Prediction(file, [], errors[position])
            else:
                yield predictions[position]

    def _read(self, file: Path) -> Tensor:
        """Return the image as the network takes it, normalised or as raw pixels."""
        # `Path.exists` would raise an error for a name that the system does not allow.
        if not os.path.exists(file):
            raise ValueError(f"{file}: there is no such file")
        image = self.transform(read_image(str(file), self.image_mode))
        if self.metadata.preprocessing == "inside":
            try:
                self.export_format.check_image_size(image.shape[0], image.shape[1])
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error
        return image

    @torch.inference_mode()
    def _run(self, images: list[Tensor]) -> tuple[Tensor, Sequence[bool | None]]:
        """Return the logits `[B, K]` of some images, and which of them a cascade has passed on."""
        if self.metadata.preprocessing == "inside":
            logits = run_raw(self.network, images)
        else:
            logits = self.network(torch.stack(images).to(self.device))
        return logits, [None] * len(images)

    def _name_classes(self, logits: Tensor, top: int) -> list[list[ClassProbability]]:
        """Return the most probable classes of each image of a batch from its logits `[B, K]`."""
        probabilities, indices = self.metadata.probabilities(logits).topk(top)  # [B, top]
        classified = []
        for image_indices, image_probabilities in zip(indices.tolist(), probabilities.tolist(), strict=True):
            classes = []
            for index, probability in zip(image_indices, image_probabilities, strict=True):
                classes.append(ClassProbability(index, self.metadata.class_name(index), probability))
            classified.append(classes)
        return classified


def _choose_transform(metadata: Metadata) -> Transform:
    """Return the function from an image to the input of a network, which may prepare images itself."""
    if metadata.preprocessing == "inside":
        return to_raw_pixels
    return create_eval_transform(metadata.size, metadata.mean, metadata.std, metadata.crop_pct)
