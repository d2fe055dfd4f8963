"""Stages of blocks that are nested by depth, and the drop-path rates of their blocks."""

from collections.abc import Iterable

from torch import Tensor, nn

from nestnet.nn.checkpointing import run_block
from nestnet.nn.mode import Mode, Rate, Width

DEPTH_MAPS = ("last", "first", "uniform")
"""Kinds of depth map: see `depth_map`."""


class Stage(nn.ModuleList):
    """A sequence of blocks, of which base mode skips the differential ones.

    Args:
        blocks: all blocks of the motivated stage, each with `forward(x, mode)`.
        base_positions: for each block its position in the base's stage, or `None` for a differential block.

    Attributes:
        grad_checkpointing: whether the backward pass computes the activations of each block again.
    """

    def __init__(self, blocks: Iterable[nn.Module], base_positions: list[int | None]) -> None:
        super().__init__(blocks)
        self.base_positions = base_positions
        self.grad_checkpointing = False

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        for block, position in zip(self, self.base_positions, strict=True):
            if mode is Mode.MOTIVATED or position is not None:
                x = run_block(block, x, mode, grad_checkpointing=self.grad_checkpointing)
        return x


def depth_map(depth: Width, kind: str) -> list[int | None]:
    """Return the position in the base's stage of each block of a motivated stage.

    Args:
        depth: number of blocks in each mode; the base's is at least 1 and at most the motivated network's.
        kind: `"first"`, `"last"` or `"uniform"`. With `"first"` the base has the first blocks. With `"last"` (arXiv
            2602.21064, section 3.3.1) it has the first blocks too, except that its last block is the last one
            of the motivated stage. With `"uniform"` its blocks are evenly spaced from the first to the last one,
            for a base that starts as a part of a trained motivated network. The first block of a stage changes
            the resolution, so that a base stage of one block has the first one with each kind.

    Returns:
        `depth.motivated` entries: a position from 0 to `depth.base - 1`, or `None` for a differential block.

    Example:
        >>> depth_map(Width(3, 5), "last")
        [0, 1, None, None, 2]
        >>> depth_map(Width(3, 5), "first")
        [0, 1, 2, None, None]
        >>> depth_map(Width(3, 5), "uniform")
        [0, None, 1, None, 2]
    """
    if kind == "uniform" and depth.base > 1:
        positions: list[int | None] = [None] * depth.motivated
        for position in range(depth.base):
            positions[_nearest(position * (depth.motivated - 1), depth.base - 1)] = position
        return positions
    # The first blocks are the base's, the remaining ones are differential.
    positions = [*range(depth.base), *[None] * (depth.motivated - depth.base)]
    if kind == "last" and 1 < depth.base < depth.motivated:
        # The base's last block changes places with the motivated stage's last one.
        last_base_block = depth.base - 1
        positions[last_base_block] = None
        positions[-1] = last_base_block
    return positions


def _nearest(numerator: int, denominator: int) -> int:
    """Return the whole number nearest to a fraction, the greater one of two that are equally near."""
    return (2 * numerator + denominator) // (2 * denominator)


def drop_path_rates(rate: Rate, positions: list[list[int | None]], *, last: bool) -> list[list[Rate]]:
    """Return the drop-path rate of each block, which grows linearly over the blocks of each mode's own network.

    Args:
        rate: final rate of each mode.
        positions: depth map of each stage, as `depth_map` returns it.
        last: whether the last block has the final rate. Otherwise the block that would follow it would have it,
            as in timm's EfficientNet.

    Returns:
        For each stage the rates of its blocks. The base rate of a differential block is 0.
    """
    base_depths = [sum(position is not None for position in stage) for stage in positions]
    depth = Width(sum(base_depths), sum(map(len, positions)))
    # Index, among all blocks of the mode's network, at which the rate is the final one.
    final_index = Width(max(depth.base - last, 1), max(depth.motivated - last, 1))

    rates = []
    base_start = 0
    motivated_start = 0
    for stage, base_depth in zip(positions, base_depths, strict=True):
        stage_rates = []
        for index, position in enumerate(stage):
            motivated_rate = rate.motivated * (motivated_start + index) / final_index.motivated
            # Each network counts its own blocks, so that its rates are those of timm's model.
            base_rate = 0.0
            if position is not None:
                base_rate = rate.base * (base_start + position) / final_index.base
            stage_rates.append(Rate(base_rate, motivated_rate))
        rates.append(stage_rates)
        base_start += base_depth
        motivated_start += len(stage)
    return rates
