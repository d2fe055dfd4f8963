"""The paper's measures of efficiency: accuracy gained for the cost of training (arXiv 2602.21064, section 4)."""

Point = tuple[float, float]
"""Accuracy of a network in percent, and the cost of an average forward pass in its training."""


def flops_efficiency(nested: Point, base: Point) -> float:
    """Return ACC/FLOPs: the accuracy gained over the base trained alone, per operation that it costs more.

    Args:
        nested: accuracy and cost of the network to assess: the base trained with motivation, or the
            motivated network trained alone.
        base: accuracy and cost of the base trained alone.

    Returns:
        Percentage points per operation, in the unit of the costs.

    Raises:
        ValueError: If both cost the same.

    Example:
        >>> round(flops_efficiency((94.10, 197.86), (93.93, 197.44)), 4)
        0.4048
    """
    # ACC/FLOPs is the slope of the line from the base's point to the other.
    accuracy, cost = nested
    base_accuracy, base_cost = base
    if cost == base_cost:
        raise ValueError(f"cost = {cost:g} of both networks: ACC/FLOPs needs two costs that differ")
    return (accuracy - base_accuracy) / (cost - base_cost)


def flops_ratio(*, nested: Point, base: Point, motivated: Point) -> float:
    """Return F_Ratio: the ACC/FLOPs of nested training, divided by that of the motivated network.

    Args:
        nested: accuracy and cost of the base trained with motivation.
        base: accuracy and cost of the base trained alone.
        motivated: accuracy and cost of the motivated network trained alone.

    Returns:
        The quotient. Above 1, nested training gains more accuracy per operation than the bigger network does.

    Raises:
        ValueError: If the base costs the same as either of the others, or is as accurate as the motivated
            network.

    Example:
        >>> round(flops_ratio(nested=(91.0, 120.0), base=(90.0, 100.0), motivated=(92.0, 200.0)), 3)
        2.5
    """
    # The gain of nested training is measured against that of the bigger network trained alone.
    motivated_efficiency = flops_efficiency(motivated, base)
    if motivated_efficiency == 0:
        raise ValueError(
            f"accuracy = {base[0]:g} of both base and motivated: F_Ratio needs a motivated network that differs in accuracy"
        )
    return flops_efficiency(nested, base) / motivated_efficiency
