"""What a batch is trained towards: mixed images and targets, and the loss."""

import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from torch import Tensor

from nestnet.config.schema import DataConfig, LossConfig
from nestnet.data.seeding import seeded


class Objective:
    """The configuration's loss, and Mixup and CutMix where it has them.

    Args:
        num_classes: of the labels.
        distillation: the share of a teacher's output in the targets of a loss that gets one, from 0 to 1.
    """

    def __init__(self, data: DataConfig, loss: LossConfig, num_classes: int, *, distillation: float = 0.0) -> None:
        self.distillation = distillation
        self.mixup: Mixup | None = None
        if data.mixup or data.cutmix:
            self.mixup = Mixup(
                mixup_alpha=data.mixup,
                cutmix_alpha=data.cutmix,
                prob=data.mixup_prob,
                label_smoothing=loss.label_smoothing,
                num_classes=num_classes,
            )
        self.smoothing = loss.label_smoothing
        self.bce: BinaryCrossEntropy | None = None
        if loss.name == "bce":
            self.bce = BinaryCrossEntropy(smoothing=self.smoothing, target_threshold=loss.target_threshold)

    def mix(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Images `[B, C, H, W]` and labels `[B]` as they are, or mixed with targets `[B, K]`, by random numbers from `seed`."""
        if self.mixup is None:
            return images, labels
        with seeded(seed):
            return self.mixup(images, labels)

    def __call__(self, logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> Tensor:
        """The mean loss of logits `[B, K]` against labels `[B]` or targets `[B, K]`.

        Args:
            teacher: logits `[B, K]`, whose probabilities are targets as well, to the share `distillation`.
        """
        logits = logits.float()
        if teacher is None:
            return self._loss(logits, targets)
        soft = F.cross_entropy(logits, teacher.float().softmax(dim=1))
        if self.distillation == 1:
            return soft
        return (1 - self.distillation) * self._loss(logits, targets) + self.distillation * soft

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.bce is not None:
            return self.bce(logits, targets)
        # Mixup's targets are smooth already; timm's binary cross entropy knows that by itself
        smoothing = self.smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
