"""The last phase of a run, which extends the finished base: `finish_epochs` of the configuration.

In it every batch trains only what the motivated network has beside the base (`TrainStep.finish_step`). Its learning
rate has a schedule of its own. The condition is neither asked nor told anything.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import Optimizer

from nestnet.config.schema import Config
from nestnet.nn.mode import FINISH, Mode
from nestnet.optim.schedule import create_scheduler, without_warm_up
from nestnet.runs.parts import RunPart, restart_epoch
from nestnet.step.outcome import Outcome
from nestnet.step.train_step import TrainStep
from nestnet.step.views import BatchTensor

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def train_batch(step: TrainStep, images: BatchTensor, targets: BatchTensor, mode: str) -> Outcome:
    """Train a batch in any phase of a run.

    Args:
        step: training step of the run.
        images: images `[B, C, H, W]`, on the device, for both networks or for each.
        targets: labels `[B]` or soft targets `[B, K]`, for both networks or for each.
        mode: mode of the batch, or `"finish"` to train only what the motivated network has beside the base.

    Returns:
        The outcome of the step.
    """
    if mode == FINISH:
        return step.finish_step(images, targets)
    return step(images, targets, mode)


def batch_kinds(config: Config) -> list[str]:
    """Return the kinds of batches that a run has, as `train_batch` takes them.

    Args:
        config: configuration of the run.

    Returns:
        Both modes, if the run trains the base, and `"finish"`, if it extends it.
    """
    kinds: list[str] = []
    if config.epochs > 0:
        kinds += [str(mode) for mode in Mode]
    if config.finish_epochs > 0:
        kinds.append(FINISH)
    return kinds


def is_finishing(config: Config, epochs_done: int) -> bool:
    """Return whether the base is finished, and the rest of the run extends it.

    Args:
        config: configuration of the run.
        epochs_done: number of epochs that have been trained.

    Returns:
        Whether the run is in its last phase, or has finished it. A run without `finish_epochs` never is.
    """
    return config.finish_epochs > 0 and epochs_done >= config.epochs


def start_schedule(
    config: Config, optimizer: Optimizer, steps_per_epoch: int, epochs_done: int, parts: Sequence[RunPart]
) -> Any:
    """Create the learning rate schedule of a phase, and set the phase's first learning rate.

    Args:
        config: configuration of the run.
        optimizer: optimizer whose learning rates it sets.
        steps_per_epoch: number of batches of an epoch.
        epochs_done: number of epochs that have been trained, which tells the phase.
        parts: parts of the run; the last one may have restarted the schedule.

    Returns:
        timm's scheduler, or `None` for a constant learning rate.
    """
    if not is_finishing(config, epochs_done):
        restarted_at = restart_epoch(parts)
        if restarted_at == 0:
            return create_scheduler(optimizer, config.schedule, config.epochs, steps_per_epoch)
        further_epochs = config.epochs - restarted_at
        return create_scheduler(optimizer, without_warm_up(config.schedule), further_epochs, steps_per_epoch)
    for group in optimizer.param_groups:
        # timm's schedulers start from `initial_lr`, and multiply the rate of a group by its `lr_scale`.
        group["initial_lr"] = config.first_finish_lr
        group["lr"] = config.first_finish_lr * group.get("lr_scale", 1.0)
    return create_scheduler(optimizer, without_warm_up(config.schedule), config.finish_epochs, steps_per_epoch)


def step_schedule(trainer: "Trainer", interval: Literal["step", "epoch"]) -> None:
    """Set the learning rate after a batch or an epoch, and begin the last phase when it is due.

    Args:
        trainer: trainer of the run, which has counted the batch or the epoch.
        interval: what has ended.
    """
    config = trainer.config
    # This is before the checkpoint of the epoch, so that a resumed run finds the new phase there.
    if interval == "epoch" and trainer.is_finishing and trainer.epochs_done == config.epochs:
        trainer.schedule = start_schedule(
            config, trainer.optimizer, len(trainer.train_batches), trainer.epochs_done, trainer.parts
        )
        if trainer.step.average is not None:
            trainer.step.average.finish_base()
        return
    if config.schedule.interval == interval:
        set_learning_rate(trainer)


def set_learning_rate(trainer: "Trainer") -> None:
    """Set the learning rate that the present schedule has at the position of the run.

    Args:
        trainer: trainer of the run.
    """
    config = trainer.config
    if trainer.schedule is None:
        return
    # The last phase, and a part that restarted the schedule, count their own batches and epochs.
    start = restart_epoch(trainer.parts)
    if trainer.is_finishing:
        start = config.epochs
    if config.schedule.interval == "step":
        trainer.schedule.step_update(trainer.steps_done - start * len(trainer.train_batches))
    else:
        trainer.schedule.step(trainer.epochs_done - start)
