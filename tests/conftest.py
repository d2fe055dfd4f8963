"""Loads tests/suite.py, unless this process only hands out tests to others: it would import torch before they start."""

import os


def pytest_configure(config):
    hands_out = config.getoption("dist", "no") != "no" and "PYTEST_XDIST_WORKER" not in os.environ
    if not hands_out:
        config.pluginmanager.import_plugin("suite")
