"""Gradient checkpointing: the bits of an ordinary step, with less memory for activations."""

import copy

import pytest
import torch
from helpers import batch, make
from interrupted import content, few, train_and_copy
from torch import nn

import nestnet
from nestnet import Mode, Policy, TrainStep
from nestnet.cost.activation_memory import collect_saved_storages
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.resume import resume


def small(family):
    if family == "resnet":
        return nestnet.create_model(
            "resnet8", "resnet14", num_classes=5, drop_path_rate=0.3, drop_rate=0.1, batch_norm="separate",
            zero_init_last=False,
        )  # fmt: skip
    if family == "vit":
        return make(family, drop_path_rate=[0.1, 0.3], proj_drop_rate=0.1, attn_drop_rate=0.1)
    return make(family)


def count_activation_bytes(net, storages):
    """The bytes of what is kept for the backward pass, without the weights, which autograd keeps too."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    return sum(storage.nbytes() for storage in storages if storage.data_ptr() not in own)


@pytest.mark.parametrize("family", ["resnet", "vit", "nest"])
def test_a_step_keeps_its_bits_and_saves_less(family):
    torch.manual_seed(0)
    ordinary = small(family).train()
    checkpointed = copy.deepcopy(ordinary)
    checkpointed.set_grad_checkpointing()
    images, labels = batch()
    for mode in Mode:
        saved_bytes, gradients, statistics, random_numbers = [], [], [], []
        for net in (ordinary, copy.deepcopy(checkpointed)):
            twin = copy.deepcopy(net)  # a copy is checkpointed too
            with collect_saved_storages() as storages:
                twin(images, mode)
            saved_bytes.append(count_activation_bytes(twin, storages))
            twin = copy.deepcopy(net)
            torch.manual_seed(1)
            nn.functional.cross_entropy(twin(images, mode), labels).backward()
            gradients.append({name: parameter.grad for name, parameter in twin.named_parameters()})
            statistics.append(dict(twin.named_buffers()))
            random_numbers.append(torch.rand(3))
        assert saved_bytes[1] < saved_bytes[0] / 2
        for name, gradient in gradients[0].items():
            assert (gradient is None) == (gradients[1][name] is None), name
            assert gradient is None or torch.equal(gradient, gradients[1][name]), name
        assert statistics[0].keys() == statistics[1].keys()
        assert all(torch.equal(buffer, statistics[1][name]) for name, buffer in statistics[0].items())
        assert torch.equal(*random_numbers)
    checkpointed.set_grad_checkpointing(False)
    with collect_saved_storages() as storages:
        checkpointed(images, Mode.MOTIVATED)
    assert count_activation_bytes(checkpointed, storages) == saved_bytes[0]


@pytest.mark.parametrize("family", ["resnet", "nest"])
def test_each_kind_of_step(family):
    """Both networks in parts, distilled, and an extension in which the base is frozen."""
    torch.manual_seed(0)
    states = []
    start = small(family)
    batches = [batch() for _ in range(3)]
    for is_checkpointed in (False, True):
        net = copy.deepcopy(start).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        policy = Policy(trains="both", distillation=0.5)
        step = TrainStep(
            net,
            optimizer,
            nn.functional.cross_entropy,
            accumulate=2,
            policy=policy,
            ema_decay=0.5,
            skip_non_finite=True,
        )
        if is_checkpointed:
            net.set_grad_checkpointing()
        torch.manual_seed(1)
        step(*batches[0], "base")
        step(*batches[1], "motivated")
        step.finish_step(*batches[2])
        states.append(net.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_networks_without_it_are_refused():
    def own(width):
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))

    with pytest.raises(
        ValueError, match=r"^Sequential cannot compute activations again: it needs a method set_grad_ch"
    ):
        nestnet.nest(own(4), own(6)).set_grad_checkpointing()


def test_a_run_may_be_resumed_with_less_memory(tmp_path, monkeypatch):
    run = parse_with_recipe(
        ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "16", "--checkpoint_steps", "2",
         "--model.drop_path_rate", "0.2", "--epochs", "1", "--finish_epochs", "1", "--motivation.name", "periodic",
         "--motivation.period", "2"]
    )  # fmt: skip
    train_and_copy(run, tmp_path / "whole", tmp_path / "killed", monkeypatch, 3)
    used = []
    checkpoint = torch.utils.checkpoint.checkpoint

    def counting(*args, **options):
        used.append(args)
        return checkpoint(*args, **options)

    monkeypatch.setattr("nestnet.nn.checkpointing.checkpoint", counting)
    resume(tmp_path / "killed", ["--grad_checkpointing", "true"], images=few(run))
    assert used
    killed, whole = content(tmp_path / "killed"), content(tmp_path / "whole")
    text, tensors = killed.pop("state")
    assert (text.replace('"grad_checkpointing", true', '"grad_checkpointing", false'), tensors) == whole.pop("state")
    assert killed == whole
