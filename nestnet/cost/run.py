"""The cost of a run's forward passes, as forecast and as counted.

The average cost of a forward pass over a run is defined in arXiv 2602.21064, section 4 and supplement 6.
"""

from typing import Any

from nestnet.conditions.base import expected_fraction
from nestnet.conditions.by_loss import LossDecrease
from nestnet.cost.network import forward_cost
from nestnet.models.timm_options import structural_options
from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.model import NestedModel
from nestnet.step.policy import Policy


def average_cost(base_cost: float, motivated_cost: float, *, motivated_fraction: float) -> float:
    """Return the average cost of a forward pass over a run.

    Args:
        base_cost: cost of a forward pass of the base network, in any unit.
        motivated_cost: cost of a forward pass of the motivated network, in the same unit.
        motivated_fraction: share of batches that trained the motivated network, from 0 to 1.

    Returns:
        The average, in the unit of the costs.

    Raises:
        ValueError: Unless the fraction is from 0 to 1.

    Example:
        >>> average_cost(40.0, 100.0, motivated_fraction=0.25)
        55.0
    """
    if not 0 <= motivated_fraction <= 1:
        raise ValueError(f"motivated_fraction = {motivated_fraction!r}: it must be from 0 to 1, a share of the batches")
    return base_cost + motivated_fraction * (motivated_cost - base_cost)


def forecast(base_cost: float, motivated_cost: float, *, k: int, batches: int | None = None) -> float:
    """Return the expected average cost of a forward pass over a run whose condition is `LossDecrease(k)`.

    Args:
        base_cost: cost of a forward pass of the base network, in any unit.
        motivated_cost: cost of a forward pass of the motivated network, in the same unit.
        k: number of falling losses in a row after which a batch is motivated, at least 1.
        batches: number of batches per epoch, of which the first k + 1 are never motivated; `None` for epochs that
            are so long that this has no effect.

    Returns:
        The expected average, in the unit of the costs.

    Raises:
        ValueError: If `k` is not a whole number of at least 1.

    Example:
        >>> round(forecast(82.82, 140.13, k=2), 2)  # the paper reports 92.47 for ResNet-20 in ResNet-32 on CIFAR-10
        92.37
    """
    # Ask the condition itself, so that the two forecasts cannot differ.
    fraction = expected_fraction(LossDecrease(k), batches)
    assert fraction is not None, "this condition has a forecast for epochs of any length"
    return average_cost(base_cost, motivated_cost, motivated_fraction=fraction)


def batch_costs(macs: PerMode[int], policy: Policy) -> PerMode[int]:
    """Return the forward cost of a batch, per image, for each mode that the condition can choose.

    Args:
        macs: multiply-accumulates of a forward pass of each mode's network.
        policy: what a motivated batch trains.

    Returns:
        Multiply-accumulates of a base batch and of a motivated batch.
    """

    def cost(mode: Mode) -> int:
        return sum(macs.of(trained) for trained in policy.modes(mode))

    return PerMode(cost(Mode.BASE), cost(Mode.MOTIVATED))


def expected_cost(
    macs: PerMode[int], expected_fraction: float | None, policy: Policy, epochs: int = 1, finish_epochs: int = 0
) -> float | None:
    """Return the expected average cost of a forward pass over a run.

    Args:
        macs: multiply-accumulates of a forward pass of each mode's network.
        expected_fraction: expected share of motivated batches among those of the `epochs`, or `None` if it is
            not known.
        policy: what a motivated batch trains.
        epochs: number of epochs in which the condition chooses.
        finish_epochs: number of epochs that extend the base, each of whose batches runs the motivated network.

    Returns:
        Number of multiply-accumulates per batch of the whole run, or `None` if it is not known.
    """
    if epochs == 0:
        return float(macs.motivated)
    if expected_fraction is None:
        return None
    costs = batch_costs(macs, policy)
    average = average_cost(costs.base, costs.motivated, motivated_fraction=expected_fraction)
    if finish_epochs == 0:
        return average
    return (epochs * average + finish_epochs * macs.motivated) / (epochs + finish_epochs)


def relative_to_base(average: float, macs: PerMode[int], epochs: int, finish_epochs: int) -> float:
    """Return the cost of a run in units of training the base alone for `epochs`.

    Args:
        average: average cost of a forward pass over all batches of the run.
        macs: multiply-accumulates of a forward pass of each mode's network.
        epochs: number of epochs in which the condition chooses, at least 1.
        finish_epochs: number of epochs that extend the base.

    Returns:
        The multiple.
    """
    return average * (epochs + finish_epochs) / (epochs * macs.base)


def count_macs(net: NestedModel, input_size: tuple[int, int, int]) -> PerMode[int]:
    """Return the cost of both subnets of a nested network, each of which costs as much as its network alone.

    Args:
        net: nested network.
        input_size: channels, height and width of the training images.

    Returns:
        Multiply-accumulates of a forward pass of one image in each mode.
    """
    in_chans, *size = input_size

    def macs(mode: Mode) -> int:
        return forward_cost(
            net.architectures.of(mode),
            img_size=size,
            num_classes=net.num_classes,
            in_chans=in_chans,
            options=structural_options(net.timm_options.of(mode)),
        )

    return PerMode(macs(Mode.BASE), macs(Mode.MOTIVATED))


class RunCost:
    """Counter of the batches of a run and of the multiply-accumulates of their forward passes.

    Args:
        macs: multiply-accumulates of a forward pass of one image in each mode.
        expected: expected average cost of a forward pass, or `None` if it is not known.

    Attributes:
        batches: number of batches that trained each mode's subnet.
        steps: number of batches that trained either.
        finish_steps: number of these that extended the finished base, and count as motivated ones.
    """

    def __init__(self, macs: PerMode[int], expected: float | None) -> None:
        self.macs = macs
        self.expected = expected
        self.batches = {str(mode): 0 for mode in Mode}
        self.steps = 0
        self.finish_steps = 0

    @property
    def total(self) -> int:
        """Multiply-accumulates of the forward passes of one image over all batches so far."""
        return sum(self.batches[mode] * self.macs.of(mode) for mode in Mode)

    @property
    def relative_to_base(self) -> float | None:
        """Cost of the run so far, in units of training the base alone without the epochs that extend it.

        `None` before the first batch, and for a run that only extends a base.
        """
        base_steps = self.steps - self.finish_steps
        if base_steps == 0:
            return None
        return self.total / (self.macs.base * base_steps)

    def add(self, modes: tuple[Mode, ...], *, finish: bool = False) -> int:
        """Count a batch.

        Args:
            modes: modes of the subnets that the batch trained.
            finish: whether the batch extended the finished base.

        Returns:
            Number of multiply-accumulates of its forward pass per image.
        """
        self.steps += 1
        self.finish_steps += finish
        for mode in modes:
            self.batches[mode] += 1
        return sum(self.macs.of(mode) for mode in modes)

    def summary(self) -> dict[str, Any]:
        """Return the figures of `cost.json`: multiply-accumulates of a forward pass of one training image.

        Returns:
            The cost of each network, the expected and the actual average over all batches, and the cost of the
            run in units of training the base alone for `epochs`. Values that are not known are `None`.
        """
        return {
            "convention": "macs",
            "base": self.macs.base,
            "motivated": self.macs.motivated,
            "expected": self.expected,
            "actual": self.total / self.steps if self.steps else None,
            "relative_to_base": self.relative_to_base,
        }
