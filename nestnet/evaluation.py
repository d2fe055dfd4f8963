"""Top-1 of subnets, with their BatchNorm statistics as they are or computed anew."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nestnet.data import ImageData
from nestnet.loaders import train_batches
from nestnet.mode import Mode
from nestnet.nested import NestedModel
from nestnet.place import Place
from nestnet.precision import autocast
from nestnet.processes import Processes
from nestnet.recalibration import recalibrate
from nestnet.run_directory import Run


def recalibrated(net: NestedModel, mode: Mode, batches: Iterable[tuple[Tensor, Tensor]], number: int) -> NestedModel:
    """The network with the statistics of `mode` computed anew on the first `number` of the batches."""
    return recalibrate(net, mode, itertools.islice(batches, number))


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
    loader = train_batches(images, run.config.data, run.config.seed, Place(device, layout))
    return recalibrated(net, mode, loader.epoch(run.checkpoint["epochs_done"]), batches)


@torch.inference_mode()
def top1(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    modes: Iterable[Mode] = tuple(Mode),
    *,
    precision: str = "float32",
    processes: Processes | None = None,
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
    total, *correct = (processes or Processes()).total(counts).tolist()
    return {mode: 100 * count / total for mode, count in zip(modes, correct, strict=True)}
