"""Random numbers that follow from a seed."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_rng(seed: int, *, torch_only: bool = False) -> Iterator[None]:
    """Seed torch (on the CPU), Python and numpy within a context, and restore their states at its end.

    torchvision's augmentations draw from torch, timm's from all three.

    Args:
        seed: seed, an integer of at most 63 bits.
        torch_only: whether to seed torch's generator alone, which is faster.
    """
    # `torch.manual_seed` would seed the GPUs too, whose states are not restored here.
    torch_state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    if not torch_only:
        python_state = random.getstate()
        numpy_state = np.random.get_state()
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # numpy takes no more than 32 bits
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        if not torch_only:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def mix_seed(*numbers: int) -> int:
    """Return one seed for several numbers, such as a run's seed, an epoch and an index.

    The seeds are well spread and depend on the order of the numbers. The mixing function is the finaliser of
    SplitMix64 (Steele et al. 2014, figure 17).

    Args:
        *numbers: integers to mix.

    Returns:
        An integer of 63 bits.
    """
    # Each step is SplitMix64's: add the golden ratio of 2^64, then shift and multiply twice, all modulo 2^64.
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1  # so that it fits into a signed integer
