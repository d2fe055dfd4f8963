"""What a run's forward passes cost: by forecast, and as it came out."""

from typing import Any

from nestnet.cost import average_cost, forward_cost
from nestnet.mode import Mode, PerMode
from nestnet.motivation import Condition
from nestnet.nested import NestedModel


class RunCost:
    """Counts the multiply-accumulates of a run's forward passes.

    Args:
        net: a mode costs what its network costs alone.
        input_size: channels, height and width of the training images.
        condition: decides the expected motivated fraction.
        joint: whether both networks run at every batch.

    Attributes:
        macs: of a forward pass of one image, per mode.
        expected: the average by forecast, or `None` where the condition gives none.
    """

    def __init__(
        self, net: NestedModel, input_size: tuple[int, int, int], condition: Condition, *, joint: bool
    ) -> None:
        channels, size, _ = input_size
        counts = (
            forward_cost(net.architectures.of(mode), img_size=size, num_classes=net.num_classes, in_chans=channels)
            for mode in Mode
        )
        self.macs = PerMode(*counts)
        self.expected = expected_cost(self.macs, condition, joint=joint)
        self.total = self.steps = 0

    def add(self, modes: tuple[Mode, ...]) -> int:
        """Take in a batch that the subnets of `modes` were trained on; returns its cost an image."""
        cost = sum(self.macs.of(mode) for mode in modes)
        self.total, self.steps = self.total + cost, self.steps + 1
        return cost

    def summary(self) -> dict[str, Any]:
        """All figures in MACs of a forward pass of one training image; `actual` is the average up to now."""
        return {
            "convention": "macs",
            "base": self.macs.base,
            "motivated": self.macs.motivated,
            "expected": self.expected,
            "actual": self.total / self.steps if self.steps else None,
        }


def expected_cost(macs: PerMode[int], condition: Condition, *, joint: bool) -> float | None:
    """The average forward pass to expect of a run by this condition, or of joint training; `None` if there is no telling."""
    if joint:
        return float(macs.base + macs.motivated)
    fraction = getattr(condition, "expected_fraction", None)
    return None if fraction is None else average_cost(macs.base, macs.motivated, motivated_fraction=fraction)
