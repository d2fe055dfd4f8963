"""Step counts that the blocks of a divided weight share, as they do with copying between two models.

Any torch or timm optimizer trains a nested network as it is, and `timm.optim.create_optimizer_v2(net, ...)`
makes the parameter groups of timm's motivated model. This module is for optimizers such as Adam, to count
steps as in the paper, which copies between two models.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nestnet.nn.model import NestedModel
from nestnet.nn.parameter import NestedParameter
from nestnet.optim.initial_state import is_scalar, make_initial_state
from nestnet.optim.whole_tensor_updates import describe_whole_tensor_update, updates_whole_tensors


def share_step_counts(optimizer: Optimizer, net: NestedModel) -> None:
    """Let the differential blocks of a divided weight take over the step count of its base block before each step.

    Adam, AdamW and similar optimizers keep one `step` for each tensor, for the bias correction (Kingma and Ba
    2015, arXiv 1412.6980, section 3). By default each block of a divided weight counts its own updates, so
    that its correction is right. The paper copies the optimizer state of the base's tensor to that of the
    motivated network (arXiv 2602.21064, Algorithm 1), and with it `step`: its differential entries are
    corrected as if they had been updated at every step. This function makes the nested network do the same,
    bit for bit. Weights that only the motivated network has count their own updates in either case.

    Args:
        optimizer: optimizer of the parameters of `net`, to which a hook is added that runs before each step.
            Optimizers whose state has no scalars, such as SGD, and those that count steps by parameter group,
            such as timm's Lamb, train as before.
        net: nested network.

    Raises:
        ValueError: If the optimizer has a step count for each tensor but computes something from a whole
            tensor, such as its norm. Training the blocks then differs from copying, however steps are counted.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("vit_tiny_patch16_224", "vit_small_patch16_224", num_classes=10)
        >>> optimizer = torch.optim.AdamW(net.parameters(), lr=2.5e-4)
        >>> nestnet.share_step_counts(optimizer, net)
    """
    divided = [module for module in net.modules() if isinstance(module, NestedParameter)]
    if _counts_by_tensor(optimizer, divided) and updates_whole_tensors(optimizer):
        raise ValueError(
            f"step_count = 'literal': it makes training the same as copying, and {type(optimizer).__name__} computes "
            f"{describe_whole_tensor_update(optimizer)}, which differs for the blocks of a divided weight; take 'own'"
        )

    def share(optimizer: Optimizer, *_: Any) -> None:
        for nested in divided:
            # A frozen base does not count, and the other blocks continue from their last count.
            if nested.base.grad is None:
                continue
            counts = _scalars(optimizer.state.get(nested.base, {}))
            if not counts:
                continue
            for block in (nested.right, nested.below):
                # Base steps leave differential blocks without a gradient.
                if block is None or block.grad is None:
                    continue
                if not optimizer.state[block]:
                    optimizer.state[block] = make_initial_state(optimizer, block)
                _copy_counts(counts, optimizer.state[block])

    optimizer.register_step_pre_hook(share)


def _counts_by_tensor(optimizer: Optimizer, divided: Sequence[NestedParameter]) -> bool:
    """Return whether the optimizer keeps scalars for each divided weight that it trains."""
    trained: set[Tensor] = set()
    for group in optimizer.param_groups:
        trained.update(group["params"])
    # One weight is enough: an optimizer treats all of them alike.
    for nested in divided:
        if nested.base in trained:
            return bool(_scalars(make_initial_state(optimizer, nested.base)))
    return False


def _scalars(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a tensor's state that are one number."""
    return {key: value for key, value in state.items() if is_scalar(value)}


def _copy_counts(counts: dict[str, Any], state: dict[str, Any]) -> None:
    """Set the scalars of a block's state to those of the base block."""
    for key, value in counts.items():
        if isinstance(value, Tensor) and isinstance(state.get(key), Tensor):
            # In place: a captured step would otherwise put a tensor of its private memory here.
            state[key].copy_(value)
        else:
            state[key] = copy.deepcopy(value)
