"""The states of the random generators that a run draws from.

The order and augmentation of the images do not depend on them, but on seed, epoch and image only.
"""

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed torch on all devices, Python and numpy.

    A network draws its initial weights and its dropout from torch; a user's own condition may draw
    from any of them.

    Args:
        seed: seed, at least 0.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # numpy takes seeds of 32 bits only


def get_torch_random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of torch's generators that a forward pass draws from.

    Args:
        device: device of the forward pass.

    Returns:
        The state of the CPU's generator, and that of the device's, which is `None` for a CPU.
    """
    device_state = None
    if device.type == "cuda":
        device_state = torch.cuda.get_rng_state(device)
    return {"torch": torch.get_rng_state(), "device": device_state}


def restore_torch_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore torch's generators, so that forward passes draw the same numbers as after `state` was taken.

    Args:
        state: what `get_torch_random_state` returned.
        device: device of the forward pass. Its generator is left as it is if `state` was taken on a CPU.
    """
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)


def get_random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of all generators of this process, as plain values and tensors for a checkpoint.

    Args:
        device: device of the run.

    Returns:
        The states of torch's, Python's and numpy's generators.
    """
    name, keys, *position = np.random.get_state()
    # torch has no operations on unsigned 32-bit integers.
    keys_tensor = torch.from_numpy(np.asarray(keys).astype(np.int64))
    # Python's and numpy's states are tuples of numbers, which checkpoints can store.
    return {
        **get_torch_random_state(device),
        "python": random.getstate(),
        "numpy": (name, keys_tensor, *position),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore all generators, so that they draw the same numbers as after `state` was taken.

    Args:
        state: what `get_random_state` returned.
        device: device of the run. Its generator is left as it is if `state` was taken on another kind of
            device.
    """
    restore_torch_random_state(state, device)
    random.setstate(state["python"])
    name, keys, *position = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *position))
