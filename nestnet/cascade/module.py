"""Two classifiers as one: the base decides the images that it is sure of, and the motivated network all others."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nestnet.nn.model import NestedModel
from nestnet.training.calibration import confidence

Network = Callable[[Tensor], Tensor]
"""An `nn.Module`, or another function, from normalised images `[B, C, H, W]` to logits `[B, K]`."""


@dataclass(frozen=True)
class CascadeOutput:
    """What a cascade says of a batch of images.

    Attributes:
        logits: logits `[B, K]` in float32 of the network that decided each image, divided by its temperature: their softmax is
            a calibrated probability.
        passed_on: whether the motivated network decided each image, `[B]`.
    """

    logits: Tensor
    passed_on: Tensor


class Cascade(nn.Module):
    """A cascade: inference that runs the base first, and the motivated network only where the base is unsure.

    An image is passed on to the motivated network if the largest calibrated probability of the base is below the
    threshold. Only these images are gathered for it. The result has the shape of a single network's, so that a
    cascade takes a classifier's place.

    Args:
        base: small network, from normalised images `[B, C, H, W]` to logits `[B, K]`.
        motivated: bigger network of the same classes.
        threshold: smallest confidence of the base with which it decides an image, at least 0: with 0 it decides all images, and
            above 1 none.
        base_temperature: temperature of the base, above 0, by which its logits are divided.
        motivated_temperature: temperature of the motivated network, above 0.

    Raises:
        ValueError: If the threshold is below 0, or a temperature is not above 0.

    Example:
        ```python
        net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        cascade = nestnet.Cascade.of(net, threshold=0.9)
        logits = cascade(images)  # [B, 10]
        ```
    """

    def __init__(
        self,
        base: Network,
        motivated: Network,
        threshold: float,
        *,
        base_temperature: float = 1.0,
        motivated_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        # `not (a >= b)` is also true of NaN.
        if not threshold >= 0:
            raise ValueError(f"threshold = {threshold}: it must be at least 0, such as 0.9")
        for name, value in {
            "base_temperature": base_temperature,
            "motivated_temperature": motivated_temperature,
        }.items():
            if not value > 0:
                raise ValueError(f"{name} = {value}: it must be above 0; 1 leaves the logits as they are")
        self.base = base
        self.motivated = motivated
        self.threshold = threshold
        self.base_temperature = base_temperature
        self.motivated_temperature = motivated_temperature

    @classmethod
    def of(
        cls,
        net: NestedModel,
        threshold: float,
        *,
        base_temperature: float = 1.0,
        motivated_temperature: float = 1.0,
    ) -> "Cascade":
        """Return the cascade of the two subnets of a nested network, which share its weights.

        Args:
            net: nested network. The cascade is in evaluation mode if it is.
            threshold: smallest confidence of the base with which it decides an image.
            base_temperature: temperature of the base.
            motivated_temperature: temperature of the motivated network.

        Returns:
            The cascade.

        Raises:
            ValueError: If the threshold or a temperature is out of range.
        """
        cascade = cls(
            net.subnet("base"),
            net.subnet("motivated"),
            threshold,
            base_temperature=base_temperature,
            motivated_temperature=motivated_temperature,
        )
        cascade.training = net.training
        return cascade

    def forward(self, images: Tensor) -> Tensor:
        """Classify a batch of images.

        Args:
            images: normalised images `[B, C, H, W]`, at least one.

        Returns:
            Calibrated logits `[B, K]` in float32.
        """
        return self.decide(images).logits

    def decide(self, images: Tensor) -> CascadeOutput:
        """Classify a batch of images, and say which network decided each of them.

        Args:
            images: normalised images `[B, C, H, W]`, at least one.

        Returns:
            The calibrated logits, and which images were passed on.
        """
        logits, passed_on = self._ask_base(images)
        # An empty batch would fail in some layers, and cost a pass through all of them.
        if passed_on.any():
            logits[passed_on] = self._ask_motivated(images[passed_on])
        return CascadeOutput(logits, passed_on)

    def stream(self, batches: Iterable[Tensor], batch_size: int) -> Iterator[CascadeOutput]:
        """Classify many batches, and gather the images that are passed on over several of them into whole batches.

        A small batch costs more per image than a large one. If the base is unsure of 5 images of each batch of 64,
        the motivated network therefore runs after 13 batches, on 64 images. At most `batch_size` images and one batch
        wait for it.

        Args:
            batches: batches of normalised images `[B, C, H, W]`, each of at least one image.
            batch_size: number of images per forward pass of the motivated network, at least 1.

        Yields:
            The output for each batch, in order. An output comes later than its batch if the motivated network has to decide
            some of its images.

        Raises:
            ValueError: If `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: it must be at least 1")
        queue = _Queue(self, batch_size)
        for images in batches:
            logits, passed_on = self._ask_base(images)
            queue.add(logits, passed_on, images)
            yield from queue.finished()
        queue.flush()
        yield from queue.finished()

    def extra_repr(self) -> str:
        return (
            f"threshold={self.threshold:.4g}, base_temperature={self.base_temperature:.4g}, "
            f"motivated_temperature={self.motivated_temperature:.4g}"
        )

    def _ask_base(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the base's calibrated logits `[B, K]`, and the images `[B]` that it is unsure of."""
        logits = self.base(images).float() / self.base_temperature
        return logits, confidence(logits) < self.threshold

    def _ask_motivated(self, images: Tensor) -> Tensor:
        """Return the motivated network's calibrated logits `[B, K]`."""
        return self.motivated(images).float() / self.motivated_temperature


class _Queue:
    """Images that wait for the motivated network, and outputs that wait for some of these images.

    Images are decided in the order in which they came, so that the first answers belong to the first output.

    Args:
        cascade: the cascade.
        batch_size: number of images per forward pass of the motivated network.
    """

    def __init__(self, cascade: Cascade, batch_size: int) -> None:
        self.cascade = cascade
        self.batch_size = batch_size
        self.outputs: deque[CascadeOutput] = deque()
        self.images: list[Tensor] = []
        self.answers: list[Tensor] = []

    def add(self, logits: Tensor, passed_on: Tensor, images: Tensor) -> None:
        """Add the base's logits of a batch, and run the motivated network once enough images wait for it."""
        self.outputs.append(CascadeOutput(logits, passed_on))
        self.images.append(images[passed_on])
        if self.waiting < self.batch_size:
            return
        *whole_batches, rest = torch.cat(self.images).split(self.batch_size)
        if len(rest) == self.batch_size:
            whole_batches.append(rest)
            rest = rest[:0]
        self.images = [rest]
        for batch in whole_batches:
            self.answers.append(self.cascade._ask_motivated(batch))

    def flush(self) -> None:
        """Run the motivated network on the images that still wait, fewer than a batch."""
        if self.waiting:
            self.answers.append(self.cascade._ask_motivated(torch.cat(self.images)))
            self.images = []

    def finished(self) -> Iterator[CascadeOutput]:
        """Yield the first outputs, as far as all their images are decided."""
        while self.outputs:
            output = self.outputs[0]
            needed = int(output.passed_on.sum())
            if needed > sum(map(len, self.answers)):
                return
            if needed:
                answers = torch.cat(self.answers)
                output.logits[output.passed_on] = answers[:needed]
                self.answers = [answers[needed:]]
            yield self.outputs.popleft()

    @property
    def waiting(self) -> int:
        """Number of images that wait for the motivated network."""
        return sum(map(len, self.images))
