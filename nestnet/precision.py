"""The precision of the forward pass, and which one `auto` stands for on a device.

Autocast to bfloat16 is faster than float32 only where the device multiplies matrices of bfloat16 in hardware.
Elsewhere it is emulated, and on a CPU a step then takes many times as long.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch

from nestnet.distributed.process_group import ProcessGroup
from nestnet.runtime.log import log_notice

Precision = Literal["float32", "bfloat16"]
"""Precisions of a forward pass."""

MIN_CAPABILITY = (8, 0)
"""Lowest compute capability of the GPUs that have bfloat16 in hardware: NVIDIA's Ampere."""

CPU_FEATURES = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
"""Features of a CPU that compute in bfloat16: torch's name of each, and its usual name."""


class Bfloat16Support(NamedTuple):
    """Whether a device has bfloat16 in hardware.

    Attributes:
        is_native: whether it has.
        reason: clause that says why, such as "this CPU has AVX512-BF16".
    """

    is_native: bool
    reason: str


def detect_bfloat16(device: torch.device) -> Bfloat16Support:
    """Return whether a device has bfloat16 in hardware.

    Args:
        device: device that is available.

    Returns:
        The answer with its reason. It is no for every device other than CPUs and CUDA.
    """
    if device.type == "cuda":
        return _detect_on_cuda(device)
    if device.type == "cpu":
        return _detect_on_cpu()
    return Bfloat16Support(False, "bfloat16 is chosen on CUDA and on CPUs only")


def choose_precision(precision: str, device: torch.device, process_group: ProcessGroup | None = None) -> Precision:
    """Return the precision that `auto` stands for, which is the same in all processes. Others are returned as they are.

    Args:
        precision: `"auto"`, `"float32"` or `"bfloat16"`.
        device: device of the forward pass.
        process_group: processes that train together, all of which must call this function; `None` for a single
            process.

    Returns:
        For `"auto"`, `"bfloat16"` if the device of every process has it in hardware, and otherwise `"float32"`.

    Raises:
        ValueError: If the precision is none of the three.
    """
    if precision == "float32":
        return "float32"
    if precision == "bfloat16":
        return "bfloat16"
    if precision != "auto":
        raise ValueError(f"precision = {precision!r}: it must be one of auto, float32, bfloat16")
    group = process_group or ProcessGroup()
    answers = group.all_gather_object(detect_bfloat16(device).is_native)
    if all(answers):
        return "bfloat16"
    # torchrun may start processes on unlike machines.
    if any(answers):
        log_notice(
            f"precision = 'auto': all {len(answers)} processes compute in float32, because only {sum(answers)} of them "
            "have bfloat16 in hardware"
        )
    return "float32"


def _detect_on_cuda(device: torch.device) -> Bfloat16Support:
    # `torch.cuda.is_bf16_supported` answers for the current device only, and by default counts emulation.
    capability = torch.cuda.get_device_capability(device)
    reason = f"this GPU has compute capability {capability[0]}.{capability[1]}"
    if capability >= MIN_CAPABILITY:
        return Bfloat16Support(True, reason)
    return Bfloat16Support(False, f"{reason}, and bfloat16 needs {MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]}")


def _detect_on_cpu() -> Bfloat16Support:
    available = _cpu_features()
    for feature, name in CPU_FEATURES.items():
        if available.get(feature):
            return Bfloat16Support(True, f"this CPU has {name}")
    return Bfloat16Support(False, f"this CPU has neither {' nor '.join(CPU_FEATURES.values())}")


def _cpu_features() -> Mapping[str, Any]:
    """Return what torch knows of the CPU. ARM processors, such as Apple's, lack these features."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    # torch 2.10 has these functions only. Every CPU that has tiles of AMX multiplies bfloat16 in them.
    return {
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
    }
