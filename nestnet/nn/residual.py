"""Residual blocks, and the start at which differential ones change nothing, so that both networks begin equal."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.model import NestedModel


class ResidualBlock(nn.Module, ABC):
    """A block of a `Stage` that adds a branch to its input, or to a projection of it.

    A family whose blocks derive from it can start with `zero_differential_branches`.
    """

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """The layer that ends the branch. The branch is zero if all its parameters, a scale or weight and a shift, are."""

    @property
    @abstractmethod
    def has_identity_shortcut(self) -> bool:
        """Whether the block, in motivated mode, returns its input exactly as it is if the branch is zero."""


@torch.no_grad()
def zero_differential_branches(net: NestedModel) -> None:
    """Start the motivated network as the base: both then compute the same function.

    The last layer of each differential block is set to zero, so that the block returns its input, and what the
    base has of its own in BatchNorm, its running statistics for example, is copied to the motivated network. A
    base that is trained already gives the motivated network its accuracy in this way. The layers that are zero
    have gradients that are not, so the blocks are trained from the first motivated batch on (Goyal et al. 2017,
    arXiv 1706.02677, section 5.1, start all blocks of a ResNet like this).

    Both networks give the same logits to the last bit: in evaluation, and in training without dropout and
    stochastic depth, which draw for each network anew. This holds for networks that differ in depth alone:

    - ResNets, all pairs: a differential block follows a ReLU, so that its input is not negative, and the ReLU
      after the addition does not change it.
    - EfficientNet B0 in B1: there is no activation after the addition.

    It does not hold, and is refused, where the base is narrower: in a ViT, whose LayerNorm is over all channels of
    the mode, and in the other pairs of EfficientNets, whose convolutions sum over more channels.

    Args:
        net: nested network, which is changed in place.

    Raises:
        ValueError: If the networks cannot start equal. Nothing is changed then.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10, zero_init_last=False)
        >>> nestnet.zero_differential_branches(net)
        >>> images = torch.randn(2, 3, 32, 32)
        >>> torch.equal(net(images, "base"), net(images, "motivated"))
        True
    """
    if not net.has_family_layers:
        raise ValueError(
            f"{net.architectures.base} in {net.architectures.motivated}: the blocks of plain modules do not tell which of "
            "their layers ends the branch, so that the networks cannot start equal; set these layers to zero yourself"
        )
    blocks = {path: net.get_submodule(path) for path in net.skipped_blocks()}
    _check_depth_alone_differs(net, blocks)
    for block in blocks.values():
        assert isinstance(block, ResidualBlock)
        for parameter in block.last_layer.parameters():
            parameter.zero_()
    for module in net.modules():
        if isinstance(module, BatchNorm2d):
            module.copy_private_to_motivated()


def _check_depth_alone_differs(net: NestedModel, blocks: dict[str, nn.Module]) -> None:
    """Raise ValueError unless the motivated network is the base and these blocks, each of which can be the identity."""
    names = net.architectures
    rule = "only networks that differ in their number of residual blocks alone can start equal"
    for base_name, placement in net.weights_map.items():
        if not placement.is_whole:
            raise ValueError(f"{names.base} has only a part of {base_name} of {names.motivated}, and {rule}")
    for name, block in blocks.items():
        if not isinstance(block, ResidualBlock) or not block.has_identity_shortcut:
            raise ValueError(f"{name} of {names.motivated} cannot be the identity, and {rule}")
