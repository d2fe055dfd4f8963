"""The objective of each network: mixed images and targets, and the loss."""

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from torch import Tensor

from nestnet.config.schema_rules import as_pair
from nestnet.config.schema_sections import DataConfig, LossConfig
from nestnet.data.seeding import seeded_rng
from nestnet.nn.mode import Mode, PerMode


class Objective:
    """Loss function of a network, with Mixup and CutMix if the configuration has them.

    Args:
        data: section `data` of the configuration, for Mixup and CutMix.
        loss: section `loss` of the configuration.
        num_classes: number of classes `K`.
        mode: mode of the network.
        class_weights: weight of each class `[K]`, on the device of the logits; `None` for no weights.
    """

    def __init__(
        self, data: DataConfig, loss: LossConfig, num_classes: int, mode: Mode, class_weights: Tensor | None = None
    ) -> None:
        self.class_weights = class_weights
        # With weights the loss of each image is needed.
        self.reduction = "mean" if class_weights is None else "none"
        self.smoothing = PerMode(*as_pair(loss.label_smoothing)).of(mode)
        self.mixup_prob = PerMode(*as_pair(data.mixup_prob)).of(mode)
        self.is_multi_label = data.multi_label
        self.mixup: Mixup | None = None
        if data.mixup or data.cutmix:
            self.mixup = Mixup(
                mixup_alpha=data.mixup,
                cutmix_alpha=data.cutmix,
                prob=self.mixup_prob,
                # Several labels are smoothed after mixing, which is the same.
                label_smoothing=0.0 if data.multi_label else self.smoothing,
                num_classes=num_classes,
            )
        # Binary cross-entropy per class, as in the recipes of Wightman et al. 2021 (arXiv 2110.00476).
        self.bce: BinaryCrossEntropy | None = None
        if loss.name == "bce":
            self.bce = BinaryCrossEntropy(
                smoothing=self.smoothing, target_threshold=loss.target_threshold, reduction=self.reduction
            )

    def mix(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix pairs of images of a batch by Mixup or CutMix.

        Args:
            images: images `[B, C, H, W]`.
            labels: labels `[B]`, or `[B, K]` with ones for the labels of each image if it may have several.
            seed: seed of the random numbers for this batch.

        Returns:
            Mixed images `[B, C, H, W]` and soft targets `[B, K]`, or the arguments themselves if the
            configuration does not mix images.
        """
        if self.mixup is None:
            return images, labels
        with seeded_rng(seed):
            if not self.is_multi_label:
                return self.mixup(images, labels)
            # timm mixes one-hot vectors. Those of the images' numbers become the share of each image in each mixed one.
            self.mixup.num_classes = len(labels)
            images, shares = self.mixup(images, torch.arange(len(labels), device=labels.device))  # [B, B]
            return images, shares @ labels

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, weighted by class if there are weights.

        The weights multiply the losses of the images, whose mean is taken over the number of images. torch divides by
        the sum of the weights instead, which differs between the parts of a batch: then `accumulate`, or another number
        of processes, would train something else.

        Args:
            logits: logits `[B, K]`.
            targets: labels `[B]`; or soft targets or several labels per image, `[B, K]`.

        Returns:
            The loss `[]` in float32.
        """
        # Autocast leaves logits in bfloat16, whose softmax is too coarse for a loss.
        losses = self._compute_losses(logits.float(), targets)
        if self.class_weights is None:
            return losses
        if self.bce is not None:
            losses = losses.mean(dim=1)  # [B, K] -> [B]
        return (losses * self._weigh_images(targets, self.class_weights)).mean()

    def _compute_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss `[]`; with weights that of each image `[B]`, or of each image and class `[B, K]` (bce)."""
        if self.is_multi_label:
            # Each label is a question of its own, with the answers 0 and 1.
            targets = targets * (1 - self.smoothing) + 0.5 * self.smoothing
        if self.bce is not None:
            return self.bce(logits, targets)
        # Mixup has already smoothed soft targets. timm's binary cross-entropy makes the same distinction
        # internally.
        smoothing = self.smoothing
        if targets.ndim > 1:
            smoothing = 0.0
        return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction=self.reduction)

    def _weigh_images(self, targets: Tensor, class_weights: Tensor) -> Tensor:
        """Return the weight of each image `[B]`: that of its class, or the mean of its classes' by their shares."""
        if targets.ndim == 1:
            return class_weights[targets]
        # Label smoothing gives each class the share smoothing / K of an image that is not of it. Without this
        # correction the heavy weight of a rare class would count in the images of all the others.
        smoothed = targets.float() @ class_weights
        return (smoothed - self.smoothing * class_weights.mean()) / (1 - self.smoothing)


def create_objectives(
    data: DataConfig, loss: LossConfig, num_classes: int, class_weights: Tensor | None = None
) -> PerMode[Objective]:
    """Return the objective of each network, one and the same if their settings are equal.

    Args:
        data: section `data` of the configuration.
        loss: section `loss` of the configuration.
        num_classes: number of classes `K`.
        class_weights: weight of each class `[K]`, on the device of the logits; `None` for no weights.
    """
    base = Objective(data, loss, num_classes, Mode.BASE, class_weights)
    motivated = Objective(data, loss, num_classes, Mode.MOTIVATED, class_weights)
    if (base.smoothing, base.mixup_prob) == (motivated.smoothing, motivated.mixup_prob):
        return PerMode(base, base)
    return PerMode(base, motivated)
