"""The export of a subnet of a run to a file or folder for a device.

It is written under a temporary name, loaded again in its own runtime, and checked against the network. Only then is
it renamed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nestnet.data.image_data import ImageData
from nestnet.deploy.accuracy_check import AccuracyCheck
from nestnet.deploy.class_check import ClassCheck, check_classes
from nestnet.deploy.destination import choose_destination
from nestnet.deploy.export_format import ExportFormat, UsageCode
from nestnet.deploy.formats import choose_format
from nestnet.deploy.int8_export import (
    Int8Settings,
    require_onnx,
    require_preprocessing_outside,
    write_int8,
)
from nestnet.deploy.logit_check import LogitCheck, choose_check_images, compare_logits
from nestnet.deploy.model_card import Export, render_model_card
from nestnet.device import choose_device
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runs.reading import Run
from nestnet.runtime.log import log_notice
from nestnet.storage.atomic import staging_folder
from nestnet.text.escape import quoted
from nestnet.text.messages import message_of
from nestnet.training.evaluation import needs_images, prepare_for_eval
from nestnet.training.subnet_warnings import subnet_warnings
from nestnet.weights.metadata import Metadata


@dataclass(frozen=True)
class DeployedFile:
    """File or folder that was written and checked.

    Attributes:
        path: path of the file or folder.
        card: path of its model card.
        check: comparison of its logits with the network's; of its classes for a file that prepares images itself, and of
            its accuracy for one in 8-bit integers.
        usage: Python code that uses the file.
    """

    path: Path
    card: Path
    check: LogitCheck | ClassCheck | AccuracyCheck
    usage: UsageCode


def export_run(
    run: Run,
    mode: Mode,
    path: Path,
    *,
    format_name: str | None = None,
    recalibrate: int | None = None,
    int8: Int8Settings | None = None,
    preprocessing: str = "outside",
    opset: int | None = None,
) -> DeployedFile:
    """Write a subnet of a run, and a model card beside it.

    Args:
        run: run from `nestnet.runs.reading.read_run`.
        mode: mode of the subnet to write.
        path: file to write, or folder to make. The card of a file has the same name with the suffix `.md`, or `.md`
            appended to the whole name if the former is the card of another file; that of a folder lies in it.
        format_name: one of `nestnet.deploy.formats.EXPORT_FORMATS`; by default chosen by the suffix of `path`.
        recalibrate: number of training batches on which the BatchNorm statistics are recomputed; by
            default the run's own number.
        int8: settings of the quantisation to 8-bit integers; `None` for a file in float32.
        preprocessing: `"inside"` for a file that resizes, crops and normalises raw pixels itself, so that it takes images
            of any size; `"outside"` for one that takes normalised images.
        opset: version of ONNX's operators, for ONNX files; by default torch's own choice.

    Returns:
        The file and its card.

    Raises:
        ValueError: If packages of the format are absent, the format cannot hold the network, the file cannot be
            written to its place, it does not compute what the network computes, or 8-bit integers cost too much accuracy;
            no file is left then.
    """
    export_format = choose_format(path, format_name, opset=opset)
    if int8 is not None:
        require_onnx(export_format)
        require_preprocessing_outside(preprocessing)
    export_format.check_packages()
    export_format.check_preprocessing(preprocessing)
    # Check that the output can be written before anything is computed.
    export_format.check_target(run.net.architectures.of(mode), path)
    destination = choose_destination(path, export_format)
    batches = run.config.recalibration_batches if recalibrate is None else recalibrate
    # Prepare the network on the CPU, with the statistics for the file.
    # The accuracy of 8-bit integers is measured, so the images must be there.
    images, absence = _load_images(run, needed=int8 is not None or needs_images(run, mode, batches))
    net = prepare_for_eval(run, mode, images, choose_device("auto"), batches).cpu().eval()
    metadata = create_metadata(run, net, mode, preprocessing)
    with staging_folder(destination.target) as folder:
        unfinished = folder / destination.name
        check: LogitCheck | ClassCheck | AccuracyCheck
        if int8 is None:
            export_format.write(net, metadata, unfinished)
            check = _check_file(export_format, unfinished, metadata, net, images, absence)
        else:
            assert images is not None
            metadata, check = write_int8(require_onnx(export_format), net, metadata, unfinished, run, images, int8)
        _require_passed(check, path)

        export = Export(
            run=run,
            metadata=metadata,
            file=destination.name,
            size=export_format.weights_file(unfinished).stat().st_size,
            export_format=export_format,
            usage=export_format.usage(destination.name, metadata),
            images=images,
            recalibration_batches=batches,
            check=str(check),
        )
        destination.put(unfinished, render_model_card(export))

    options = _describe_options(format_name, preprocessing, opset, int8)
    _log_shortcomings(run, net, mode, batches, destination.again, options)
    return DeployedFile(path, destination.card, check, export_format.usage(str(path), metadata))


def _describe_options(
    format_name: str | None, preprocessing: str, opset: int | None, int8: Int8Settings | None
) -> dict[str, object]:
    """Return the options of the command that exports a file in the same way, without those that have their default."""
    options: dict[str, object] = {"format": format_name, "opset": opset}
    if preprocessing != "outside":
        options["preprocessing"] = preprocessing
    if int8 is not None:
        options |= {"precision": "int8", **asdict(int8)}
    return options


def _log_shortcomings(
    run: Run, net: NestedModel, mode: Mode, batches: int, output: Path, options: Mapping[str, object]
) -> None:
    """Log warnings about the written network, such as that it was not trained.

    Args:
        run: run that trained it.
        net: nested network, as it was written.
        mode: mode of the subnet.
        batches: number of training batches on which the BatchNorm statistics were recomputed.
        output: path that a recommended command writes.
        options: further options of the recommended command.
    """
    shortcomings = subnet_warnings(
        net,
        mode,
        run.trained,
        recalibrated=batches,
        run_dir=run.path,
        best=run.best,
        output=output,
        export_options=options,
        base_is_given=run.config.extends_given_base,
        statistics_are_given=run.config.model.freeze is not None,
    )
    for shortcoming in shortcomings:
        log_notice(shortcoming)


def _check_file(
    export_format: ExportFormat,
    file: Path,
    metadata: Metadata,
    net: NestedModel,
    images: ImageData | None,
    absence: str,
) -> LogitCheck | ClassCheck:
    """Load a file as its user would, and compare it with the network that it was written from."""
    model = export_format.load(file, metadata)
    network = net.subnet(metadata.mode)
    if metadata.preprocessing == "inside":
        return check_classes(model, export_format.runtime, network, images, absence, metadata)
    batches, description = choose_check_images(images, absence, metadata)
    difference, scale = compare_logits(model, network, batches)
    return LogitCheck(export_format.runtime, description, difference, scale)


def _require_passed(check: LogitCheck | ClassCheck | AccuracyCheck, path: Path) -> None:
    """Raise a ValueError if a file did not pass its check."""
    if not check.passed:
        raise ValueError(f"output = {quoted(path)}: it was not written, {check.describe_failure()}")


def create_metadata(run: Run, net: NestedModel, mode: Mode, preprocessing: str = "outside") -> Metadata:
    """Return the metadata of the file of a subnet.

    Args:
        run: run that trained the network.
        net: nested network.
        mode: mode of the subnet.
        preprocessing: `"inside"` if the file prepares images itself, otherwise `"outside"`.
    """
    data = run.config.data
    return Metadata.from_network(
        net,
        mode,
        class_names=run.checkpoint["class_names"],
        input_size=run.checkpoint["input_size"],
        mean=data.mean,
        std=data.std,
        crop_pct=data.crop_pct,
        preprocessing=preprocessing,
        multi_label=data.multi_label,
    )


def _load_images(run: Run, *, needed: bool) -> tuple[ImageData | None, str]:
    """Return the images of the run, or `None` and why they cannot be read.

    Args:
        run: the run.
        needed: whether the export needs the images. For the check only, they are not downloaded.
    """
    try:
        return run.images(download=needed), ""
    except (ValueError, OSError) as error:
        if needed:
            raise
        return None, message_of(error)
