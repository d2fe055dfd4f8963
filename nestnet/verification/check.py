"""The check of a configuration: a comparison of its nested network with the copy-based reference, on its own data."""

import itertools
import random
from collections.abc import Iterator

import torch

from nestnet.conditions.description import classical_mode, describe_motivation
from nestnet.config.schema import Config
from nestnet.config.schema_sections import MotivationConfig
from nestnet.nn.mode import Mode
from nestnet.nn.parameter import NestedParameter
from nestnet.optim.factory import create_optimizer
from nestnet.optim.whole_tensor_updates import (
    describe_whole_tensor_update,
    measure_block_difference,
    updates_whole_tensors,
)
from nestnet.step.outcome import Outcome
from nestnet.step.views import BatchTensor
from nestnet.training.trainer import Trainer
from nestnet.verification.comparison import Comparison, NextMode, check_against_reference


def check_nested_training(config: Config, *, steps: int, sequence: str = "condition") -> str:
    """Train a configuration's nested network and the reference, and describe the largest differences.

    Both train in float32 at the optimizer's learning rate, without the schedule and without gradient
    clipping: over blocks, a norm is summed in another order than over whole tensors.

    Args:
        config: configuration of a run, which names networks, data, optimizer, condition, policy and limits.
        steps: number of batches to train.
        sequence: `"condition"` lets the configured condition choose the modes within the limits of the run,
            as in a run; `"random"` draws the mode of each batch with the configuration's seed, for many
            switches.

    Returns:
        Lines of text: what was trained, the largest differences, and what they mean.

    Raises:
        ValueError: For a condition that watches something other than the loss, and for an optimizer that
            updates a tensor as a whole, where weights are divided into blocks.
    """
    trainer = Trainer(config)
    _check_comparable(trainer, sequence)
    next_mode = _modes_by_condition(trainer) if sequence == "condition" else _random_modes(trainer)
    epoch_length = len(trainer.train_batches)
    comparison = check_against_reference(
        trainer.net.train(),
        lambda module: create_optimizer(module, config),
        itertools.islice(_training_batches(trainer), steps),
        next_mode,
        loss_function=trainer.objectives,
        step_count=config.optimizer.step_count,
        policy=trainer.step.policy,
        epoch_ends=range(epoch_length, steps + 1, epoch_length),
    )
    return _describe(trainer, comparison, sequence)


def _check_comparable(trainer: Trainer, sequence: str) -> None:
    """Raise ValueError for settings that the reference does not support or treats differently."""
    # A model has one learning rate for each of its weights, also where the base has a part of it.
    scale = trainer.config.optimizer.differential_lr_scale
    if scale != 1:
        raise ValueError(
            f"optimizer.differential_lr_scale = {scale:g}: the reference trains the whole of a weight at one rate; leave it out"
        )
    # The reference switches its models to training mode as a whole.
    freeze = trainer.config.model.freeze
    if freeze is not None:
        raise ValueError(f"model.freeze = {freeze!r}: the reference trains all weights; leave it out")
    # The layers of the base alone have other numbers than the same layers in the motivated network.
    layer_decay = trainer.config.optimizer.layer_decay
    if layer_decay is not None:
        raise ValueError(
            f"optimizer.layer_decay = {layer_decay:g}: the reference's base has fewer layers, and so other rates; leave it out"
        )
    # Held-out losses and gradient norms are computed by the trainer, which does not run these steps.
    name = trainer.config.motivation.name
    if sequence == "condition" and trainer.watches != "loss":
        raise ValueError(f"motivation.name = {name!r}: the check only provides losses; set sequence to random")
    # A norm of a whole tensor is not the norm of its blocks.
    is_divided = any(isinstance(module, NestedParameter) for module in trainer.net.modules())
    if is_divided and updates_whole_tensors(trainer.optimizer):
        reason = describe_whole_tensor_update(trainer.optimizer)
        raise ValueError(
            f"optimizer.name = {trainer.config.optimizer.name!r}: it computes {reason}, and "
            "each block of a divided weight is a separate tensor: it trains, but not as copying does; "
            "check the other settings with another optimizer, such as momentum"
        )


def _training_batches(trainer: Trainer) -> Iterator[tuple[BatchTensor, BatchTensor]]:
    """Yield batches as in training, epoch after epoch."""
    while True:
        for images, labels in trainer.epoch_batches():
            yield trainer.mix_batch(images, labels)
            trainer.steps_done += 1
        trainer.epochs_done += 1


def _modes_by_condition(trainer: Trainer) -> NextMode:
    """Return the configured condition, within the limits of the run, as a function of the last outcome."""

    def next_mode(outcome: Outcome | None) -> Mode:
        # The loop of the trainer does the same, in the same order: the limits depend on the cost so far.
        if outcome is not None:
            trainer.condition.update(trainer.watched_quantity.loss(outcome))
            trainer.cost.add(outcome.modes)
        if _begins_epoch(trainer):
            trainer.condition.reset()
        return trainer.choose_mode()

    return next_mode


def _random_modes(trainer: Trainer) -> NextMode:
    """Return a function that draws the mode of each batch; the first batch of an epoch is in base mode."""
    generator = random.Random(trainer.config.seed)
    return lambda outcome: Mode.BASE if _begins_epoch(trainer) else generator.choice(list(Mode))


def _begins_epoch(trainer: Trainer) -> bool:
    """Return whether the next batch is the first of its epoch."""
    return trainer.steps_done % len(trainer.train_batches) == 0


def _describe(trainer: Trainer, comparison: Comparison, sequence: str) -> str:
    names = trainer.net.architectures
    optimizer = trainer.config.optimizer
    # Say what was trained, and where.
    lines = [
        f"{names.base} in {names.motivated}, {optimizer.name} at lr {optimizer.lr:g} "
        f"(step count: {optimizer.step_count}), float32, {trainer.device}, torch {torch.__version__}",
        _describe_modes(trainer.config.motivation, sequence),
        f"{comparison.steps} batches, {comparison.motivated_steps} of them motivated, {comparison.switches} switches",
    ]
    for kind, difference in comparison.differences.items():
        lines.append(f"largest difference in {kind + ':':<16} {difference:g}")
    # Say what the differences mean.
    if comparison.identical:
        lines.append("identical to the copy-based reference, bit for bit" + _note_missing_modes(trainer, comparison))
    elif measure_block_difference(trainer.optimizer) > 0:
        reason = describe_whole_tensor_update(trainer.optimizer)
        lines.append(
            f"{optimizer.name} computes {reason}, with different rounding or random numbers here: hence the differences"
        )
    elif trainer.device.type != "cpu":
        lines.append("the differences come from the order of summation on this device; on a CPU there are none")
    return "\n".join(lines)


def _note_missing_modes(trainer: Trainer, comparison: Comparison) -> str:
    """Return the end of a sentence that says that no motivated batch was compared, if there should have been any."""
    if comparison.motivated_steps or classical_mode(trainer.config.motivation) is Mode.BASE:
        return ""
    first = trainer.limits.window.start
    after = f", which batch {first + 1} is the first to be" if first >= comparison.steps else ""
    return f"; but no batch was motivated{after}: take more steps, or the sequence random"


def _describe_modes(motivation: MotivationConfig, sequence: str) -> str:
    """Return what chose the modes, and what motivated batches trained."""
    if sequence == "random":
        # Modes at random depend neither on the condition nor on the loss that it watches nor on the limits.
        motivation = MotivationConfig(
            name="random modes",
            trains=motivation.trains,
            distillation=motivation.distillation,
            temperature=motivation.temperature,
            motivated_loss_weight=motivation.motivated_loss_weight,
        )
    return describe_motivation(motivation)
