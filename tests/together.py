"""What several processes do together, and one alone: each function returns what must be the same."""

import pytest
import torch
import torch.distributed as dist
from helpers import make, randomised, set_cpu_features
from torch import nn

import nestnet
from nestnet import LossDecrease, Mode, Policy, TrainStep, synchronise_batch_norm
from nestnet.config.schema import Config
from nestnet.config.schema_sections import DataConfig, LossConfig, OptimizerConfig
from nestnet.distributed.gradients import distributed_forward
from nestnet.nn.sync_batch_norm import sync_batch_norm
from nestnet.optim.factory import create_optimizer
from nestnet.precision import choose_precision
from nestnet.training.objective import Objective

STEPS = 16
BOTH = Policy(trains="both", distillation=0.5, motivated_loss_weight=0.7)
FINE_TUNING = {"decayed": {}, "checkpointed": {"grad_checkpointing": True}, "frozen": {"freeze": True}}


def trained(family, process_group, device, lr, batch_norm="private", loss=nn.functional.cross_entropy, **settings):
    """The modes and losses of training on fixed batches, with switches."""
    torch.manual_seed(0)
    net = make(family, batch_norm=batch_norm).to(device)
    if family != "vit" and process_group.is_initialized:
        synchronise_batch_norm(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    step = TrainStep(net, optimizer, loss, process_group=process_group, **settings)
    images, labels = torch.randn(STEPS, 8, 3, 32, 32).to(device), torch.randint(5, (STEPS, 8)).to(device)
    condition, modes, losses = LossDecrease(k=1), [], []
    for number in range(STEPS):
        share = process_group.batch_slice(8)
        modes.append(condition.mode)
        losses.append(step(images[number, share], labels[number, share], condition.mode).loss())
        condition.update(losses[-1])
    return {"modes": modes, "losses": losses, "weights": net.state_dict()}


def weighted(process_group, device):
    """Training with classes of different weights, in two parts, with clipping."""
    loss = Objective(DataConfig(), LossConfig(), 5, Mode.BASE, torch.tensor([0.1, 0.4, 0.5, 1.0, 3.0], device=device))
    return trained("vit", process_group, device, 1e-3, loss=loss, accumulate=2, clip_grad=0.5, gradient_norm=True)


def own_images(process_group):
    """Which of 8 images a process has, so that those of all in its first part are the first part of one process alone."""
    if process_group.size == 1:
        return torch.arange(8)
    order = torch.tensor([0, 1, 4, 5, 2, 3, 6, 7])
    return order[process_group.batch_slice(8)]


def both(process_group, device, **settings):
    """The gradients of one step of both modes, in two parts, and their agreement where it is measured."""
    torch.manual_seed(0)
    net = make("vit").to(device)
    step = TrainStep(
        net,
        torch.optim.SGD(net.parameters(), lr=0.0),
        nn.functional.cross_entropy,
        accumulate=2,
        policy=BOTH,
        process_group=process_group,
        **settings,
    )
    images, labels = torch.randn(8, 3, 32, 32).to(device), torch.randint(5, (8,)).to(device)
    own = own_images(process_group)
    outcome = step(images[own], labels[own], "motivated")
    agreement = outcome.gradient_agreement() if settings else None
    return {"loss": outcome.loss(), "agreement": agreement, "gradients": [p.grad for p in net.parameters()]}


def finished(process_group, device):
    """Training of both networks and then of what the base does not have, in two parts each, and both once more."""
    torch.manual_seed(0)
    net = make("vit").to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    step = TrainStep(net, optimizer, nn.functional.cross_entropy, accumulate=2, process_group=process_group)
    images, labels = torch.randn(8, 8, 3, 32, 32).to(device), torch.randint(5, (8, 8)).to(device)
    share, losses = process_group.batch_slice(8), []
    base = list(net.subnet("base").parameters())
    for number, mode in enumerate(["base", "motivated", "finish", "finish", "base", "finish", "motivated", "base"]):
        batch = images[number, share], labels[number, share]
        before = [parameter.clone() for parameter in base]
        losses.append((step.finish_step(*batch) if mode == "finish" else step(*batch, mode)).loss())
        stood_still = all(map(torch.equal, base, before))
        assert stood_still == (mode == "finish")
    return {"losses": losses, "weights": net.state_dict()}


def fine_tuned(family, process_group, device, *, freeze=False, grad_checkpointing=False):
    """Training of the head alone, or with learning rates that decay from layer to layer, in two parts."""
    torch.manual_seed(0)
    # Parts of four images: BatchNorm of so few makes differences a hundred times larger in each step.
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5) if family == "resnet" else make(family)
    net = randomised(net).double().to(device)
    layer_decay = None
    if freeze:
        nestnet.freeze_backbone(net)
    else:
        layer_decay = 0.75
        if process_group.is_initialized:
            synchronise_batch_norm(net)
    if grad_checkpointing:
        net.set_grad_checkpointing()
    settings = OptimizerConfig("sgd", lr=0.01, weight_decay=5e-4, layer_decay=layer_decay)
    optimizer = create_optimizer(net, Config(optimizer=settings))
    step = TrainStep(net, optimizer, nn.functional.cross_entropy, accumulate=2, process_group=process_group)
    images, labels = torch.randn(3, 8, 3, 32, 32).double().to(device), torch.randint(5, (3, 8)).to(device)
    own = own_images(process_group)
    statistics = {name: buffer.clone() for name, buffer in net.named_buffers() if "running" in name}
    losses = []
    for number, mode in enumerate(["base", "motivated", "base"]):
        losses.append(step(images[number, own], labels[number, own], mode).loss())
    moved = {name for name, before in statistics.items() if not torch.equal(net.get_buffer(name), before)}
    assert moved == (set() if freeze else statistics.keys())
    return {"losses": losses, "weights": net.state_dict()}


def normalised(process_group, device, dtype):
    """BatchNorm of all images: the output for a process's own images, gradients, and running statistics."""
    torch.manual_seed(0)
    kind = {"device": device, "dtype": dtype}
    x = (torch.randn(8, 3, 5, 5) * 3 + 20).to(**kind)
    weight, bias, out = torch.rand(3).to(**kind), torch.randn(3).to(**kind), torch.randn(8, 3, 5, 5).to(**kind)
    mean, var, share = torch.zeros(3, **kind), torch.ones(3, **kind), process_group.batch_slice(8)
    own = x[share].clone().requires_grad_()
    weight.requires_grad_()
    bias.requires_grad_()
    if process_group.is_initialized:
        y = sync_batch_norm(own, mean, var, weight, bias, 0.1, 1e-5)
    else:
        y = nn.functional.batch_norm(own, mean, var, weight, bias, True, 0.1, 1e-5)
    (y * out[share]).sum().backward()
    summed = [process_group.all_reduce_sum(tensor.grad) for tensor in (weight, bias)]
    return {"y": y.detach(), "dx": own.grad, "summed": summed, "mean": mean, "var": var}


def reduced_bytes(device):
    """What travels in a backward pass of each mode."""
    net, counts = make("vit").to(device), {}
    for mode in Mode:
        parallel, seen = distributed_forward(net, mode), []

        def hook(seen, bucket):
            seen.append(bucket.buffer().nbytes)
            return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])

        parallel.register_comm_hook(seen, hook)
        parallel(torch.randn(2, 3, 32, 32, device=device)).sum().backward()
        counts[mode] = sum(seen)
    return counts


def unlike_precisions(process_group):
    """What `auto` stands for where the CPU of the first process alone has bfloat16, and where all have it."""
    found = []
    for has_bfloat16 in (process_group.is_first, True):
        with pytest.MonkeyPatch.context() as patch:
            set_cpu_features(patch, *["avx512_bf16"] * has_bfloat16)
            found.append(choose_precision("auto", torch.device("cpu"), process_group))
    return found


def everything(process_group, device):
    return {
        "vit": trained("vit", process_group, device, 1e-3),
        "weighted and clipped": weighted(process_group, device),
        "resnet": trained("resnet", process_group, device, 0.02),
        "separate": trained("resnet", process_group, device, 0.02, batch_norm="separate"),
        "both trained": trained("resnet", process_group, device, 0.02, policy=BOTH),
        "both": both(process_group, device),
        "kept apart": both(process_group, device, gradient_agreement=True),
        "finished": finished(process_group, device),
        "normalised": normalised(process_group, device, torch.float32),
        "normalised in float64": normalised(process_group, device, torch.float64),
    } | {
        (family, kind): fine_tuned(family, process_group, device, **settings)
        for family in ("resnet", "nest")
        for kind, settings in FINE_TUNING.items()
    }
