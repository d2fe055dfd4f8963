"""The policy: what a motivated batch trains, and how.

The condition decides *when* a batch is motivated. In the paper (arXiv 2602.21064) such a batch trains the motivated
network in place of the base. The other policy trains both on it, each with its own loss, in one step of the
optimizer: the sandwich rule for two networks (Yu and Huang 2019, arXiv 1903.05134).
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_choice, is_number

Modes = tuple[Mode, ...]

TRAINS = ("motivated", "both")
"""What a motivated batch can train: see `Policy`."""

ACTIVATIONS = ("softmax", "sigmoid")
"""How logits can become probabilities: see `Policy`."""


@dataclass(frozen=True)
class Policy:
    """What a motivated batch trains. A base batch trains the base, whatever the policy.

    Attributes:
        trains: `"motivated"`: the motivated network alone, as in the paper. `"both"`: both networks, on the sum
            of the base's loss and the weighted loss of the motivated network.
        distillation: share of the motivated network's output in the base's targets, from 0 to 1; only with
            `"both"`. The output is detached, so that the base's loss does not train the motivated network
            through it. At 1 the base learns from the motivated network alone (in-place distillation).
        temperature: temperature of both networks' outputs in the distillation, above 0.
        motivated_loss_weight: factor of the motivated network's loss, above 0; only with `"both"`.
        activation: what turns logits into probabilities in the distillation: `"softmax"` for networks that train with
            a cross-entropy, `"sigmoid"` for a binary cross-entropy of each class. The distillation then has the form
            and the scale of the loss.

    Raises:
        ValueError: If a value is out of range, or would have no effect.

    Example:
        >>> Policy(trains="both", distillation=0.5).modes("motivated")
        (<Mode.MOTIVATED: 'motivated'>, <Mode.BASE: 'base'>)
        >>> Policy().modes("motivated")
        (<Mode.MOTIVATED: 'motivated'>,)
    """

    trains: str = "motivated"
    distillation: float = 0.0
    temperature: float = 1.0
    motivated_loss_weight: float = 1.0
    activation: str = "softmax"

    def __post_init__(self) -> None:
        check_choice("trains", self.trains, TRAINS)
        check_choice("activation", self.activation, ACTIVATIONS)
        if not is_number(self.distillation) or not 0 <= self.distillation <= 1:
            raise ValueError(f"distillation = {self.distillation!r}: it must be from 0 to 1")
        for name in ("temperature", "motivated_loss_weight"):
            value = getattr(self, name)
            if not is_number(value) or not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} = {value!r}: it must be a finite number above 0")
        # The settings of a batch that trains both networks would have no effect on one that trains a single one.
        if self.trains == "motivated":
            for name, default in (("distillation", 0), ("motivated_loss_weight", 1)):
                value = getattr(self, name)
                if value != default:
                    raise ValueError(f"{name} = {value!r}: it is for trains = 'both'; leave it out, or train both")
        if self.distillation == 0 and self.temperature != 1:
            raise ValueError(f"temperature = {self.temperature!r}: it is for distillation; leave it out, or distil")

    def modes(self, mode: Mode | str) -> Modes:
        """Return the modes that a batch trains, in the order of their forward passes.

        Args:
            mode: mode of the batch, as the condition chose it.

        Returns:
            One mode or, for a motivated batch that trains both networks, the motivated mode and then the base,
            which may learn from the output of the first.
        """
        mode = Mode(mode)
        if mode is Mode.MOTIVATED and self.trains == "both":
            return (Mode.MOTIVATED, Mode.BASE)
        return (mode,)

    def weight(self, mode: Mode, modes: Modes) -> float:
        """Return the factor of a network's loss in the sum of a batch.

        Args:
            mode: mode of the network.
            modes: modes that the batch trains.

        Returns:
            The factor: 1, or `motivated_loss_weight` where both networks are trained.
        """
        if mode is Mode.MOTIVATED and len(modes) > 1:
            return self.motivated_loss_weight
        return 1.0

    def base_loss(self, target_loss: Tensor, logits: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of the base in a batch that trains both networks.

        Args:
            target_loss: mean loss `[]` of the base against the targets.
            logits: logits `[B, K]` of the base.
            teacher: detached logits `[B, K]` of the motivated network.

        Returns:
            The loss `[]`, in which the motivated network's output has the share `distillation`.
        """
        if self.distillation == 0:
            return target_loss
        teacher_loss = distillation_loss(logits, teacher, self.temperature, self.activation)
        # With a share of 1 the targets do not matter, even if their loss is infinite.
        if self.distillation == 1:
            return teacher_loss
        return (1 - self.distillation) * target_loss + self.distillation * teacher_loss


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float, activation: str = "softmax") -> Tensor:
    """Return the cross-entropy of a network's output with that of a teacher.

    Args:
        logits: logits `[B, K]` of the network.
        teacher: detached logits `[B, K]` of the teacher.
        temperature: temperature of both outputs, above 0.
        activation: `"softmax"` for one distribution over all classes, `"sigmoid"` for one of each class, over which
            the mean is taken.

    Returns:
        The mean loss `[]` in float32. It is multiplied by the square of the temperature, so that its gradients
        do not shrink as the temperature grows (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    # Autocast leaves logits in bfloat16, whose softmax is too coarse for a loss.
    logits = logits.float() / temperature
    teacher = teacher.float() / temperature
    if activation == "sigmoid":
        loss = F.binary_cross_entropy_with_logits(logits, teacher.sigmoid())
    else:
        loss = F.cross_entropy(logits, teacher.softmax(dim=1))
    return loss * temperature**2
