"""Checks of the section `optimizer`: which optimizers nestnet trains with, and their settings."""

import dataclasses
import difflib
import inspect
import warnings

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from torch import nn

from nestnet.conditions.description import classical_mode
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_sections import HIGHEST_LR, OptimizerConfig
from nestnet.nn.mode import Mode
from nestnet.optim.initial_state import is_scalar
from nestnet.text.messages import first_line


def explain_refusal(name: str) -> str | None:
    """Return why nestnet does not train with an optimizer that timm knows.

    Args:
        name: timm's name of the optimizer.

    Returns:
        The reason; `None` if nestnet trains with it, or timm knows no optimizer of this name.
    """
    wrapper, _, wrapped = name.partition("_")
    if wrapper == "lookahead" and wrapped:
        return (
            "Lookahead pulls weights back to a slow copy at every sixth step, and differential weights would miss those that "
            "train the base"
        )
    # An unknown name is not a refusal: `check_optimizer_name` reports it with similar names.
    try:
        info = get_optimizer_info(name)
    except ValueError:
        return None
    # timm gives the path of a class, as text, if it belongs to an optional package.
    if isinstance(info.opt_class, str):
        package = info.opt_class.partition(".")[0]
        return f"it needs the package {package}, and nestnet uses only optimizers of timm and PyTorch"
    if info.second_order:
        return "it needs second derivatives of the loss, which training does not compute"
    return None


def check_optimizer_name(name: str) -> None:
    """Check that nestnet trains with an optimizer.

    Args:
        name: `optimizer.name` of a configuration.

    Raises:
        ValueError: If it does not. The message suggests similar names.
    """
    optimizers = [str(other) for other in list_optimizers() if explain_refusal(str(other)) is None]
    near = difflib.get_close_matches(name, optimizers, n=3) or ["momentum", "adamw", "rmsprop", "lamb"]
    refusal = explain_refusal(name)
    if refusal is not None:
        refuse("optimizer.name", name, f"{refusal}; take another one, such as {near[0]}")
    if name not in optimizers:
        refuse("optimizer.name", name, f"it must be one of timm's optimizers, such as {', '.join(near)}")


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Check the settings of an optimizer by creating one for a single weight.

    Args:
        optimizer: section `optimizer` of a configuration, whose name is known.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    # timm ignores a momentum that the optimizer does not have.
    has_momentum = get_optimizer_info(optimizer.name).has_momentum
    if optimizer.momentum != OptimizerConfig().momentum and not has_momentum:
        refuse("optimizer.momentum", optimizer.momentum, f"{optimizer.name} has no momentum; leave it out")
    start = f"optimizer.name = {optimizer.name!r} with options {optimizer.options}: "
    _check_option_names(optimizer, start)
    # One weight is enough for the optimizer to check its arguments.
    weight = nn.Parameter(torch.zeros(1, 1))
    counts_literally = optimizer.step_count == "literal"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are shown when the network's optimizer is created
            trial = create_optimizer_v2(
                [weight],
                opt=optimizer.name,
                lr=optimizer.lr,
                weight_decay=optimizer.weight_decay,
                momentum=optimizer.momentum,
                **optimizer.options,
            )
            if counts_literally:
                # An optimizer creates its state in the first step.
                weight.sum().backward()
                trial.step()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(start + first_line(error)) from error
    if counts_literally and not any(map(is_scalar, trial.state[weight].values())):
        reason = f"{optimizer.name} does not count the steps of each weight; leave it out"
        refuse("optimizer.step_count", optimizer.step_count, reason)


def check_differential_lr_scale(config: Config) -> None:
    """Refuse a factor on the learning rate of weights that do not exist or are not trained, or one that is too high.

    Args:
        config: configuration, each of whose values is in its own range.

    Raises:
        ValueError: If the factor breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    scale = config.optimizer.differential_lr_scale
    field = "optimizer.differential_lr_scale"
    if scale == 1:
        return
    model = config.model
    if model.base == model.motivated and model.batch_norm != "separate":
        reason = f"base and motivated are both {model.base}, without differential weights; leave it out"
        refuse(field, scale, reason)
    if classical_mode(config.motivation) is Mode.BASE:
        name = config.motivation.name
        refuse(field, scale, f"motivation.name = {name!r} trains no differential weights; leave it out")
    if config.optimizer.lr * scale > HIGHEST_LR:
        reason = f"times optimizer.lr = {config.optimizer.lr:g} it must be at most {HIGHEST_LR:g}; lower it"
        refuse(field, scale, reason)


def _check_option_names(optimizer: OptimizerConfig, start: str) -> None:
    fields = {field.name for field in dataclasses.fields(optimizer)}
    given_twice = sorted(fields.intersection(optimizer.options))
    if given_twice:
        name = given_twice[0]
        raise ValueError(f"{start}{name} is a field of its own: set optimizer.{name}")
    parameters = inspect.signature(get_optimizer_class(optimizer.name, bind_defaults=False)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # Such an optimizer may accept any option; only its constructor can tell.
        return
    arguments = [name for name in parameters if name != "params" and name not in fields]
    for option in optimizer.options:
        if option not in arguments:
            near = difflib.get_close_matches(str(option), arguments, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(arguments)}"
            raise ValueError(f"{start}it has no argument {option}; {hint}")
