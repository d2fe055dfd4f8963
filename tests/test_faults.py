"""What is said of memory that could not be had, wherever in a chain of errors that stands."""

import pytest
import torch

from nestnet.config import Config
from nestnet.faults import memory_shortage, reason

SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError("Unable to allocate 2.00 GiB for an array"),
    MemoryError(),
]
OTHER = [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("out of memory")]


@pytest.mark.parametrize("error", SHORT)
def test_memory_that_is_short_is_told_in_one_line(error):
    assert memory_shortage(error) is error
    said = reason(error, Config())
    assert said.startswith(f"out of memory ({(str(error) or 'MemoryError').splitlines()[0]})")
    assert "lower data.batch_size = 128" in said
    assert "\n" not in said


@pytest.mark.parametrize("error", SHORT)
def test_memory_that_is_short_while_steps_are_captured(error):
    """The end of the capture fails as well, and its error comes out."""

    def capture():
        try:
            raise error
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        capture()
    assert memory_shortage(caught.value) is error
    assert reason(caught.value, Config()).startswith("out of memory (")


@pytest.mark.parametrize("error", OTHER)
def test_other_errors_are_not_taken_for_it(error):
    assert memory_shortage(error) is None
