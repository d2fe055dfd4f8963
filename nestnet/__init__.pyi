from . import cost
from .cascade.loading import load_cascade
from .cascade.module import Cascade
from .conditions.base import Condition
from .conditions.by_loss import EMADecrease, GradientNormIncrease, HeldOutLossDecrease, LossDecrease
from .conditions.by_position import Always, Never, Periodic, RandomBatches, RandomLike
from .conditions.learned import Bandit, GradientAgreement
from .conditions.limits import MotivationLimits
from .conditions.registry import register_condition
from .distributed.gradients import synchronise_batch_norm
from .models.architecture import Architecture
from .models.own_networks import register_network
from .models.registry import create_model, list_models, register_architecture
from .nesting.nest import nest
from .nesting.selection import select_base
from .nesting.verification import verify_nesting
from .nn.mode import Mode, PerMode
from .nn.model import NestedModel
from .nn.placement import Placement, WeightsMap
from .nn.recalibration import recalibrate
from .nn.residual import zero_differential_branches
from .nn.subnet import Subnet
from .optim.momentum import fill_momentum
from .optim.step_counts import share_step_counts
from .step.policy import Policy
from .step.train_step import TrainStep
from .trackers.callback import Callback
from .trackers.registry import register_tracker
from .version import __version__
from .weights.backbone import freeze_backbone
from .weights.exporting import export
from .weights.pretrained import load_weights

__all__ = [
    "Always",
    "Architecture",
    "Bandit",
    "Callback",
    "Cascade",
    "Condition",
    "EMADecrease",
    "GradientAgreement",
    "GradientNormIncrease",
    "HeldOutLossDecrease",
    "LossDecrease",
    "Mode",
    "MotivationLimits",
    "NestedModel",
    "Never",
    "PerMode",
    "Periodic",
    "Placement",
    "Policy",
    "RandomBatches",
    "RandomLike",
    "Subnet",
    "TrainStep",
    "WeightsMap",
    "__version__",
    "cost",
    "create_model",
    "export",
    "fill_momentum",
    "freeze_backbone",
    "list_models",
    "load_cascade",
    "load_weights",
    "nest",
    "recalibrate",
    "register_architecture",
    "register_condition",
    "register_network",
    "register_tracker",
    "select_base",
    "share_step_counts",
    "synchronise_batch_norm",
    "verify_nesting",
    "zero_differential_branches",
]
