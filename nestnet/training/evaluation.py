"""Top-1 of subnets, with their BatchNorm statistics as they are or computed anew."""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from nestnet.data.held_out import split_off_held_out_batch
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import TrainBatches, train_batches
from nestnet.device import DeviceContext, autocast
from nestnet.distributed.process_group import ProcessGroup
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import has_statistics, recalibrate, with_statistics
from nestnet.runs.reading import Run


def recalibration_images(batches: TrainBatches, epoch: int, number: int) -> Iterator[Tensor]:
    """Yield the images `[B, C, H, W]` of the first training batches of an epoch, counted from 0.

    Where the epoch has fewer than `number` batches, those of the following epochs come next: the same images, augmented
    differently.
    """
    endless = itertools.chain.from_iterable(batches.epoch(later) for later in itertools.count(epoch))
    for images, _ in itertools.islice(endless, number):
        yield images


def needs_images(run: Run, mode: Mode, number: int) -> bool:
    """Return whether `ready` needs the training images to recalibrate `mode` on so many batches.

    It does not where the run itself evaluated with such statistics: its checkpoint has them.
    """
    if number == 0:
        return False
    return number != run.config.recalibration_batches or mode not in run.checkpoint["recalibrated"]


def prepare_for_eval(run: Run, mode: Mode, images: ImageData | None, device: torch.device, number: int) -> NestedModel:
    """The network of a run, on `device`, as `mode` is evaluated and exported.

    With as many recalibration batches as the run's own it is, to the bit, the network that the run itself evaluated and
    exported when it wrote this checkpoint.

    Args:
        images: of the run; `None` where they are not needed.
        number: training batches on which the BatchNorm statistics are computed anew; 0: the running ones are used.

    Raises:
        ValueError: if the number is below 0, or the network has no such statistics.
    """
    if number < 0:
        raise ValueError(f"--recalibrate {number}: it must be at least 0 training batches")
    if number and not has_statistics(run.net):
        raise ValueError(
            f"--recalibrate {number}: {run.net.architectures.of(mode)} has no BatchNorm statistics; leave it out"
        )
    layout = memory_format(run)
    net = run.net.to(device).to(memory_format=layout)
    if not number:
        return net
    if not needs_images(run, mode, number):
        return with_statistics(net, mode, run.checkpoint["recalibrated"][mode])
    assert images is not None
    if run.checkpoint["watches"] == "held_out_loss":
        images, _ = split_off_held_out_batch(images, run.config)
    # as the run's own evaluation: on the epoch that was trained last
    epoch = run.checkpoint["epochs_done"] - run.checkpoint["end_of_epoch"]
    batches = train_batches(images, run.config.data, run.config.seed, DeviceContext(device, layout))
    return recalibrate(net, mode, recalibration_images(batches, epoch, number))


def memory_format(run: Run) -> torch.memory_format:
    """The layout of images and convolutions that a run trains and evaluates in."""
    return torch.channels_last if run.config.channels_last else torch.preserve_format


@torch.inference_mode()
def top1(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    modes: Iterable[Mode] = tuple(Mode),
    *,
    precision: str = "float32",
    process_group: ProcessGroup | None = None,
) -> dict[Mode, float]:
    """The share of images, in percent, for which the subnet of each mode gives the right class the largest logit.

    Args:
        batches: on the network's device; of several processes each has some of them.
    """
    device = next(net.parameters()).device
    modes = list(modes)
    counts = torch.zeros(
        1 + len(modes), dtype=torch.long, device=device
    )  # of all images, and of those that each gets right
    for images, labels in batches:
        counts[0] += len(labels)
        for index, mode in enumerate(modes):
            with autocast(device, precision):
                logits = net(images, mode)
            counts[1 + index] += (logits.argmax(dim=1) == labels).sum()
    total, *correct = (process_group or ProcessGroup()).all_reduce_sum(counts).tolist()
    return {mode: 100 * count / total for mode, count in zip(modes, correct, strict=True)}
