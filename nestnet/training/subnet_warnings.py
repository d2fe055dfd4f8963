"""What a user of a trained subnet must be told: that it was never trained, or that its statistics are not to be relied on."""

import os
from collections.abc import Mapping

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import too_few_updates
from nestnet.text.escape import for_shell

ENOUGH = 50
"""Training batches that a recalibration is advised on."""


def subnet_warnings(
    net: NestedModel,
    mode: Mode,
    trained: Mapping[str, int],
    *,
    recalibrated: int,
    run_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    best: bool = False,
) -> list[str]:
    """Return what is wrong with the subnet of `mode` as a run leaves it, each as a sentence without a full stop.

    Args:
        net: network as it is evaluated and exported.
        trained: number of batches that trained each mode's subnet.
        recalibrated: training batches that its BatchNorm statistics were computed anew on; 0: they are the running ones.
        run_dir: folder of the run, for the command that helps.
        output: file that this command writes.
        best: whether it takes the best epoch instead of the last.
    """
    if never := untrained(mode, trained):
        return [never]
    updates = None if recalibrated else too_few_updates(net, mode)
    if updates is None:
        return []
    number = f"{updates} batch{'' if updates == 1 else 'es'}"
    command = f"nestnet export {for_shell(run_dir)} --mode {mode} --output {for_shell(output)}"
    if best:
        command += " --best"
    return [
        f"the running BatchNorm statistics of the {mode} network are of {number} only, and its accuracy may be far below "
        f"what its weights allow; `{command} --recalibrate {ENOUGH}` computes them anew"
    ]


def untrained(mode: Mode, trained: Mapping[str, int]) -> str | None:
    """Return that no batch trained the subnet of `mode`, as a sentence without a full stop; `None` if some did.

    Args:
        trained: number of batches that trained each mode's subnet.
    """
    if trained[mode]:
        return None
    others = sum(trained.values())
    if mode is Mode.MOTIVATED:
        return (
            f"the motivated network was not trained: none of the run's {others:,} batches was motivated, and the weights "
            "that it does not share with the base still have their initial values"
        )
    return (
        f"the base was not trained by itself: all of the run's {others:,} batches were motivated, and it is only the "
        "part of the motivated network that both share"
    )
