"""Top-1 of subnets, with their BatchNorm statistics as they are or computed anew."""

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from nestnet.data import ImageData, in_epoch, train_loader
from nestnet.mode import Mode
from nestnet.nested import NestedModel
from nestnet.recalibration import recalibrate
from nestnet.run_directory import Run


def recalibrated(
    net: NestedModel,
    mode: Mode,
    batches: Iterable[tuple[Tensor, Tensor]],
    number: int,
    to_device: Callable[[Tensor], Tensor],
) -> NestedModel:
    """The network with the statistics of `mode` computed anew on the first `number` of the batches; 0: as it is."""
    if not number:
        return net
    return recalibrate(net, mode, (to_device(images) for images, _ in itertools.islice(batches, number)))


def ready(run: Run, mode: Mode, images: ImageData, device: torch.device, batches: int) -> NestedModel:
    """The network of a finished run as the run itself would evaluate and export `mode`, recalibrated on so many batches.

    Raises:
        ValueError: if the number is below 0.
    """
    if batches < 0:
        raise ValueError(f"--recalibrate {batches}: it must be at least 0 training batches")
    layout = torch.channels_last if run.config.channels_last else torch.preserve_format
    net = run.net.to(device).to(memory_format=layout)
    if not batches:
        return net
    loader = in_epoch(train_loader(images, run.config.data, run.config.seed), run.checkpoint["epochs_done"])
    return recalibrated(net, mode, loader, batches, lambda images: images.to(device, memory_format=layout))


@torch.inference_mode()
def top1(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    modes: Iterable[Mode] = tuple(Mode),
    *,
    device: torch.device,
    precision: str = "float32",
) -> dict[Mode, float]:
    """The share of images, in percent, for which the subnet of each mode gives the right class the largest logit."""
    correct, total = dict.fromkeys(modes, 0), 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        total += len(labels)
        for mode in correct:
            with autocast(device, precision):
                logits = net(images, mode)
            correct[mode] += int((logits.argmax(dim=1) == labels).sum())
    return {mode: 100 * count / total for mode, count in correct.items()}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16, or nothing for `"float32"`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
