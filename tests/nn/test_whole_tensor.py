"""Divided weights as a state dict shows them, held against the state dict of an ordinary module."""

import copy
import io
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from helpers import make, randomised
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nestnet.nn.mode import Mode
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import NestedParameter, create_weight
from nestnet.nn.placement import Placement
from nestnet.nn.whole_tensor import WholeTensor

KINDS = {
    "below": Placement("w", (6, 4), (2, 4)),
    "right": Placement("w", (6, 4), (6, 3)),
    "below and right": Placement("w", (6, 4), (2, 3)),
    "groups": Placement("w", (6, 4), (3, 2), groups=3),
    "groups of rows": Placement("w", (6, 4), (2, 4), groups=2),
}


class Nested(NestedModule):
    def __init__(self, placement):
        super().__init__()
        self.w = create_weight(placement.shape, placement.base_shape, groups=placement.groups)
        assert isinstance(self.w, NestedParameter)


class Plain(nn.Module):
    def __init__(self, placement):
        super().__init__()
        self.w = nn.Parameter(torch.empty(placement.shape))


def both(kind):
    """A nested module, and an ordinary one with the same weight."""
    plain, nested = Plain(KINDS[kind]), Nested(KINDS[kind])
    nn.init.normal_(plain.w)
    nested.load_state_dict(plain.state_dict())
    return plain, nested


def optimise(w):
    w.requires_grad_()
    w.square().sum().backward()
    torch.optim.AdamW([w], lr=0.1).step()


def through_autograd(w):
    w.requires_grad_()
    (w[1:] * torch.ones(5, 4)).sum().backward()
    with torch.no_grad():
        w.sub_(w.grad)


def in_inference_mode(write):
    def within(w):
        with torch.inference_mode():
            write(w)

    return within


ARRIVES = {
    "zero_": lambda w: w.zero_(),
    "lerp_": lambda w: w.lerp_(torch.ones(6, 4), 0.25),
    "copy_": lambda w: w.copy_(torch.arange(4)),
    "+=": lambda w: w.__iadd__(1),
    "row": lambda w: w[0].zero_(),
    "row of a row": lambda w: w[1:3][1].mul_(2),
    "item": lambda w: w.__setitem__((2, 3), 7.0),
    "item of a view": lambda w: w[1].__setitem__(2, 7.0),
    "mask": lambda w: w.__setitem__(w > 0, 0.5),
    "picked rows": lambda w: w.__setitem__(torch.tensor([4, 1]), torch.ones(2, 4)),
    "view": lambda w: w.view(-1).__setitem__(3, 1.0),
    "reshape": lambda w: w.reshape(2, 12)[1].zero_(),
    "flatten": lambda w: w.flatten().__setitem__(slice(3, 20), 1.0),
    "ravel": lambda w: w.ravel()[5:].neg_(),
    "T": lambda w: w.T[1].zero_(),
    "transpose": lambda w: w.transpose(0, 1).add_(torch.arange(6)),
    "permute": lambda w: w.permute(1, 0)[2].fill_(3),
    "diagonal": lambda w: w.diagonal().mul_(2),
    "narrow": lambda w: w.narrow(1, 1, 2).zero_(),
    "as_strided": lambda w: torch.as_strided(w, (3,), (7,)).zero_(),
    "unfold": lambda w: w.unfold(0, 2, 2)[1].zero_(),
    "unflatten": lambda w: w.unflatten(0, (2, 3))[1].zero_(),
    "unsqueeze": lambda w: w.unsqueeze(0)[0, 1].zero_(),
    "view as bits": lambda w: w.view(torch.int32).bitwise_and_(~1),
    "chunk": lambda w: w.chunk(3)[1].zero_(),
    "split": lambda w: w.split([1, 5])[1].mul_(2),
    "unbind": lambda w: w.unbind()[2].zero_(),
    "iteration": lambda w: [row.mul_(2) for row in w],
    "data": lambda w: w.data.zero_(),
    "row of data": lambda w: w.data[0].zero_(),
    "data of a row": lambda w: w[0].data.zero_(),
    "detach": lambda w: w.detach().mul_(2),
    "row of detach": lambda w: w.detach()[3].mul_(2),
    "same device": lambda w: w.to("cpu").contiguous().float().mul_(2),
    "as_tensor": lambda w: torch.as_tensor(w)[0].zero_(),
    "Tensor": lambda w: torch.Tensor(w)[0].zero_(),
    "as_subclass": lambda w: w.as_subclass(torch.Tensor)[0].zero_(),
    "copy.copy": lambda w: copy.copy(w)[0].zero_(),
    "parameter": lambda w: nn.init.ones_(nn.Parameter(w)),
    "out": lambda w: torch.add(w, 1, out=w),
    "out to a view": lambda w: torch.add(torch.ones(4), 1, out=w[2]),
    "out to two": lambda w: torch.max(torch.randn(3, 4), 0, out=(w[0], torch.empty(4, dtype=torch.long))),
    "foreach": lambda w: torch._foreach_mul_([w], 2.0),
    "foreach of views": lambda w: torch._foreach_add_(list(w), [torch.full((4,), float(i)) for i in range(6)]),
    "init": lambda w: nn.init.kaiming_normal_(w),
    "init step by step": lambda w: nn.init.trunc_normal_(w),
    "init of a view": lambda w: nn.init.orthogonal_(w[:4]),
    "init by out": lambda w: nn.init.eye_(w),
    "optimizer": optimise,
    "autograd": through_autograd,
    "vmap": lambda w: torch.vmap(lambda row: row.mul_(2))(w),
    "functionalize": lambda w: torch.func.functionalize(lambda x: x[1].mul_(2))(w),
    "compile": lambda w: torch.compile(lambda x: x[1].mul_(2), backend="eager")(w),
    "clip": lambda w: w.clamp_(min=0),
    "random": lambda w: w[1].uniform_(),
    "inference mode": in_inference_mode(lambda w: w.zero_()),
    "view in inference mode": in_inference_mode(lambda w: w[0].zero_()),
    "data in inference mode": in_inference_mode(lambda w: w.data.view(-1)[3:].zero_()),
    "foreach in inference mode": in_inference_mode(lambda w: torch._foreach_mul_([w[1], w[2]], 2.0)),
    "reading": lambda w: (w + 1).zero_(),
    "clone": lambda w: w.clone().zero_(),
    "index of rows": lambda w: w[[0, 1]].zero_(),
    "deepcopy": lambda w: copy.deepcopy(w).zero_(),
    "contiguous transpose": lambda w: w.T.contiguous().zero_(),
}
"""What can be done to a tensor of a state dict, which does to the network what it does to an ordinary one: at times nothing."""

REFUSED = {
    "numpy": lambda w: w.numpy().fill(0),
    "numpy of a view": lambda w: w[1].numpy().__setitem__(0, 1.0),
    "asarray": lambda w: np.asarray(w).fill(0),
    "out of numpy": lambda w: np.add(1, 1, out=w.numpy()),
    "set_": lambda w: w.set_(torch.zeros(6, 4)),
    "assigned data": lambda w: setattr(w, "data", torch.zeros(6, 4)),
    "vector_to_parameters": lambda w: nn.utils.vector_to_parameters(torch.zeros(24), [w]),
    "resize_": lambda w: w.resize_(2, 2),
    "t_": lambda w: w.t_().zero_(),
    "storage": lambda w: w.storage().fill_(0),
    "untyped_storage": lambda w: w.untyped_storage().fill_(0),
    "storage of a view": lambda w: w[1].untyped_storage().copy_(torch.zeros(96).untyped_storage()),
    "share_memory_": lambda w: w.share_memory_(),
    "apply_": lambda w: w.apply_(lambda x: x + 1),
    "map_": lambda w: w.map_(torch.ones(6, 4), lambda x, y: x + y),
    "from_dlpack": lambda w: torch.from_dlpack(w).zero_(),
    "numpy's from_dlpack": lambda w: np.from_dlpack(w),
    "cuda interface": lambda w: w.__cuda_array_interface__,
}


@pytest.mark.parametrize("write", ARRIVES)
def test_what_is_written_arrives(write):
    for kind in KINDS:
        plain, nested = both(kind)
        entry = nested.state_dict()["w"]
        for w in (plain.state_dict()["w"], entry):
            torch.manual_seed(0)
            ARRIVES[write](w)
        assert torch.equal(nested.state_dict()["w"], plain.w), kind
        assert torch.equal(nested.w(Mode.MOTIVATED), plain.w), kind
        assert torch.equal(entry, plain.w), kind
        assert all(block.is_contiguous() for block in nested.w.blocks())


@pytest.mark.parametrize("write", REFUSED)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_what_cannot_arrive_is_refused(write):
    for kind in KINDS:
        plain, nested = both(kind)
        with pytest.raises((RuntimeError, TypeError, ValueError), match=r"nested weight|read-only|not supported"):
            REFUSED[write](nested.state_dict()["w"])
        assert torch.equal(nested.state_dict()["w"], plain.w), kind


def change(state):
    for index, tensor in enumerate(state.values()):
        tensor.view(-1)[index % tensor.numel()] += index
        tensor[..., 0].mul_(0.5)
    torch._foreach_mul_([tensor.detach() for tensor in state.values()], 0.5)


def test_a_network_shows_what_timm_s_shows():
    """The packed queries, keys and values of a ViT, and all its other weights."""
    net = randomised(make("vit"))
    timm_model = net.standalone("motivated")
    for state in (net.state_dict(), net.subnet("motivated").state_dict()):
        change(state)
        change(timm_model.state_dict())
    expected = timm_model.state_dict()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_live_as_an_ordinary_state_dict(kind):
    """Training, another state dict, and views that were taken before do not undo one another."""
    for module in both(kind):
        found = []
        first, second = module.state_dict()["w"], module.state_dict()["w"]
        row = first[5]
        sum(parameter.sum() for parameter in module.parameters()).backward()
        torch.optim.SGD(module.parameters(), lr=0.5).step()
        row.zero_()
        found.append(second.clone())
        second[0] = 3.0
        found.append(first.clone())
        module.load_state_dict({"w": torch.ones(6, 4)})
        found += [first.clone(), row.clone(), torch.tensor(second.tolist()), torch.tensor(first.numpy())]
        module.load_state_dict({"w": first}, assign=False)
        found.append(module.state_dict()["w"].clone())
        if isinstance(module, Plain):
            expected = found
    for there, right in zip(found, expected, strict=True):
        assert torch.equal(there, right)


def test_loading_by_assignment_is_noticed():
    nested = both("groups")[1]
    old = nested.state_dict()["w"]
    nested.load_state_dict({"w": torch.ones(6, 4)}, assign=True)
    old[0, 0] = 5.0
    assert torch.equal(nested.state_dict()["w"], old)
    assert nested.state_dict()["w"].sum() == 23 + 5


def test_reading_leaves_the_blocks_alone():
    nested = both("groups")[1]
    versions = [block._version for block in nested.w.blocks()]
    whole, other = nested.state_dict()["w"], torch.zeros(6, 4)
    other.copy_(whole)
    torch.add(whole, 1, out=other)
    torch.stack([other, whole]).sum()
    assert [block._version for block in nested.w.blocks()] == versions
    whole[0] = 1.0
    assert [block._version for block in nested.w.blocks()] != versions, "autograd must notice it"


def test_a_write_between_forward_and_backward_is_an_error_as_in_torch():
    for module in both("below"):
        whole = module.state_dict(keep_vars=True)["w"]
        loss = whole.square().sum() if isinstance(module, Plain) else sum(b.square().sum() for b in module.parameters())
        module.state_dict()["w"].zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_results_of_its_own_memory_are_plain_tensors():
    nested = both("groups")[1]
    whole, before = nested.state_dict()["w"], nested.w(Mode.MOTIVATED).detach().clone()
    assert type(whole) is type(whole[0]) is type(whole.detach()) is type(whole.data) is WholeTensor
    for result in (whole + 1, whole.clone(), whole.half(), whole.T.contiguous(), whole.sum(), copy.deepcopy(whole)):
        assert type(result) is torch.Tensor
    assert np.array_equal(whole.numpy(), before.numpy())
    assert whole.tolist() == before.tolist()
    assert repr(whole) == repr(before)
    assert whole[0].sum().item() == before[0].sum().item()
    memo = {}
    assert copy.deepcopy([whole, whole], memo)[0] is memo[id(whole)]


def test_files_and_pickles_hold_plain_tensors():
    nested = both("groups")[1]
    state, expected, file = nested.state_dict(), nested.w(Mode.MOTIVATED).detach(), io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    stored = {
        "torch": torch.load(file, weights_only=True)["w"],
        "pickle": pickle.loads(pickle.dumps(state))["w"],
        "safetensors": safetensors.torch.load(safetensors.torch.save(state))["w"],
    }
    for kind, tensor in stored.items():
        assert type(tensor) is torch.Tensor, kind
        assert torch.equal(tensor, expected), kind


def test_a_whole_module_goes_through_safetensors(tmp_path):
    trained, new = both("groups")[1], both("groups")[1]
    safetensors.torch.save_model(trained, tmp_path / "x.safetensors")
    safetensors.torch.load_model(new, tmp_path / "x.safetensors")
    assert torch.equal(new.state_dict()["w"], trained.state_dict()["w"])


def test_collectives_arrive(tmp_path):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        plain, nested = both("groups")
        for module in (plain, nested):
            whole = module.state_dict()["w"]
            dist.all_reduce(whole)
            dist.broadcast(whole[1], 0)
            dist.all_gather([whole[2]], torch.ones(4))
            dist.all_reduce(whole[3].mul_(2), op=dist.ReduceOp.MAX, async_op=True).wait()
        assert torch.equal(nested.state_dict()["w"], plain.w)
    finally:
        dist.destroy_process_group()


def test_in_inference_mode_and_of_networks_made_in_it():
    plain, nested = both("groups")
    with torch.inference_mode():
        taken = nested.state_dict()["w"]
        assert torch.equal(taken, plain.w)
    taken[0] = 1.0
    assert torch.equal(nested.state_dict()["w"][0], torch.ones(4))
    with torch.inference_mode():
        made = Nested(KINDS["groups"])
        whole = made.state_dict()["w"]
        made.load_state_dict(plain.state_dict())
        whole[0].zero_()
        assert torch.equal(made.state_dict()["w"][1:], plain.w[1:])
        assert made.state_dict()["w"][0].sum() == 0


def test_networks_without_values():
    with torch.device("meta"):
        nested = Nested(KINDS["groups"])
    assert nested.state_dict()["w"].zero_().shape == (6, 4)
    with FakeTensorMode():
        fake = Nested(KINDS["groups"])
        assert (fake.state_dict()["w"] + 1).shape == (6, 4)
