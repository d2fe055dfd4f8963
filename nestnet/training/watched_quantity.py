"""The number that is passed to a motivation condition after each batch."""

import torch
from torch import Tensor

from nestnet.device import autocast
from nestnet.distributed.process_group import ProcessGroup
from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.model import NestedModel
from nestnet.step.outcome import Outcome
from nestnet.step.policy import Modes
from nestnet.training.objective import Objective


class WatchedQuantity:
    """Function that returns the number passed to the condition, which is the same in all processes.

    Args:
        name: name of the quantity, one of `nestnet.conditions.base.WATCHED`.
        net: nested network that is trained.
        objectives: loss function of each network.
        held_out: images `[B, C, H, W]` and labels `[B]` of the held-out batch, on the device; needed for
            `"held_out_loss"` and `"held_out_base_loss"`.
        precision: `"float32"`, or `"bfloat16"` for autocast.
        process_group: processes that train together.
        watched_loss: loss of a batch that trained both networks: `"base"`, `"motivated"`, or `"mean"` of both.
    """

    def __init__(
        self,
        name: str,
        net: NestedModel,
        objectives: PerMode[Objective],
        held_out: tuple[Tensor, Tensor] | None,
        *,
        precision: str,
        process_group: ProcessGroup,
        watched_loss: str = "base",
    ) -> None:
        self.name = name
        self.net = net
        self.objectives = objectives
        self.held_out = held_out
        self.precision = precision
        self.process_group = process_group
        self.watched_loss = watched_loss

    def __call__(self, outcome: Outcome) -> float:
        """Return the number for the batch just trained.

        Args:
            outcome: outcome of its step.

        Returns:
            The quantity. The call waits for the device.
        """
        if self.name == "gradient_norm":
            return outcome.gradient_norm()
        if self.name == "gradient_agreement":
            return outcome.gradient_agreement()
        if self.name == "held_out_base_loss":
            return self._held_out_loss(Mode.BASE)
        if self.name == "held_out_loss":
            losses = [self._held_out_loss(mode) for mode in self._watched_modes(outcome)]
            return sum(losses) / len(losses)
        return self.loss(outcome)

    def loss(self, outcome: Outcome) -> float:
        """Return the loss of a batch: that of the network it trained or, of two, the one that is watched.

        Args:
            outcome: outcome of its step.

        Returns:
            The loss, or the mean of both; NaN or infinite for a batch that was skipped. The call waits for the
            device.
        """
        # A batch is skipped if either loss is not finite, and then their mean is not finite.
        if outcome.skipped:
            return outcome.loss()
        losses = outcome.losses()
        watched = [losses[mode] for mode in self._watched_modes(outcome)]
        return sum(watched) / len(watched)

    def _watched_modes(self, outcome: Outcome) -> Modes:
        """Return the modes whose losses are watched, of those that a batch trained."""
        if len(outcome.modes) == 1 or self.watched_loss == "mean":
            return outcome.modes
        return (Mode(self.watched_loss),)

    @torch.no_grad()
    def _held_out_loss(self, mode: Mode) -> float:
        """Return the loss of a subnet on the held-out batch."""
        assert self.held_out is not None
        images, labels = self.held_out
        # The held-out batch must not change the running statistics.
        self.net.eval()
        with autocast(labels.device, self.precision):
            logits = self.net(images, mode)
        self.net.train()
        # Each process has the whole batch, but running statistics of its own images.
        return self.process_group.all_reduce_mean(self.objectives.of(mode)(logits, labels)).item()
