"""The check of a file that prepares images itself: its classes, from raw pixels, are those of the run on every test image."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from nestnet.data.image_data import ImageData
from nestnet.data.image_files import ImageFiles
from nestnet.data.preprocessing import create_eval_transform
from nestnet.deploy.export_format import LoadedModel
from nestnet.deploy.raw_pixels import run_raw, to_raw_pixels
from nestnet.text.escape import quoted
from nestnet.weights.metadata import Metadata

# Number of images that are compared at a time.
BATCH_SIZE = 32

# Heights and widths of the random images that stand in for test images that cannot be read.
RANDOM_SIZES = ((32, 32), (480, 640), (900, 60), (60, 900), (1, 1))


@dataclass(frozen=True)
class ClassCheck:
    """Comparison of the classes of a file with those of the run.

    Attributes:
        runtime: name and version of the library that loaded the file.
        images: description of the images: `"test images"`, or their substitute with the reason.
        count: number of images that were compared.
        different: number of images of which the classes differ.
        example: description of one of them; empty if there are none.
        difference: largest difference of a logit.
    """

    runtime: str
    images: str
    count: int
    different: int
    example: str
    difference: float

    @property
    def passed(self) -> bool:
        """Whether all classes are the same, and no logit is NaN."""
        return self.different == 0 and not math.isnan(self.difference)

    def describe_failure(self) -> str:
        """Return why the file must not be written, for the end of a message."""
        return (
            f"from raw pixels it gives other classes than the run to {self.different:,} of {self.count:,} {self.images}, "
            f"such as {self.example} ({self.runtime}; the largest difference of a logit is {self.difference:.2g}); "
            "set preprocessing to outside"
        )

    def __str__(self) -> str:
        return (
            f"{self.runtime} on all {self.count:,} {self.images}, from raw pixels: each class is that of the run, "
            f"and the largest difference of a logit is {self.difference:.2g}"
        )


@torch.inference_mode()
def check_classes(
    model: LoadedModel,
    runtime: str,
    network: nn.Module,
    images: ImageData | None,
    absence: str,
    metadata: Metadata,
) -> ClassCheck:
    """Compare the classes of a file that prepares images itself with those of the run, on all test images.

    Args:
        model: loaded file.
        runtime: name and version of the library that loaded it.
        network: network that the file was written from, on the CPU in evaluation mode.
        images: images of the run; `None` if they cannot be read, in which case random ones are taken.
        absence: reason why they cannot be read.
        metadata: metadata of the file.

    Returns:
        The comparison.
    """
    description = "test images"
    pairs = _random_images(metadata)
    if images is None:
        description = f"random images (those of the run cannot be read: {absence})"
    else:
        pairs = _test_images(images)

    count = 0
    different: list[tuple[int, str]] = []
    difference = 0.0
    for raw, prepared in _in_batches(pairs):
        expected = network(torch.stack(prepared))
        found = run_raw(model, raw)
        # NaN is not lost: unlike Python's `max`, the maximum of a tensor propagates it.
        difference = torch.stack([torch.tensor(difference), (found - expected).abs().max()]).max().item()
        found_classes = _choose_classes(found, metadata)
        expected_classes = _choose_classes(expected, metadata)
        for index in (found_classes != expected_classes).any(dim=1).nonzero().flatten().tolist():
            instead = _join_names(expected_classes[index], metadata)
            different.append((count + index, f"{_join_names(found_classes[index], metadata)} instead of {instead}"))
        count += len(raw)

    example = ""
    if different:
        position, classes = different[0]
        example = f"{_name_image(images, position)}: {classes}"
    return ClassCheck(runtime, description, count, len(different), example, difference)


def _choose_classes(logits: Tensor, metadata: Metadata) -> Tensor:
    """Return which classes each image gets, bool `[B, K]`: the most probable one, or any number of those above one half."""
    if metadata.multi_label:
        # The sigmoid of a logit above 0 is above one half.
        return logits > 0
    return functional.one_hot(logits.argmax(dim=1), metadata.num_classes).bool()


def _join_names(classes: Tensor, metadata: Metadata) -> str:
    """Return the names of the classes of an image, which are bool `[K]`."""
    names = [metadata.class_name(index) for index in classes.nonzero().flatten().tolist()]
    return ", ".join(names) or "no class"


def _test_images(images: ImageData) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each test image as raw pixels, and as the run's own evaluation prepares it."""
    for index in range(len(images.test)):
        stored, _ = images.test.dataset[index]
        yield to_raw_pixels(stored), images.test.transform(stored)


def _random_images(metadata: Metadata) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random images of several sizes, as raw pixels and prepared."""
    transform = create_eval_transform(metadata.size, metadata.mean, metadata.std, metadata.crop_pct)
    generator = torch.Generator().manual_seed(0)
    for size in RANDOM_SIZES:
        raw = torch.randint(256, (*size, metadata.input_size[0]), generator=generator, dtype=torch.uint8)
        yield raw, transform(Image.fromarray(raw.squeeze(-1).numpy()))


def _in_batches(pairs: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield pairs as two lists of up to `BATCH_SIZE` images."""
    batch = list(itertools.islice(pairs, BATCH_SIZE))
    while batch:
        yield [raw for raw, _ in batch], [prepared for _, prepared in batch]
        batch = list(itertools.islice(pairs, BATCH_SIZE))


def _name_image(images: ImageData | None, position: int) -> str:
    """Return the path of an image, or its number if it is not a file."""
    if images is not None and isinstance(images.test.dataset, ImageFiles):
        return quoted(images.test.dataset.paths[position])
    return f"number {position}"
