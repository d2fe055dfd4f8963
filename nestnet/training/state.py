"""The state of a trainer: the content of a checkpoint, and its restoration to the same bits."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nestnet.optim.state_loading import load_optimizer_state
from nestnet.runs.parts import RunPart
from nestnet.runs.resumable import check_same_run
from nestnet.step.random_state import get_random_state, restore_random_state
from nestnet.storage.state_codec import State, check_tensors
from nestnet.training.epoch_totals import EpochTotals
from nestnet.training.finish_phase import start_schedule
from nestnet.training.longer_run import begin_part, begins_part
from nestnet.training.stopping import Stopping

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def get_state(trainer: "Trainer", *, end_of_epoch: bool) -> State:
    """Return everything that the rest of the run and its exports depend on.

    All processes must call this function.

    Args:
        trainer: trainer between two batches.
        end_of_epoch: whether an epoch has just been evaluated.

    Returns:
        The state, the same in all processes. Its tensors are those of the trainer, not copies.
    """
    trainer.stopping.stop_clock()
    average = trainer.step.average
    # `None` in a checkpoint means that the run has no moving average.
    average_state: dict[str, Tensor] | None = None
    averaged_steps = 0
    if average is not None:
        average_state = dict(average.module.state_dict())
        averaged_steps = average.updates
    schedule_state = None
    if trainer.schedule is not None:
        schedule_state = trainer.schedule.state_dict()
    return {
        "net": dict(trainer.net.state_dict()),
        "average": average_state,
        "averaged_steps": averaged_steps,
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": schedule_state,
        "condition": trainer.condition.state_dict(),
        # Each process has its own random generators and BatchNorm statistics.
        "processes": trainer.process_group.all_gather_object(_get_process_state(trainer)),
        "cost": {
            "batches": trainer.cost.batches,
            "steps": trainer.cost.steps,
            "finish_steps": trainer.cost.finish_steps,
        },
        "recalibrated": trainer.recalibrated,
        # Position in the run, and results so far.
        "epoch": asdict(trainer.totals),
        "epochs_done": trainer.epochs_done,
        "steps_done": trainer.steps_done,
        "end_of_epoch": end_of_epoch,
        "best": trainer.best,
        "parts": [asdict(part) for part in trainer.parts],
        "stopping": asdict(trainer.stopping),
        # Configuration and data, which must be the same when the run is resumed.
        "config": asdict(trainer.config),
        "condition_name": type(trainer.condition).__name__,
        "watches": trainer.watches,
        "images": trainer.record.fingerprint,
        "class_names": list(trainer.images.class_names),
        "input_size": [trainer.images.input_size[0], *trainer.images.eval_size],
    }


def restore_state(trainer: "Trainer", state: State) -> None:
    """Restore a trainer to `state`, after checking all of it.

    Args:
        trainer: trainer of the same run.
        state: what `get_state` returned, as a checkpoint holds it.

    Raises:
        ValueError: If the state is of another run or damaged; the message says what differs.
    """
    _check_state(trainer, state)
    trainer.parts = [RunPart(**part) for part in state["parts"]]
    # Each phase has a schedule of its own, whose state is loaded below.
    trainer.schedule = start_schedule(
        trainer.config, trainer.optimizer, len(trainer.train_batches), state["epochs_done"], trainer.parts
    )
    average = trainer.step.average
    # The optimizer comes first, because its state is checked while it is loaded.
    load_optimizer_state(trainer.optimizer, state["optimizer"])
    trainer.net.load_state_dict(state["net"])
    if average is not None:
        average.module.load_state_dict(state["average"])
        average.updates = state["averaged_steps"]
    begins_another = begins_part(trainer.config, state)
    if trainer.schedule is not None and not begins_another:
        trainer.schedule.load_state_dict(state["schedule"])
    trainer.condition.load_state_dict(state["condition"])
    trainer.cost.batches = dict(state["cost"]["batches"])
    trainer.cost.steps = state["cost"]["steps"]
    trainer.cost.finish_steps = state["cost"]["finish_steps"]
    trainer.recalibrated = state["recalibrated"]
    trainer.totals = EpochTotals(**state["epoch"])
    trainer.best = state["best"]
    trainer.stopping = Stopping(**state["stopping"])
    # Restore the position in the run.
    trainer.epochs_done = state["epochs_done"]
    trainer.steps_done = state["steps_done"]
    if begins_another:
        begin_part(trainer, state["config"]["epochs"])
    # With another number of processes the batches are divided differently, and no process corresponds to an
    # earlier one.
    if len(state["processes"]) == trainer.process_group.size:
        _restore_process_state(trainer, state["processes"][trainer.process_group.rank])


def _check_state(trainer: "Trainer", state: State) -> None:
    """Raise ValueError unless the state belongs to the run of this trainer."""
    check_same_run(state, get_state(trainer, end_of_epoch=False))
    average = trainer.step.average
    check_tensors("net", state["net"], trainer.net.state_dict())
    if average is not None:
        check_tensors("average", state["average"], average.module.state_dict())
    for mode, statistics in state["recalibrated"].items():
        check_tensors(f"recalibrated.{mode}", statistics, dict(trainer.net.subnet(mode).named_buffers()))


def _get_process_state(trainer: "Trainer") -> dict[str, Any]:
    """Return the part of the state that differs between processes."""
    state: dict[str, Any] = {"random": get_random_state(trainer.device), "threads": torch.get_num_threads()}
    if trainer.process_group.size > 1:
        # Until statistics are averaged for an evaluation, each process has those of its own images.
        average = trainer.step.average
        state["buffers"] = dict(trainer.net.named_buffers())
        state["average_buffers"] = {}
        if average is not None:
            state["average_buffers"] = dict(average.module.named_buffers())
    return state


def _restore_process_state(trainer: "Trainer", state: dict[str, Any]) -> None:
    if trainer.process_group.size > 1:
        _copy_buffers(state["buffers"], trainer.net)
        if trainer.step.average is not None:
            _copy_buffers(state["average_buffers"], trainer.step.average.module)
    restore_random_state(state["random"], trainer.device)


@torch.no_grad()
def _copy_buffers(buffers: dict[str, Tensor], net: nn.Module) -> None:
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
