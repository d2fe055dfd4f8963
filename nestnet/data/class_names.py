"""The names of a classifier's outputs: what they must be, and what those of ImageNet-1k are."""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import timm.data

from nestnet.text.escape import is_utf8, quoted


def validate_class_names(names: Sequence[Any] | None, num_classes: int) -> list[str]:
    """Return the names of classes as a list of plain strings, if they can name the outputs of a network.

    Args:
        names: names of the outputs, in order; `None` or an empty sequence if the classes have no names.
        num_classes: number of outputs of the network.

    Returns:
        The names; an empty list if the classes have none.

    Raises:
        ValueError: Unless each output has a text, none is empty or comes twice, and all can be written as
            UTF-8.

    >>> validate_class_names(["cat", "dog"], 2)
    ['cat', 'dog']
    """
    if isinstance(names, str):
        raise ValueError(f"class_names = {names!r}: it must be a list of strings, one for each class")
    if names is None:
        return []
    listed = list(names)
    if listed and len(listed) != num_classes:
        raise ValueError(f"class_names has {len(listed)} names for a network of num_classes = {num_classes}")
    index_of_name: dict[str, int] = {}
    for index, name in enumerate(listed):
        if not isinstance(name, str):
            raise ValueError(
                f"class_names[{index}] = {name!r}: a name must be a string; pass [str(name) for name in class_names]"
            )
        field = f"class_names[{index}] = {quoted(name)}"
        if not name:
            raise ValueError(f"{field}: a name must not be empty")
        if name in index_of_name:
            raise ValueError(
                f"{field}: class {index_of_name[name]} has this name too; give each class a different name"
            )
        if not is_utf8(name):
            raise ValueError(f"{field}: it cannot be written as UTF-8; choose another name")
        index_of_name[name] = index
    # The strings in a numpy array are instances of `numpy.str_`.
    return [str(name) for name in listed]


def describe_untrained_classes(class_names: Sequence[str], trained: Collection[str]) -> str:
    """Return how many classes have no training images, with one of them, for a notice; an empty string if none.

    Args:
        class_names: name of each class.
        trained: names of the classes that have training images.

    >>> describe_untrained_classes(["cat", "dog"], {"dog"})
    '1 of 2 classes have no training images, such as cat'
    """
    untrained = [name for name in class_names if name not in trained]
    if not untrained:
        return ""
    return f"{len(untrained):,} of {len(class_names):,} classes have no training images, such as {untrained[0]}"


@cache
def imagenet_class_names() -> dict[str, str]:
    """Return a name for each WordNet id of ImageNet-1k, in the order of timm's and torchvision's weights.

    A name is timm's description of the class. Two classes are described as a crane, a bird and a machine;
    their ids tell them apart.

    Returns:
        The name of each class by its WordNet id.
    """
    # timm knows the 1,000 classes in the order of the outputs of its networks.
    info = timm.data.ImageNetInfo()
    names: dict[str, str] = {}
    for wordnet_id in info.label_names():
        names[wordnet_id] = info.label_name_to_description(wordnet_id)
    occurrences = Counter(names.values())
    for wordnet_id, description in names.items():
        if occurrences[description] > 1:
            names[wordnet_id] = f"{description} ({wordnet_id})"
    return names
