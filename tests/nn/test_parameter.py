import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nestnet.nn.mode import Mode
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import NestedParameter, create_weight, select_weight
from nestnet.nn.placement import Placement


@st.composite
def placements(draw):
    """A base of any size in a whole of any size: vectors, matrices, kernels and tokens, in groups or not."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    rows = draw(st.integers(1, 5))
    base_rows = draw(st.integers(1, rows))
    rest = draw(st.lists(st.integers(1, 4), max_size=3))
    base_rest = list(rest)
    if rest:
        column = draw(st.integers(0, len(rest) - 1))
        base_rest[column] = draw(st.integers(1, rest[column]))
    return Placement("w", (groups * rows, *rest), (groups * base_rows, *base_rest), groups)


class Owner(NestedModule):
    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.w = create_weight(placement.shape, placement.base_shape, groups=placement.groups)


@given(placements())
def test_blocks_make_up_the_whole(placement):
    nested, whole = NestedParameter(placement), torch.randn(placement.shape)
    nested.load(whole)
    assert torch.equal(nested(Mode.MOTIVATED), whole)
    assert torch.equal(nested(Mode.BASE), whole[placement.index])
    assert torch.equal(nested.join(**nested.split(whole)), whole)
    assert sum(block.numel() for block in nested.parameters()) == whole.numel()
    assert all(block.is_contiguous() for block in nested.parameters())


@given(placements())
def test_index_is_the_first_rows_of_each_group_and_the_first_columns(placement):
    whole = torch.arange(torch.Size(placement.shape).numel()).view(placement.shape)
    rows, base_rows = placement.shape[0] // placement.groups, placement.base_shape[0] // placement.groups
    picked = [whole[g * rows + r] for g in range(placement.groups) for r in range(base_rows)]
    expected = torch.stack(picked)[(slice(None), *(slice(size) for size in placement.base_shape[1:]))]
    assert torch.equal(whole[placement.index], expected)


@given(placements())
def test_each_block_gets_its_part_of_the_gradient(placement):
    nested, gradient = NestedParameter(placement), torch.randn(placement.shape)
    (nested(Mode.MOTIVATED) * gradient).sum().backward()
    for name, part in nested.split(gradient).items():
        assert torch.equal(getattr(nested, name).grad, part)
    nested.zero_grad()
    nested(Mode.BASE).sum().backward()
    assert nested.base.grad is not None
    assert all(block.grad is None for name, block in nested.named_parameters() if name != "base")


@given(placements(), st.booleans())
def test_state_dict_speaks_of_the_whole(placement, assign):
    owner, whole = Owner(placement), torch.randn(placement.shape)
    owner.load_state_dict({"w": whole}, assign=assign)
    assert list(owner.state_dict()) == ["w"]
    assert torch.equal(owner.state_dict()["w"], whole)
    before = whole.clone()
    with torch.no_grad():
        for parameter in owner.parameters():
            parameter.add_(1)
    if not placement.is_whole or not assign:  # a whole tensor that is assigned is the very tensor, as in torch
        assert torch.equal(whole, before)


def test_wrong_states_are_refused_by_name():
    owner = Owner(Placement("w", (4, 4), (2, 2)))
    with pytest.raises(RuntimeError, match=r"size mismatch for w: .*\(3, 4\) from checkpoint.*\(4, 4\)"):
        owner.load_state_dict({"w": torch.zeros(3, 4)})
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "w"'):
        owner.load_state_dict({})
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "v"'):
        owner.load_state_dict({"w": torch.zeros(4, 4), "v": torch.zeros(1)})
    assert owner.load_state_dict({}, strict=False).missing_keys == ["w"], "as torch reports it"


def test_equal_and_absent_base_sizes_are_plain_parameters():
    assert isinstance(create_weight((4, 3), (4, 3)), nn.Parameter)
    assert isinstance(create_weight((4, 3), (0, 3)), nn.Parameter)
    assert isinstance(create_weight((4, 3), (2, 3)), NestedParameter)
    assert select_weight(None, Mode.BASE) is None


def test_keep_vars_keeps_the_graph():
    owner = Owner(Placement("w", (4, 6), (2, 3)))
    owner.state_dict(keep_vars=True)["w"].sum().backward()
    assert torch.equal(owner.w.right.grad, torch.ones(2, 3))
