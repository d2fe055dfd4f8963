"""Parts of rows and columns against plain indexing: what is joined, split, taken and put."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nestnet.nn.division import Division
from nestnet.nn.mode import Mode
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import NestedParameter
from nestnet.nn.placement import Placement, WeightsMap


@st.composite
def parts(draw, smallest=0):
    """Sizes (base's, whole) of one to four parts, of which the base has an entry at least."""
    sizes = []
    for _ in range(draw(st.integers(1, 4))):
        whole = draw(st.integers(1, 4))
        sizes.append((draw(st.integers(smallest, whole)), whole))
    if not any(base for base, _ in sizes):
        sizes[-1] = (1, sizes[-1][1])
    return tuple(sizes)


def totals(sizes):
    return sum(base for base, _ in sizes), sum(whole for _, whole in sizes)


def positions(sizes):
    """The positions of the base's entries, counted one by one."""
    found = []
    start = 0
    for base, whole in sizes:
        found += range(start, start + base)
        start += whole
    return found


@given(parts())
def test_the_base_has_the_first_entries_of_each_part(sizes):
    division = Division.of(sizes, *totals(sizes))
    assert division.base_indices.tolist() == positions(sizes)
    assert division.base_indices.device.type == "cpu"


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_number_of_parts_means_equal_ones(count, base, further):
    sizes = ((base, base + further),) * count
    division = Division.of(count, count * base, count * (base + further))
    assert division.base_indices.tolist() == positions(sizes)
    assert torch.equal(division.base_indices, Division.of(sizes, *totals(sizes)).base_indices)


@given(parts(), st.integers(0, 2))
def test_splitting_and_joining_are_inverse(sizes, dim):
    division = Division.of(sizes, *totals(sizes))
    shape = [2, 3, 2]
    shape[dim] = totals(sizes)[1]
    whole = torch.randn(shape)
    base, rest = division.split(whole, dim)
    assert torch.equal(base, whole.index_select(dim, division.base_indices))
    others = [index for index in range(shape[dim]) if index not in positions(sizes)]
    assert torch.equal(rest, whole.index_select(dim, torch.tensor(others, dtype=torch.long)))
    assert torch.equal(division.join(base, rest, dim), whole)


@given(parts())
def test_each_entry_gets_its_own_gradient(sizes):
    division = Division.of(sizes, *totals(sizes))
    base_size, size = totals(sizes)
    base = torch.randn(2, base_size, requires_grad=True)
    rest = torch.randn(2, size - base_size, requires_grad=True)
    gradient = torch.randn(2, size)
    (division.join(base, rest, 1) * gradient).sum().backward()
    expected_base, expected_rest = division.split(gradient, 1)
    assert torch.equal(base.grad, expected_base)
    assert torch.equal(rest.grad, expected_rest)


@given(parts(), parts())
def test_divisions_are_equal_only_if_they_choose_the_same_entries(sizes, others):
    first = Division.of(sizes, *totals(sizes))
    second = Division.of(others, *totals(others))
    if first == second:
        assert torch.equal(first.base_indices, second.base_indices)


@pytest.mark.parametrize(
    ("groups", "base_size", "size", "message"),
    [
        (2, 3, 4, "2 equal parts of 3 in 4 entries"),
        (2, 2, 5, "2 equal parts of 2 in 5 entries"),
        (0, 2, 4, "0 equal parts of 2 in 4 entries"),
        (-1, 2, 4, "-1 equal parts of 2 in 4 entries"),
        (((1, 2), (1, 2)), 2, 5, "parts ((1, 2), (1, 2)) of 2 in 5 entries"),
        (((1, 2), (1, 3)), 3, 5, "parts ((1, 2), (1, 3)) of 3 in 5 entries"),
        (((3, 2), (0, 3)), 3, 5, "parts ((3, 2), (0, 3)) of 3 in 5 entries"),
        (((-1, 2), (3, 3)), 2, 5, "parts ((-1, 2), (3, 3)) of 2 in 5 entries"),
    ],
)
def test_parts_that_do_not_add_up_are_refused(groups, base_size, size, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Division.of(groups, base_size, size)


@pytest.mark.parametrize(
    ("groups", "base_size", "size", "text"),
    [
        (1, 2, 4, ":2"),
        (3, 6, 12, ":3 x 2"),
        (((1, 2), (2, 4)), 3, 6, ":1 of 2 + :2 of 4"),
        (((1, 2), (1, 2)), 2, 4, ":2 x 1"),
        (((2, 2), (1, 2)), 3, 4, ":3"),  # a whole part and the one after it are one
        (((1, 2), (0, 3)), 1, 5, ":1"),
    ],
)
def test_a_division_prints_its_parts(groups, base_size, size, text):
    assert str(Division.of(groups, base_size, size)) == text


@st.composite
def placements(draw):
    """A placement with parts of rows, and with parts of the columns in dimension 1 or 2, or either alone."""
    rows = draw(parts())
    base_rows, all_rows = totals(rows)
    rest = draw(st.lists(st.integers(1, 3), max_size=3))
    base_rest = list(rest)
    columns = 1
    if rest:
        dim = draw(st.integers(0, len(rest) - 1))
        sizes = draw(parts())
        base_rest[dim], rest[dim] = totals(sizes)
        if base_rest[dim] != rest[dim]:
            columns = sizes
    shape = (all_rows, *rest)
    base_shape = (base_rows, *base_rest)
    return Placement("w", shape, base_shape, rows, column_groups=columns)


def expected_part(whole, placement):
    """The base's part of a tensor, taken one dimension after the other."""
    part = whole.index_select(0, placement.rows.base_indices)
    if whole.ndim > 1:
        part = part.index_select(placement.column_dim, placement.columns.base_indices)
    return part


@given(placements())
def test_the_index_reads_and_writes_rows_and_columns_in_parts(placement):
    whole = torch.randn(placement.shape)
    expected = expected_part(whole, placement)
    assert torch.equal(whole[placement.index], expected)
    written = torch.zeros(placement.shape)
    written[placement.index] = expected
    assert torch.equal(written[placement.index], expected)
    assert int(torch.count_nonzero(written)) == int(torch.count_nonzero(expected))


@given(placements())
def test_a_map_takes_and_puts_the_same_part(placement):
    weights_map = WeightsMap({"small": placement})
    state = {"w": torch.randn(placement.shape), "other": torch.ones(1)}
    before = state["w"].clone()
    base = {"small": weights_map.take(state)["small"].clone()}
    assert torch.equal(base["small"], expected_part(before, placement))
    weights_map.put({"small": base["small"] + 1}, state)
    assert torch.equal(weights_map.take(state)["small"], base["small"] + 1)
    weights_map.put(base, state)
    assert torch.equal(state["w"], before)


@given(parts(), st.integers(1, 3))
def test_a_placement_is_the_same_however_its_parts_are_written(sizes, columns):
    base_size, size = totals(sizes)
    placement = Placement("w", (size, columns), (base_size, columns), sizes)
    # Every entry of the base as a part of its own, with what follows it.
    starts = positions(sizes)
    entries = tuple((1, end - start) for start, end in zip(starts, [*starts[1:], size], strict=True))
    if starts[0] > 0:
        entries = ((0, starts[0]), *entries)
    assert placement.is_same_as(Placement("w", (size, columns), (base_size, columns), entries))
    assert placement.is_same_as(placement.with_name("v")) is False
    if base_size < size and starts[-1] != size - 1:
        # The last entry of the whole, in place of the base's last one.
        moved = tuple((1, end - start) for start, end in itertools.pairwise(starts))
        head = ((0, starts[0]),) if starts[0] > 0 else ()
        last = ((0, size - 1 - starts[-1]), (1, 1))
        assert not placement.is_same_as(Placement("w", (size, columns), (base_size, columns), (*head, *moved, *last)))


@given(placements())
def test_blocks_make_up_the_whole_and_get_its_gradient(placement):
    nested = NestedParameter(placement)
    whole = torch.randn(placement.shape)
    nested.load(whole)
    assert torch.equal(nested(Mode.MOTIVATED), whole)
    assert torch.equal(nested(Mode.BASE), expected_part(whole, placement))
    assert sum(block.numel() for block in nested.blocks()) == whole.numel()
    assert all(block.is_contiguous() for block in nested.blocks())
    gradient = torch.randn(placement.shape)
    (nested(Mode.MOTIVATED) * gradient).sum().backward()
    for name, part in nested.split(gradient).items():
        assert torch.equal(getattr(nested, name).grad, part)


class Owner(NestedModule):
    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.w = NestedParameter(placement)


@given(placements(), st.booleans())
def test_states_of_weights_in_parts_are_whole(placement, assign):
    owner = Owner(placement)
    whole = torch.randn(placement.shape)
    owner.load_state_dict({"w": whole}, assign=assign)
    saved = owner.state_dict()["w"]
    assert torch.equal(saved, whole)
    # A write to the whole reaches the base block.
    with torch.no_grad():
        saved.mul_(2)
    assert torch.equal(owner.w.base.detach(), expected_part(2 * whole, placement))


@settings(max_examples=30)
@given(placements())
def test_a_weight_in_parts_trains_as_a_whole_one(placement):
    """One step of AdamW on the blocks is one step on the whole, because it treats each entry separately."""
    nested = NestedParameter(placement)
    whole = nn.Parameter(torch.randn(placement.shape))
    nested.load(whole.detach())
    gradient = torch.randn(placement.shape)
    for parameters, weight in ((list(nested.parameters()), nested(Mode.MOTIVATED)), ([whole], whole)):
        (weight * gradient).sum().backward()
        torch.optim.AdamW(parameters, lr=0.1).step()
    assert torch.equal(nested(Mode.MOTIVATED), whole)
