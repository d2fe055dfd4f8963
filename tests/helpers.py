"""What several test files use."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import small_families  # noqa: F401  # registers the networks
import torch
from torch import nn

import nestnet
from nestnet import Mode, NestedModel
from nestnet.nn.batch_norm import BatchNorm2d

FAMILIES = {
    "resnet": ("resnet14", "resnet20", {}),
    "vit": ("vit_one_head", "vit_two_heads", {"img_size": 32}),
    "efficientnet": ("efficientnet_thin", "efficientnet_wide", {}),
    "nest": ("lcnet_035", "lcnet_050", {}),
}
"""One small pair of each family of nestnet's own, and one that `nestnet.nest` nests, for 32 x 32 images."""


def make(family: str, **options) -> NestedModel:
    base, motivated, own = FAMILIES[family]
    return nestnet.create_model(base, motivated, num_classes=5, **own, **options)


@functools.cache
def random_pool() -> torch.Tensor:
    """Values from -1 to 1. Their number is a prime, so that no two rows of a large weight get the same ones."""
    return torch.rand(1048583, generator=torch.Generator().manual_seed(0)) * 2 - 1


def fill_at_random(weight: torch.Tensor, bound: float) -> None:
    """Fill a weight from `-bound` to `bound`. Reading them takes a ninth of drawing as many."""
    pool, flat = random_pool(), weight.view(-1)
    start = int(torch.randint(len(pool), ()))
    filled = 0
    while filled < len(flat):
        part = pool[start : start + len(flat) - filled]
        torch.mul(part, bound, out=flat[filled : filled + len(part)])
        filled += len(part)
        start = 0


@torch.no_grad()
def randomised(net: NestedModel) -> NestedModel:
    """Weights and statistics of usual size at random: zeros and ones would hide a wrong index."""
    for parameter in net.parameters():
        if parameter.ndim > 1:
            fill_at_random(parameter, (3 / parameter[0].numel()) ** 0.5)
        else:
            parameter.uniform_(0.5, 1.0)
    for module in net.modules():
        if isinstance(module, (BatchNorm2d, nn.BatchNorm2d)):
            for name, buffer in module.named_buffers(recurse=False):
                buffer.uniform_(
                    0.8, 1.2
                ) if "var" in name else buffer.zero_() if "batches" in name else buffer.normal_()
    return net


def batch(size: int = 4, pixels: int = 32, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 3, pixels, pixels), torch.randint(classes, (size,))


def train_step(net: nn.Module, optimizer: torch.optim.Optimizer, mode: Mode, pixels: int = 32) -> None:
    images, labels = batch(pixels=pixels)
    loss = nn.functional.cross_entropy(net(images, mode), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def set_cpu_features(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    """Let torch find a CPU with these features of `torch.cpu.get_capabilities` only, such as `avx512_bf16`."""
    found = dict.fromkeys(features, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within, a GPU computes products in float32 (not TF32) and always by the same algorithms."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield
