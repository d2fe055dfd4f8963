"""The records of batches and epochs that a run writes to its directory."""

from typing import TYPE_CHECKING, Any

from nestnet.nn.mode import BOTH, FINISH, Mode
from nestnet.runs.checkpoint_file import checkpoint_name
from nestnet.runs.contents import choose_criterion

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def make_step_row(trainer: "Trainer", loss: float, mode: str, modes: tuple[Mode, ...]) -> dict[str, Any]:
    """Return the row of `steps.csv` for the last batch, before it is counted and the schedule is stepped.

    Args:
        trainer: trainer of the run.
        loss: loss of the batch.
        mode: mode of the batch, or `"finish"`.
        modes: modes that the batch trained, one or both.

    Returns:
        The values by column, with the learning rate of the batch.
    """
    trained = mode
    if mode != FINISH and len(modes) > 1:
        trained = BOTH
    return {
        "step": trainer.steps_done + 1,
        "epoch": trainer.epochs_done + 1,
        "mode": trained,
        "loss": loss,
        "lr": float(trainer.optimizer.param_groups[0]["lr"]),
    }


def record_batch(trainer: "Trainer", row: dict[str, Any]) -> None:
    """Write the row of the last batch, and show it.

    Args:
        trainer: trainer of the run.
        row: row of `steps.csv`.
    """
    trainer.run.add_step(row)
    trainer.callbacks.batch_end(row)
    save_snapshot_if_due(trainer)
    metrics = trainer.totals.metrics(trainer.config.data.images_per_batch)
    trainer.progress.step_done(row["loss"], row["mode"], metrics)


def save_snapshot_if_due(trainer: "Trainer") -> None:
    """Write the base's weights if the number of batches is a multiple of `snapshot_steps`.

    Args:
        trainer: trainer of the run.
    """
    # 0 means no snapshots.
    interval = trainer.config.snapshot_steps
    if interval and trainer.steps_done % interval == 0:
        base_weights = dict(trainer.net.subnet(Mode.BASE).named_parameters())
        trainer.run.save_snapshot(trainer.steps_done, base_weights)


def record_epoch(trainer: "Trainer", metrics: dict[str, float]) -> None:
    """Write the row and the cost of the last epoch, and note it as the best epoch of each mode that improved.

    Args:
        trainer: trainer of the run.
        metrics: row of `metrics.csv`.
    """
    # The checkpoint of this epoch is written next, and is kept as long as it is the best of a mode.
    for mode, best in trainer.best.items():
        criterion = choose_criterion(mode, metrics)
        measure = "map" if criterion.endswith("map") else "top1"
        if best is None or metrics[criterion] > best[measure]:
            name = checkpoint_name(trainer.steps_done, trainer.epochs_done)
            trainer.best[mode] = {"file": name, "epoch": trainer.epochs_done, measure: metrics[criterion]}
    trainer.run.add_epoch(metrics)
    trainer.callbacks.epoch_end(metrics, trainer.steps_done)
    trainer.run.save_cost(trainer.cost.summary())
