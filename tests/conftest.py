"""Loads tests/suite.py, unless this process only hands out tests to others: it would import torch before they start."""

import os

collect_ignore_glob = ["*/conftest.py"]  # pytest would look for examples in them, and take one of them for another


def pytest_configure(config):
    # By default a run chooses a GPU where there is one, whose bits are not those of a CPU. `-m "not cuda"` hides it too.
    if not config.getoption("markexpr").startswith("cuda"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    hands_out = config.getoption("dist", "no") != "no" and "PYTEST_XDIST_WORKER" not in os.environ
    if not hands_out:
        config.pluginmanager.import_plugin("suite")
