"""The check that a pair makes sense: that the base's computation lies inside the motivated network's.

Weights can be stored in common exactly and still be used for other things: where heads, halves or groups do not line
up, the base computes something else than the part of the motivated network that has its weights.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nestnet.nesting.tracing import Trace, trace_pair
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.placement import Placement
from nestnet.text.messages import first_line

SIZES = (64, 32, 28, 128, 224, 96, 256, 384)
"""Heights and widths of images that are tried in turn, if the networks do not tell for which size they are made."""

TRIED_MODULES = 3
"""Number of modules before the first one that differs whose rows are tried in groups."""

TRIED_GROUPS = (2, 3, 4)
"""Numbers of groups of rows that are tried."""


@dataclass(frozen=True)
class Plan:
    """A weights map to be checked.

    Attributes:
        placements: placement of each base parameter.
        skipped: paths of the motivated blocks that base mode skips.
    """

    placements: Mapping[str, Placement]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """Result of the check of a pair.

    Attributes:
        plan: weights map with which the base's computation lies inside the motivated network's; `None` if none of
            those that were checked is one.
        reason: why not, with the first module that differs; empty if one is.
        difference: largest difference of the outputs, relative to the largest output.
    """

    plan: Plan | None
    reason: str
    difference: float


def verify_nesting(net: NestedModel, inputs: Tensor | None = None) -> None:
    """Check that the base's computation lies inside the motivated network's.

    The weights of copies of both networks are random, and the columns beside the base's are zero; blocks that base
    mode skips are left out, and norms over channels scale and shift each channel, and do nothing else. The motivated
    network must then give the base's outputs, in float64.

    Args:
        net: nested network, which is not changed.
        inputs: input of the networks, such as images `[B, C, H, W]`; by default two random images of a size that the
            networks take.

    Raises:
        ValueError: If it does not. The message names the first module that gets something else than in the base, and
            groups of rows that help, if there are any; or if no input is known.

    Example:
        >>> import nestnet
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> nestnet.verify_nesting(net)
    """
    base = net.standalone(Mode.BASE)
    motivated = net.standalone(Mode.MOTIVATED)
    if inputs is None:
        inputs = find_inputs(base, net.in_chans)
    if inputs is None:
        raise ValueError("no size of images was found that the base takes; give inputs, an input of the networks")
    parameters = dict(base.named_parameters(remove_duplicate=False))
    placements = {name: placement for name, placement in net.weights_map.items() if name in parameters}
    plan = Plan(placements, tuple(net.skipped_blocks()))
    verdict = check_plans(base, motivated, [plan], inputs)
    names = f"{net.architectures.base} in {net.architectures.motivated}"
    if verdict.plan is None:
        raise ValueError(f"{names}: {verdict.reason}")
    moved = [name for name in placements if not verdict.plan.placements[name].is_same_as(placements[name])]
    if moved:
        wanted = verdict.plan.placements[moved[0]]
        raise ValueError(
            f"{names}: the base's weights of {moved[0]} read other channels; they belong at {wanted}, not at "
            f"{placements[moved[0]]}; nest with check=True to place them there"
        )


def check_plans(base: nn.Module, motivated: nn.Module, plans: Iterable[Plan], inputs: Tensor) -> Verdict:
    """Return the first weights map with which the base's computation lies inside the motivated network's.

    Args:
        base: base network, which is not changed.
        motivated: motivated network, which is not changed.
        plans: weights maps. Each is checked with its skipped blocks left out, and then with all blocks.
        inputs: input of both networks.

    Returns:
        The verdict. Its plan has the columns, and the rows of norms, at which the inputs of the modules show that the
        base's weights belong.
    """
    first: tuple[Plan, Trace] | None = None
    for plan in _with_all_blocks(plans):
        trace = trace_pair(copy.deepcopy(base), copy.deepcopy(motivated), plan.placements, plan.skipped, inputs)
        if trace.agrees:
            return Verdict(replace(plan, placements={**plan.placements, **trace.placements}), "", trace.difference)
        if first is None:
            first = (plan, trace)
    assert first is not None, "at least one plan"
    plan, trace = first
    reason = _describe(trace) + _suggest_groups(base, motivated, plan, trace, inputs)
    return Verdict(None, reason, trace.difference)


def _with_all_blocks(plans: Iterable[Plan]) -> Iterator[Plan]:
    """Yield each plan, and then the same one without skipped blocks.

    A layer whose output joins a concatenation must not be left out: what it adds is in columns beside the base's.
    """
    for plan in plans:
        yield plan
        if plan.skipped:
            yield replace(plan, skipped=())


def find_inputs(network: nn.Module, in_chans: int) -> Tensor | None:
    """Return two random images, or vectors, that a network takes.

    Args:
        network: network, which is not changed.
        in_chans: number of channels of the images.

    Returns:
        Images `[2, C, H, W]`, or vectors `[2, D]` for a network that begins with a linear layer; `None` if the
        network takes no size that was tried.
    """
    first = next((module for module in network.modules() if not list(module.children())), None)
    shapes: list[tuple[int, ...]] = []
    for size in (*_own_sizes(network), *((size, size) for size in SIZES)):
        shapes.append((2, in_chans, *size))
    if isinstance(first, nn.Linear):
        shapes.insert(0, (2, first.in_features))
    probe = copy.deepcopy(network).eval()
    parameter = next(network.parameters(), None)
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
        try:
            with torch.no_grad():
                probe(inputs.to(parameter) if parameter is not None else inputs.float())
        except Exception:  # whatever the network raises for images of a size that it does not take
            continue
        return inputs
    return None


def _own_sizes(network: Any) -> list[tuple[int, int]]:
    """Return the image size for which a network says that it is made."""
    config = getattr(network, "pretrained_cfg", None) or {}
    sizes: list[tuple[int, int]] = []
    patch_size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(patch_size, tuple):
        sizes.append(patch_size)
    if config.get("fixed_input_size"):
        sizes.append(tuple(config["input_size"][1:]))
    return sizes


def _describe(trace: Trace) -> str:
    """Return where two networks part."""
    if trace.first_lost is not None:
        return f"{trace.first_lost} gets something else in the motivated network than in the base"
    if trace.error is not None:
        return f"without the blocks that base mode skips, the motivated network fails: {first_line(trace.error)}"
    return f"the outputs differ by {trace.difference:.1g} of the largest, although all modules get the same"


def _suggest_groups(base: nn.Module, motivated: nn.Module, plan: Plan, trace: Trace, inputs: Tensor) -> str:
    """Return groups of rows with which the networks agree further, as the end of a sentence; empty if none do."""
    if trace.first_lost is None:
        return ""
    before = trace.order[: trace.order.index(trace.first_lost)]
    divided = [path for path in before if _divides_rows(plan, path)]
    best_path, best_count, best_length = "", 0, trace.agreed_modules
    for path in reversed(divided[-TRIED_MODULES:]):
        for count in TRIED_GROUPS:
            placements = dict(plan.placements)
            for name, placement in plan.placements.items():
                owner = name.rpartition(".")[0]
                can_be_divided = placement.base_shape[0] % count == placement.shape[0] % count == 0
                if owner == path and can_be_divided:
                    placements[name] = replace(placement, groups=count)
            tried = trace_pair(copy.deepcopy(base), copy.deepcopy(motivated), placements, plan.skipped, inputs)
            length = len(tried.order) + 1 if tried.agrees else tried.agreed_modules
            if length > best_length:
                best_path, best_count, best_length = path, count, length
    if not best_path:
        return "; groups of rows of the modules before it may help: see groups"
    return f'; try groups={{r"{best_path.replace(".", chr(92) + ".")}\\.": ({best_count}, 1)}}'


def _divides_rows(plan: Plan, path: str) -> bool:
    """Return whether the base has a part of the rows of a matrix of this module."""
    for name, placement in plan.placements.items():
        is_matrix = len(placement.shape) > 1
        if name.rpartition(".")[0] == path and is_matrix and placement.shape[0] > placement.base_shape[0]:
            return True
    return False
