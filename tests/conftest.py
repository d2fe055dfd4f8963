import os

import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

mpl.use("Agg")
settings.register_profile("nestnet", deadline=None)  # a busy machine fails no test
settings.load_profile("nestnet")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


NO_GPU = pytest.mark.skip(reason="needs a CUDA GPU, and torch sees none here")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(NO_GPU)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
