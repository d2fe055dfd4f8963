"""Stages of blocks, of which base mode runs some and skips the others."""

from collections.abc import Iterable

from torch import Tensor, nn

from nestnet.nn.mode import Mode, Rate, Width


class Stage(nn.ModuleList):
    """A sequence of blocks of which base mode runs some and skips the others.

    Args:
        blocks: all blocks of the motivated stage.
        base_positions: for each block its position in the base's stage, or `None` for a differential block.
    """

    def __init__(self, blocks: Iterable[nn.Module], base_positions: list[int | None]) -> None:
        super().__init__(blocks)
        self.base_positions = base_positions

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        for block, position in zip(self, self.base_positions, strict=True):
            if mode is Mode.MOTIVATED or position is not None:
                x = block(x, mode)
        return x


DEPTH_MAPS = ("last", "first")


def depth_map(depth: Width, kind: str) -> list[int | None]:
    """For each of `depth.motivated` blocks its position among the base's `depth.base`, or `None`.

    `"first"` takes the first blocks. `"last"` (section 3.3.1 of the paper) takes the first ones too, but for the base's
    last block, which is the motivated stage's last; a stage's first block changes the resolution, so a base stage of one
    block takes the first in either case.

    >>> depth_map(Width(3, 5), "last")
    [0, 1, None, None, 2]
    >>> depth_map(Width(3, 5), "first")
    [0, 1, 2, None, None]
    """
    positions: list[int | None] = [*range(depth.base), *[None] * (depth.motivated - depth.base)]
    if kind == "last" and 1 < depth.base < depth.motivated:
        positions[depth.base - 1], positions[-1] = None, depth.base - 1
    return positions


def drop_path_rates(rate: Rate, positions: list[list[int | None]], *, last: bool) -> list[list[Rate]]:
    """Each block's drop-path rate in each mode, growing linearly over the blocks of that mode's own network.

    Args:
        rate: of the last block, or, unless `last`, of the one that would follow it (timm's EfficientNet).
        positions: for each stage the blocks' positions in the base's stage, or `None`.
    """
    depth = Width(sum(p is not None for stage in positions for p in stage), sum(map(len, positions)))
    ends = Width(max(depth.base - last, 1), max(depth.motivated - last, 1))
    rates, before = [], Width(0, 0)
    for stage in positions:
        rates.append(
            [
                Rate(
                    0.0 if p is None else rate.base * (before.base + p) / ends.base,
                    rate.motivated * (before.motivated + i) / ends.motivated,
                )
                for i, p in enumerate(stage)
            ]
        )
        before = Width(before.base + sum(p is not None for p in stage), before.motivated + len(stage))
    return rates
