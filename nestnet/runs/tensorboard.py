"""Curves of a run for TensorBoard, whose package is an extra: `pip install "nestnet[tensorboard]"`."""

import importlib.util
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nestnet.nn.mode import Mode
from nestnet.storage.folders import make_folder
from nestnet.storage.opening import utf8_name

EPOCH_CURVES = ("base_top1", "motivated_top1", "motivated_fraction", "train_loss", "images_per_second", "data_wait")
"""Columns of `metrics.csv` that become curves."""


class TensorBoardWriter:
    """A writer of the rows of a run's tables as curves.

    Args:
        folder: folder of the event files.
        after: number of batches that are done. TensorBoard does not show values of later batches that were
            written before the run was resumed.

    Attributes:
        writer: torch's writer.
        closing: stack of the resources that are closed with the writer.

    Raises:
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        # The package is an extra, and its import takes seconds.
        from torch.utils.tensorboard import SummaryWriter

        make_folder(folder)
        self.closing = ExitStack()
        # The writer may open files by this name at any time, so the name must exist as long as the writer.
        name = self.closing.enter_context(utf8_name(folder))
        self.writer = SummaryWriter(name, purge_step=after + 1)

    def add_step(self, row: Mapping[str, Any]) -> None:
        """Write the loss, the learning rate and the mode of a batch.

        Args:
            row: row of `steps.csv`, by column.
        """
        self.writer.add_scalar("batch/loss", row["loss"], row["step"])
        self.writer.add_scalar("batch/lr", row["lr"], row["step"])
        self.writer.add_scalar("batch/motivated", int(row["mode"] != Mode.BASE), row["step"])

    def add_epoch(self, row: Mapping[str, Any], steps: int) -> None:
        """Write the metrics of an epoch.

        Args:
            row: row of `metrics.csv`, by column.
            steps: number of batches that are done.
        """
        for name in EPOCH_CURVES:
            self.writer.add_scalar(f"epoch/{name}", row[name], steps)
        # The curves of an epoch can be viewed as soon as it ends.
        self.writer.flush()

    def close(self) -> None:
        """Write what is still in memory, and close the event file."""
        self.writer.close()
        self.closing.close()


def check_tensorboard_installed() -> None:
    """Check that the package of TensorBoard is installed.

    Raises:
        ValueError: If it is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError('tensorboard = True: the package is not installed; `pip install "nestnet[tensorboard]"`')
