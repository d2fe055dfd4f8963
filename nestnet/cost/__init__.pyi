from .efficiency import Point, flops_efficiency, flops_ratio
from .network import Cost, forward_cost, network_cost
from .operations import Convention
from .run import average_cost, forecast

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
