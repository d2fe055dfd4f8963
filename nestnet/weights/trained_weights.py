"""Trained weights of one network: those of a file or folder, checked against the network, or those that timm downloads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from nestnet.data.class_names import imagenet_class_names
from nestnet.models.pairs import has_weights
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.weights.described_source import describe_source, find_file
from nestnet.weights.heads import TrainedHead, head_modules, is_head_key
from nestnet.weights.metadata import pretrained_config
from nestnet.weights.source import HubName, TimmName
from nestnet.weights.weights_file import read_state_dict

COUNTER_SUFFIX = ".num_batches_tracked"
"""End of the names of BatchNorm's counters, which checkpoints from before torch 0.4.1 do not have."""


@dataclass(frozen=True)
class TrainedWeights:
    """Trained weights of one network, as timm loads them.

    Attributes:
        head: what is known about the head.
        overlay: entries of `pretrained_cfg` that make timm load the weights as its own; `None` if it
            downloads them.
        tag: timm's name of the weights that it downloads, among those of the network; empty for its usual ones.
    """

    head: TrainedHead
    overlay: dict[str, Any] | None = None
    tag: str = ""


def find_timm_weights(net: NestedModel, mode: Mode, name: TimmName) -> TrainedWeights:
    """Describe the weights that timm downloads for a network.

    Args:
        net: nested network.
        mode: mode of the network in it.
        name: name of the weights.

    Returns:
        The description, without the weights themselves.

    Raises:
        ValueError: If timm has no such weights, or they are of another network.
    """
    architecture = net.architectures.of(mode)
    if name.architecture not in ("", architecture):
        raise ValueError(
            f"{name} are weights of {name.architecture}, and the {mode} network is {architecture}: name weights of that network"
        )
    if not has_weights(architecture):
        raise ValueError(f"timm has no trained weights for {architecture}; name a file")
    config = pretrained_config(net, mode)
    if name.tag:
        config = _find_tagged_config(architecture, name)
    num_classes = config["num_classes"]
    class_names = None
    # timm does not name the classes of its weights. Those with 1,000 outputs are trained on ImageNet-1k.
    imagenet_names = list(imagenet_class_names().values())
    if num_classes == len(imagenet_names):
        class_names = imagenet_names
    return TrainedWeights(TrainedHead(head_modules(config), num_classes, class_names), tag=name.tag)


def _find_tagged_config(architecture: str, name: TimmName) -> dict[str, Any]:
    """Return the `pretrained_cfg` of weights that have a tag."""
    names = timm.list_pretrained(f"{architecture}.*")
    if str(name) not in names:
        raise ValueError(f"timm has no weights {name}, and no file has this name; timm has {', '.join(names)}")
    config = timm.get_pretrained_cfg(str(name))
    assert config is not None
    return config.to_dict()


def read_weights(net: NestedModel, mode: Mode, source: Path | HubName) -> TrainedWeights:
    """Read the weights of a file or folder, and check that they belong to the network of `mode`.

    Args:
        net: nested network.
        mode: mode of the network in it.
        source: safetensors or torch file, folder of timm's format, or repository of the Hugging Face Hub.

    Returns:
        The weights.

    Raises:
        ValueError: If they are of another network, or cannot be read.
    """
    architecture = net.architectures.of(mode)
    skeleton = net.skeleton(mode)
    config = pretrained_config(net, mode)
    modules = head_modules(config)
    # An export and a folder state their architecture and classes. Any other file is identified by the names of its tensors.
    description = describe_source(source)
    class_names = None
    if description is not None:
        if description.architecture != architecture:
            raise ValueError(
                f"{source} holds {description.architecture}, and the {mode} network is {architecture}: name a file of that "
                "network"
            )
        class_names = description.class_names
    state = read_state_dict(find_file(source))

    expected = skeleton.state_dict()
    _fill_counters(state, expected)
    _check_names(state, expected, modules, f"{source} holds no weights of {architecture}")
    _check_tensors(state, expected, f"{source} holds no weights of {architecture}")

    num_classes = _count_classes(state, modules, net.num_classes)
    # timm needs the sizes in the file to adapt the weights to the network.
    channels = net.in_chans
    first_weight = state.get(f"{config.get('first_conv')}.weight")
    if first_weight is not None:
        channels = first_weight.shape[1]
    overlay = {
        "state_dict": state,
        "num_classes": num_classes,
        "input_size": (channels, *config.get("input_size", (3, 224, 224))[1:]),
        # Without these two entries, timm would prefer its own weights, or load them by a function of the family.
        "source": "",
        "custom_load": False,
    }
    return TrainedWeights(TrainedHead(modules, num_classes, class_names), overlay)


def _fill_counters(state: dict[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Set BatchNorm counters that a checkpoint does not have to zero, as torch does."""
    for key, tensor in expected.items():
        if key.endswith(COUNTER_SUFFIX) and key not in state:
            state[key] = torch.zeros_like(tensor, device="cpu")


def _check_names(
    state: Mapping[str, Any], expected: Mapping[str, Tensor], modules: Sequence[str], refusal: str
) -> None:
    """Raise ValueError unless a state has the expected names. The head, which may be left out, is not compared."""
    expected_keys = {key for key in expected if not is_head_key(key, modules)}
    keys = {key for key in state if not is_head_key(key, modules)}
    if keys == expected_keys:
        return
    # The first name in order, so that the message is always the same.
    key = min(keys ^ expected_keys)
    fault = "absent" if key in expected_keys else "not of it"
    raise ValueError(f"{refusal} by timm's names: {key!r} is {fault}")


def _check_tensors(state: Mapping[str, Any], expected: Mapping[str, Tensor], refusal: str) -> None:
    """Raise ValueError unless all values of a state are tensors with the expected number of dimensions.

    timm adapts sizes to the network, but for a wrong number of dimensions its errors are unhelpful.
    """
    for key, tensor in state.items():
        is_tensor = isinstance(tensor, Tensor)
        if not is_tensor or (key in expected and tensor.ndim != expected[key].ndim):
            raise ValueError(f"{refusal}: {key} is not a tensor with the number of dimensions that it must have")


def _count_classes(state: Mapping[str, Tensor], modules: Sequence[str], default: int) -> int:
    """Return the number of outputs of the head in a state: 0 if it has none, and the default if the head is not known."""
    if not modules:
        return default
    # A distilled ViT has two heads of equal size.
    num_classes = 0
    for module in modules:
        if f"{module}.weight" in state:
            num_classes = state[f"{module}.weight"].shape[0]
    return num_classes
