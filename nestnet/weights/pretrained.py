"""Starting a nested network, or one of its subnets, from trained weights.

timm adapts the weights to the network: the first convolution to another number of channels, and the position
embedding to another image size. The head is loaded if it is for the same classes; otherwise it keeps its
initial values.
"""

import os
from collections.abc import Sequence

import timm
from torch import nn

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.weights.heads import LEFT_OUT, HeadMatch, is_head_key, match_head
from nestnet.weights.hub import explain_hub_error
from nestnet.weights.source import TimmName, parse_source
from nestnet.weights.trained_weights import TrainedWeights, find_timm_weights, read_weights


def load_weights(
    net: NestedModel, mode: Mode | str, source: str | os.PathLike[str], *, class_names: Sequence[str] | None = None
) -> None:
    """Load the subnet of `mode` from an export, from another checkpoint of its architecture, or from timm's weights.

    Parameters that the mode does not use keep their values. When motivated weights are loaded, what the base has of
    its own in BatchNorm starts from theirs. Loading the two exports of a run, first the motivated one and then the
    base's, restores its nested network.

    The head is used if it has `net.num_classes` outputs. With `class_names` it is matched by name: an export
    whose classes have the same names, in any order, provides the output of each class, and the head of any
    other file is left out.

    Args:
        net: nested network that gets the weights.
        mode: subnet that the weights are for, `"base"` or `"motivated"`.
        source: safetensors or torch file with timm's names; folder of timm's format (`"local-dir:FOLDER"` or its path);
            `"timm"` for the weights that timm downloads, or the name of some of them, such as `"resnet18.a1_in1k"`; or
            `"hf-hub:OWNER/NAME"`, a repository of the Hugging Face Hub. Nothing in a file is executed.
        class_names: names of the network's classes, in order; by default they are assumed to be those of the
            file.

    Raises:
        ValueError: If the file cannot be read or is not of this architecture.

    Example:
        >>> import nestnet
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> nestnet.load_weights(net, "base", "absent.safetensors")
        Traceback (most recent call last):
            ...
        ValueError: absent.safetensors cannot be read as weights: there is no such file
    """
    load_subnet(net, mode, source, class_names=class_names)


def load_subnet(
    net: NestedModel,
    mode: Mode | str,
    source: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    has_usual_classes: bool = False,
    unchanged: bool = False,
) -> str | None:
    """Load weights as `load_weights` does, and return a remark about the head.

    Args:
        net: as for `load_weights`.
        mode: as for `load_weights`.
        source: as for `load_weights`.
        class_names: as for `load_weights`.
        has_usual_classes: whether the classes are those of a public data set with a standard order. A file
            that does not name its classes is then assumed to belong to that data set if it has as many classes.
        unchanged: whether the network must be that of the source, with its head and all its sizes.

    Returns:
        The remark, as the end of a sentence about the file; `None` if the head is used as expected.

    Raises:
        ValueError: As for `load_weights`, or if the network must be that of the source and is not.
    """
    mode = Mode(mode)
    weights = _find_weights(net, mode, source)
    match = match_head(weights.head, net.num_classes, class_names, has_usual_classes=has_usual_classes)
    if unchanged:
        _check_unchanged(net, mode, weights, match, source)
    model = _create_pretrained(net, mode, weights, source)

    # Motivated weights are loaded into the whole network: they also initialise what the base has of its own.
    target = net if mode is Mode.MOTIVATED else net.subnet(mode)
    loaded = model.state_dict()
    current = target.state_dict()
    head_keys = [key for key in loaded if is_head_key(key, weights.head.modules)]
    _check_head_is_known(head_keys, match, net, mode, source)
    # timm has loaded or dropped the head as a whole; select its outputs here.
    for key in head_keys:
        if match.rows is None:
            loaded[key] = current[key].clone()
        else:
            loaded[key] = loaded[key][match.rows]
    target.load_state_dict(loaded)
    return match.remark


def _find_weights(net: NestedModel, mode: Mode, source: str | os.PathLike[str]) -> TrainedWeights:
    """Return the weights that `source` names."""
    parsed = parse_source(source)
    if isinstance(parsed, TimmName):
        return find_timm_weights(net, mode, parsed)
    return read_weights(net, mode, parsed)


def _create_pretrained(
    net: NestedModel, mode: Mode, weights: TrainedWeights, source: str | os.PathLike[str]
) -> nn.Module:
    """Return timm's network of `mode` with the weights, fitted to its channels and image size."""
    # With `overlay` timm treats the state dict as its own pretrained weights, and adapts it in the same way.
    architecture = net.architectures.of(mode)
    name = str(TimmName(architecture, weights.tag))
    try:
        return timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=weights.overlay,
            num_classes=net.num_classes,
            in_chans=net.in_chans,
            **net.timm_options.of(mode),
        )
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # timm's, for shapes that it cannot fit
        config = timm.get_pretrained_cfg(name)
        repository = (config and config.hf_hub_id) or name
        reason = explain_hub_error(error, repository)
        raise ValueError(f"{source}: {architecture} cannot be started from it: {reason}") from error


def _check_unchanged(
    net: NestedModel, mode: Mode, weights: TrainedWeights, match: HeadMatch, source: str | os.PathLike[str]
) -> None:
    """Raise ValueError if the network would not be that of the source, but one that is adapted to the data."""
    if match.rows is None:
        reason = (match.remark or "").removesuffix(LEFT_OUT)
        raise ValueError(f"{source}: {reason}; it can only be extended for the classes that it was trained on")
    if match.rows != list(range(net.num_classes)):
        order = ", ".join(weights.head.class_names or [])
        raise ValueError(
            f"{source}: its classes have another order, {order}; name those of the images so that they sort in this order"
        )
    if weights.overlay is None:
        return
    # timm adapts the first convolution to the channels, and a position embedding to the image size.
    expected = net.skeleton(mode).state_dict()
    for name, tensor in weights.overlay["state_dict"].items():
        if is_head_key(name, weights.head.modules) or name not in expected:
            continue
        found, wanted = list(tensor.shape), list(expected[name].shape)
        if found == wanted:
            continue
        remedy = "set data.img_size to that of the images that it was trained on"
        if len(found) == len(wanted) == 4 and found[1] != wanted[1]:
            remedy = f"set model.in_chans to the {found[1]} that it was trained on"
        raise ValueError(f"{source}: {name} is {found}, and {wanted} for this data; {remedy}")


def _check_head_is_known(
    head_keys: Sequence[str], match: HeadMatch, net: NestedModel, mode: Mode, source: str | os.PathLike[str]
) -> None:
    """Raise ValueError if the head is to be changed and the family does not say which modules it consists of."""
    # If all outputs are used in their order, nothing has to change.
    if head_keys or match.rows == list(range(net.num_classes)):
        return
    reason = match.remark or "its classes come in another order"
    raise ValueError(
        f"{source}: {reason}, and {net.architectures.of(mode)} does not say which of its modules is the head: give it a "
        "`classifier` in its default_cfgs"
    )
