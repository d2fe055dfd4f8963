"""The policy and the limits of a run's motivated batches, built from the configuration."""

from nestnet.conditions.base import Condition
from nestnet.conditions.limits import MotivationLimits
from nestnet.config.schema import Config
from nestnet.cost.run import batch_costs
from nestnet.nn.mode import PerMode
from nestnet.step.policy import Policy


def build_policy(config: Config) -> Policy:
    """Build the policy of a configuration: what a motivated batch trains.

    Args:
        config: validated configuration of a run.

    Returns:
        The policy.
    """
    motivation = config.motivation
    return Policy(
        trains=motivation.trains,
        distillation=motivation.distillation or 0.0,
        temperature=motivation.temperature,
        motivated_loss_weight=motivation.motivated_loss_weight,
        activation="sigmoid" if config.loss.name == "bce" else "softmax",
    )


def build_limits(config: Config, epoch_length: int, macs: PerMode[int]) -> MotivationLimits:
    """Build the limits on the motivated batches of a configuration.

    Args:
        config: validated configuration of a run.
        epoch_length: number of batches of an epoch.
        macs: multiply-accumulates of a forward pass of one image in each mode.

    Returns:
        The limits.
    """
    motivation = config.motivation
    return MotivationLimits(
        epoch_length=epoch_length,
        epochs=config.epochs,
        batch_costs=batch_costs(macs, build_policy(config)),
        start=motivation.start,
        until=motivation.until,
        budget=motivation.budget,
    )


def check_limits(config: Config, limits: MotivationLimits, condition: Condition) -> None:
    """Check that a condition can motivate a batch within the limits of a configuration.

    Args:
        config: configuration of a run.
        limits: limits on its motivated batches.
        condition: its condition.

    Raises:
        ValueError: If the condition is meant to motivate batches, and the limits allow none.
    """
    if limits.can_motivate(condition):
        return
    motivation = config.motivation
    if limits.affordable() == 0:
        raise ValueError(
            f"motivation.budget = {motivation.budget}: it does not suffice for a single motivated batch of {limits.steps:,}; "
            "raise it, or set motivation.name to never"
        )
    raise ValueError(
        f"motivation.start = {motivation.start} and motivation.until = {motivation.until}: {condition!r} can motivate none of "
        f"the {len(limits.window)} batches between them, of the run's {limits.steps:,}; widen them, or lower data.batch_size"
    )
