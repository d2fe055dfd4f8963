"""From NaN in a source to the columns of matrices that belong to the same channels.

Half of the source's entries, drawn at random, are NaN in one pass, and the other half in a second one. These two passes
place all entries at once: columns that read the source show the same order of halves.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from math import gcd

import torch
from torch import Tensor

from nestnet.nesting.base_share import Segment
from nestnet.nesting.taint_sources import Source
from nestnet.nesting.taints import Reader, TaintedNetwork


@dataclass
class TaintTrace:
    """What NaN in a source reached.

    Attributes:
        source: source of the NaN.
        count: number of units of the source.
        readers: columns of matrices that have the same units.
        unclear: columns that got NaN in another way.
        output: whether the output of the network has NaN.
    """

    source: Source
    count: int
    readers: list[Segment] = field(default_factory=list)
    unclear: list[Segment] = field(default_factory=list)
    output: bool = False

    @property
    def is_clear(self) -> bool:
        """Whether it is known what belongs to the channels of the source."""
        return not self.unclear and not self.output


def trace_source(network: TaintedNetwork, source: Source) -> TaintTrace:
    """Put NaN into a source, and see which columns it reaches.

    Args:
        network: motivated network.
        source: source of the NaN.

    Returns:
        What it reached.
    """
    trace = _place(network, source, source.size)
    if not trace.unclear:
        return trace
    # Whole heads: the first row of a query reaches all channels of its head.
    count = source.size
    first_unit = torch.zeros(source.size, dtype=torch.bool)
    first_unit[0] = True
    _, columns = _run(network, source, first_unit)
    for segment in trace.unclear:
        reached = [entries for (name, _), entries in columns.items() if name == segment.name]
        width = max((int(entries.sum()) for entries in reached), default=0)
        if not width or segment.size % width:
            return trace
        count = gcd(count, segment.size // width)
    if count < 2:
        return trace
    by_heads = _place(network, source, count)
    return by_heads if not by_heads.unclear else trace


def _place(network: TaintedNetwork, source: Source, count: int) -> TaintTrace:
    """Find the units of a source in the columns of all matrices."""
    code = _code(count)
    output, columns = _run(network, source, code == 1)
    other_output, other_columns = _run(network, source, code == 2)
    trace = TaintTrace(source, count, output=output or other_output)
    # In an order that is the same in all processes.
    for reader in dict.fromkeys([*columns, *other_columns]):
        name = reader[0]
        seen = torch.zeros(network.shape(name)[1], dtype=torch.long)
        for number, entries in ((1, columns.get(reader)), (2, other_columns.get(reader))):
            if entries is not None:
                seen += number * entries.long()
        starts, size = _find_copies(seen, code, source.size // count)
        if starts:
            trace.readers += [Segment(name, 1, start, size) for start in starts]
        else:
            touched = seen.nonzero().flatten()
            start = int(touched[0])
            trace.unclear.append(Segment(name, 1, start, int(touched[-1]) + 1 - start))
    return trace


def _run(network: TaintedNetwork, source: Source, units: Tensor) -> tuple[bool, dict[Reader, Tensor]]:
    """Return what NaN in some units `[count]` of a source reaches: the output, and columns of matrices."""
    entries = units.repeat_interleave(source.size // len(units))
    rows = {}
    with ExitStack() as stack:
        for segment in source.segments:
            indices = entries.nonzero().flatten() + segment.start
            if segment.name in network.matrices:
                rows[segment.name] = indices
            else:
                stack.enter_context(network.tainted(segment.name, segment.dim, indices))
        reached = network.run(rows)
    return reached.output, reached.columns


def _code(count: int) -> Tensor:
    """Return 1 or 2 at random for each of at least two units, and each of the numbers at least once."""
    generator = torch.Generator().manual_seed(count)
    code = torch.randint(1, 3, (count,), generator=generator)
    code[0] = 1
    code[-1] = 2
    return code


def _find_copies(seen: Tensor, code: Tensor, width: int) -> tuple[list[int], int]:
    """Find a code in columns, once or several times, and nothing else.

    Args:
        seen: number of each column, 0 for one that got no NaN.
        code: number of each unit.
        width: number of entries of each unit in the source.

    Returns:
        The first column of each copy, and the length of a copy. There are no copies if the columns have something else.
    """
    touched = int(seen.count_nonzero())
    # Units are as wide as in the source, or there is one copy with units of another width.
    for unit in (width, touched // len(code)):
        pattern = code.repeat_interleave(unit)
        rest = seen.clone()
        starts: list[int] = []
        while len(pattern) and rest.any():
            start = int(rest.nonzero()[0])
            if not torch.equal(rest[start : start + len(pattern)], pattern):
                starts = []
                break
            rest[start : start + len(pattern)] = 0
            starts.append(start)
        if starts:
            return starts, len(pattern)
    return [], 0
