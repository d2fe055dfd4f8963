"""Freezing the backbone of a nested network: everything but the head."""

from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.parameter import state_dict_name
from nestnet.weights.heads import head_modules, is_head_key
from nestnet.weights.metadata import pretrained_config


def freeze_backbone(net: NestedModel) -> NestedModel:
    """Freeze everything but the head of both networks, so that training fits the head to the features of the backbone.

    Frozen parameters get no gradients. BatchNorm normalises by its running statistics, in training as in
    evaluation, and does not update them: statistics of few images of another kind would change the features that the head
    is fitted to. Dropout and stochastic depth stay as they are.

    Call it before the optimizer is created, so that the optimizer has the parameters of the head alone.

    Args:
        net: nested network, whose head timm knows by name: that of every network of timm's, and the last linear layer
            of a network that is registered with `nestnet.register_network`. It is changed in place.

    Returns:
        The same network.

    Raises:
        ValueError: If it is not known which part of the network is its head.

    Example:
        >>> import nestnet
        >>> net = nestnet.freeze_backbone(nestnet.create_model("resnet20", "resnet32", num_classes=10))
        >>> [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        ['fc.weight', 'fc.bias']
    """
    head = set()
    for mode in Mode:
        modules = head_modules(pretrained_config(net, mode))
        if not modules:
            raise ValueError(
                f"{net.architectures.of(mode)} does not say which of its modules is the head, so that all others cannot be "
                "frozen: give it a pretrained_cfg with the entry classifier, the name of that module"
            )
        for name, parameter in net.subnet(mode).named_parameters():
            if is_head_key(state_dict_name(name), modules):
                head.add(parameter)
    for parameter in net.parameters():
        if parameter not in head:
            parameter.requires_grad_(False)
    # No head of timm's has such a layer within its classifier.
    net.frozen_norms = [module for module in net.modules() if isinstance(module, (BatchNorm2d, _BatchNorm))]
    return net.train(net.training)
