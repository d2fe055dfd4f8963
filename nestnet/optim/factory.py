"""The optimizer of a configuration, created by timm."""

from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer

from nestnet.config.schema import Config
from nestnet.config.schema_sections import OptimizerConfig
from nestnet.nn.model import NestedModel
from nestnet.optim.trials import check_trainable


def create_optimizer(module: nn.Module, config: Config) -> Optimizer:
    """Create the optimizer of a configuration with timm.

    Args:
        module: module whose parameters are optimized. timm divides them into groups with and without weight
            decay.
        config: configuration of the run, of which `config.optimizer` is used.

    Returns:
        The optimizer. If the differential weights of a nested network have a factor on their learning rate, they
        are in groups of their own, after the others.

    Raises:
        ValueError: If the optimizer does not have an option, or refuses a value.
    """
    settings = config.optimizer
    options = dict(settings.options)
    if settings.differential_lr_scale != 1 and isinstance(module, NestedModel):
        options["param_group_fn"] = lambda net: _scaled_groups(net, settings)
    # timm passes the options to the constructor of the optimizer, which refuses unknown ones with a
    # TypeError.
    try:
        return create_optimizer_v2(
            module,
            opt=settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **options,
        )
    except (TypeError, ValueError) as error:
        raise _refusal(settings, error) from error


def _scaled_groups(net: NestedModel, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """Divide timm's groups of parameters, so that the differential ones have their own learning rate.

    Args:
        net: nested network.
        settings: section `optimizer` of the configuration.

    Returns:
        timm's groups without the differential parameters, and then the groups of these.
    """
    differential = {parameter for _, parameter in net.differential_parameters()}
    base_groups: list[dict[str, Any]] = []
    differential_groups: list[dict[str, Any]] = []
    for group in param_groups_weight_decay(net, settings.weight_decay, no_weight_decay_list=net.no_weight_decay()):
        of_both = [parameter for parameter in group["params"] if parameter not in differential]
        if of_both:
            base_groups.append({**group, "params": of_both})
        of_motivated = [parameter for parameter in group["params"] if parameter in differential]
        if of_motivated:
            # timm's schedules start from `initial_lr`, and multiply the rate of a group by its `lr_scale`. Without
            # a schedule the rate stays as it is here.
            rates = {
                "lr": settings.lr * settings.differential_lr_scale,
                "initial_lr": settings.lr,
                "lr_scale": settings.differential_lr_scale,
            }
            differential_groups.append({**group, "params": of_motivated, **rates})
    # The first group has the learning rate that a run records.
    return base_groups + differential_groups


def try_optimizer(optimizer: Optimizer, config: Config) -> None:
    """Check that a run with the optimizer of a configuration trains as it should and can be resumed.

    Args:
        optimizer: optimizer that `create_optimizer` returned. It is tried on small tensors and is not
            changed.
        config: configuration of the run.

    Raises:
        ValueError: If the optimizer fails a trial of `nestnet.optim.trials.check_trainable`.
    """
    try:
        check_trainable(optimizer)
    except ValueError as error:
        raise _refusal(config.optimizer, error) from error


def _refusal(settings: OptimizerConfig, reason: Exception) -> ValueError:
    return ValueError(f"optimizer.name = {settings.name!r} with options {settings.options}: {reason}")
