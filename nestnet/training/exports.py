"""The end of a run: both subnets are exported, and measured on the test images if these were not used before."""

import copy
from typing import TYPE_CHECKING

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import copy_with_statistics
from nestnet.runs.directory import RunDirectory
from nestnet.runs.result import RunResult
from nestnet.runtime.log import log_notice
from nestnet.storage.state_codec import State
from nestnet.training.ending import check_interrupts
from nestnet.training.stopping import describe_end
from nestnet.training.subnet_evaluation import build_eval_network, export_network, measure

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def export_run(trainer: "Trainer", ended_by: str) -> None:
    """Export both subnets as checkpoints for timm, test them, and record the result of the run.

    The test images are evaluated here alone if the data has validation images, on which everything before was chosen.
    All processes must call this function.

    Args:
        trainer: trainer of a run whose last epoch is evaluated.
        ended_by: what has ended the run, for the record.

    Raises:
        ValueError: If the checkpoint of a best epoch is absent or damaged.
        KeyboardInterrupt: After a signal.
    """
    if ended_by != "epochs":
        log_notice(describe_end(trainer.config, trainer.stopping, ended_by, trainer.epochs_done))
    exported_epochs: dict[str, int] = {}
    accuracies: dict[str, float] = {}
    for mode in Mode:
        net = build_eval_network(trainer, mode)
        epoch = trainer.epochs_done
        if trainer.config.exports == "best":
            state = _read_best(trainer, mode)
            net = _build_stored_network(trainer, mode, state)
            epoch = state["epochs_done"]
        export_network(trainer, net, mode, trainer.run.path / f"{mode}.safetensors")
        exported_epochs[str(mode)] = epoch
        if trainer.val_batches is not None:
            trainer.progress.testing(mode)
            accuracies |= measure(trainer, net.eval(), [mode], trainer.test_batches)
        check_interrupts(trainer)
    test = accuracies or None
    trainer.run.save_result(RunResult(ended_by, trainer.epochs_done, len(trainer.parts), exported_epochs, test))
    if test is not None:
        trainer.callbacks.test_end(test, trainer.steps_done)
        trainer.progress.tested(test, len(trainer.images.test), exported_epochs)


def _read_best(trainer: "Trainer", mode: Mode) -> State:
    """Return the checkpoint of the best epoch of a mode, in all processes."""
    state: State | None = None
    if isinstance(trainer.run, RunDirectory):
        state = trainer.run.checkpoints.best(mode)
    state = trainer.process_group.broadcast_object(state)
    assert state is not None
    return state


def _build_stored_network(trainer: "Trainer", mode: Mode, state: State) -> NestedModel:
    """Return the network of a checkpoint, as it was evaluated."""
    net = copy.deepcopy(trainer.step.averaged)
    net.load_state_dict(state["average"] or state["net"])
    if mode in state["recalibrated"]:
        return copy_with_statistics(net, mode, state["recalibrated"][mode])
    return net
