"""A process group of one: all that several processes send goes through NCCL on a GPU, and must change nothing.

Groups of two are tested in `tests/distributed/test_process_group.py`, on two GPUs where there are two.
"""

import pytest
import torch
import torch.distributed as dist
from helpers import make
from together import everything, reduced_bytes

from nestnet import Mode
from nestnet.distributed.process_group import ProcessGroup
from nestnet.distributed.rendezvous import init_process_group
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.checkpoints import Checkpoints
from nestnet.training.trainer import Trainer


@pytest.fixture
def process_group(device, tmp_path):
    store = dist.FileStore(str(tmp_path / "meeting"), 1)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield init_process_group(device)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_one_process_in_a_group_trains_as_one_without(process_group, device):
    assert process_group == ProcessGroup(is_initialized=True)
    found = everything(process_group, device)
    expected = everything(ProcessGroup(), device)
    trained = {kind: values for kind, values in found.items() if "weights" in values}
    assert len(trained) == 12
    for kind, ours in trained.items():
        theirs = expected[kind]
        if "modes" in ours:
            assert ours["modes"] == theirs["modes"]
            assert set(ours["modes"]) == set(Mode)
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
        for name, tensor in ours["weights"].items():
            torch.testing.assert_close(tensor, theirs["weights"][name], rtol=1e-3, atol=1e-4, msg=name)
    for kind in ("both", "kept apart"):
        assert found[kind]["loss"] == pytest.approx(expected[kind]["loss"], abs=1e-6)
        for ours, theirs in zip(found[kind]["gradients"], expected["both"]["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert found["kept apart"]["agreement"] == pytest.approx(expected["kept apart"]["agreement"], abs=1e-5)
    for kind in ("normalised", "normalised in float64"):
        for name, tensor in found[kind].items():
            torch.testing.assert_close(tensor, expected[kind][name], rtol=1e-5, atol=1e-5, msg=name)


def test_a_mode_reduces_its_own_gradients_and_no_others(process_group, device):
    net = make("vit")
    for mode, count in reduced_bytes(device).items():
        assert count == sum(p.nbytes for p in net.subnet(mode).parameters())


def test_what_is_told_arrives_on_the_cpu(process_group, device):
    """A tensor of a GPU would be unpickled on that very GPU, in every process."""
    told = {"statistics": [torch.arange(3.0, device=device)], "words": ("a", 1)}
    for found in (process_group.broadcast_object(told), *process_group.all_gather_object(told)):
        assert found["words"] == ("a", 1)
        (tensor,) = found["statistics"]
        assert tensor.device.type == "cpu"
        assert tensor.tolist() == [0, 1, 2]
    total = process_group.all_reduce_sum(torch.ones(2, device=device))
    assert total.device.type == device.type
    assert process_group.all_reduce_mean(total).tolist() == [1, 1]


def test_a_run_and_its_checkpoint(process_group, device, tmp_path):
    arguments = ["--data.batch_size", "256", "--epochs", "1", "--ema_decay", "0.5", "--device", device.type]
    run = parse_with_recipe([*arguments, "--run_dir", str(tmp_path / "run")])
    path = Trainer(run).fit()
    state = Checkpoints(path / "checkpoints").newest()
    assert len(state["processes"]) == 1
    assert state["steps_done"] == 1437 // 256
