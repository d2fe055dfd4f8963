"""The numbers of motivated batches in earlier runs, which the condition `random_like` reproduces."""

from pathlib import Path

from nestnet.config.schema import Config
from nestnet.runs.history import motivated_counts, read_steps
from nestnet.runs.reading import read_table


def resolve_counts(config: Config) -> list[int]:
    """Return the number of motivated batches for each epoch of a `random_like` run.

    Args:
        config: configuration of the run.

    Returns:
        `motivation.counts` if the configuration has it, otherwise the mean of the earlier runs in
        `motivation.runs`.

    Raises:
        ValueError: See `mean_motivated_counts`.
    """
    if config.motivation.counts is not None:
        return config.motivation.counts
    return mean_motivated_counts(config.motivation.runs or [], config.epochs)


def mean_motivated_counts(runs: list[str], epochs: int) -> list[int]:
    """Return the number of motivated batches in each epoch, averaged over runs and rounded.

    Args:
        runs: run directories.
        epochs: number of epochs that every run must have finished at least.

    Returns:
        The rounded mean for each of the first `epochs` epochs.

    Raises:
        ValueError: If a folder is not a run directory, a table is damaged, or a run has not finished `epochs`
            epochs.
    """
    counts_by_run = [_read_motivated_counts(run, epochs) for run in runs]
    # One tuple per epoch, with the number of each run.
    means: list[int] = []
    for counts in zip(*counts_by_run, strict=True):
        means.append(round(sum(counts) / len(counts)))
    return means


def _read_motivated_counts(run: str, epochs: int) -> list[int]:
    """Return the number of motivated batches in each of the first `epochs` epochs of a run."""
    # metrics.csv has a row per finished epoch. Epochs that only extend the base have no motivated batches to count.
    rows = len(read_table(Path(run) / "metrics.csv"))
    counts = motivated_counts(read_steps(Path(run), finished_epochs=rows))
    finished = min(rows, len(counts))
    if finished < epochs:
        raise ValueError(
            f"motivation.runs: {run} has finished {finished} epochs, but this run has {epochs}; name a run with as many, "
            "or lower epochs"
        )
    return counts[:epochs]
