"""Writing the checkpoints of a run when they are due, after checking the weights."""

import time
from typing import TYPE_CHECKING

from nestnet.training.ending import check_interrupts
from nestnet.training.non_finite import check_weights

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer

STEPS_BETWEEN_AGREEMENTS = 10
"""Number of batches after which several processes agree on whether a checkpoint is due, which takes a moment."""


class Checkpointer:
    """Writer of a run's checkpoints.

    Args:
        trainer: trainer of the run.

    Attributes:
        saved_at: time of the last checkpoint, on the monotonic clock in seconds.
        saved_step: number of batches that it holds.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        self.saved_at = time.monotonic()
        self.saved_step = 0

    def start(self) -> None:
        """Start the time until the next checkpoint, when training starts or resumes."""
        self.saved_at = time.monotonic()
        self.saved_step = self.trainer.steps_done

    def save(self, *, end_of_epoch: bool = False) -> None:
        """Write a checkpoint.

        Args:
            end_of_epoch: whether an epoch has just been evaluated.

        Raises:
            FloatingPointError: If weights are NaN or infinite. Such weights are never kept.
        """
        # A checkpoint with such weights would replace one that training can resume from.
        check_weights(self.trainer, self.saved_step)
        self.trainer.run.save_checkpoint(self.trainer.state(end_of_epoch=end_of_epoch))
        self.start()

    def save_if_due(self) -> None:
        """Write a checkpoint after a batch if the configuration asks for one.

        Raises:
            KeyboardInterrupt: If the run must end because of a signal.
        """
        trainer = self.trainer
        config = trainer.config
        is_end_of_epoch = trainer.totals.batches == len(trainer.train_batches)
        is_due = self._is_time_over()
        # Each process has its own clock and may receive its own signal, so all of them agree at the same batches.
        agrees_now = is_end_of_epoch or trainer.steps_done % STEPS_BETWEEN_AGREEMENTS == 0
        if trainer.process_group.size == 1 or agrees_now:
            is_due = any(trainer.process_group.all_gather_object(is_due))
            check_interrupts(trainer)
        else:
            is_due = False
        # The number of batches is the same in all processes.
        if config.checkpoint_steps and trainer.steps_done % config.checkpoint_steps == 0:
            is_due = True
        # After the last batch of an epoch, the evaluation comes before the checkpoint of the complete epoch.
        if is_due and not is_end_of_epoch:
            self.save()

    def _is_time_over(self) -> bool:
        """Return whether `checkpoint_minutes` have passed since the last checkpoint."""
        minutes = self.trainer.config.checkpoint_minutes
        if minutes <= 0:
            return False
        return minutes <= (time.monotonic() - self.saved_at) / 60
