"""Channel spaces: which rows, columns and entries of a network's parameters belong to the same channels.

The output channels of a linear layer are the rows of its weight, the entries of the norm after it, and the columns of
every layer that reads them, also those of other layers whose outputs are added to its output. Where all of them are
permuted in the same way, the network computes the same function.

They are found without rules for any kind of network. NaN is put into some rows of a weight, or some entries of another
parameter, and the forward pass shows which columns of later weights it reaches (`nestnet.nesting.taints`):

- the same ones: both belong to one space, at the place where they were found, such as a part of a concatenation;
- runs of equal length, such as all channels of a head for each row of its query: only whole runs can change places;
- anything else: nothing is known about these rows or entries, and they are left as they are.

What is found is a guess, which `nestnet.nesting.permutation` checks with numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import gcd

from nestnet.nesting.base_share import BaseShare, Segment
from nestnet.nesting.taint_sources import list_sources
from nestnet.nesting.taint_traces import TaintTrace, trace_source
from nestnet.nesting.taints import TaintedNetwork


@dataclass(frozen=True)
class Space:
    """Entries of parameters that belong to the same channels.

    Attributes:
        segments: consecutive entries of one dimension of a parameter or buffer, each with all channels in order.
        count: number of units that can change places: of channels, or of heads. Each unit is an equal part of a segment.
        base_count: number of units of the base, which are the first ones; at least 1 and less than `count`.
    """

    segments: tuple[Segment, ...]
    count: int
    base_count: int


def find_spaces(network: TaintedNetwork, share: BaseShare) -> list[Space]:
    """Find the channel spaces of which the base has a part.

    Args:
        network: motivated network.
        share: what the base has of it.

    Returns:
        The spaces. None of them touches the output of the network, or anything about which nothing is known.
    """
    links = _Links()
    for alternatives in list_sources(network, share):
        found = []
        for source in alternatives:
            trace = trace_source(network, source)
            found.append(trace)
            # Where it is not known which dimension has the channels, it is the first that behaves like it.
            if trace.is_clear and trace.readers:
                found = [trace]
                break
        for trace in found:
            links.add(trace)
    for name in network.tied:
        for dim, size in enumerate(network.shape(name)):
            links.frozen.add(Segment(name, dim, 0, size))
    return list(_divided_spaces(links, share))


class _Links:
    """Segments that belong to the same space, because NaN in one reaches the other."""

    def __init__(self) -> None:
        self.frozen: set[Segment] = set()
        self._parents: dict[Segment, Segment] = {}
        self._counts: dict[Segment, int] = {}

    def add(self, trace: TaintTrace) -> None:
        """Join the segments of a source with those that read it."""
        first = trace.source.segments[0]
        self._counts[first] = gcd(trace.count, self._counts.get(first, 0))
        for segment in (*trace.source.segments, *trace.readers):
            self._parents[self._root(segment)] = self._root(first)
        if not trace.is_clear:
            self.frozen.update(trace.source.segments)

    def spaces(self) -> Iterator[tuple[list[Segment], int]]:
        """Yield the segments of each space, and the number of its units."""
        spaces: dict[Segment, list[Segment]] = {}
        for segment in list(self._parents):
            spaces.setdefault(self._root(segment), []).append(segment)
        for segments in spaces.values():
            yield segments, gcd(*(self._counts.get(segment, 0) for segment in segments))

    def overlapping(self) -> set[Segment]:
        """Return the segments that share entries with another one, or with one that is frozen."""
        found = set()
        by_dimension: dict[tuple[str, int], list[Segment]] = {}
        for segment in (*self._parents, *self.frozen):
            by_dimension.setdefault((segment.name, segment.dim), []).append(segment)
        for segments in by_dimension.values():
            found |= {one for one in segments if any(one.overlaps(other) for other in segments)}
        return found | self.frozen

    def _root(self, segment: Segment) -> Segment:
        while self._parents.setdefault(segment, segment) != segment:
            segment = self._parents[segment]
        return segment


def _divided_spaces(links: _Links, share: BaseShare) -> Iterator[Space]:
    """Yield the spaces of which the base has the first units, but not all."""
    left_as_they_are = links.overlapping()
    for segments, count in links.spaces():
        base_counts = _base_counts(segments, count, share)
        # Rows that no column reads are not understood.
        is_read = len(segments) > 1
        if len(base_counts) != 1 or not is_read or not left_as_they_are.isdisjoint(segments):
            continue
        base_count = base_counts.pop()
        if base_count is not None and 0 < base_count < count:
            yield Space(tuple(segments), count, base_count)


def _base_counts(segments: Iterable[Segment], count: int, share: BaseShare) -> set[int | None]:
    """Return the numbers of units that the base has of segments; `None` for a number that is not whole."""
    counts: set[int | None] = set()
    for segment in segments:
        if not share.has(segment.name):
            continue
        entries = share.entries(segment)
        width = segment.size // count
        counts.add(None if entries is None or entries % width else entries // width)
    return counts
