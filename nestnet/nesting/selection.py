"""Choosing which channels of the motivated network are the base's.

The base has the first entries of every weight. When trained weights of the motivated network are loaded, it therefore
starts from that network's first channels. Weight selection (Xu et al. 2024, arXiv 2311.18823) starts a small network
from evenly spaced channels of a big one instead. Here the channels of the motivated network change places, wherever its
function stays the same, so that the chosen ones come first.
"""

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from nestnet.nesting.base_share import BaseShare, Segment
from nestnet.nesting.channel_spaces import Space, find_spaces
from nestnet.nesting.permutation import fill_randomly, keep_equal, permute
from nestnet.nesting.plain_network import find_inputs
from nestnet.nesting.taints import TaintedNetwork
from nestnet.nesting.trial_weights import copy_for_trials
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runtime.log import log_notice
from nestnet.text.arguments import check_choice

SELECTIONS = ("first", "uniform", "norm")
"""Kinds of selection: see `select_base`."""

NAMED_WEIGHTS = 3
"""Number of weights that a notice names."""


def select_base(net: NestedModel, kind: str, *, inputs: Tensor | None = None) -> None:
    """Choose which channels of the motivated network are the base's, without changing what the motivated network computes.

    Channels of the motivated network change places, in all weights that write or read them, so that the chosen ones are
    the base's. Heads of attention change places as a whole. Channels stay where they are if it is not certain that the
    motivated network computes the same function afterwards; a notice says how many. Which ones can be chosen is found by
    running a copy with random weights, whose outputs must stay the same in float64.

    Call it after the motivated network's weights are loaded, and before training: the base starts anew from the chosen
    channels, also with what it has of its own, such as BatchNorm statistics. State of an optimizer is not changed.
    `depth_map="uniform"` chooses evenly spaced blocks.

    Args:
        net: nested network, which is changed in place.
        kind: `"first"` leaves the network as it is. `"uniform"` chooses evenly spaced channels, as in arXiv 2311.18823:
            the base's channel `i` of `c` is channel `floor(i * C / c)` of `C`. `"norm"` chooses the channels with the largest
            norm: the square root of the sum of squares of all rows that write the channel and all columns that read it,
            of the weights of linear layers and convolutions that are not grouped. Biases, norms and kernels of depthwise
            convolutions do not count.
        inputs: input of the networks, such as images `[B, C, H, W]`; by default a random image of a size that the
            motivated network takes.

    Raises:
        ValueError: If `kind` is unknown, or no input is known.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> nestnet.select_base(net, "uniform")  # both have the same channels
        >>> from torch import nn
        >>> def mlp(width):
        ...     return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 1))
        >>> net = nestnet.nest(mlp(2), mlp(4))
        >>> state = net.state_dict()
        >>> _ = state["0.weight"].copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
        >>> nestnet.select_base(net, "uniform")
        >>> net.base[0].weight.flatten().tolist()
        [1.0, 3.0]
    """
    check_choice("kind", kind, SELECTIONS)
    share = BaseShare(net.weights_map)
    if kind == "first" or not share.is_divided:
        return
    network = copy_for_trials(net.standalone(Mode.MOTIVATED))
    if inputs is None:
        found = find_inputs(network, net.in_chans)
        if found is None:
            raise ValueError(
                "no size of images was found that the motivated network takes; give inputs, an input of it"
            )
        # One image is enough, because the weights are random.
        inputs = found[:1]
    inputs = inputs.cpu()
    fill_randomly(network)
    tainted = TaintedNetwork(copy.deepcopy(network), inputs)
    spaces = keep_equal(network, find_spaces(tainted, share), inputs)
    _log_left_out(share, spaces, tainted.matrices)

    # The motivated network's tensors alone, from which the base's own ones start too.
    state = net.state_dict()
    state = {name: state[name] for name in network.state_dict()}
    orders = []
    for space in spaces:
        chosen = _choose(kind, space, state, tainted.matrices)
        orders.append((space, chosen))
    if orders:
        net.load_state_dict(permute(state, orders))


# Which units are chosen.


def _choose(kind: str, space: Space, state: Mapping[str, Tensor], matrices: Collection[str]) -> Tensor:
    """Return the order of the units of a space: the chosen ones, and then the others, both in their old order."""
    if kind == "uniform":
        chosen = torch.arange(space.base_count) * space.count // space.base_count
    else:
        norms = _norms(space, state, matrices)
        chosen = norms.argsort(descending=True, stable=True)[: space.base_count].sort().values
    is_chosen = torch.zeros(space.count, dtype=torch.bool)
    is_chosen[chosen] = True
    return torch.cat([chosen, (~is_chosen).nonzero().flatten()])


def _norms(space: Space, state: Mapping[str, Tensor], matrices: Collection[str]) -> Tensor:
    """Return the squared norm of each unit of a space `[count]`, over the rows and columns of matrices."""
    squares = torch.zeros(space.count, dtype=torch.float64)
    for segment in space.segments:
        if segment.name in matrices:
            weight = state[segment.name].detach().double().cpu().movedim(segment.dim, 0)
            entries = weight.narrow(0, segment.start, segment.size)
            squares += entries.reshape(space.count, -1).square().sum(1)
    return squares


# Notices.


def _log_left_out(share: BaseShare, spaces: Sequence[Space], matrices: Collection[str]) -> None:
    """Log how many of the base's channels are the first ones because others cannot be chosen."""
    chosen: set[Segment] = set()
    for space in spaces:
        chosen.update(space.segments)
    divided = 0
    left = []
    for name in filter(share.has, matrices):
        for part in share.divided_parts(name, 0):
            divided += part.size
            if part not in chosen:
                left.append(part)
    if left:
        count = divided - sum(part.size for part in left)
        names = list(dict.fromkeys(part.name for part in left))
        named = ", ".join(names[:NAMED_WEIGHTS])
        if len(names) > NAMED_WEIGHTS:
            named += f" and {len(names) - NAMED_WEIGHTS} more"
        log_notice(
            f"select_base: of the rows of weights of which the base has a part, {count} of {divided} can change places; "
            f"the base has the first ones of {named}"
        )
