"""What all tests have in common. tests/conftest.py loads it in each process that runs tests."""

import gc
import importlib
import logging
import os
from pathlib import Path

import matplotlib as mpl
import pytest
import small_families  # noqa: F401  # in every worker, whichever tests it gets
import torch
from hypothesis import settings

from nestnet.cli.log import show_notices

# Without this, torch's inductor compiles a program for each vector instruction set of the CPU, and imports torch in a
# process of its own to run it, before it compiles anything.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# By default the garbage collector starts at every 700th object, and takes a fifteenth of the tests' time.
gc.set_threshold(10_000)
mpl.use("Agg")
# Before each test and after it, pytest would give its handler to each logger that does not propagate, of which torch has
# dozens.
for name in logging.root.manager.loggerDict:
    if name.startswith("torch"):
        logging.getLogger(name).propagate = True
settings.register_profile("nestnet", deadline=None)  # a busy machine fails no test
settings.load_profile("nestnet")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


NO_GPU = pytest.mark.skip(reason="needs a CUDA GPU, and `pytest -m cuda`")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(NO_GPU)


def pytest_collection_finish():
    """Spares the garbage collector what all tests have in common: it would go through millions of objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks():
    """A process that is killed loses nothing without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def _seeded():
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:
        # The function above would keep a call, and the stack of it, for a GPU that may be used later.
        torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def _notices():
    """Shows what a call of the library logs in the words of the command line."""
    with show_notices():
        yield


@pytest.fixture(scope="module")
def page():
    """The program that makes the table in docs/optimizers.md, with a tiny network that has weights of every kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "docs")
        yield importlib.import_module("optimizers_table")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Makes what was captured UTF-8: pytest-xdist cannot send the names of files that are not, which some tests log."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
