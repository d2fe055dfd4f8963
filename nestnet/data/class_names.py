"""The names of a classifier's outputs: what they must be, and what those of ImageNet-1k are."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import timm.data

from nestnet.text.escape import is_utf8, quoted


def checked_class_names(names: Sequence[Any] | None, num_classes: int) -> list[str]:
    """Return names of classes, if they can name the outputs of a network.

    Args:
        names: names of the outputs, in order; `None`, or none of them, where the classes have no names.
        num_classes: outputs of the network.

    Raises:
        ValueError: unless each output has a text, none is empty or comes twice, and all can be written as UTF-8.

    >>> checked_class_names(["cat", "dog"], 2)
    ['cat', 'dog']
    """
    if isinstance(names, str):
        raise ValueError(f"class_names = {names!r}: it must be a list of texts, one for each class")
    listed = [] if names is None else list(names)
    if listed and len(listed) != num_classes:
        raise ValueError(f"class_names has {len(listed)} names for a network of num_classes = {num_classes}")
    places: dict[str, int] = {}
    for index, name in enumerate(listed):
        field = f"class_names[{index}] = {quoted(name) if isinstance(name, str) else repr(name)}"
        if not isinstance(name, str):
            raise ValueError(f"{field}: a name must be a text; take [str(name) for name in class_names]")
        if not name:
            raise ValueError(f"{field}: a name must not be empty")
        if name in places:
            raise ValueError(f"{field}: class {places[name]} has this name too; give each class a name of its own")
        if not is_utf8(name):
            raise ValueError(f"{field}: it cannot be written as UTF-8; take another name")
        places[name] = index
    # an array's texts are of a class of their own
    return [str(name) for name in listed]


@cache
def imagenet_class_names() -> dict[str, str]:
    """Return a name for each WordNet id of ImageNet-1k, in the order of timm's and torchvision's weights.

    A name is timm's description of the class. Two of them are a crane, a bird and a machine: the id tells them apart.
    """
    info = timm.data.ImageNetInfo()
    descriptions = {wordnet_id: info.label_name_to_description(wordnet_id) for wordnet_id in info.label_names()}
    numbers = Counter(descriptions.values())
    names: dict[str, str] = {}
    for wordnet_id, description in descriptions.items():
        names[wordnet_id] = description if numbers[description] == 1 else f"{description} ({wordnet_id})"
    return names
