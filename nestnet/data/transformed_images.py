"""Datasets of images as a network receives them: stored images, each with a transform applied."""

from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from nestnet.data.preprocessing import Transform
from nestnet.data.seeding import seeded_rng

Views = Tensor | tuple[Tensor, Tensor]
"""An image `[C, H, W]`, or images `[B, C, H, W]`; or, where the two networks see them differently, what the base and what
the motivated network sees."""


class TrainImages(Dataset[tuple[Views, int]]):
    """A dataset of augmented images whose random numbers follow from a seed that comes with the index.

    Args:
        dataset: stored images; gives a PIL image or bytes `[C, H, W]`, and a label, for an index.
        transform: augmentation that turns a stored image into a normalised one `[C, H, W]`, or into two, as
            each of the two networks sees it.
        torch_only: whether the augmentation draws random numbers from torch alone. Seeding Python and numpy
            as well takes a tenth of a millisecond per image.
    """

    def __init__(self, dataset: Any, transform: Transform, *, torch_only: bool) -> None:
        self.dataset = dataset
        self.transform = transform
        self.torch_only = torch_only

    def __getitem__(self, key: tuple[int, int]) -> tuple[Views, int]:
        index, seed = key
        # A data set that is given in Python may draw random numbers too.
        with seeded_rng(seed, torch_only=self.torch_only):
            image, label = self.dataset[index]
            return self.transform(image), label

    def __len__(self) -> int:
        return len(self.dataset)


class EvalImages(Dataset[tuple[Tensor, int]]):
    """A dataset of images that are all transformed in the same way, without random numbers.

    Args:
        dataset: stored images; gives a PIL image or bytes `[C, H, W]`, and a label, for an index.
        transform: function that turns a stored image into a tensor `[C, H, W]`.
    """

    def __init__(self, dataset: Any, transform: Transform) -> None:
        self.dataset = dataset
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(image), label

    def __len__(self) -> int:
        return len(self.dataset)
