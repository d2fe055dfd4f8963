"""Top-1 accuracy and predictions of subnets, and the network of a stored run as it is evaluated."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from nestnet.conditions.base import WATCHED_ON_HELD_OUT_BATCH
from nestnet.data.held_out_batch import split_off_held_out_batch
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import TrainLoader, create_train_loader
from nestnet.device import DeviceContext, autocast, choose_memory_format
from nestnet.distributed.process_group import ProcessGroup
from nestnet.nn.mode import Mode, for_mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import copy_with_statistics, has_running_statistics, recalibrate
from nestnet.runs.reading import Run
from nestnet.training.views import views_by_mode


@torch.inference_mode()
def top1(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    modes: Iterable[Mode] = tuple(Mode),
    *,
    precision: str = "float32",
    process_group: ProcessGroup | None = None,
) -> dict[Mode, float]:
    """Return the percentage of images for which the true class has the largest logit.

    Args:
        net: network that maps images `[B, C, H, W]` and a mode to logits `[B, K]`, in evaluation mode.
        batches: images `[B, C, H, W]` and labels `[B]`, on the network's device. With several processes each
            passes its share.
        modes: modes to evaluate, all of them on each batch.
        precision: `"float32"`, or `"bfloat16"` for autocast.
        process_group: processes that evaluate together.

    Returns:
        The top-1 accuracy of each mode in percent.
    """
    device = next(net.parameters()).device
    modes = list(modes)
    # Count on the device, so that no batch waits for the previous one: all images, and the correct ones of each
    # mode.
    counts = torch.zeros(1 + len(modes), dtype=torch.long, device=device)
    for images, labels in batches:
        counts[0] += len(labels)
        for index, mode in enumerate(modes):
            with autocast(device, precision):
                logits = net(images, mode)
            counts[1 + index] += (logits.argmax(dim=1) == labels).sum()
    # Each process has counted its own images.
    if process_group is not None:
        counts = process_group.all_reduce_sum(counts)
    # This is the only wait for the device.
    total, *correct = counts.tolist()
    return {mode: 100 * count / total for mode, count in zip(modes, correct, strict=True)}


@torch.inference_mode()
def predict_classes(
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], mode: Mode, *, precision: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the true and the predicted class of each image.

    Args:
        net: network that maps images `[B, C, H, W]` and a mode to logits `[B, K]`, in evaluation mode.
        batches: images `[B, C, H, W]` and labels `[B]`, on the network's device, at least one batch.
        mode: mode to evaluate.
        precision: `"float32"`, or `"bfloat16"` for autocast.

    Returns:
        The labels `[N]`, and the classes with the largest logits `[N]`.
    """
    device = next(net.parameters()).device
    true_classes: list[Tensor] = []
    predicted_classes: list[Tensor] = []
    for images, labels in batches:
        with autocast(device, precision):
            logits = net(images, mode)
        true_classes.append(labels)
        predicted_classes.append(logits.argmax(dim=1))
    return torch.cat(true_classes).cpu().numpy(), torch.cat(predicted_classes).cpu().numpy()


def recalibration_images(batches: TrainLoader, epoch: int, number: int, mode: Mode) -> Iterator[Tensor]:
    """Yield the images of the first training batches of an epoch.

    Args:
        batches: training batches.
        epoch: number of the epoch, from 0.
        number: number of batches. If an epoch has fewer, those of the following epochs are used too: the same
            images with different augmentation.
        mode: mode of the network that sees them.

    Yields:
        The images of a batch `[B, C, H, W]`, on the device.
    """
    # Chain the epochs without end, and take the first batches.
    endless = itertools.chain.from_iterable(batches.epoch(later) for later in itertools.count(epoch))
    for images, _ in itertools.islice(endless, number):
        yield for_mode(views_by_mode(images), mode)


def needs_images(run: Run, mode: Mode, number: int) -> bool:
    """Return whether `prepare_for_eval` needs the training images.

    Args:
        run: stored run.
        mode: mode that is evaluated.
        number: number of training batches for recalibration; 0 for none.

    Returns:
        Whether the statistics must be computed. A run that was recalibrated on as many batches has them in its
        checkpoint.
    """
    if number == 0:
        return False
    return number != run.config.recalibration_batches or mode not in run.checkpoint["recalibrated"]


def prepare_for_eval(run: Run, mode: Mode, images: ImageData | None, device: torch.device, number: int) -> NestedModel:
    """Return the network of a stored run, prepared for evaluating or exporting one mode.

    With the run's own number of recalibration batches, it is bit-identical to the network that the run itself
    evaluated and exported when it wrote this checkpoint.

    Args:
        run: stored run.
        mode: mode to evaluate.
        images: images of the run; `None` if they are not needed.
        device: device of the network.
        number: number of training batches on which the BatchNorm statistics are recomputed; 0 to use the
            running statistics.

    Returns:
        The network, on the device.

    Raises:
        ValueError: If the number is below 0, or the network has no BatchNorm statistics.
    """
    if number < 0:
        raise ValueError(f"recalibrate = {number}: it must be at least 0 training batches")
    if number and not has_running_statistics(run.net):
        name = run.net.architectures.of(mode)
        raise ValueError(f"recalibrate = {number}: {name} has no BatchNorm statistics; leave it out")
    memory_format = choose_memory_format(run.config)
    net = run.net.to(device).to(memory_format=memory_format)
    if number == 0:
        return net
    if not needs_images(run, mode, number):
        return copy_with_statistics(net, mode, run.checkpoint["recalibrated"][mode])

    assert images is not None
    # The batch that was held out of training is not used for recalibration either.
    if run.checkpoint["watches"] in WATCHED_ON_HELD_OUT_BATCH:
        images, _ = split_off_held_out_batch(images, run.config)
    # The run itself recalibrates on the epoch that was trained last.
    epoch = run.checkpoint["epochs_done"] - run.checkpoint["end_of_epoch"]
    batches = create_train_loader(images, run.config.data, run.config.seed, DeviceContext(device, memory_format))
    return recalibrate(net, mode, recalibration_images(batches, epoch, number, mode))
