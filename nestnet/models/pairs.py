"""Which of timm's networks nest in which, found on demand from their names and shapes."""

import fnmatch
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import timm

from nestnet.models.registry import ARCHITECTURES, check_pair, is_known, list_models
from nestnet.models.timm_architecture import timm_architecture
from nestnet.models.timm_networks import build_skeleton


@dataclass(frozen=True)
class Pair:
    """Two networks of which one nests in the other.

    Attributes:
        base: timm's name of the small network.
        motivated: timm's name of the big network.
        is_elastic: whether they are of a family of nestnet's own.
    """

    base: str
    motivated: str
    is_elastic: bool


def find_pairs(pattern: str) -> list[Pair]:
    """Return the pairs among the networks whose names match a pattern.

    Names and shapes decide, without running the networks: `nestnet.nest` checks a pair further.

    Args:
        pattern: name with `*` for any characters, such as `"convnextv2_*"`.

    Returns:
        The pairs of a smaller and a bigger network, ordered by their sizes.

    Raises:
        ValueError: If no network matches.
    """
    names = [name for name in timm.list_models() if fnmatch.fnmatch(name, pattern)]
    if not names:
        raise ValueError(f"PATTERN = {pattern!r}: no network of timm's has such a name; `*` stands for any characters")
    names.sort(key=lambda name: (_origin(name), count_parameters(name)))
    pairs: list[Pair] = []
    for index, base in enumerate(names):
        for motivated in names[index + 1 :]:
            if _origin(base) == _origin(motivated) and nests(base, motivated):
                is_elastic = base in ARCHITECTURES and motivated in ARCHITECTURES
                pairs.append(Pair(base, motivated, is_elastic))
    return pairs


def nests(base: str, motivated: str) -> bool:
    """Return whether a network nests in another by its names and shapes.

    Args:
        base: timm's name of the small network.
        motivated: timm's name of the big network.
    """
    try:
        pair = check_pair(base, motivated)
    except ValueError:
        return False
    return pair.motivated.contains(pair.base)


@functools.cache
def count_parameters(name: str) -> int:
    """Return the number of parameters of a network.

    Args:
        name: timm's name of the network.
    """
    return sum(parameter.numel() for parameter in build_skeleton(name).parameters())


def has_weights(name: str) -> bool:
    """Return whether timm has trained weights for a network.

    Args:
        name: timm's name of the network.
    """
    config = timm.get_pretrained_cfg(name)
    return config is not None and bool(config.has_weights)


def complete_pair(base: str | None, motivated: str | None) -> tuple[str | None, str | None]:
    """Return both networks of a pair of which at least one is named.

    The other one is the next bigger or smaller network of its family. A network without such a neighbour is
    paired with itself. An unknown name is paired with itself: `check_pair` refuses it later.

    Args:
        base: timm's name of the base network, or `None` if it is not named.
        motivated: timm's name of the motivated network, or `None` if it is not named.

    Returns:
        Names of the base and of the motivated network, both `None` if neither is named.

    Example:
        >>> complete_pair("resnet20", None)
        ('resnet20', 'resnet32')
        >>> complete_pair(None, "resnet44")
        ('resnet32', 'resnet44')
        >>> complete_pair("convnextv2_atto", None)
        ('convnextv2_atto', 'convnextv2_femto')
    """
    if base and not motivated:
        return base, _first_that_nests(base, _bigger(base), is_base=True)
    if motivated and not base:
        return _first_that_nests(motivated, _smaller(motivated), is_base=False), motivated
    return base, motivated


def _bigger(name: str) -> Sequence[str]:
    """Return the networks that may be the next bigger one, in order."""
    # A family of nestnet's own is registered from small to big.
    if name in ARCHITECTURES:
        return list_models()
    if not is_known(name):
        return []
    return [other for other in _relatives(name) if count_parameters(other) > count_parameters(name)]


def _smaller(name: str) -> Sequence[str]:
    """Return the networks that may be the next smaller one, in order."""
    if name in ARCHITECTURES:
        return list(reversed(list_models(name)))
    if not is_known(name):
        return []
    smaller = [other for other in _relatives(name) if count_parameters(other) < count_parameters(name)]
    return list(reversed(smaller))


def _first_that_nests(name: str, others: Sequence[str], *, is_base: bool) -> str:
    for other in others:
        base, motivated = (name, other) if is_base else (other, name)
        if other != name and nests(base, motivated):
            return other
    return name


def _relatives(name: str) -> list[str]:
    """Return the networks whose names differ in one word, such as that of the size, from small to big."""
    words = name.split("_")
    relatives = []
    for other in timm.list_models():
        other_words = other.split("_")
        if len(other_words) == len(words):
            differing = sum(word != own for word, own in zip(other_words, words, strict=True))
            # All networks begin with the name of their family.
            if differing <= 1 and other_words[0] == words[0]:
                relatives.append(other)
    return sorted(relatives, key=count_parameters)


def _origin(name: str) -> str:
    """Return the module that defines a network: only networks of one module are compared."""
    return timm_architecture(name).family
