"""Weights of classes that have different numbers of training images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nestnet.config.schema_sections import ClassWeights
from nestnet.text.escape import quoted
from nestnet.text.suggestions import list_some


def count_images(train_labels: Sequence[int], class_names: Sequence[str], field: str) -> Tensor:
    """Return the number of training images of each class, to which a balance refers, if each class has some.

    Args:
        train_labels: label of each training image `[N]`.
        class_names: name of each class `[K]`, in the order of the labels.
        field: field that asks for the balance, with its value, for the message.

    Returns:
        The numbers `[K]`.

    Raises:
        ValueError: If a class has no training images.
    """
    counts = _count(train_labels, class_names)
    for name, count in zip(class_names, counts.tolist(), strict=True):
        if count == 0:
            raise ValueError(
                f"{field}: the class {quoted(name)} has no training images; add some, or leave the field out"
            )
    return counts


def compute_class_weights(
    class_weights: ClassWeights, train_labels: Sequence[int], class_names: Sequence[str]
) -> list[float]:
    """Return the weight of each class, scaled so that the mean over the training images is 1.

    With that scale a learning rate keeps its meaning. `balanced` weights are then those of scikit-learn's
    `compute_class_weight`: N images of K classes give N / (K * count) for a class of `count` images.

    Args:
        class_weights: `"balanced"`; or the weight of each class as a list in the order of the labels, or by name,
            where a class without one has the weight 1.
        train_labels: label of each training image `[N]`.
        class_names: name of each class `[K]`, in the order of the labels.

    Returns:
        The weights `[K]`.

    Raises:
        ValueError: If the weights are not those of the classes, or the weights are to be balanced and a class has no
            training images.

    Example:
        >>> compute_class_weights("balanced", [0, 0, 0, 1], ["cat", "dog"])
        [0.6666666666666666, 2.0]
    """
    if isinstance(class_weights, str):
        counts = count_images(train_labels, class_names, f"data.class_weights = {class_weights}").double()
        weights = 1 / counts
    else:
        counts = _count(train_labels, class_names).double()
        weights = torch.tensor(_list_weights(class_weights, class_names), dtype=torch.double)
    weights *= counts.sum() / (weights * counts).sum()
    return weights.tolist()


def _count(train_labels: Sequence[int], class_names: Sequence[str]) -> Tensor:
    return torch.bincount(torch.tensor(train_labels, dtype=torch.long), minlength=len(class_names))


def _list_weights(class_weights: list[float] | dict[str, float], class_names: Sequence[str]) -> list[float]:
    """Return the weights that a configuration gives, in the order of the labels."""
    field = f"data.class_weights = {class_weights!r}"
    if isinstance(class_weights, list):
        if len(class_weights) != len(class_names):
            raise ValueError(
                f"{field}: these are {len(class_weights)} weights, and there are {len(class_names)} classes; give one for "
                "each, in the order of the class names, or a mapping from names to weights"
            )
        return class_weights
    for name in class_weights:
        if name not in class_names:
            raise ValueError(f"{field}: {quoted(name)} is no class; the classes are {list_some(class_names)}")
    return [class_weights.get(name, 1.0) for name in class_names]
