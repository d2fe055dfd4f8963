"""Reading a run directory: its configuration, its network, its images and its tables."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.image_record import MAX_RECORD_BYTES, RECORD_FIELDS, ImageRecord
from nestnet.models.build import build_model
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runs.checkpoints import CHECKPOINT_REMEDY, Checkpoints
from nestnet.runs.contents import CHECKPOINT_FIELDS, COLUMNS, COST_FIELDS, RECORD, TABLE_REMEDY, is_run_directory
from nestnet.storage.paths import real_path
from nestnet.storage.read_back import check_present, damaged, read_json, read_text
from nestnet.storage.state_codec import State, check_tensors
from nestnet.storage.table_rows import read_rows
from nestnet.text.escape import for_shell

# Without the record, the images in the folder could differ from those on which the network was trained.
RECORD_REMEDY = "put back a copy of it, or train again: without it, the images of the run are not known"


@dataclass
class Run:
    """A trained run, read from its folder.

    Attributes:
        path: run directory.
        config: configuration, as the run resolved it.
        net: nested network with the weights of the checkpoint.
        checkpoint: state that the checkpoint holds.
        record: images of the run.
        best: whether the checkpoint is that of a subnet's best epoch instead of the last one.
        given_images: images that were given in Python, as to the run's `Trainer`; `None` for those of the configuration.
    """

    path: Path
    config: Config
    net: NestedModel
    checkpoint: State
    record: ImageRecord
    best: bool = False
    given_images: ImageData | None = None

    @property
    def trained(self) -> dict[str, int]:
        """Number of batches that trained each mode's subnet."""
        return self.checkpoint["cost"]["batches"]

    def images(self, *, download: bool = True) -> ImageData:
        """Load the images of the run, as its record names them.

        Args:
            download: whether images that are absent may be downloaded, if the configuration allows it too.

        Returns:
            The images.

        Raises:
            ValueError: If the images are absent, or are not those of the run.
        """
        if self.given_images is not None:
            return self.given_images
        data = replace(self.config.data, download=download and self.config.data.download)
        command = f"nestnet resume {for_shell(self.path)}"
        try:
            return load_data(data, self.config.model, self.record, command=command)
        except ValueError as error:
            # Commands that read the images of a run do not take fields, so only `nestnet resume` can change the folder.
            raise ValueError(f"{error} (run `{command}` with data.root set to another folder)") from error


def read_run(path: str | os.PathLike[str], *, best: Mode | None = None, images: ImageData | None = None) -> Run:
    """Read a run with the network of its last checkpoint.

    Args:
        path: run directory.
        best: mode of the subnet whose best checkpoint is read, after which it had its highest top-1; `None` for
            the last checkpoint.
        images: images in place of those that the configuration names, if the run's `Trainer` was given them.

    Returns:
        The run.

    Raises:
        ValueError: If the folder is not a run directory, its checkpoint is absent, damaged or of other networks, or
            `images` are not those of the run.
    """
    path = Path(path)
    config = read_config(path)
    checkpoints = Checkpoints(path / "checkpoints")
    checkpoint = checkpoints.newest() if best is None else checkpoints.best(best)
    if checkpoint is None:
        command = f"nestnet resume {for_shell(path)}"
        raise ValueError(f"{path} has no checkpoint: it was stopped before its first batch; `{command}` continues it")
    assert checkpoints.last is not None
    check_present(checkpoints.last, checkpoint, CHECKPOINT_FIELDS, CHECKPOINT_REMEDY)
    net = build_model(config)
    # A run with a moving average of the weights evaluates and exports the average.
    weights = checkpoint["average"] or checkpoint["net"]
    try:
        check_tensors("net", weights, net.state_dict())
    except ValueError as error:
        raise ValueError(f"{checkpoints.last}: {error}") from error
    net.load_state_dict(weights)
    record = read_record(path)
    if images is not None and images.record() != record:
        raise ValueError(
            f"{path}: the images that are given are not those of the run; give those that it was trained on"
        )
    return Run(path, config, net, checkpoint, record, best=best is not None, given_images=images)


def name_runs(run_dirs: Sequence[Path]) -> list[str]:
    """Return the name of each run where several are shown: that of its folder, or its path where folders share a name.

    Args:
        run_dirs: run directories, at least one.

    Raises:
        ValueError: If there is none.
    """
    if not run_dirs:
        raise ValueError("run_dirs is empty: name the folder of at least one run")
    folder_names = [real_path(path).name for path in run_dirs]
    occurrences = Counter(folder_names)
    names = []
    for path, folder_name in zip(run_dirs, folder_names, strict=True):
        is_unique = occurrences[folder_name] == 1
        names.append(folder_name if is_unique else str(path))
    return names


def read_config(run_dir: Path) -> Config:
    """Read the configuration of a run.

    Args:
        run_dir: run directory.

    Returns:
        The configuration, as the run resolved it.

    Raises:
        ValueError: If the folder is not a run directory, or the file cannot be read.
    """
    path = run_dir / "config.yaml"
    if not is_run_directory(run_dir):
        raise ValueError(f"{run_dir} is not a run directory: it has no config.yaml")
    # A damaged file is reported like the other files of a run, before it is parsed.
    read_text(path, TABLE_REMEDY)
    try:
        return parsing.load(path, run_dirs=[run_dir])
    except ValueError as error:
        # Most messages name the file themselves.
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def read_record(run_dir: Path) -> ImageRecord:
    """Read the record of the images on which a run is trained and tested.

    Args:
        run_dir: run directory.

    Returns:
        The record of the images.

    Raises:
        ValueError: If the record is absent or damaged.
    """
    path = run_dir / RECORD
    fields = read_json(path, RECORD_FIELDS, RECORD_REMEDY, largest=MAX_RECORD_BYTES)
    try:
        return ImageRecord.from_json(fields)
    except ValueError as error:
        raise damaged(path, str(error), RECORD_REMEDY) from error


def read_cost(run_dir: Path) -> dict[str, Any]:
    """Read the `cost.json` of a run.

    Args:
        run_dir: run directory.

    Returns:
        The fields of `nestnet.runs.contents.COST_FIELDS`.

    Raises:
        ValueError: If the file is absent or damaged.
    """
    return read_json(run_dir / "cost.json", COST_FIELDS, TABLE_REMEDY)


def read_table(path: Path, required: Sequence[str] = (), *, at_least: int = 0) -> list[dict[str, str]]:
    """Read the rows of `steps.csv` or `metrics.csv`. The run may be training at the same time.

    Args:
        path: path of the table.
        required: columns that must be present, in addition to those that every reader needs.
        at_least: number of rows that must be present, because a checkpoint was written after them.

    Returns:
        The texts of each row by column, which keep to the rules of their columns.

    Raises:
        ValueError: If the table is absent or damaged.
    """
    if not os.path.lexists(path):
        raise ValueError(f"{path.parent} is not a run directory: it has no {path.name}")
    # An optional column that this reader needs is required here.
    columns = dict(COLUMNS[path.name])
    for name in required:
        columns[name] = replace(columns[name], required=True)
    rows = [row for row, _ in read_rows(path, columns, TABLE_REMEDY, at_least=at_least)]
    # The first row holds the names of the columns.
    return rows[1:]
