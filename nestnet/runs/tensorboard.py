"""A run's tables for TensorBoard as well. The package is an extra: `pip install "nestnet[tensorboard]"`."""

import importlib.util
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nestnet.nn.mode import Mode
from nestnet.storage.files import make_folder, utf8_name

EPOCH = ("base_top1", "motivated_top1", "motivated_fraction", "train_loss", "images_per_second", "data_wait")


class Board:
    """Writes what a run's tables get.

    Args:
        folder: of the event files.
        after: batches that are done; what was written of later ones is not shown.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make_folder(folder)
        self.closing = ExitStack()
        name = self.closing.enter_context(utf8_name(folder))
        self.writer = SummaryWriter(name, purge_step=after + 1)

    def add_step(self, row: Mapping[str, Any]) -> None:
        self.writer.add_scalar("batch/loss", row["loss"], row["step"])
        self.writer.add_scalar("batch/lr", row["lr"], row["step"])
        self.writer.add_scalar("batch/motivated", int(row["mode"] != Mode.BASE), row["step"])

    def add_epoch(self, row: Mapping[str, Any], steps: int) -> None:
        for name in EPOCH:
            self.writer.add_scalar(f"epoch/{name}", row[name], steps)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
        self.closing.close()


def check_installed() -> None:
    """Raises ValueError where TensorBoard's package is not there."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError('tensorboard = True: the package is not installed; `pip install "nestnet[tensorboard]"`')
