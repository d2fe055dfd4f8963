"""The batch size that suits the memory of the GPU: `data.batch_size: auto`.

Batches of growing size are trained and evaluated as in the run, until the memory is not enough. Nothing of these trials
stays: the run is then the same as if the number had been given.
"""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nestnet.conditions.base import Condition
from nestnet.config.schema import Config
from nestnet.data.transformed_images import Views
from nestnet.device import autocast
from nestnet.nn.mode import Mode
from nestnet.runtime.log import log_notice
from nestnet.runtime.torchrun import read_launch
from nestnet.training.condition_plan import largest_batch_size
from nestnet.training.failures import find_memory_error
from nestnet.training.finish_phase import batch_kinds, train_batch
from nestnet.training.views import mix_views

if TYPE_CHECKING:
    from nestnet.training.setup import TrainingSetup

MEMORY_SHARE = 0.9
"""Part of the free memory that trials may use. The rest is for kernels that are loaded later, and for other programs."""

MIN_BATCHES = 20
"""Number of batches that an epoch keeps, whatever the memory allows: with fewer there are few steps to learn in."""

MULTIPLE = 8
"""Number of which the size is a multiple, because the matrix units of GPUs compute in such tiles."""

TRIAL_STEPS = 2
"""Number of batches that a trial trains in each mode. The first one creates the optimizer's state."""

Build = Callable[[Config], "TrainingSetup"]
"""Function that builds everything for training by a configuration."""


def find_batch_size(
    config: Config, images: int, device: torch.device, build: Build, condition: Condition | None = None
) -> int:
    """Find the batch size that `auto` stands for.

    The size is within an eighth of the largest one that the memory holds, and leaves at least 20 batches per epoch.

    Args:
        config: configuration of a run.
        images: number of its training images.
        device: device of the run.
        build: function that builds what a trial trains.
        condition: motivation condition in place of the one that the configuration names.

    Returns:
        The number of images of a batch, a multiple of 8 and of twice `accumulate`.

    Raises:
        ValueError: If the run is not on a single CUDA device, or even the smallest batch does not fit.
    """
    _check_device(device)
    # Each of the parts of a batch has an even number of images, because Mixup and CutMix mix pairs.
    multiple = math.lcm(MULTIPLE, 2 * config.accumulate)
    smallest = math.ceil(config.data.repeats / multiple) * multiple
    # Larger batches might leave too few of them for the condition to motivate one.
    most = largest_batch_size(config, images, condition, most=max(images // MIN_BATCHES, smallest)) or smallest
    trial = _Trial(config, build)
    with _limited_memory(device) as limit:
        size = search_largest(trial.fits, multiple, smallest=smallest, most=most)
    room = f"{MEMORY_SHARE:.0%} of the free memory of {device} ({limit / 2**30:.1f} GiB)"
    if size is None:
        raise ValueError(
            f"data.batch_size = 'auto': not even {smallest} images, or data.eval_batch_size = {config.data.eval_batch_size} in "
            f"evaluation, fit into {room}; give smaller numbers, or set grad_checkpointing to true or precision to bfloat16"
        )
    reason = f"the steps of more do not fit into {room}"
    if size + multiple > most:
        reason = f"more would leave fewer than {MIN_BATCHES} batches per epoch, or none that the condition can motivate"
    log_notice(
        f"data.batch_size = {size}, found for 'auto': {reason}; optimizer.lr = {config.optimizer.lr:g} and epochs = "
        f"{config.epochs} stay as they are"
    )
    return size


def search_largest(fits: Callable[[int], bool], multiple: int, *, smallest: int, most: int) -> int | None:
    """Return about the largest size that fits, by doubling and then by halving the interval.

    Args:
        fits: function that returns whether a size fits. If a size fits, so do all smaller ones.
        multiple: number of which all sizes that are tried are multiples.
        smallest: first size to try, a multiple of it.
        most: largest size to try.

    Returns:
        A size that fits; `None` if the smallest one does not. It is `most` if that fits, otherwise one that is larger by
        an eighth, or by `multiple`, does not fit.

    Example:
        >>> search_largest(lambda size: size <= 100, 8, smallest=8, most=1000)
        96
    """
    if not fits(smallest):
        return None
    size = smallest
    most = max(most // multiple * multiple, smallest)
    excess = most + multiple
    # Double until a size does not fit.
    while size < most:
        larger = min(2 * size, most)
        if not fits(larger):
            excess = larger
            break
        size = larger
    # Halve the interval between a size that fits and one that does not.
    while excess - size > max(multiple, size // 8):
        middle = (size + excess) // 2 // multiple * multiple
        if fits(middle):
            size = middle
        else:
            excess = middle
    return size


class _Trial:
    """Trial of batch sizes: whether a run with them has enough memory.

    Args:
        config: configuration of the run.
        build: function that builds what a trial trains.
    """

    def __init__(self, config: Config, build: Build) -> None:
        # Compiling for each size would take minutes, and compiled steps do not need more memory. Workers would read
        # many batches ahead, and one is enough.
        self.config = replace(config, compile=False, trackers=[], data=replace(config.data, workers=0))
        self.build = build
        self.batch: tuple[Views, Tensor] | None = None

    def fits(self, size: int) -> bool:
        """Return whether batches of a size can be trained in each mode, and the test images evaluated."""
        is_enough = True
        try:
            self._run(size)
        except Exception as error:
            if find_memory_error(error) is None:
                raise
            is_enough = False
        # After the handler, because the error holds on to the tensors of all functions that it came through.
        gc.collect()
        torch.cuda.empty_cache()
        return is_enough

    def _run(self, size: int) -> None:
        config = replace(self.config, data=replace(self.config.data, batch_size=size))
        setup = self.build(config)
        if self.batch is None:
            # Images are read once, because only their number and shape matter here.
            self.batch = next(setup.batches.train.epoch(0))
        views, labels = self.batch
        images, targets = mix_views(setup.objectives, _repeat_views(views, size), _repeat(labels, size), config.seed)
        setup.net.train()
        for kind in batch_kinds(config):
            for _ in range(TRIAL_STEPS):
                outcome = train_batch(setup.step, images, targets, kind)
                setup.watched_quantity(outcome)
        _evaluate(setup)


@torch.inference_mode()
def _evaluate(setup: "TrainingSetup") -> None:
    """Evaluate a batch of blank images in both modes."""
    device = setup.device_context.device
    net = setup.step.averaged.eval()
    count = min(setup.config.data.eval_batch_size, len(setup.images.test))
    images = torch.zeros(count, setup.images.input_size[0], *setup.images.eval_size, device=device)
    images = images.to(memory_format=setup.device_context.memory_format)
    with autocast(device, setup.config.precision):
        for mode in Mode:
            net(images, mode)


def _repeat_views(views: Views, size: int) -> Views:
    if isinstance(views, Tensor):
        return _repeat(views, size)
    base, motivated = views
    return _repeat(base, size), _repeat(motivated, size)


def _repeat(values: Tensor, size: int) -> Tensor:
    """Return the rows of a tensor again and again, `size` rows in all."""
    return values[torch.arange(size, device=values.device) % len(values)]


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(
            f"data.batch_size = 'auto': it is found from the memory of a CUDA GPU, and device = {str(device)!r}; give a number"
        )
    processes = read_launch().size
    if processes > 1:
        raise ValueError(
            f"data.batch_size = 'auto': it is found by one process, and these are {processes}; find it with one GPU, and "
            "give that number for each of them"
        )


@contextmanager
def _limited_memory(device: torch.device) -> Iterator[float]:
    """Let torch allocate only a part of the memory that is free now, and yield that number of bytes."""
    free, total = torch.cuda.mem_get_info(device)
    before = torch.cuda.get_per_process_memory_fraction(device)
    limit = min(MEMORY_SHARE * (free + torch.cuda.memory_reserved(device)), before * total)
    torch.cuda.set_per_process_memory_fraction(limit / total, device)
    try:
        yield limit
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)
