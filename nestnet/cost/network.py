"""What networks and runs cost: counted forward passes, averages over a run, and the paper's measures of efficiency.

The average cost of a forward pass over a run, ACC/FLOPs and F_Ratio are those of arXiv 2602.21064, section 4 and
supplement 6.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nestnet.conditions.base import expected_fraction, motivated_rate
from nestnet.conditions.by_loss import LossDecrease
from nestnet.models import cifar_resnet
from nestnet.models.registry import ARCHITECTURES, takes_img_size
from nestnet.models.vit import PATCH, ViTArchitecture
from nestnet.text.arguments import choice, is_whole

Convention = Literal["macs", "paper"]
CONVENTIONS: tuple[Convention, ...] = ("macs", "paper")


def forward_cost(
    name: str, *, img_size: int, num_classes: int = 1000, in_chans: int = 3, convention: Convention = "macs"
) -> int:
    """The cost of a forward pass of one image through an architecture of `nestnet.list_models()`, in operations.

    Args:
        name: timm's name of the network.
        img_size: height and width of the image in pixels.
        num_classes: outputs of the head.
        in_chans: channels of the image.
        convention: `"macs"` counts multiply-accumulates of convolutions, linear layers and attention's two matrix products,
            and nothing else: no norms, activations, pooling or additions. `"paper"` is the convention of arXiv 2602.21064
            (tables 8 to 11): for the CIFAR ResNets twice the sum of multiply-accumulates, 2 an output of BatchNorm, 1 an
            output of ReLU and 2 an input of the pooling; for all other families it is `"macs"`. Two of its figures are not
            of the networks as trained: ResNet-50 and 101 have those of the ResNet paper, whose blocks stride in their
            first convolution, and each EfficientNet that of the EfficientNet paper (arXiv 1905.11946, table 2) at a
            resolution of its own from 224 to 456 pixels, although all trained at 224.

    Raises:
        ValueError: for an unknown name or convention, or a size that is no whole number or too small.

    >>> import nestnet.cost
    >>> nestnet.cost.forward_cost("resnet20", img_size=32, num_classes=10)
    40813184
    >>> nestnet.cost.forward_cost("resnet20", img_size=32, num_classes=10, convention="paper")
    82822400
    """
    _check(name, img_size, num_classes, in_chans)
    choice("convention", convention, CONVENTIONS)
    return _forward_cost(name, img_size, num_classes, in_chans, convention)


@dataclass(frozen=True)
class Cost:
    """What it takes to train one network on its own.

    Attributes:
        parameters: how many numbers it learns.
        macs: multiply-accumulates of a forward pass of one image.
        activation_bytes: float32 memory that one more image in a batch keeps from its forward pass, up to the logits, for
            the backward pass: every tensor that autograd saves, whatever shares memory counted once, without dropout.
            What does not grow with the batch (weights, BatchNorm's statistics) is not in it, nor is the loss. Attention is
            taken as fused, which does not keep its matrix.
    """

    parameters: int
    macs: int
    activation_bytes: int


def network_cost(name: str, *, img_size: int, num_classes: int = 1000, in_chans: int = 3) -> Cost:
    """Parameters, multiply-accumulates and activation memory of an architecture; arguments and errors as `forward_cost`.

    >>> import nestnet.cost
    >>> nestnet.cost.network_cost("resnet20", img_size=32, num_classes=10)
    Cost(parameters=272474, macs=40813184, activation_bytes=1569024)
    """
    macs = forward_cost(name, img_size=img_size, num_classes=num_classes, in_chans=in_chans)
    network = _network(name, img_size, num_classes, in_chans)
    # BatchNorm refuses a single image where it has one pixel; the difference leaves out what any batch keeps
    three, two = (_saved_bytes(network, (images, in_chans, img_size, img_size)) for images in (3, 2))
    return Cost(sum(p.numel() for p in network.parameters()), macs, three - two)


def average_cost(base_cost: float, motivated_cost: float, *, motivated_fraction: float) -> float:
    """The average cost of a forward pass over a run that trained the motivated network on that fraction of its batches.

    Raises:
        ValueError: unless the fraction is from 0 to 1.
    """
    if not 0 <= motivated_fraction <= 1:
        raise ValueError(f"motivated_fraction = {motivated_fraction!r}: it must be from 0 to 1, a share of the batches")
    return base_cost + motivated_fraction * (motivated_cost - base_cost)


def forecast(base_cost: float, motivated_cost: float, *, k: int, batches: int | None = None) -> float:
    """The average cost of a forward pass to expect of a run with k falling losses as its condition.

    Args:
        batches: number of batches of an epoch, of which the first k + 1 are never motivated; by default epochs are so long
            that this does not matter.

    Raises:
        ValueError: as `motivated_rate`.

    >>> round(forecast(82.82, 140.13, k=2), 2)  # the paper reports 92.47 for ResNet-20 in ResNet-32 on CIFAR-10
    92.37
    """
    fraction = motivated_rate(k)
    if batches is not None:
        fraction = expected_fraction(LossDecrease(k), batches) or 0.0
    return average_cost(base_cost, motivated_cost, motivated_fraction=fraction)


Point = tuple[float, float]
"""The accuracy and the average forward cost of a network."""


def flops_efficiency(nested: Point, base: Point) -> float:
    """ACC/FLOPs: accuracy gained over the base trained alone for each operation that a forward pass costs more.

    Args:
        nested: accuracy and cost of what is judged: the base trained with motivation, or the motivated network trained alone.
        base: of the base trained alone.

    Raises:
        ValueError: if both cost the same.

    >>> round(flops_efficiency((94.10, 197.86), (93.93, 197.44)), 4)
    0.4048
    """
    (accuracy, cost), (base_accuracy, base_cost) = nested, base
    if cost == base_cost:
        raise ValueError(f"cost = {cost:g} of both networks: ACC/FLOPs needs two costs that differ")
    return (accuracy - base_accuracy) / (cost - base_cost)


def flops_ratio(*, nested: Point, base: Point, motivated: Point) -> float:
    """F_Ratio: how many times the ACC/FLOPs of the motivated network trained alone the nested training reaches.

    Args:
        nested: accuracy and cost of the base trained with motivation.
        base: of the base trained alone.
        motivated: of the motivated network trained alone.

    Raises:
        ValueError: if the base costs the same as either of the others, or is as accurate as the motivated network.
    """
    gain = flops_efficiency(motivated, base)
    if gain == 0:
        raise ValueError(
            f"accuracy = {base[0]:g} of both base and motivated: F_Ratio needs a motivated network that differs in accuracy"
        )
    return flops_efficiency(nested, base) / gain


def _check(name: str, img_size: int, num_classes: int, in_chans: int) -> None:
    if name not in ARCHITECTURES:
        raise ValueError(f"name = {name!r} is no known architecture; known are {', '.join(ARCHITECTURES)}")
    for field, value in {"img_size": img_size, "num_classes": num_classes, "in_chans": in_chans}.items():
        if not is_whole(value, 1):
            raise ValueError(f"{field} = {value!r}: it must be a whole number of at least 1")
    if isinstance(ARCHITECTURES[name], ViTArchitecture) and img_size < PATCH:
        raise ValueError(f"img_size = {img_size}: {name} needs at least one patch of {PATCH} pixels")


def _network(name: str, img_size: int, num_classes: int, in_chans: int) -> nn.Module:
    """timm's model without values: none are needed to count, and drawing them would disturb a run's random numbers."""
    options: dict[str, Any] = {"img_size": img_size} if takes_img_size(name) else {}
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **options)
    return network.to_empty(device="cpu")


@cache
def _forward_cost(name: str, img_size: int, num_classes: int, in_chans: int, convention: Convention) -> int:
    with warnings.catch_warnings():
        # of losses that fvcore scripts as it is imported, and that nothing here uses
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.jit_handles import (
            batchnorm_flop_jit,
            conv_flop_jit,
            elementwise_flop_counter,
            linear_flop_jit,
            matmul_flop_jit,
        )
    handles: dict[str, Any] = {
        "aten::_convolution": conv_flop_jit,
        "aten::linear": linear_flop_jit,
        "aten::matmul": matmul_flop_jit,  # attention, where timm does not take the fused one
        "aten::scaled_dot_product_attention": _attention_macs,
    }
    factor = 1
    if convention == "paper" and name in cifar_resnet.default_cfgs:
        factor = 2
        handles |= {
            "aten::batch_norm": batchnorm_flop_jit,  # 2 an output
            "aten::relu": elementwise_flop_counter(0, 1),
            "aten::relu_": elementwise_flop_counter(0, 1),
            "aten::adaptive_avg_pool2d": elementwise_flop_counter(2, 0),
        }
    network = _network(name, img_size, num_classes, in_chans).eval()
    analysis = FlopCountAnalysis(network, torch.empty(1, in_chans, img_size, img_size))
    analysis.clear_op_handles().set_op_handle(**handles)  # fvcore's own count norms and pooling
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        return factor * int(analysis.total())


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Queries `[..., N, d]` times keys `[..., M, d]`, and the weights `[..., N, M]` times values `[..., M, D]`."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _saved_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Memory of all tensors that a forward pass of images of this shape saves for backward, in training mode."""
    # fake tensors have the shapes and the operations of real ones on a CPU, and neither memory nor arithmetic
    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad(), saved_for_backward() as saved:
        network.train()(torch.empty(shape))
    return sum(storage.nbytes() for storage in saved)


@contextmanager
def saved_for_backward() -> Iterator[set[torch.UntypedStorage]]:
    """Collect the memory of all tensors that autograd saves within; no backward pass can follow.

    The graph itself keeps nothing: a tensor in its own graph would never be freed.
    """
    saved: set[torch.UntypedStorage] = set()

    def keep(tensor: torch.Tensor) -> None:
        saved.add(tensor.untyped_storage())

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing):
        yield saved
