"""Where batches go."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nestnet.processes import Processes


@dataclass(frozen=True)
class Place:
    """Where batches go.

    Attributes:
        device: that trains them.
        memory_format: of images there.
        processes: that share each batch.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_format: torch.memory_format = torch.preserve_format
    processes: Processes = field(default_factory=Processes)

    def put(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch that was read, there."""
        return (
            images.to(self.device, non_blocking=True, memory_format=self.memory_format),
            labels.to(self.device, non_blocking=True),
        )
