"""Train one nested image classifier, deploy two.

`create_model` nests a base network in a motivated one, `LossDecrease` and the other conditions name the mode of each batch,
`TrainStep` trains one, `export` writes either network as a file that timm loads.

Besides this module: `nestnet.config.schema` has every field of a run, `nestnet.cost` counts what networks and runs cost,
`nestnet.verification.reference` checks a nested network against two models that copy, `nestnet.distributed.process_group`
is for several processes. A family of your own is made of the layers in `nestnet.nn`, and `nestnet.models.registry` makes it
known.
"""

from nestnet.runtime.interrupts import answer_during_import

answer_during_import()

from nestnet.conditions.base import Condition
from nestnet.conditions.by_loss import EMADecrease, GradientNormIncrease, HeldOutLossDecrease, LossDecrease
from nestnet.conditions.by_position import Always, Never, Periodic, RandomBatches, RandomLike
from nestnet.conditions.registry import register_condition
from nestnet.distributed.gradients import synchronise_batch_norm
from nestnet.models.registry import create_model, list_models, register_architecture
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel, Subnet
from nestnet.nn.placement import Placement, WeightsMap
from nestnet.nn.recalibration import recalibrate
from nestnet.optim.step_counts import fill_momentum, share_step_counts
from nestnet.training.step import TrainStep
from nestnet.version import __version__
from nestnet.weights.exporting import export
from nestnet.weights.pretrained import load_weights

__all__ = [
    "Always",
    "Condition",
    "EMADecrease",
    "GradientNormIncrease",
    "HeldOutLossDecrease",
    "LossDecrease",
    "Mode",
    "NestedModel",
    "Never",
    "Periodic",
    "Placement",
    "RandomBatches",
    "RandomLike",
    "Subnet",
    "TrainStep",
    "WeightsMap",
    "__version__",
    "create_model",
    "export",
    "fill_momentum",
    "list_models",
    "load_weights",
    "recalibrate",
    "register_architecture",
    "register_condition",
    "share_step_counts",
    "synchronise_batch_norm",
]
