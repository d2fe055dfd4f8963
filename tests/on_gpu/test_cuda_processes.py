"""A process group of one: all that several processes send goes through NCCL on a GPU, and must change nothing.

Groups of two are tested in `tests/test_processes.py`, on two GPUs where there are two.
"""

import pytest
import torch
import torch.distributed as dist
from helpers import make
from together import everything, reduced_bytes

from nestnet import Mode, config
from nestnet.checkpoints import Checkpoints
from nestnet.processes import Processes, join
from nestnet.training import Trainer


@pytest.fixture
def processes(device, tmp_path):
    store = dist.FileStore(str(tmp_path / "meeting"), 1)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield join(device)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_one_process_in_a_group_trains_as_one_without(processes, device):
    assert processes == Processes(joined=True)
    found = everything(processes, device)
    expected = everything(Processes(), device)
    for kind in ("vit", "clipped", "resnet"):
        ours, theirs = found[kind], expected[kind]
        assert ours["modes"] == theirs["modes"]
        assert set(ours["modes"]) == set(Mode)
        assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
        for name, tensor in ours["weights"].items():
            torch.testing.assert_close(tensor, theirs["weights"][name], rtol=1e-3, atol=1e-4, msg=name)
    assert found["joint"]["loss"] == pytest.approx(expected["joint"]["loss"], abs=1e-6)
    for ours, theirs in zip(found["joint"]["gradients"], expected["joint"]["gradients"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for name, tensor in found["normalised"].items():
        torch.testing.assert_close(tensor, expected["normalised"][name], rtol=1e-5, atol=1e-5, msg=name)


def test_a_mode_reduces_its_own_gradients_and_no_others(processes, device):
    net = make("vit")
    for mode, count in reduced_bytes(device).items():
        assert count == sum(p.nbytes for p in net.subnet(mode).parameters())


def test_what_is_told_arrives_on_the_cpu(processes, device):
    """A tensor of a GPU would be unpickled on that very GPU, in every process."""
    told = {"statistics": [torch.arange(3.0, device=device)], "words": ("a", 1)}
    for found in (processes.from_first(told), *processes.from_all(told)):
        assert found["words"] == ("a", 1)
        (tensor,) = found["statistics"]
        assert tensor.device.type == "cpu"
        assert tensor.tolist() == [0, 1, 2]
    total = processes.total(torch.ones(2, device=device))
    assert total.device.type == device.type
    assert processes.average(total).tolist() == [1, 1]


def test_a_run_and_its_checkpoint(processes, device, tmp_path):
    arguments = ["--data.batch_size", "256", "--epochs", "1", "--ema_decay", "0.5", "--device", device.type]
    run = config.parse([*arguments, "--run_dir", str(tmp_path / "run")])
    path = Trainer(run).fit()
    state = Checkpoints(path / "checkpoints").newest()
    assert len(state["processes"]) == 1
    assert state["steps_done"] == 1437 // 256
