"""The check of an exported file: a comparison of its logits, in its own runtime, with those of the network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nestnet.data.image_data import ImageData
from nestnet.deploy.export_format import LoadedModel
from nestnet.text.messages import message_of
from nestnet.weights.metadata import Metadata

# A file must accept any number of images, so it is checked on several batch sizes.
BATCH_SIZES = (1, 8, 16)

# Largest difference of a logit: relative to the largest logit where that is above 1, otherwise absolute.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class LogitCheck:
    """Comparison of the logits of a file with those of the network.

    Attributes:
        runtime: name and version of the library that loaded the file.
        images: description of the images: `"test images"`, or their substitute with the reason.
        difference: largest difference of a logit.
        scale: largest magnitude of a logit of the network.
    """

    runtime: str
    images: str
    difference: float
    scale: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= TOLERANCE * max(self.scale, 1.0)

    def describe_failure(self) -> str:
        """Return why the file must not be written, for the end of a message."""
        return f"its logits are not those of the network: {self}"

    def __str__(self) -> str:
        *sizes, last_size = BATCH_SIZES
        return (
            f"{self.runtime} on {sum(BATCH_SIZES)} {self.images}, "
            f"in batches of {', '.join(map(str, sizes))} and {last_size}: "
            f"the largest difference of a logit is {self.difference:.2g}, and the largest logit {self.scale:.3g}"
        )


@torch.inference_mode()
def compare_logits(model: LoadedModel, network: nn.Module, batches: Sequence[Tensor]) -> tuple[float, float]:
    """Compare the logits of a loaded file with those of the network.

    Args:
        model: loaded file.
        network: network that the file was written from, on the CPU in evaluation mode.
        batches: batches of normalised images `[B, C, H, W]`.

    Returns:
        The largest difference of a logit, and the largest magnitude of a logit of the network.
    """
    differences = []
    magnitudes = []
    for images in batches:
        expected = network(images)
        differences.append((model(images) - expected).abs().flatten())
        magnitudes.append(expected.abs().max().item())
    # Unlike Python's `max`, the maximum of a tensor propagates NaN.
    return torch.cat(differences).max().item(), max(magnitudes)


def choose_check_images(images: ImageData | None, absence: str, metadata: Metadata) -> tuple[list[Tensor], str]:
    """Choose the images to check a file on.

    Args:
        images: images of the run; `None` if they cannot be read.
        absence: reason why they cannot be read.
        metadata: metadata of the file.

    Returns:
        Batches `[B, C, H, W]` of test images, spread over the set, or of random images if there are none,
        and their description.
    """
    count = sum(BATCH_SIZES)
    if images is not None:
        try:
            test_images = [images.test[index * len(images.test) // count][0] for index in range(count)]
            return list(torch.stack(test_images).split(BATCH_SIZES)), "test images"
        except (ValueError, OSError) as error:
            absence = message_of(error)
    # Random pixels, normalised as images are: [C, 1, 1] for each channel.
    mean = torch.tensor(metadata.mean).view(-1, 1, 1)
    std = torch.tensor(metadata.std).view(-1, 1, 1)
    pixels = torch.rand(count, *metadata.input_size, generator=torch.Generator().manual_seed(0))
    random_images = (pixels - mean) / std
    return list(random_images.split(BATCH_SIZES)), f"random images (those of the run cannot be read: {absence})"
