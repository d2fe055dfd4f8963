"""The path of a run's weights, in the plane where it moves most: that of its two leading principal components.

A run keeps the base subnet's parameters every `snapshot_steps` batches, in `snapshots/step-000390.safetensors` for those
after 390 batches; step 0 is the initial state.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from nestnet.runs.contents import SNAPSHOT
from nestnet.storage.files import utf8_name
from nestnet.storage.hashed import verified

MIN_SNAPSHOTS = 3
"""Two points span no plane."""
REMEDY = "remove it to draw the other snapshots"
AVERAGED = 50
"""Batches whose losses are averaged: enough to even out the noise of a batch, few against an epoch of 390."""


@dataclass(frozen=True)
class Trajectory:
    """S snapshots of a run, in the plane of their two leading principal components."""

    name: str
    points: np.ndarray
    """[S, 2], in the units of the weights; the mean of the snapshots is at 0."""
    shares: np.ndarray
    """[2], from 0 to 1: the part of the snapshots' variance along each axis."""
    losses: np.ndarray
    """[S], the training loss about each snapshot."""


def read_trajectory(name: str, snapshots: Mapping[int, Path], losses: np.ndarray) -> Trajectory:
    """The trajectory through a run's snapshots.

    Args:
        name: what figures call the run.
        snapshots: file by step, in order; at least 3.
        losses: of every batch of the run, in order, at least up to the last snapshot.

    Raises:
        ValueError: if a file is damaged.
    """
    points, shares = principal_plane(gram_matrix(read_parameters(list(snapshots.values()))))
    return Trajectory(name, points.numpy(), shares.numpy(), moving_average(losses, list(snapshots)))


def find_snapshots(run_dir: Path) -> dict[int, Path]:
    """The files of a run's snapshots by step, in order; none if it kept none. Copies under other names are none."""
    folder = run_dir / "snapshots"
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        name = SNAPSHOT.fullmatch(path.name)
        if name is not None and path.is_file():
            found[int(name[1])] = path
    return dict(sorted(found.items()))


def read_parameters(paths: Sequence[Path]) -> Iterator[Tensor]:
    """The values that a parameter has in each of S files, [S, size], for one parameter after the other.

    Only one parameter is in memory at a time: 200 snapshots of ResNet-50 together take 20 GB.

    Raises:
        ValueError: if a file is damaged, or of another network than the first.
    """
    for path in paths:
        _check(path)
    files = [_opened(path) for path in paths]
    shapes = [_shapes(file) for file in files]
    for path, found in zip(paths, shapes, strict=True):
        if found != shapes[0]:
            raise ValueError(f"{path} is of another network than {paths[0]}; {REMEDY}")
    for name in sorted(shapes[0]):
        yield torch.stack([file.get_tensor(name).flatten() for file in files])


def _opened(path: Path) -> safe_open:
    with utf8_name(path) as name:
        return safe_open(name, framework="pt")


def gram_matrix(parts: Iterable[Tensor]) -> Tensor:
    """The inner products [S, S] of S centred points, whose coordinates come in parts [S, size].

    The principal components follow from it as from the covariance of the coordinates, and it is small: snapshots are few
    and weights are many.
    """
    total = torch.zeros((), dtype=torch.float64)
    for part in parts:
        centred = part - part.mean(dim=0)
        total = total + (centred @ centred.T).double()
    return total


def principal_plane(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Points in the plane of their two leading principal components, and the share of the variance along each.

    A principal component may point either way: here it points away from the first point, which is at or below 0.

    Args:
        gram: the inner products [S, S] of the centred points, S at least 3; the points are not all the same.

    Returns:
        The points [S, 2], and the shares [2], from 0 to 1.

    >>> centred = torch.tensor([[4.0, 1.0, 0.0], [4.0, -1.0, 0.0], [-4.0, 1.0, 0.0], [-4.0, -1.0, 0.0]])
    >>> points, shares = principal_plane(centred @ centred.T)
    >>> print(points.round(decimals=3))
    tensor([[-4., -1.],
            [-4.,  1.],
            [ 4., -1.],
            [ 4.,  1.]])
    >>> print(shares.round(decimals=3))
    tensor([0.9410, 0.0590])
    """
    variances, directions = torch.linalg.eigh(gram)  # in ascending order
    variances, directions = variances[-2:].flip(0).clamp(min=0), directions[:, -2:].flip(1)
    points = directions * variances.sqrt()
    return torch.where(points[0] > 0, -points, points), variances / gram.trace()


def moving_average(losses: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """The mean of the last `AVERAGED` losses up to each step; at step 0 the first loss, which the initial weights gave.

    >>> print(moving_average(np.array([4.0, 2.0, 3.0]), steps=[0, 1, 2, 3]))
    [4. 4. 3. 3.]
    """
    return np.array([losses[max(0, step - AVERAGED) : max(1, step)].mean() for step in steps])


def _check(path: Path) -> None:
    try:
        verified(path)
    except ValueError as error:
        raise ValueError(f"{error}; {REMEDY}") from error


def _shapes(file: safe_open) -> dict[str, list[int]]:
    return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # it is no mapping
