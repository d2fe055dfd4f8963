"""Train one nested image classifier, deploy two.

`create_model` nests a base network in a motivated one, `LossDecrease` and the other conditions name the mode of each batch,
`TrainStep` trains one, `export` writes either network as a file that timm loads.

Besides this module: `nestnet.config` has every field of a run, `nestnet.cost` counts what networks and runs cost,
`nestnet.reference` checks a nested network against two models that copy, `nestnet.processes` joins several processes. A family
of your own is made of `nestnet.layers`, `nestnet.blocks` and `nestnet.mode`, and `nestnet.models.registry` makes it known.
"""

from nestnet.interrupts import answer_during_import

answer_during_import()

from nestnet.exporting import export
from nestnet.mode import Mode
from nestnet.models import create_model, list_models
from nestnet.motivation import (
    Always,
    Condition,
    EMADecrease,
    GradientNormIncrease,
    HeldOutLossDecrease,
    LossDecrease,
    Never,
    Periodic,
    RandomBatches,
    RandomLike,
    register_condition,
)
from nestnet.nested import NestedModel, Subnet
from nestnet.optim import fill_momentum, share_step_counts
from nestnet.pretrained import load_weights
from nestnet.processes import synchronise_batch_norm
from nestnet.recalibration import recalibrate
from nestnet.step import TrainStep
from nestnet.version import __version__
from nestnet.weights_map import Placement, WeightsMap

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
    "register_condition",
    "share_step_counts",
    "synchronise_batch_norm",
]
