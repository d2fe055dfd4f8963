"""The table of `nestnet models`: which networks nest in which, with their sizes, costs and trained weights."""

import timm

from nestnet.cost.network import forward_cost
from nestnet.models.pairs import Pair, count_parameters, find_pairs, has_weights
from nestnet.models.registry import ARCHITECTURES, find_architecture
from nestnet.text.tables import align_columns
from nestnet.text.units import format_macs

HEAD = ["pair", "parameters", "MACs", "pixels", "weights", "nested by"]


def describe_pairs(pattern: str, *, img_size: int | None = None) -> str:
    """Return a table of the pairs among the networks whose names match a pattern.

    Args:
        pattern: name with `*` for any characters.
        img_size: height and width in pixels of the images for which costs are counted; `None` for the size of each
            network's own weights.

    Returns:
        A line per pair, ordered by size, below a head.

    Raises:
        ValueError: If no network matches, or no two of them nest.
    """
    pairs = find_pairs(pattern)
    if not pairs:
        raise ValueError(f"PATTERN = {pattern!r}: none of these networks nests in another by its names and shapes")
    rows = [HEAD]
    for pair in pairs:
        base_size = img_size or _img_size(pair.base)
        size = img_size or _img_size(pair.motivated)
        parameters = f"{count_parameters(pair.base) / 1e6:.2f} -> {count_parameters(pair.motivated) / 1e6:.2f} M"
        macs = f"{_macs(pair.base, base_size)} -> {_macs(pair.motivated, size)}"
        pixels = str(size) if size == base_size else f"{base_size} -> {size}"
        rows.append([f"{pair.base} in {pair.motivated}", parameters, macs, pixels, _weights(pair), _way(pair)])
    return "\n".join(align_columns(rows))


def list_own_families() -> str:
    """Return the networks of nestnet's own families, a line per family."""
    families: dict[str, list[str]] = {}
    for name, architecture in ARCHITECTURES.items():
        families.setdefault(architecture.family, []).append(name)
    lines = [f"{family}: {', '.join(names)}" for family, names in families.items()]
    return "\n".join(lines)


def _img_size(name: str) -> int:
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return 224
    return config.input_size[1]


def _macs(name: str, img_size: int) -> str:
    """Return the cost of a network; a question mark if it does not take images of this size."""
    # The table is of many networks, one of which may fail to run.
    try:
        macs = forward_cost(name, img_size=img_size)
    except (RuntimeError, AssertionError, ValueError, TypeError):
        return "?"
    return format_macs(macs)


def _weights(pair: Pair) -> str:
    has = (has_weights(pair.base), has_weights(pair.motivated))
    words = {(True, True): "both", (True, False): "base", (False, True): "motivated", (False, False): "-"}
    return words[has]


def _way(pair: Pair) -> str:
    """Return the family of nestnet's own that nests a pair, or the function that nests any other."""
    if pair.is_elastic:
        return find_architecture("motivated", pair.motivated).family
    return "nest"
