"""The alternative: slicing in the forward pass, as in elastic networks, made to compute the same as a nested network.

    python benchmarks/slicing.py [--steps 6] [--device cpu] [--case resnet20:resnet32:32:8 ...]

Once-for-All, slimmable networks and AutoFormer hold the parameters of the biggest network in full size, and the
forward pass of a smaller network uses their first entries. Their gradients then have full size and are zero outside
the slice, so an ordinary optimizer's momentum and weight decay would change entries that the smaller network does not
use; a mask in the base's step prevents this. Parameters that the base does not use at all have no gradient, as in a
nested network, and need no mask: in networks that differ only in depth, such as the ResNets, nothing is sliced.

The program trains a nested network and the alternative on the same batches in mixed modes, prints the largest
differences between their weights and buffers, and fails if one exceeds rounding. `step_time.py` and `switching.py`
time both.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import Case, add_common_options, sgd, show, step, write
from torch import Tensor, nn
from torch.func import functional_call

from nestnet import Mode, NestedModel
from nestnet.nn.placement import Placement

CASES = [
    Case("resnet20", "resnet32", 32, 8),
    Case("resnet50", "resnet101", 32, 8),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 32, 8),
    Case("efficientnet_b0", "efficientnet_b1", 64, 8),
]
MODES = [Mode.BASE, Mode.MOTIVATED, Mode.MOTIVATED, Mode.BASE, Mode.BASE, Mode.MOTIVATED]
TOLERANCES = {"cpu": 1e-5, "cuda": 1e-2}
"""Largest difference in a tensor relative to its largest entry; CUDA sums gradients in no fixed order."""


class SlicingNetwork:
    """timm's motivated network, and timm's base network with slices of its parameters.

    Attributes:
        motivated: ordinary timm model, which holds all parameters.
        sliced: parameters of which the base uses a part, with that part, by the base's names.
    """

    def __init__(self, net: NestedModel) -> None:
        self.motivated = net.standalone(Mode.MOTIVATED)
        parameters, buffers = dict(self.motivated.named_parameters()), dict(self.motivated.named_buffers())
        self.sliced: dict[str, tuple[nn.Parameter, Placement]] = {}
        own, bound = net.subnet(Mode.BASE).state_dict(), dict[str, Tensor]()
        for name, placement in net.weights_map.items():
            if placement.private:  # the base's own running statistics
                bound[name] = own[name].clone()
            elif placement.name in buffers:  # a view, which the base updates in place
                bound[name] = buffers[placement.name][placement.index]
            elif placement.is_whole:
                bound[name] = parameters[placement.name]
            else:
                self.sliced[name] = parameters[placement.name], placement
        self.base = net.standalone(Mode.BASE)
        self.base.load_state_dict(bound, strict=False, assign=True)

    def forward(self, mode: Mode) -> Callable[[Tensor], Tensor]:
        """Return the forward pass of a mode, from `[B, C, H, W]` to `[B, K]`."""
        return self.motivated if mode is Mode.MOTIVATED else self.forward_base

    def forward_base(self, images: Tensor) -> Tensor:
        slices = {name: part(whole, placement) for name, (whole, placement) in self.sliced.items()}
        return functional_call(self.base, slices, (images,))


def part(whole: Tensor, placement: Placement) -> Tensor:
    """Return the base's part of a tensor: a view or, for groups of rows, one copy, which is faster than indexing by row."""
    if placement.groups == 1:
        return whole[placement.index]
    base_rows, _ = placement.rows.split(whole, 0)
    columns = tuple(slice(size) for size in placement.base_shape[1:])
    return base_rows[(slice(None), *columns)]


class MaskedSGD:
    """SGD with momentum and weight decay whose base step does not change entries outside the slices.

    The masks are created once. The base step of sliced parameters takes as many passes over memory as SGD's own.

    Args:
        optimizer: optimizer of the parameters of `network.motivated`, in one group, without dampening or Nesterov's momentum.
    """

    def __init__(self, optimizer: torch.optim.SGD, network: SlicingNetwork) -> None:
        self.optimizer = optimizer
        (self.group,) = optimizer.param_groups
        self.parameters: list[Tensor] = [whole for whole, _ in network.sliced.values()]
        self.masks = [torch.zeros_like(whole) for whole in self.parameters]
        for mask, (_, placement) in zip(self.masks, network.sliced.values(), strict=True):
            mask[placement.index] = 1
        self.decays = [1 - (1 - self.group["momentum"]) * mask for mask in self.masks]
        self.momenta = [torch.zeros_like(whole) for whole in self.parameters]
        for whole, momentum in zip(self.parameters, self.momenta, strict=True):
            optimizer.state[whole]["momentum_buffer"] = momentum  # without dampening, zeros are equivalent to no buffer

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self, mode: Mode) -> None:
        if mode is Mode.MOTIVATED or not self.parameters:
            self.optimizer.step()
            return
        gradients = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        self.optimizer.step()  # steps the parameters that the base uses as a whole
        self._masked_step(gradients)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def _masked_step(self, gradients: list[Any]) -> None:
        """Step the sliced parameters, whose gradients are already zero outside the slices."""
        torch._foreach_addcmul_(gradients, self.parameters, self.masks, value=self.group["weight_decay"])
        torch._foreach_mul_(self.momenta, self.decays)
        torch._foreach_add_(self.momenta, gradients)
        torch._foreach_addcmul_(self.parameters, self.momenta, self.masks, value=-self.group["lr"])


def differences(case: Case, steps: int, device: torch.device) -> dict[str, float]:
    """Return the differences of weights and buffers, relative to each tensor's largest entry, after some steps."""
    torch.manual_seed(0)
    net = case.nested(device)
    network = SlicingNetwork(net)
    theirs, ours = MaskedSGD(sgd(network.motivated), network), sgd(net)
    for number in range(steps):
        mode, (images, labels) = MODES[number % len(MODES)], case.batch(device)
        loss = nn.functional.cross_entropy(network.forward(mode)(images), labels)
        theirs.zero_grad()
        loss.backward()
        theirs.step(mode)
        step(net.subnet(mode), ours, images, labels)
    found = {"weights": 0.0, "buffers": 0.0}
    buffers = [(network.motivated, net.subnet(Mode.MOTIVATED)), (network.base, net.subnet(Mode.BASE))]
    expected = net.subnet(Mode.MOTIVATED).state_dict()
    for name, parameter in network.motivated.named_parameters():
        found["weights"] = max(found["weights"], difference(parameter, expected[name]))
    for model, subnet in buffers:
        states = subnet.state_dict()
        for name, buffer in model.named_buffers():
            found["buffers"] = max(found["buffers"], difference(buffer, states[name]))
    return found


def difference(ours: Tensor, theirs: Tensor) -> float:
    gap, scale = (ours - theirs).abs().max(), theirs.abs().max()
    return (gap / scale).item() if scale else gap.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=len(MODES))
    add_common_options(parser, CASES)
    options = parser.parse_args()

    results = [{"case": vars(case), **differences(case, options.steps, options.device)} for case in options.case]
    rows = [
        [case.name, f"{found['weights']:.1e}", f"{found['buffers']:.1e}"]
        for case, found in zip(options.case, results, strict=True)
    ]
    show(
        f"largest relative differences, slicing against nested, after {options.steps} steps",
        ["networks and batch", "weights", "buffers"],
        rows,
    )
    print(write("slicing", {"steps": options.steps, "results": results}, options.output, options.device))
    tolerance = TOLERANCES[options.device.type]
    if any(max(found["weights"], found["buffers"]) > tolerance for found in results):
        raise SystemExit(f"a difference is above {tolerance:.0e}, which is more than rounding")


if __name__ == "__main__":
    main()
