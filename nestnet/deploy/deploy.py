"""From a trained run to a file for a device: written, loaded again in the file's own runtime, held against the network, and
only then given its name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nestnet.data.image_data import ImageData
from nestnet.deploy.formats import Classify, Usage, format_of
from nestnet.deploy.model_card import Export, card_path, described_file, model_card
from nestnet.device import choose_device
from nestnet.nn.mode import Mode
from nestnet.runs.reading import Run
from nestnet.runtime.notices import log_notice
from nestnet.storage.files import check_output, destination, move_into_place, workplace, write_atomically
from nestnet.text.messages import message_of
from nestnet.training.evaluation import needs_images, prepare_for_eval
from nestnet.training.subnet_warnings import subnet_warnings
from nestnet.weights.metadata import Metadata

BATCHES = (1, 8, 16)
"""Images in each batch that a file is checked on: it is to take any number."""

TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit, and at least absolute."""


@dataclass(frozen=True)
class Check:
    """How a file's logits compare with the network's.

    Attributes:
        runtime: that loaded the file.
        images: "test images" of the run, or what stood in for them, and why.
        difference: the largest of all logits.
        scale: the largest logit's magnitude.
    """

    runtime: str
    images: str
    difference: float
    scale: float

    @property
    def fine(self) -> bool:
        return self.difference <= TOLERANCE * max(self.scale, 1.0)  # NaN is not

    def __str__(self) -> str:
        *few, last = BATCHES
        return (
            f"{self.runtime} on {sum(BATCHES)} {self.images}, in batches of {', '.join(map(str, few))} and {last}: the largest "
            f"difference of a logit is {self.difference:.2g}, and the largest logit {self.scale:.3g}"
        )


@dataclass(frozen=True)
class Deployed:
    """What came of it: the file, its model card, and how it is used."""

    path: Path
    card: Path
    check: Check
    usage: Usage


def deploy(
    run: Run, mode: Mode, path: Path, *, format_name: str | None = None, recalibrate: int | None = None
) -> Deployed:
    """Write the subnet of `mode` of a run, and a model card beside it.

    Args:
        path: of the file; the card has the same name with the ending `.md`, or after it where that is the card of another file.
        format_name: one of `FORMATS`; by default by the ending of `path`.
        recalibrate: training batches on which the BatchNorm statistics are computed anew; by default as many as the run did.

    Raises:
        ValueError: if the format's packages are absent, the file cannot take its place, or does not compute what the network
            computes; no file is left then.
    """
    kind = format_of(path, format_name)
    kind.check_packages()
    card = _checked_card(path)
    batches = run.config.recalibration_batches if recalibrate is None else recalibrate
    images, absent = _images(run, needed=needs_images(run, mode, batches))
    net = prepare_for_eval(run, mode, images, choose_device("auto"), batches).cpu().eval()
    data = run.config.data
    metadata = Metadata.of(
        net,
        mode,
        class_names=run.checkpoint["class_names"],
        input_size=run.checkpoint["input_size"],
        mean=data.mean,
        std=data.std,
        crop_pct=data.crop_pct,
    )
    with workplace(path) as folder:
        unfinished = folder / path.name
        kind.write(net, metadata, unfinished)
        samples, what = _samples(images, absent, metadata)
        check = Check(kind.runtime, what, *compare(kind.load(unfinished, metadata), net.subnet(mode), samples))
        if not check.fine:
            raise ValueError(f"--output {path}: it was not written, its logits are not those of the network: {check}")
        size, usage = unfinished.stat().st_size, kind.usage(path.name, metadata)
        export = Export(run, metadata, path.name, size, kind, usage, images, batches, str(check))
        write_atomically(card, model_card(export))
        move_into_place(unfinished, path)
    found = subnet_warnings(net, mode, run.trained, recalibrated=batches, run_dir=run.path, best=run.best, output=path)
    for shortcoming in found:
        log_notice(shortcoming)
    return Deployed(path, card, check, kind.usage(str(path), metadata))


@torch.inference_mode()
def compare(classify: Classify, network: nn.Module, batches: Sequence[Tensor]) -> tuple[float, float]:
    """The largest difference between the logits of a loaded file and of the network, and the largest magnitude of these."""
    pairs = [(classify(images), network(images)) for images in batches]
    differences = torch.cat([(found - expected).abs().flatten() for found, expected in pairs])
    return differences.max().item(), max(expected.abs().max().item() for _, expected in pairs)


def _checked_card(path: Path) -> Path:
    """Return where the model card of a file belongs, once nothing is in the way of either."""
    check_output(path)
    card = card_path(path)
    if path == card:
        raise ValueError(f"--output {path}: the model card takes this name; name a file with another ending")
    if os.path.exists(card) and described_file(card) != path.name:
        raise ValueError(
            f"--output {path}: {card} is there and no model card of nestnet's; move it, or name another file"
        )
    try:
        destination(card)
    except OSError as error:
        raise ValueError(f"--output {path}: {card}, the model card, cannot be written: {error.strerror}") from error
    return card


def _images(run: Run, *, needed: bool) -> tuple[ImageData | None, str]:
    """The run's images, or why there are none."""
    try:
        return run.images(download=needed), ""  # a check is worth no download
    except (ValueError, OSError) as error:
        if needed:
            raise
        return None, message_of(error)


def _samples(images: ImageData | None, absent: str, metadata: Metadata) -> tuple[list[Tensor], str]:
    """Batches `[B, C, H, W]` of test images from all over the set, and what they are.

    Where they cannot be read, random pixels, normalised, stand in for them.
    """
    number = sum(BATCHES)
    if images is not None:
        try:
            chosen = [images.test[index * len(images.test) // number][0] for index in range(number)]
            return list(torch.stack(chosen).split(BATCHES)), "test images"
        except (ValueError, OSError) as error:
            absent = message_of(error)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (metadata.mean, metadata.std))
    pixels = torch.rand(number, *metadata.input_size, generator=torch.Generator().manual_seed(0))
    return list(((pixels - mean) / std).split(BATCHES)), f"random images (those of the run cannot be read: {absent})"
