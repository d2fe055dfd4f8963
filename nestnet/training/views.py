"""What each network sees of a batch.

As a rule both see the same. A small network needs less regularisation than a bigger one (Cai et al. 2022, arXiv
2110.08890), so that Random Erasing, Mixup, CutMix and label smoothing can differ. Then each network sees, bit for
bit, what it would see if its own numbers were those of both: the same images, moved in the same way, and mixed with
the same partners.
"""

from torch import Tensor

from nestnet.data.transformed_images import Views
from nestnet.nn.mode import PerMode
from nestnet.training.objective import Objective


def views_by_mode(views: Views) -> Tensor | PerMode[Tensor]:
    """Return the images of a training batch as `TrainStep` takes them.

    Args:
        views: images `[B, C, H, W]`, or a tuple of what the base and what the motivated network sees of them.

    Returns:
        The images, for both networks or for each.
    """
    if isinstance(views, Tensor):
        return views
    base, motivated = views
    return PerMode(base, motivated)


def mix_views(
    objectives: PerMode[Objective], views: Views, labels: Tensor, seed: int
) -> tuple[Tensor | PerMode[Tensor], Tensor | PerMode[Tensor]]:
    """Mix a batch by Mixup or CutMix, for each network if they mix differently.

    Args:
        objectives: objective of each network.
        views: images `[B, C, H, W]`, or a tuple of what the base and what the motivated network sees of them.
        labels: labels `[B]`.
        seed: seed of the random numbers for this batch, which are the same for both networks.

    Returns:
        Images `[B, C, H, W]`, and labels `[B]` or, for mixed images, soft targets `[B, K]`; a `PerMode` of those of
        each network where they may differ.
    """
    images = views_by_mode(views)
    if objectives.base.mixup is None:
        return images, labels
    if isinstance(images, Tensor):
        if objectives.base is objectives.motivated:
            return objectives.base.mix(images, labels, seed)
        images = PerMode(images, images.clone())  # timm mixes in place
    base_images, base_targets = objectives.base.mix(images.base, labels, seed)
    motivated_images, motivated_targets = objectives.motivated.mix(images.motivated, labels, seed)
    targets = PerMode(base_targets, motivated_targets)
    # With one probability both networks see the same images, whose targets may still be smoothed differently.
    if isinstance(views, Tensor) and objectives.base.mixup_prob == objectives.motivated.mixup_prob:
        return base_images, targets
    return PerMode(base_images, motivated_images), targets
