"""The path of a run's weights in the plane of their two leading principal components.

A run keeps the base subnet's parameters every `snapshot_steps` batches: `snapshots/step-000390.safetensors` holds those after
390 batches, and step 0 is the initial state.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from nestnet.runs.contents import SNAPSHOT
from nestnet.storage.hashed import read_verified_metadata
from nestnet.storage.opening import utf8_name

# Two points only span a line.
MIN_SNAPSHOTS = 3
"""Smallest number of snapshots for a trajectory."""
# This averages out the noise of single batches, and is short compared with an epoch of 390 batches.
AVERAGED_BATCHES = 50
"""Number of batches over which a loss is averaged."""
REMEDY = "remove it to draw the other snapshots"
"""Remedy for a snapshot that cannot be read."""


@dataclass(frozen=True)
class Trajectory:
    """S snapshots of a run, in the plane of their two leading principal components.

    Attributes:
        name: name of the run in figures.
        points: coordinates [S, 2] in the units of the weights; the mean of the snapshots is at 0.
        shares: share of the snapshots' variance along each axis [2], from 0 to 1.
        losses: mean training loss before each snapshot [S].
    """

    name: str
    points: np.ndarray
    shares: np.ndarray
    losses: np.ndarray


def read_trajectory(name: str, snapshots: Mapping[int, Path], losses: np.ndarray) -> Trajectory:
    """Read the trajectory through a run's snapshots.

    Args:
        name: name of the run in figures.
        snapshots: files by step, in ascending order; at least 3.
        losses: losses of all batches of the run, in order, at least up to the last snapshot.

    Returns:
        The trajectory.

    Raises:
        ValueError: If a file is damaged, or holds another network than the first file.
    """
    # Read one parameter at a time, and accumulate the inner products.
    gram = gram_matrix(read_parameters(list(snapshots.values())))
    points, shares = principal_plane(gram)
    return Trajectory(name, points.numpy(), shares.numpy(), moving_average(losses, list(snapshots)))


def find_snapshots(run_dir: Path) -> dict[int, Path]:
    """Find the snapshots of a run.

    Args:
        run_dir: folder of the run.

    Returns:
        The files by step, in ascending order; none if the run kept none. Files under other names, such as copies, are left
        out.
    """
    folder = run_dir / "snapshots"
    if not folder.is_dir():
        return {}
    # The listing of a folder has no order.
    snapshots = {}
    for path in folder.iterdir():
        match = SNAPSHOT.fullmatch(path.name)
        if match is not None and path.is_file():
            snapshots[int(match[1])] = path
    return dict(sorted(snapshots.items()))


def read_parameters(paths: Sequence[Path]) -> Iterator[Tensor]:
    """Yield the values of each parameter in S files, one parameter at a time.

    Only one parameter is in memory at a time, because 200 snapshots of ResNet-50 take 20 GB.

    Args:
        paths: snapshots of one network.

    Yields:
        The values of a parameter in each file [S, size].

    Raises:
        ValueError: If a file is damaged, or holds another network than the first file.
    """
    # Detect damaged files before the first parameter is yielded.
    for path in paths:
        _check_hash(path)
    files = [_open_snapshot(path) for path in paths]
    shapes = _read_shapes(files[0])
    for path, file in zip(paths, files, strict=True):
        if _read_shapes(file) != shapes:
            raise ValueError(f"{path} is of another network than {paths[0]}; {REMEDY}")
    for name in sorted(shapes):
        yield torch.stack([file.get_tensor(name).flatten() for file in files])


def _check_hash(path: Path) -> None:
    """Check that a snapshot is as it was written."""
    try:
        read_verified_metadata(path)
    except ValueError as error:
        raise ValueError(f"{error}; {REMEDY}") from error


def _open_snapshot(path: Path) -> safe_open:
    """Open a snapshot for reading single tensors."""
    # safetensors takes paths of valid UTF-8 only.
    with utf8_name(path) as name:
        return safe_open(name, framework="pt")


def _read_shapes(file: safe_open) -> dict[str, list[int]]:
    """Return the shapes of all tensors of a file, by name."""
    return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # it is not a mapping


def gram_matrix(parts: Iterable[Tensor]) -> Tensor:
    """Return the inner products of S centred points, whose coordinates come in parts.

    The principal components follow from this matrix as they do from the covariance of the coordinates. It is the smaller of
    the two, because there are few snapshots and many weights.

    Args:
        parts: some of the coordinates of all points [S, size].

    Returns:
        The inner products [S, S].
    """
    total = torch.zeros((), dtype=torch.float64)
    # Inner products over all coordinates are the sums of those over the parts.
    for part in parts:
        centred = part - part.mean(dim=0)
        total = total + (centred @ centred.T).double()
    return total


def principal_plane(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return points in the plane of their two leading principal components, and the share of the variance along each.

    The sign of a principal component is arbitrary. Here the first point has no positive coordinate.

    Args:
        gram: inner products [S, S] of the centred points, S at least 3; the points are not all the same.

    Returns:
        The points [S, 2], and the shares [2], from 0 to 1.

    Example:
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
    # eigh orders eigenvalues from the smallest to the largest, and rounding can make those of 0 slightly negative.
    variances, directions = torch.linalg.eigh(gram)
    variances = variances[-2:].flip(0).clamp(min=0)
    directions = directions[:, -2:].flip(1)
    points = directions * variances.sqrt()
    points = torch.where(points[0] > 0, -points, points)
    return points, variances / gram.trace()


def moving_average(losses: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Return the mean of the last `AVERAGED_BATCHES` losses up to each step.

    Args:
        losses: losses of all batches, in order, at least one.
        steps: numbers of batches [S], from 0 on.

    Returns:
        The means [S]. At step 0 it is the first loss, which the initial weights had.

    Example:
        >>> print(moving_average(np.array([4.0, 2.0, 3.0]), steps=[0, 1, 2, 3]))
        [4. 4. 3. 3.]
    """
    # Average at least one loss, and never one that comes after the snapshot, except at step 0.
    means = []
    for step in steps:
        first = max(0, step - AVERAGED_BATCHES)
        last = max(1, step)
        means.append(losses[first:last].mean())
    return np.array(means)
