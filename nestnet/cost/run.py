"""What a run's forward passes cost: by forecast, and as it came out."""

from typing import Any

from nestnet.cost.network import average_cost, forward_cost
from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.model import NestedModel


class RunCost:
    """Counts what a run has trained, and the multiply-accumulates of its forward passes.

    Args:
        net: nested network; a mode costs what its network costs alone.
        input_size: channels, height and width of the training images.
        expected_fraction: share of motivated batches by forecast; `None` where there is none.
        joint: whether both networks run at every batch.

    Attributes:
        macs: of a forward pass of one image, per mode.
        expected: the average by forecast, or `None` where there is none.
        batches: number of batches that trained each mode's subnet.
        steps: number of batches that trained either.
    """

    def __init__(
        self,
        net: NestedModel,
        input_size: tuple[int, int, int],
        expected_fraction: float | None,
        *,
        joint: bool,
    ) -> None:
        channels, size, _ = input_size
        counts = (
            forward_cost(net.architectures.of(mode), img_size=size, num_classes=net.num_classes, in_chans=channels)
            for mode in Mode
        )
        self.macs = PerMode(*counts)
        self.expected = expected_cost(self.macs, expected_fraction, joint=joint)
        self.batches = {str(mode): 0 for mode in Mode}
        self.steps = 0

    def add(self, modes: tuple[Mode, ...]) -> int:
        """Take in a batch that the subnets of `modes` were trained on; returns its cost an image."""
        self.steps += 1
        for mode in modes:
            self.batches[mode] += 1
        return sum(self.macs.of(mode) for mode in modes)

    def summary(self) -> dict[str, Any]:
        """All figures in MACs of a forward pass of one training image; `actual` is the average up to now."""
        total = sum(self.batches[mode] * self.macs.of(mode) for mode in Mode)
        return {
            "convention": "macs",
            "base": self.macs.base,
            "motivated": self.macs.motivated,
            "expected": self.expected,
            "actual": total / self.steps if self.steps else None,
        }


def expected_cost(macs: PerMode[int], expected_fraction: float | None, *, joint: bool) -> float | None:
    """The average forward pass to expect with this share of motivated batches, or of joint training.

    `None` if there is no telling.
    """
    if joint:
        return float(macs.base + macs.motivated)
    if expected_fraction is None:
        return None
    return average_cost(macs.base, macs.motivated, motivated_fraction=expected_fraction)
