"""The check that a pair makes sense: that the base's computation lies inside the motivated network's.

Weights can be stored in common exactly and still be used for other things: where heads, halves or groups do not line
up, the base computes something else than the part of the motivated network that has its weights.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from nestnet.nesting.mending import mend
from nestnet.nesting.plain_network import find_inputs
from nestnet.nesting.plan import Plan, Trace
from nestnet.nesting.tracing import Tracer
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.text.messages import first_line


@dataclass(frozen=True)
class Verdict:
    """Result of the check of a pair.

    Attributes:
        plan: weights map with which the base's computation lies inside the motivated network's; `None` if none of
            those that were checked is one.
        reason: what is wrong with the weights map that gets furthest, with the first module that differs; empty if
            nothing is.
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
        ValueError: If it does not. The message names the first module that gets something else than in the base, or the
            first weight that belongs elsewhere; or if no input is known.

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
        groups = (wanted.groups, wanted.column_groups)
        raise ValueError(
            f"{names}: {verdict.reason}; the base's weights of {moved[0]} belong at {wanted}, not at "
            f"{placements[moved[0]]}: nest with check=True, which places them there, or with "
            f"groups={{{re.escape(moved[0])!r}: {groups}}}"
        )


def check_plans(base: nn.Module, motivated: nn.Module, plans: Iterable[Plan], inputs: Tensor) -> Verdict:
    """Return the first weights map with which the base's computation lies inside the motivated network's.

    Args:
        base: base network, which is not changed.
        motivated: motivated network, which is not changed.
        plans: weights maps. Each is checked with its skipped blocks left out, and then with all blocks. If none makes
            sense, the one that gets furthest is changed where that helps: see `nestnet.nesting.mending`.
        inputs: input of both networks.

    Returns:
        The verdict. Its plan has the rows and columns at which the inputs of the modules show that the base's weights
        belong.
    """
    plans = list(_with_all_blocks(plans))
    private = [name for name, placement in plans[0].placements.items() if placement.private]
    tracer = Tracer(base, motivated, inputs, private)
    traces = []
    for plan in plans:
        trace = tracer.trace(plan)
        if trace.agrees:
            return _verdict(plan, trace)
        traces.append(trace)
    # The first one of those that get furthest.
    best = max(range(len(plans)), key=lambda number: traces[number].progress)
    plan, trace = mend(tracer, plans[best], traces[best])
    if trace.agrees:
        return replace(_verdict(plan, trace), reason=_describe(traces[best]))
    return Verdict(None, _describe(trace), trace.difference)


def _with_all_blocks(plans: Iterable[Plan]) -> Iterator[Plan]:
    """Yield each plan with its skipped blocks left out, and then with all blocks in place.

    A layer whose output joins a concatenation must not be left out: what it adds is in columns beside the base's.
    """
    for plan in plans:
        yield plan
        if plan.skipped:
            yield replace(plan, kept=frozenset(plan.skipped))


def _verdict(plan: Plan, trace: Trace) -> Verdict:
    placements = {**plan.placements, **trace.placements}
    return Verdict(replace(plan, placements=placements), "", trace.difference)


def _describe(trace: Trace) -> str:
    """Return where two networks part."""
    lost = trace.first_lost
    if lost is not None:
        location = trace.locations.get(lost)
        reason = f"{lost} gets something else in the motivated network than in the base"
        if location is None or location.base_size == location.size:
            return reason
        return f"{reason}: not all of the {location.base_size} channels are among the {location.size}"
    if trace.error is not None:
        return f"without the blocks that base mode skips, the motivated network fails: {first_line(trace.error)}"
    if trace.difference == float("inf"):
        return "the outputs have other shapes or are not finite, although all modules get the same"
    return f"the outputs differ by {trace.difference:.1g} of the largest, although all modules get the same"
