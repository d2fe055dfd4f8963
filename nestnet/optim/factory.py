"""The optimizer of a configuration, created by timm."""

from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer

from nestnet.config.schema import Config
from nestnet.config.schema_sections import OptimizerConfig
from nestnet.optim.parameter_groups import check_layers, group_parameters, has_own_rates
from nestnet.optim.trials import check_trainable


def create_optimizer(module: nn.Module, config: Config) -> Optimizer:
    """Create the optimizer of a configuration with timm.

    Args:
        module: module whose parameters are optimized. timm divides them into groups with and without weight
            decay.
        config: configuration of the run, of which `config.optimizer` is used.

    Returns:
        The optimizer. Parameters with a factor on their learning rate, as in the last or the first layers or of the
        motivated network alone, are in groups of their own: see `nestnet.optim.parameter_groups.group_parameters`.

    Raises:
        ValueError: If the optimizer does not have an option, or refuses a value; or if learning rates are to decay
            over the layers of a network in which timm finds none.
    """
    settings = config.optimizer
    options = dict(settings.options)
    check_layers(module, settings)
    if has_own_rates(module, settings):
        options["param_group_fn"] = lambda module: group_parameters(module, settings)
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
