"""What a motivation condition is."""

import difflib
import math
from typing import Any, Protocol

from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_whole_number

JOINT = "joint"
"""In place of a condition's name, and in the mode column of such a run: both networks train at every batch."""


WATCHED = ("loss", "held_out_loss", "gradient_norm")
"""The numbers of a step that a condition can be told."""


class Condition(Protocol):
    """What a training loop asks of a condition.

    A condition that wants another number than the batch's loss says which in an attribute `watches`: `"held_out_loss"`,
    the loss on one batch of training images that is kept out of training, or `"gradient_norm"`, the Euclidean norm of all
    gradients of the batch before clipping. The loop then hands this number to `update`.

    A condition that can tell how often it will motivate says so, for forecasts of the cost, in an attribute
    `expected_fraction`: the share of motivated batches in long epochs, from 0 to 1, or `None`. Where the length of an epoch
    matters, a method `expected_fraction_of_epoch(batches)` returns the share in epochs of so many batches.
    """

    @property
    def mode(self) -> Mode:
        """The mode for the next batch."""

    def update(self, loss: float) -> None:
        """Take in the loss of the batch just trained, whichever subnet trained it."""

    def reset(self) -> None:
        """An epoch starts: forget the batches before."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def motivated_rate(k: int) -> float:
    """The share of batches that k falling losses in a row motivate, if the losses are independent draws: 1/(k+1)!.

    Of the (k+1)! orders of k + 1 losses, equally likely, one falls all the way. The published costs follow it. As each
    epoch starts anew, its first k + 1 batches are never motivated: `expected_fraction` takes that into account.

    Raises:
        ValueError: if `k` is no whole number of at least 1.

    >>> [round(100 * motivated_rate(k), 2) for k in (1, 2, 3, 4, 5)]
    [50.0, 16.67, 4.17, 0.83, 0.14]
    """
    return 1 / math.factorial(check_whole_number("k", k, 1, "how many in a row motivate") + 1)


def expected_fraction(condition: Condition, batches: int) -> float | None:
    """Return the share of motivated batches to expect of a condition, or `None` where there is no telling.

    Args:
        batches: number of batches of an epoch, at least 1.

    Raises:
        ValueError: if the condition gives something else than a share from 0 to 1.

    >>> from nestnet import LossDecrease
    >>> expected_fraction(LossDecrease(k=2), batches=12)
    0.125
    >>> expected_fraction(LossDecrease(k=2), batches=3)
    0.0
    """
    source = "expected_fraction"
    fraction = getattr(condition, source, None)
    if hasattr(condition, "expected_fraction_of_epoch"):
        source = f"expected_fraction_of_epoch({batches})"
        fraction = condition.expected_fraction_of_epoch(batches)
    if fraction is None:
        return None
    if not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
        raise ValueError(
            f"condition {type(condition).__name__}: {source} = {fraction!r}: it must be from 0 to 1, the share of motivated "
            "batches, or None if there is no telling"
        )
    return float(fraction)


def can_motivate(condition: Condition, batches: int) -> bool:
    """Return whether a condition that is to motivate batches can do so in epochs of this length.

    A condition that motivates no batch of any epoch, such as `Never`, does so on purpose.

    >>> from nestnet import LossDecrease, Never
    >>> can_motivate(LossDecrease(k=2), batches=3), can_motivate(Never(), batches=3)
    (False, True)
    """
    return expected_fraction(condition, batches) != 0 or getattr(condition, "expected_fraction", None) == 0


def watched_quantity(condition: Condition) -> str:
    """Return the quantity that a condition watches, one of `WATCHED`. The default is the batch's loss.

    Raises:
        ValueError: if the condition asks for another one.
    """
    watches = getattr(condition, "watches", "loss")
    if watches not in WATCHED:
        near = difflib.get_close_matches(str(watches), WATCHED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"condition {type(condition).__name__}: watches = {watches!r}: it must be one of {', '.join(WATCHED)}{hint}"
        )
    return watches
