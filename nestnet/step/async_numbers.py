"""Numbers that are copied from the device to the host while the device continues."""

import torch
from torch import Tensor


class AsyncNumbers:
    """Numbers that the device computes. Calling the object waits for them and returns them.

    Args:
        values: the numbers `[N]`. The tensor may be overwritten later, as by captured steps.
        overlap: on CUDA, whether calling waits for the numbers only, and not for work that is queued after
            them. Otherwise calling waits for all work.
    """

    def __init__(self, values: Tensor, *, overlap: bool) -> None:
        self.event: torch.cuda.Event | None = None
        if not (values.is_cuda and overlap):
            self.values = values.clone()
            return
        # torch does not reuse pinned memory until the copies into it are done.
        self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self.values.copy_(values, non_blocking=True)
        self.event = torch.cuda.Event()
        # The numbers' device need not be the current device of the process.
        self.event.record(torch.cuda.current_stream(values.device))

    def __call__(self) -> list[float]:
        """Wait until the numbers have arrived.

        Returns:
            The N numbers.
        """
        if self.event is not None:
            self.event.synchronize()
        return self.values.tolist()
