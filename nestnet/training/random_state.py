"""The random generators that a run draws from, besides those that follow from (seed, epoch, sample)."""

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed torch on all devices, Python and numpy: a network draws its first weights and its dropout from torch, a condition
    of one's own from whatever it likes."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def torch_random_state(device: torch.device) -> dict[str, Any]:
    """The state of torch's generators of the host and of a device: what a forward pass draws from."""
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_torch_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Let a forward pass draw as it did when `state` was taken."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all generators of this process, in plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        **torch_random_state(device),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on drawing where `state` was taken; the device's generator anew if it was taken on another kind of device."""
    restore_torch_random_state(state, device)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
