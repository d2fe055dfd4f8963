"""The run directory of processes that write nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet.config.schema import Config
from nestnet.data.image_record import ImageRecord
from nestnet.runs.parts import RunPart
from nestnet.runs.result import RunResult
from nestnet.storage.state_codec import State


class NullRunDirectory:
    """A stand-in for `RunDirectory` in all processes except the first, whose methods do nothing.

    Attributes:
        path: current folder, in place of the path of a run directory.
    """

    # Only the first process shows messages that name the folder of the run.
    path = Path()

    def begin(self, config: Config, record: ImageRecord, steps: int, epochs: int) -> None: ...
    def add_step(self, row: Mapping[str, Any]) -> None: ...
    def add_epoch(self, row: Mapping[str, Any]) -> None: ...
    def save_checkpoint(self, state: State) -> None: ...
    def save_parts(self, parts: Sequence[RunPart]) -> None: ...
    def save_result(self, result: RunResult) -> None: ...
    def save_cost(self, summary: dict[str, Any]) -> None: ...
    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None: ...

    def __enter__(self) -> "NullRunDirectory":
        return self

    def __exit__(self, *error: object) -> None: ...
