import os

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
