"""The base class of motivation conditions, and checked access to their properties."""

import difflib
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_whole_number

WATCHED = ("loss", "held_out_loss", "held_out_base_loss", "gradient_norm", "gradient_agreement")
"""Quantities of a training step that a condition can watch."""

WATCHED_ON_HELD_OUT_BATCH = ("held_out_loss", "held_out_base_loss")
"""Those of them that need a batch of training images that is kept out of training."""


class Condition(ABC):
    """Base class of motivation conditions, which choose the mode of the next batch.

    A subclass defines `mode` and `update`. It may define `mode` as a property, or as a class attribute that
    `update` replaces on the instance. A condition with state also overrides `reset`, `state_dict` and
    `load_state_dict`, and one whose share of motivated batches is known in advance overrides
    `expected_fraction`.

    With several processes, each one has its own condition, and all of them receive the same numbers. A
    condition must therefore decide only by the values that `update` receives, and draw random numbers only from
    a seed.

    Attributes:
        watches: the quantity of a training step that `update` receives: `"loss"`, the loss of the batch;
            `"held_out_loss"`, the loss on one batch of training images that is kept out of training, of the
            subnet that was just trained; `"held_out_base_loss"`, the base's loss on that batch, whatever was
            trained; `"gradient_norm"`, the Euclidean norm of all gradients of the batch before clipping; or
            `"gradient_agreement"`, the cosine of the angle between both networks' gradients on the weights that
            they share, which only a batch that trains both has.

    Example:
        >>> class AfterLowLoss(Condition):
        ...     mode = Mode.BASE  # of the first batch
        ...
        ...     def update(self, loss):
        ...         self.mode = Mode.MOTIVATED if loss < 0.5 else Mode.BASE
        >>> condition = AfterLowLoss()
        >>> condition.update(0.1)
        >>> condition.mode
        <Mode.MOTIVATED: 'motivated'>
    """

    watches: ClassVar[str] = "loss"

    # Every condition defines these.

    @property
    @abstractmethod
    def mode(self) -> Mode:
        """Mode of the next batch. Reading it changes nothing."""

    @abstractmethod
    def update(self, loss: float) -> None:
        """Record the batch that was just trained, whichever subnet it trained.

        Args:
            loss: loss of the batch before its step changed the weights, or the quantity that `watches` names.
                It may be NaN or infinite; `"gradient_agreement"` is NaN after each batch that trained one network.
        """

    # The trainer calls this, for conditions that learn from what their motivated batches did.

    def overrule(self) -> None:  # noqa: B027  # a default, not a method that is owed
        """Record that the next batch trains the base, although `mode` is motivated: the limits allow no other.

        `update` follows.
        """

    # A condition with state overrides these. The defaults are for a condition without state.

    def reset(self) -> None:  # noqa: B027  # a default, not a method that is owed
        """Forget all earlier batches, except for what is learned over the whole run.

        This is called at the start of each epoch.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` resumes exactly.

        Returns:
            Numbers, strings, lists, dictionaries and tensors by name; empty for a condition without state.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  # a default
        """Restore a state.

        Args:
            state: state that `state_dict` returned.
        """

    # Forecasts of the cost call this.

    def expected_fraction(self, batches: int | None = None) -> float | None:
        """Return the share of an epoch's batches that this condition is expected to motivate, for forecasts of the cost.

        A run is refused before training if its condition motivates batches of long epochs, but none of epochs
        as short as those of the run.

        Args:
            batches: number of batches of an epoch, at least 1; `None` for epochs so long that their length
                has no effect.

        Returns:
            Share from 0 to 1, or `None` if it is not known.
        """
        return None

    def expected_count(self, batches: int, epoch_length: int) -> float | None:
        """Return the number of a run's first batches that this condition is expected to motivate.

        It follows from `expected_fraction`, with the same share in each epoch. A condition whose epochs differ
        overrides it.

        Args:
            batches: number of batches from the start of the run, at least 0.
            epoch_length: number of batches of an epoch, at least 1.

        Returns:
            Number of motivated batches, or `None` if it is not known.
        """
        full_epochs, rest = divmod(batches, epoch_length)
        count = 0.0
        # An epoch that is cut short counts like an epoch of that length.
        for epochs, length in ((full_epochs, epoch_length), (1, rest)):
            if epochs and length:
                share = expected_fraction(self, length)
                if share is None:
                    return None
                count += epochs * length * share
        return count


def chosen_mode(condition: Condition) -> Mode:
    """Return the mode that a condition chose for the next batch.

    Args:
        condition: motivation condition, whose mode is a `Mode` or its value.

    Returns:
        The mode.

    Raises:
        ValueError: If it is none of the two.

    Example:
        >>> from nestnet import Never
        >>> chosen_mode(Never())
        <Mode.BASE: 'base'>
    """
    try:
        return Mode(condition.mode)
    except ValueError as error:
        raise ValueError(f"condition {type(condition).__name__}: {error}") from None


def motivated_rate(k: int) -> float:
    """Return the share of batches that k falling losses in a row motivate if losses are independent: 1/(k+1)!.

    Of the (k+1)! orders of k + 1 losses, which are equally likely, exactly one falls throughout. The published
    costs use this share. The streak starts over in each epoch, so that its first k + 1 batches are never
    motivated: `expected_fraction` takes that into account.

    Args:
        k: number of falling losses in a row, at least 1.

    Returns:
        Share from 0 to 1.

    Raises:
        ValueError: If `k` is not a whole number of at least 1.

    Example:
        >>> [round(100 * motivated_rate(k), 2) for k in (1, 2, 3, 4, 5)]
        [50.0, 16.67, 4.17, 0.83, 0.14]
    """
    return 1 / math.factorial(check_whole_number("k", k, 1, "how many in a row motivate") + 1)


def expected_fraction(condition: Condition, batches: int | None = None) -> float | None:
    """Return the share of batches that a condition is expected to motivate.

    Args:
        condition: motivation condition.
        batches: number of batches of an epoch, at least 1; `None` for epochs so long that their length has no
            effect.

    Returns:
        Share from 0 to 1, or `None` if the condition does not know it.

    Raises:
        ValueError: If `condition` is not a `Condition`, or its share is neither from 0 to 1 nor `None`.

    Example:
        >>> from nestnet import LossDecrease
        >>> expected_fraction(LossDecrease(k=2), batches=12)
        0.125
        >>> expected_fraction(LossDecrease(k=2), batches=3)
        0.0
    """
    _check_is_condition(condition)
    # a number in place of the method would fail with a TypeError, which does not name the condition
    if not callable(condition.expected_fraction):
        raise ValueError(
            f"condition {type(condition).__name__}: expected_fraction = {condition.expected_fraction!r}: it must be a method, "
            "expected_fraction(batches), that returns the share of motivated batches"
        )
    fraction = condition.expected_fraction(batches)
    if fraction is None:
        return None
    # Comparisons with NaN are false, so that NaN is refused as well.
    if not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
        argument = "" if batches is None else str(batches)
        raise ValueError(
            f"condition {type(condition).__name__}: expected_fraction({argument}) = {fraction!r}: it must be from 0 to 1, "
            "the share of motivated batches, or None if it is not known"
        )
    return float(fraction)


def can_motivate(condition: Condition, batches: int) -> bool:
    """Return whether a condition that is meant to motivate batches can do so in epochs of a given length.

    A condition that motivates no batch of any epoch, such as `Never`, is not meant to motivate any.

    Args:
        condition: motivation condition.
        batches: number of batches of an epoch, at least 1.

    Returns:
        `False` if the condition motivates batches of long epochs, but none of epochs of this length; otherwise
        `True`.

    Raises:
        ValueError: If `expected_fraction` raises it.

    Example:
        >>> from nestnet import LossDecrease, Never
        >>> can_motivate(LossDecrease(k=2), batches=3), can_motivate(Never(), batches=3)
        (False, True)
    """
    # A share of 0 in epochs of any length is intended.
    never_motivates = expected_fraction(condition) == 0
    return never_motivates or expected_fraction(condition, batches) != 0


def watched_quantity(condition: Condition) -> str:
    """Return the quantity of a training step that a condition watches.

    Args:
        condition: motivation condition.

    Returns:
        One of `WATCHED`.

    Raises:
        ValueError: If `condition` is not a `Condition`, or watches an unknown quantity.
    """
    _check_is_condition(condition)
    watches = condition.watches
    if watches not in WATCHED:
        # With a misspelt name, the condition would never receive its quantity.
        near = difflib.get_close_matches(str(watches), WATCHED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"condition {type(condition).__name__}: watches = {watches!r}: it must be one of {', '.join(WATCHED)}{hint}"
        )
    return watches


def _check_is_condition(condition: object) -> None:
    if not isinstance(condition, Condition):
        raise ValueError(
            f"condition = {condition!r}: it must be a nestnet.Condition; derive {type(condition).__name__} from that class"
        )
