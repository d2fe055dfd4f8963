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
        self.expected: float | None = None
        fraction = getattr(condition, "expected_fraction", None)
        if joint:
            self.expected = float(self.macs.base + self.macs.motivated)
        elif fraction is not None:
            self.expected = average_cost(self.macs.base, self.macs.motivated, motivated_fraction=fraction)
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
