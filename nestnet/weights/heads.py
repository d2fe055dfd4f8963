"""The matching of a trained head's outputs to the classes of another network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEFT_OUT = ": the head is left out"
"""End of a remark about a head that is not used."""


@dataclass(frozen=True)
class TrainedHead:
    """What is known about the head of a network with trained weights.

    Attributes:
        modules: timm's names of the modules that make up the head; empty if the family does not name them.
        num_classes: number of outputs; 0 if there is no head.
        class_names: names of the outputs, in order; `None` if they are not known.
    """

    modules: tuple[str, ...]
    num_classes: int
    class_names: list[str] | None


@dataclass(frozen=True)
class HeadMatch:
    """How the outputs of a trained head are used for the classes of a network.

    Attributes:
        rows: output of the trained head for each class of the network, in order; `None` if the head is not
            used.
        remark: remark for the user, as the end of a sentence about the file; `None` if everything is as
            expected.
    """

    rows: list[int] | None
    remark: str | None = None


def match_head(
    head: TrainedHead, num_classes: int, class_names: Sequence[str] | None, *, has_usual_classes: bool
) -> HeadMatch:
    """Decide whether and in which order a network uses the outputs of a trained head.

    Args:
        head: trained head.
        num_classes: number of classes of the network.
        class_names: names of these classes, in order; `None` if they are assumed to be those of the head.
        has_usual_classes: whether the classes are those of a public data set with a standard order. A head
            without class names is then assumed to belong to that data set if it has as many classes.

    Returns:
        The outputs to use, and a remark.
    """
    if head.num_classes == 0:
        return HeadMatch(None, "it has no head")
    if head.num_classes != num_classes:
        return HeadMatch(
            None,
            f"its head is for {head.num_classes} classes, and this network has {num_classes}{LEFT_OUT}",
        )
    # An equal number of classes proves nothing: without names on both sides, the user is responsible.
    same_order = list(range(num_classes))
    if class_names is None or head.class_names == list(class_names):
        return HeadMatch(same_order)
    if head.class_names is None:
        if has_usual_classes:
            return HeadMatch(
                same_order,
                "it does not name its classes, which are assumed to be those of the data in their usual order",
            )
        return HeadMatch(None, f"it does not name its classes, which may differ from these{LEFT_OUT}")
    # A head that lacks a class was trained on other data, and its outputs are not mixed with new ones.
    for name in class_names:
        if name not in head.class_names:
            return HeadMatch(None, f"its classes differ, none of them is {name!r}{LEFT_OUT}")
    return HeadMatch([head.class_names.index(name) for name in class_names])


def head_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return timm's names of the modules that make up the head of a network.

    Args:
        config: `pretrained_cfg` of the network.

    Returns:
        The names, such as `("fc",)`; several for a distilled ViT, and none if the family does not name them.
    """
    # timm has a string, a tuple of strings, or `None` for a network without a classifier.
    classifier = config.get("classifier") or ()
    if isinstance(classifier, str):
        return (classifier,)
    return tuple(classifier)


def is_head_key(key: str, modules: Sequence[str]) -> bool:
    """Return whether the tensor of this name belongs to the head that consists of these modules."""
    return any(key.startswith(f"{module}.") for module in modules)
