"""Random numbers that follow from a seed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, *, torch_only: bool = False) -> Iterator[None]:
    """Random numbers of torch (on the CPU), Python and numpy from a seed, and the generators as they were afterwards.

    torchvision's augmentations draw from torch, timm's from all three.
    """
    state = torch.get_rng_state()
    others = None if torch_only else (random.getstate(), np.random.get_state())
    torch.default_generator.manual_seed(seed)
    if others:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if others:
            random.setstate(others[0])
            np.random.set_state(others[1])


def mix_seed(*numbers: int) -> int:
    """One number of 63 bits from several, well spread (the finaliser of SplitMix64, Steele et al. 2014, figure 17)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
