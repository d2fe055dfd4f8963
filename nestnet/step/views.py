"""What each network sees of a batch: as a rule the same images and targets, but they may differ."""

from collections.abc import Callable

from torch import Tensor

from nestnet.nn.mode import PerMode, for_mode
from nestnet.step.policy import Modes, Policy

BatchTensor = Tensor | PerMode[Tensor]
"""Images `[B, C, H, W]` or targets of a batch, for both networks or for each."""

LossFunction = Callable[..., Tensor]
"""Function that returns the loss `[]` of logits `[B, K]` and targets."""


def select_views(value: BatchTensor, modes: Modes) -> BatchTensor:
    """Return images or targets without a distinction that a batch does not make.

    Args:
        value: images or targets, for both networks or for each.
        modes: modes that the batch trains.

    Returns:
        One tensor if the batch trains one network or both see the same tensor, otherwise the `PerMode`.
    """
    first = for_mode(value, modes[0])
    if all(for_mode(value, mode) is first for mode in modes):
        return first
    return value


def check_views(images: BatchTensor, policy: Policy) -> None:
    """Check that a batch can train both networks, if each of them has images of its own.

    Args:
        images: images `[B, C, H, W]`, as `select_views` returns them.
        policy: policy that trains both networks.

    Raises:
        ValueError: If the networks do not see the same number of images, or one learns from the answers of the
            other.
    """
    if isinstance(images, Tensor):
        return
    if len(images.base) != len(images.motivated):
        raise ValueError(
            f"images: {len(images.base)} for the base and {len(images.motivated)} for the motivated network; both must "
            "see the same batch"
        )
    if policy.distillation:
        raise ValueError(
            f"images: each network has its own, and with distillation = {policy.distillation} the base learns from the "
            "motivated network's answers; give both the same images, or leave distillation out"
        )
