"""A number that is copied from the device to the host while the device continues."""

import torch
from torch import Tensor


class AsyncScalar:
    """Number that the device computes. Calling the object waits for the number and returns it.

    Args:
        value: number as a tensor `[]`. It may be overwritten later, as by captured steps.
        overlap: on CUDA, whether calling waits for the number only, and not for work that is queued after it.
            Otherwise calling waits for all work.
    """

    def __init__(self, value: Tensor, *, overlap: bool) -> None:
        self.event: torch.cuda.Event | None = None
        if not (value.is_cuda and overlap):
            self.value = value.clone()
            return
        # torch does not reuse pinned memory until the copies into it are done.
        self.value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        self.value.copy_(value, non_blocking=True)
        self.event = torch.cuda.Event()
        # The number's device need not be the current device of the process.
        self.event.record(torch.cuda.current_stream(value.device))

    def __call__(self) -> float:
        """Wait until the number has arrived.

        Returns:
            The number.
        """
        if self.event is not None:
            self.event.synchronize()
        return self.value.item()
