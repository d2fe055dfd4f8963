"""What networks and runs cost, and the paper's measures of efficiency."""

from nestnet.cost.network import (
    Convention,
    Cost,
    Point,
    average_cost,
    flops_efficiency,
    flops_ratio,
    forecast,
    forward_cost,
    network_cost,
)

__all__ = [
    "Convention",
    "Cost",
    "Point",
    "average_cost",
    "flops_efficiency",
    "flops_ratio",
    "forecast",
    "forward_cost",
    "network_cost",
]
