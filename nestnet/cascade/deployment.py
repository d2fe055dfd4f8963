"""Writing a recommended cascade: as one safetensors file, or as a folder of ONNX files, checked before it takes its place."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nestnet.cascade.card import CascadeCard, render_card
from nestnet.cascade.cascade_file import usage_without_nestnet, write_cascade
from nestnet.cascade.loading import read_stored_cascade
from nestnet.cascade.module import Cascade
from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.onnx_folder import write_onnx_folder
from nestnet.cascade.study import CascadeStudy
from nestnet.deploy import card_sections
from nestnet.deploy.destination import Destination, FileDestination, FolderDestination
from nestnet.deploy.export_run import create_metadata
from nestnet.deploy.logit_check import TOLERANCE, choose_check_images
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.nn.mode import Mode
from nestnet.storage.atomic import staging_folder
from nestnet.text.escape import for_python, quoted
from nestnet.weights.metadata import Metadata

FORMATS = ("safetensors", "onnx")
"""Formats of a cascade: one file that holds both networks once, or a folder with a file of each."""


def choose_cascade_destination(output: Path, format_name: str) -> Destination:
    """Return the place of a cascade, after checking that it can be written there, before anything is measured.

    Args:
        output: file, or new folder for ONNX.
        format_name: one of `FORMATS`.

    Raises:
        ValueError: If something else is in the way, nothing can be written there, or packages are absent.
    """
    if format_name == "onnx":
        OnnxFormat().check_packages()
        return FolderDestination(output)
    return FileDestination(output)


def deploy_cascade(networks: CascadeNetworks, study: CascadeStudy, output: Path, format_name: str) -> Destination:
    """Write a recommended cascade and its card.

    Args:
        networks: networks and images of the run.
        study: study of the cascade.
        output: file, or folder for ONNX.
        format_name: one of `FORMATS`.

    Returns:
        The place where it was written.

    Raises:
        ValueError: If no cascade is recommended, or what was written does not compute what the cascade computes;
            nothing is left then.
        OSError: If a file cannot be written.
    """
    if study.recommendation.refusal is not None:
        raise ValueError(f"output = {quoted(output)}: it was not written: {study.recommendation.refusal}")
    nets = {mode: net.cpu() for mode, net in networks.nets.items()}
    metadata = {mode: create_metadata(networks.run, nets[mode], mode) for mode in Mode}
    cascade = Cascade(
        nets[Mode.BASE].standalone(Mode.BASE),
        nets[Mode.MOTIVATED].standalone(Mode.MOTIVATED),
        study.cascade.threshold,
        base_temperature=study.cascade.base_temperature,
        motivated_temperature=study.cascade.motivated_temperature,
    ).eval()
    code_without_nestnet = ""
    if format_name == "safetensors":
        code_without_nestnet = usage_without_nestnet(output.name, metadata)
    images, _ = choose_check_images(networks.images, "", metadata[Mode.BASE])
    card = CascadeCard(
        study=study,
        run=networks.run,
        metadata=metadata,
        output=output.name,
        code=_usage(output.name, metadata),
        code_without_nestnet=code_without_nestnet,
        data=card_sections.render_data(metadata[Mode.BASE], networks.run.config.data, networks.images),
    )
    destination = choose_cascade_destination(output, format_name)
    with staging_folder(destination.target) as folder:
        unfinished = folder / destination.name
        if format_name == "onnx":
            unfinished.mkdir()
            write_onnx_folder(cascade, nets, metadata, unfinished)
        else:
            write_cascade(cascade, metadata, networks.run.net.weights_map, unfinished)
        _check(unfinished, cascade, images, output)
        destination.put(unfinished, render_card(card))
    return destination


@torch.inference_mode()
def _check(path: Path, cascade: Cascade, batches: Sequence[Tensor], output: Path) -> None:
    """Load a cascade as its user would, and compare what it says of some images with what was written."""
    loaded = read_stored_cascade(path).cascade
    for images in batches:
        expected = cascade.decide(images)
        found = loaded.decide(images)
        # An image whose confidence is within rounding of the threshold may be decided by the other network.
        is_same = expected.passed_on == found.passed_on
        difference = (expected.logits - found.logits)[is_same].abs().amax()
        scale = expected.logits.abs().amax()
        if not is_same.all() or not difference <= TOLERANCE * scale.clamp(min=1):
            raise ValueError(
                f"output = {quoted(output)}: it was not written: the loaded cascade decides {int((~is_same).sum())} of "
                f"{len(images)} test images by the other network, and its logits differ by up to {difference:.2g}"
            )


def _usage(name: str, metadata: dict[Mode, Metadata]) -> str:
    """Return code that uses a cascade with nestnet."""
    size = ", ".join(map(str, metadata[Mode.BASE].input_size))
    return "\n".join(
        [
            "import nestnet",
            "import torch",
            "",
            f"cascade = nestnet.load_cascade({for_python(name)})",
            f"images = torch.zeros(1, {size})  # normalised as above; any number of them",
            "output = cascade.decide(images)",
            "probabilities = output.logits.softmax(dim=1)  # calibrated; output.passed_on says which network decided",
        ]
    )
