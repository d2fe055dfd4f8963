"""`nestnet check`: a configuration's nested network against the copy-based reference."""

import itertools
import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.nn.parameter import NestedParameter
from nestnet.optim.factory import create_optimizer
from nestnet.optim.trials import difference_of_blocks, updates_whole_tensors, whole_tensor_reason
from nestnet.training.trainer import Trainer
from nestnet.verification.reference import Comparison, check_against_reference


def check_config(config: Config, *, steps: int, sequence: str = "condition") -> str:
    """Train both for `steps` batches of the configuration's data, and tell the largest differences.

    Both train in float32, at the optimizer's learning rate, without the schedule and without clipping: a norm is summed up
    in another order over blocks than over whole tensors.

    Args:
        sequence: `"condition"` lets the configured condition choose the modes, as in a run; `"random"` draws each batch's
            mode, with the configuration's seed, for many switches.

    Raises:
        ValueError: for joint training, which does not switch; by a condition that watches something else than the loss; for an
            optimizer that updates a tensor as a whole, where weights are divided into blocks.
    """
    trainer = Trainer(config)
    if trainer.joint:
        raise ValueError("motivation.name = 'joint': it does not switch, and so has nothing to check; name a condition")
    if sequence == "condition" and trainer.watches != "loss":
        raise ValueError(
            f"motivation.name = {config.motivation.name!r}: the check knows losses alone; take --sequence random"
        )
    divided = any(isinstance(module, NestedParameter) for module in trainer.net.modules())
    if divided and updates_whole_tensors(trainer.optimizer):
        raise ValueError(
            f"optimizer.name = {config.optimizer.name!r}: it computes {whole_tensor_reason(trainer.optimizer)}, and the "
            "blocks of a divided weight are tensors of their own: it trains, but not as copying does; check the rest with "
            "another one, such as --optimizer.name momentum"
        )
    length = len(trainer.train_batches)
    comparison = check_against_reference(
        trainer.net.train(),
        lambda module: create_optimizer(module, config),
        itertools.islice(_batches(trainer), steps),
        _by_condition(trainer) if sequence == "condition" else _random_modes(config.seed),
        loss_function=trainer.objective,
        step_count=config.optimizer.step_count,
        epoch_ends=range(length, steps + 1, length),
    )
    return _report(trainer, comparison)


def _batches(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for images, labels in trainer.epoch_batches():
            yield trainer.mix_batch(images, labels)
            trainer.steps_done += 1
        trainer.epochs_done += 1


def _by_condition(trainer: Trainer) -> Callable[[float | None], Mode]:
    def next_mode(loss: float | None) -> Mode:
        if loss is None:
            trainer.condition.reset()
        else:
            trainer.condition.update(loss)
        return trainer.condition.mode

    return next_mode


def _random_modes(seed: int) -> Callable[[float | None], Mode]:
    """An epoch starts in base mode; every other batch's mode is drawn."""
    draw = random.Random(seed)
    return lambda loss: Mode.BASE if loss is None else draw.choice(list(Mode))


def _report(trainer: Trainer, comparison: Comparison) -> str:
    names, o = trainer.net.architectures, trainer.config.optimizer
    exact = trainer.device.type == "cpu"
    lines = [
        f"{names.base} in {names.motivated}, {o.name} at lr {o.lr:g} (step count: {o.step_count}), float32, "
        f"{trainer.device}, torch {torch.__version__}",
        f"{comparison.steps} batches, {comparison.motivated} of them motivated, {comparison.switches} switches",
        *(f"largest difference in {kind + ':':<16} {value:g}" for kind, value in comparison.differences.items()),
    ]
    if comparison.identical:
        lines.append("identical to the copy-based reference, bit for bit")
    elif difference_of_blocks(trainer.optimizer) > 0:
        reason = whole_tensor_reason(trainer.optimizer)
        lines.append(
            f"{o.name} computes {reason}, with other last bits or other random numbers here: hence the differences"
        )
    elif not exact:
        lines.append("differences on this device come from its order of summation; a CPU gives the same bits")
    return "\n".join(lines)
