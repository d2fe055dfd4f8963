"""Numbers with a unit, written the same way wherever a person reads them."""

import statistics
from collections.abc import Sequence

# Units of durations, longest first, each with its length in seconds.
DURATION_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def format_macs(macs: float) -> str:
    """Return multiply-accumulates in millions (M), or in billions (G) from 1e9 on.

    Args:
        macs: number of multiply-accumulates, at least 0.

    Returns:
        The number with two decimals and its prefix.

    Example:
        >>> format_macs(2532992), format_macs(4.6e9)
        ('2.53 M', '4.60 G')
    """
    # timm's tables count in G, and the CIFAR ResNets have some tens of M.
    if macs >= 1e9:
        return f"{macs / 1e9:,.2f} G"
    return f"{macs / 1e6:.2f} M"


def format_duration(seconds: float) -> str:
    """Return a duration in the unit that suits it, from milliseconds to days, with two or three significant digits.

    Args:
        seconds: duration in seconds, at least 0.

    Returns:
        The duration with its unit.

    Example:
        >>> format_duration(0.0123), format_duration(1.5), format_duration(3725.4), format_duration(200_000)
        ('12.3 ms', '1.50 s', '62.1 min', '2.31 d')
    """
    for unit, length in DURATION_UNITS:
        # A unit is used from twice its length on, so that "1 h" never means anything from 50 to 70 minutes.
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.2f} s"


def format_mebibytes(size: float) -> str:
    """Return a number of bytes in MiB, without the unit, which the caller names.

    Args:
        size: number of bytes.

    Returns:
        The number of mebibytes (2**20 bytes) with one decimal.

    Example:
        >>> format_mebibytes(1_310_720), format_mebibytes(2**31)
        ('1.2', '2,048.0')
    """
    return f"{size / 2**20:,.1f}"


def format_count(number: int, singular: str, plural: str) -> str:
    """Return a number of things with their name in the singular or in the plural.

    Args:
        number: number of things, at least 0.
        singular: name of one thing.
        plural: name of several things.

    Returns:
        The number, with thousands separated by commas, and the name.

    Example:
        >>> format_count(1, "batch", "batches"), format_count(1200, "batch", "batches")
        ('1 batch', '1,200 batches')
    """
    if number == 1:
        return f"1 {singular}"
    return f"{number:,} {plural}"


def format_if_known(value: float | None, spec: str) -> str:
    """Return a formatted number for the cell of a table, or an empty text for `None`.

    Args:
        value: number, or `None` for an empty cell.
        spec: format specification of Python, such as `".2f"`.

    Returns:
        The formatted number, or an empty string.

    Example:
        >>> format_if_known(91.255, ".1f"), format_if_known(None, ".1f")
        ('91.3', '')
    """
    if value is None:
        return ""
    return format(value, spec)


def format_size(size: Sequence[int]) -> str:
    """Return height and width of images in words.

    Args:
        size: height and width in pixels.

    Example:
        >>> format_size((32, 48))
        '32 x 48'
    """
    height, width = size
    return f"{height} x {width}"


def format_mean_std(mean: float, std: float | None, digits: int = 2) -> str:
    """Return a mean, followed by its standard deviation if it is known.

    Args:
        mean: mean of the values.
        std: standard deviation of the values in their unit; `None` for a single value.
        digits: number of decimals of both.

    Returns:
        The mean alone, or `mean ± std`.

    Example:
        >>> format_mean_std(92.5, 0.7071), format_mean_std(92.5, None)
        ('92.50 ± 0.71', '92.50')
    """
    if std is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def format_values(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean of some values, followed by their sample standard deviation if there are several.

    Args:
        values: at least one number.
        digits: number of decimals.

    Returns:
        The mean alone, or `mean ± std`.

    Example:
        >>> format_values([92.0]), format_values([92.0, 93.0])
        ('92.00', '92.50 ± 0.71')
    """
    # A single value has no sample standard deviation.
    std = None
    if len(values) > 1:
        std = statistics.stdev(values)
    return format_mean_std(statistics.fmean(values), std, digits)
