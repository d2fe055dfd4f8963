"""Warnings about trained subnets: that one was never trained, or that its statistics are unreliable."""

import os
from collections.abc import Mapping
from types import MappingProxyType

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import count_insufficient_updates
from nestnet.text.commands import format_command
from nestnet.text.units import format_count

RECALIBRATION_BATCHES = 50
"""Number of training batches that is recommended for a recalibration."""


def subnet_warnings(
    net: NestedModel,
    mode: Mode,
    trained: Mapping[str, int],
    *,
    recalibrated: int,
    run_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    export_options: Mapping[str, object] = MappingProxyType({}),
    best: bool = False,
    base_is_given: bool = False,
    statistics_are_given: bool = False,
) -> list[str]:
    """Return warnings about a subnet of a run.

    Args:
        net: network, prepared for evaluation and export.
        mode: mode of the subnet.
        trained: number of batches that trained each mode's subnet.
        recalibrated: number of training batches on which its BatchNorm statistics were recomputed; 0 for the
            running statistics.
        run_dir: folder of the run, for the recommended command.
        output: file or folder that this command writes.
        export_options: further options of the command, such as `format`; those that are `None` are left out.
        best: whether the subnet is from the best epoch instead of the last.
        base_is_given: whether the base came finished, so that the run did not train it.
        statistics_are_given: whether the statistics came with the initial weights, and the run did not update them.

    Returns:
        Sentences without a full stop; an empty list if nothing is wrong.
    """
    never_trained = describe_untrained(mode, trained, base_is_given=base_is_given)
    if never_trained is not None:
        return [never_trained]
    # The number of batches of a recalibration was chosen by the user.
    if recalibrated or statistics_are_given or (base_is_given and mode is Mode.BASE):
        return []
    updates = count_insufficient_updates(net, mode)
    if updates is None:
        return []
    batches = format_count(updates, "batch", "batches")
    options = {**export_options, "best": best, "recalibrate": RECALIBRATION_BATCHES}
    command = format_command("export", run_dir, mode=mode, output=output, **options)
    return [
        f"the running BatchNorm statistics of the {mode} network are of {batches} only, and its accuracy may be far below "
        f"what its weights allow; `{command}` recomputes them"
    ]


def describe_untrained(mode: Mode, trained: Mapping[str, int], *, base_is_given: bool = False) -> str | None:
    """Return a warning if a subnet was not trained.

    Args:
        mode: mode of the subnet.
        trained: number of batches that trained each mode's subnet.
        base_is_given: whether the base came finished, so that the run did not train it.

    Returns:
        A sentence without a full stop, or `None` if at least one batch trained it.
    """
    if trained[mode] or (base_is_given and mode is Mode.BASE):
        return None
    total = sum(trained.values())
    if mode is Mode.MOTIVATED:
        return (
            f"the motivated network was not trained: none of the run's {total:,} batches was motivated, and the weights "
            "that it does not share with the base still have their initial values"
        )
    return (
        f"the base was not trained by itself: all of the run's {total:,} batches were motivated, and it is only the "
        "part of the motivated network that both share"
    )
