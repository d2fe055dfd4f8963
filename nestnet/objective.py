"""What a batch is trained towards: mixed images and targets, and the loss."""

import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from torch import Tensor

from nestnet.config import DataConfig, LossConfig
from nestnet.data import seeded


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
        self.smoothing = 0.0 if self.mixup else loss.label_smoothing  # Mixup's targets are smooth already
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
        share = 0.0 if teacher is None else self.distillation
        parts = [(1 - share, targets, True)] if share < 1 else []
        if teacher is not None and share:
            parts.append((share, teacher.float().softmax(dim=1), False))
        losses = [weight * self._loss(logits.float(), target, own) for weight, target, own in parts]
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]

    def _loss(self, logits: Tensor, targets: Tensor, smooth: bool) -> Tensor:
        if self.bce is not None and smooth:
            return self.bce(logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=self.smoothing if smooth else 0.0)
