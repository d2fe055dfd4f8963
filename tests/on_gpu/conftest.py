import os

import pytest
import torch
from helpers import full_precision

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """Bodies that need no GPU run on the CPU too, so that they are known to work before there is one."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _full_precision():
    with full_precision():
        yield


@pytest.fixture(autouse=True)
def _algorithms_as_before():
    """A run sets algorithms for the whole process."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)
