"""The groups of parameters that have learning rates of their own, beside those with and without weight decay."""

from typing import Any

import timm.models
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from nestnet.config.schema_sections import OptimizerConfig
from nestnet.nn.model import NestedModel


def has_own_rates(module: nn.Module, settings: OptimizerConfig) -> bool:
    """Return whether a configuration gives some parameters another learning rate than the others.

    Args:
        module: module whose parameters are optimized. Only a nested network has differential parameters.
        settings: section `optimizer` of the configuration.
    """
    scales_differential = settings.differential_lr_scale != 1 and isinstance(module, NestedModel)
    return scales_differential or settings.layer_decay is not None


def check_layers(module: nn.Module, settings: OptimizerConfig) -> None:
    """Refuse learning rates that decay from layer to layer for a network in which timm finds no layers.

    Args:
        module: module whose parameters are optimized.
        settings: section `optimizer` of the configuration.

    Raises:
        ValueError: If all parameters are in one layer, as in a network of your own that does not name its layers.
    """
    if settings.layer_decay is None or not hasattr(module, "group_matcher"):
        return
    layers = timm.models.group_parameters(module, module.group_matcher(), reverse=True)  # type: ignore[operator]
    if len(set(layers.values())) == 1:
        raise ValueError(
            f"optimizer.layer_decay = {settings.layer_decay}: timm finds no layers in the network; give it a method "
            "group_matcher() as timm's networks have, or leave it out"
        )


def group_parameters(module: nn.Module, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """Divide timm's groups of parameters by the factors on their learning rates.

    With `layer_decay` timm numbers the layers of a nested network as those of the motivated network alone. A weight
    that both networks use has one learning rate, so that the base trains it at the rate of that layer too.

    Args:
        module: module whose parameters are optimized.
        settings: section `optimizer` of the configuration.

    Returns:
        The groups. The first one has the learning rate that a run records: it belongs to both networks and to the
        last layer. The groups of differential parameters are at the end.
    """
    exempt: set[str] = set()
    if hasattr(module, "no_weight_decay"):
        exempt = module.no_weight_decay()  # type: ignore[operator]  # torch takes it for a module
    if settings.layer_decay is None:
        groups = param_groups_weight_decay(module, settings.weight_decay, no_weight_decay_list=exempt)
    else:
        groups = param_groups_layer_decay(
            module, settings.weight_decay, no_weight_decay_list=exempt, layer_decay=settings.layer_decay
        )
    # The order of groups with the same factor stays timm's.
    groups.sort(key=lambda group: group.get("lr_scale", 1.0), reverse=True)

    differential = set()
    if isinstance(module, NestedModel):
        differential = {parameter for _, parameter in module.differential_parameters()}
    base_groups: list[dict[str, Any]] = []
    differential_groups: list[dict[str, Any]] = []
    for group in groups:
        layer_scale = group.pop("lr_scale", 1.0)
        of_both = [parameter for parameter in group["params"] if parameter not in differential]
        if of_both:
            base_groups.append({**group, "params": of_both, **_rates(settings.lr, layer_scale)})
        of_motivated = [parameter for parameter in group["params"] if parameter in differential]
        if of_motivated:
            scale = layer_scale * settings.differential_lr_scale
            differential_groups.append({**group, "params": of_motivated, **_rates(settings.lr, scale)})
    return base_groups + differential_groups


def _rates(lr: float, scale: float) -> dict[str, float]:
    """Return the entries of a group whose learning rate has a factor; none without one."""
    if scale == 1:
        return {}
    # timm's schedules start from `initial_lr`, and multiply the rate of a group by its `lr_scale`. Without a schedule
    # the rate stays as it is here.
    return {"lr": lr * scale, "initial_lr": lr, "lr_scale": scale}
