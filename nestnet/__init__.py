"""Train one nested image classifier, deploy two."""

from nestnet.export import export
from nestnet.mode import Mode
from nestnet.models import create_model, list_models
from nestnet.motivation import Condition, LossDecrease
from nestnet.nested import NestedModel, Subnet
from nestnet.optim import fill_momentum, share_step_counts
from nestnet.version import __version__
from nestnet.weights_map import Placement, WeightsMap

__all__ = [
    "Condition",
    "LossDecrease",
    "Mode",
    "NestedModel",
    "Placement",
    "Subnet",
    "WeightsMap",
    "__version__",
    "create_model",
    "export",
    "fill_momentum",
    "list_models",
    "share_step_counts",
]
