"""One run of a study: the fold that it is tested on, and its k if the study compares several."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StudyRun:
    """A run of a study.

    Attributes:
        fold: number of the fold that the run is tested on, from 1.
        k: k of the run's condition; `None` for that of the configuration.
    """

    fold: int
    k: int | None = None

    def __str__(self) -> str:
        if self.k is None:
            return f"fold {self.fold}"
        return f"k = {self.k}, fold {self.fold}"
