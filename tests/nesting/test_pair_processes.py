"""Two processes that train a pair against one: the same losses, weights and statistics."""

import copy
import os
import pickle

import pytest
import torch
import torch.distributed as dist
from pairs import CLASSES, PAIRS
from timm.layers import BatchNormAct2d
from torch import nn
from two_processes import run_in_two_processes

import nestnet
from nestnet import Mode, TrainStep, synchronise_batch_norm
from nestnet.distributed.process_group import ProcessGroup
from nestnet.distributed.rendezvous import init_process_group

STEPS = 12


class Signal(nn.Module):
    """A network with BatchNorm over sequences and over vectors, without scales and without a momentum."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv1d(3, width, 3)
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.last = nn.BatchNorm1d(width, momentum=None)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.last(self.norm(self.conv(x.flatten(2))).relu().mean(2)))


class Activated(nn.Module):
    """A network with timm's norm, which has an activation and a forward pass of its own."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 4, stride=4)
        self.norm = BatchNormAct2d(width, act_layer=nn.GELU)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3)))


KINDS = {
    "own cnn": lambda: nestnet.nest(*PAIRS["own cnn"].make(), check=False),
    "shared": lambda: nestnet.nest(*PAIRS["own cnn"].make(), check=False, batch_norm="shared"),
    "separate": lambda: nestnet.nest(*PAIRS["own cnn"].make(), check=False, batch_norm="separate"),
    "compiled": lambda: nestnet.nest(*PAIRS["own cnn"].make(), check=False),
    "activated": lambda: nestnet.nest(Activated(4), Activated(6), check=False),
    "signal": lambda: nestnet.nest(Signal(4), Signal(6), check=False),
    "deit3": lambda: nestnet.nest(*PAIRS["deit3"].make(), check=False),
}


def trained(kind, process_group):
    torch.manual_seed(0)
    net = KINDS[kind]().train()
    plain = [type(module) for module in net.standalone("motivated").modules()]
    if process_group.is_initialized:
        assert synchronise_batch_norm(net) is net
        # Networks alone are plain, and copies of the nested one are synchronised too.
        assert [type(module) for module in net.standalone("motivated").modules()] == plain
        net = pickle.loads(pickle.dumps(copy.deepcopy(net)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    compiler = "aot_eager" if kind == "compiled" and process_group.is_initialized else None
    step = TrainStep(net, optimizer, nn.functional.cross_entropy, process_group=process_group, compile=compiler)
    images, labels = torch.randn(STEPS, 8, 3, 32, 32), torch.randint(CLASSES, (STEPS, 8))
    share = process_group.batch_slice(8)
    losses = []
    for number in range(STEPS):
        mode = list(Mode)[number % 3 > 0]
        losses.append(step(images[number, share], labels[number, share], mode).loss())
    return {"losses": losses, "state": {name: tensor.clone() for name, tensor in net.state_dict().items()}}


def in_a_process(rank, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    process_group = init_process_group(torch.device("cpu"))
    torch.save({kind: trained(kind, process_group) for kind in KINDS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_in_two_processes(in_a_process, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_a_pair_as_one(kind, two):
    ours = trained(kind, ProcessGroup())
    theirs, others = (found[kind] for found in two)
    assert theirs["losses"] == others["losses"], "the same bits in both"
    assert theirs["losses"] == pytest.approx(ours["losses"], abs=1e-4)
    for name, tensor in theirs["state"].items():
        assert torch.equal(tensor, others["state"][name]), name
        torch.testing.assert_close(tensor, ours["state"][name], rtol=1e-3, atol=1e-4, msg=name)


def test_evaluation_and_one_network_alone_need_no_processes():
    net = synchronise_batch_norm(KINDS["own cnn"]())
    images, _ = PAIRS["own cnn"].batch()
    for mode in Mode:
        alone = net.standalone(mode).eval()
        assert torch.equal(net.eval()(images, mode), alone(images))
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        net.train()(images, "base")
