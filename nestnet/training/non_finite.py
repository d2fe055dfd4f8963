"""The handling of losses and weights that are NaN or infinite."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nestnet.text.escape import for_shell

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def check_skipped_batch(trainer: "Trainer", row: dict[str, Any]) -> None:
    """Check that the run may continue after the step has skipped a batch whose loss was NaN or infinite.

    Args:
        trainer: trainer of the run, which has not counted the batch yet.
        row: row of the batch in `steps.csv`.

    Raises:
        FloatingPointError: If the configuration stops the run at such a batch, if weights are not finite, or if
            all batches of the epoch were skipped.
    """
    config = trainer.config
    situation = f"the loss is {row['loss']} at step {row['step']} (epoch {row['epoch']}, {row['mode']} mode)"
    remedy = (
        f"lower optimizer.lr = {config.optimizer.lr:g}, lengthen schedule.warmup_epochs, or set optimizer.clip_grad"
    )
    # An earlier step with a finite loss may have made weights infinite: then skipping does not help.
    if not weights_are_finite(trainer.net):
        raise FloatingPointError(f"{situation}, and weights are NaN or infinite since an earlier one: {remedy}")
    # If every batch was skipped, the epoch has no mean loss, and the next one would hardly differ.
    if trainer.totals.skipped + 1 == len(trainer.train_batches):
        raise FloatingPointError(f"{situation}, as for all batches of this epoch: {remedy}")
    if config.non_finite == "stop":
        # The batch has changed nothing, so this saves the state from before it.
        trainer.checkpointer.save()
        trainer.run.add_step(row)
        raise FloatingPointError(
            f"{situation}: {remedy}; to leave out such batches, set non_finite to skip and run "
            f"`nestnet resume {for_shell(config.run_dir)}`"
        )


def check_weights(trainer: "Trainer", saved_step: int) -> None:
    """Check that all weights are finite.

    Args:
        trainer: trainer of the run.
        saved_step: number of batches that the last checkpoint holds, for the message.

    Raises:
        FloatingPointError: If a weight is NaN or infinite.
    """
    if not weights_are_finite(trainer.net):
        raise FloatingPointError(
            f"weights are NaN or infinite after step {trainer.steps_done}, though its loss was not: lower optimizer.lr = "
            f"{trainer.config.optimizer.lr:g}, or set optimizer.clip_grad; the last checkpoint is of {saved_step} steps"
        )


def weights_are_finite(net: nn.Module) -> bool:
    """Return whether no parameter of a network is NaN or infinite, with one wait for the device."""
    # One flag per parameter stays on the device until all are computed.
    finite: list[torch.Tensor] = []
    for parameter in net.parameters():
        finite.append(torch.isfinite(parameter).all())
    return bool(torch.stack(finite).all())
