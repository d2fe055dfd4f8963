"""The capture of work on a GPU, so that it can be replayed without the host."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """Interface of what captures work and replays it."""

    def side_stream(self) -> AbstractContextManager[None]:
        """Return a context in which work runs where captures will run."""

    def capture(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Capture work without doing it.

        Args:
            work: function that queues work on the device.

        Returns:
            A function that replays the work, and what `work` returned: tensors that each replay fills.
        """


class CudaRecorder:
    """Recorder that captures CUDA graphs on a separate stream.

    All graphs share one pool of memory. They are replayed one at a time, and a graph may reuse the memory of
    the previous one, except for the tensors that `capture` returned.

    Args:
        device: device of all work, which need not be the current device of the process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        """Run work on the stream of the captures."""
        # Each stream waits for the other in turn, so that a tensor created on one may be freed after it was used
        # on the other.
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:  # reads after an error, such as of weights for a checkpoint, must wait too
            current.wait_stream(self.stream)

    def capture(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Capture work as a CUDA graph.

        Args:
            work: function that queues work on the device.

        Returns:
            A function that replays the graph, and what `work` returned.
        """
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.stream(self.stream),  # this context is exited even if the end of the capture fails
            # The loader's thread may pin memory at the same time.
            torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"),
        ):
            result = work()
        # The seeds of the graph's generators are filled on the stream of the captures.
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return graph.replay, result
