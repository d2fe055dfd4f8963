"""The number format of forward passes."""

import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16, or nothing for `"float32"`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
