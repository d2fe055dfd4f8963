"""What a training step has computed: losses, and numbers about the gradients."""

from dataclasses import dataclass

from nestnet.nn.mode import Mode
from nestnet.step.async_numbers import AsyncNumbers
from nestnet.step.policy import Modes


@dataclass(frozen=True)
class Outcome:
    """What a step has computed. Its methods wait for the device, and only for the numbers that they return.

    Attributes:
        modes: modes that the batch trained.
        losses_on_host: copy of the loss of each of these modes.
        norm_on_host: copy of the norm of the gradients; `None` if it was not computed.
        agreement_on_host: copy of the agreement of both networks' gradients; `None` if the step does not
            compute it.
        skipped: whether the batch was skipped because a loss was NaN or infinite, so that it changed nothing.
    """

    modes: Modes
    losses_on_host: AsyncNumbers
    norm_on_host: AsyncNumbers | None
    agreement_on_host: AsyncNumbers | None
    skipped: bool = False

    def losses(self) -> dict[Mode, float]:
        """Return the loss of each network that the batch trained.

        Returns:
            The loss by mode, from before the step, averaged over the processes: that against the targets,
            without distillation and weights, so that the losses of all batches can be compared.
        """
        return dict(zip(self.modes, self.losses_on_host(), strict=True))

    def loss(self) -> float:
        """Return the loss of the batch: that of the network it trained, or the mean of both."""
        losses = self.losses_on_host()
        return sum(losses) / len(losses)

    def gradient_norm(self) -> float:
        """Return the norm of all gradients together, from before they were clipped.

        Raises:
            ValueError: If the step does not compute it.
        """
        if self.norm_on_host is None:
            raise ValueError("gradient_norm: this step does not compute it; create it with gradient_norm=True")
        (norm,) = self.norm_on_host()
        return norm

    def gradient_agreement(self) -> float:
        """Return how far the gradients of both networks agree on the weights that they share.

        Returns:
            The cosine of the angle between the gradients of both losses, from -1 to 1, averaged over parts and
            processes, and from before they were added and clipped. NaN after a batch that trained one network.

        Raises:
            ValueError: If the step does not compute it.
        """
        if self.agreement_on_host is None:
            raise ValueError(
                "gradient_agreement: this step does not compute it; create it with gradient_agreement=True"
            )
        (agreement,) = self.agreement_on_host()
        return agreement
