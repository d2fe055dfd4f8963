"""The YAML at the head of a model card, by which model hubs list, filter and compare models."""

from pathlib import Path
from typing import NamedTuple

import timm
from huggingface_hub import EvalResult, ModelCardData

from nestnet.config.schema_sections import SLICE, DataConfig
from nestnet.deploy.accuracy import choose_measure
from nestnet.deploy.export_format import ExportFormat
from nestnet.nn.mode import Mode
from nestnet.nn.recalibration import has_running_statistics
from nestnet.runs.reading import Run, read_table
from nestnet.runs.result import read_result
from nestnet.storage.safe_yaml import dump_yaml
from nestnet.text.escape import for_terminal
from nestnet.weights.metadata import Metadata
from nestnet.weights.source import HubName, TimmName, parse_source

TASK = "image-classification"
"""Name of the task on model hubs."""

DATA_SETS_ON_THE_HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "imagenet": "ILSVRC/imagenet-1k",
}
"""Names of data sets on the Hugging Face Hub, by their names in `data.name`."""


class Measured(NamedTuple):
    """Accuracy that was measured.

    Attributes:
        split: images that it was measured on, `test` or `validation`.
        percent: the accuracy in percent.
    """

    split: str
    percent: float


def render_head(
    run: Run, metadata: Metadata, export_format: ExportFormat, file: str, recalibration_batches: int
) -> str:
    """Return the YAML at the head of the card of an exported network, between its two lines of dashes.

    The licence is left to whoever publishes the file, because it depends on the images and on the trained weights that
    the run started from.

    Args:
        run: run that trained the network.
        metadata: metadata of the file.
        export_format: format of the file.
        file: name of the file that the card describes.
        recalibration_batches: number of batches on which the file's BatchNorm statistics were computed; 0 for
            the running statistics.
    """
    tags = [TASK, "timm", "nestnet"]
    # Hugging Face finds these files by the names of their libraries.
    if export_format.name in ("onnx", "openvino"):
        tags.append(export_format.name)
    if metadata.precision != "float32":
        tags.append(metadata.precision)
    data_set = DATA_SETS_ON_THE_HUB.get(run.config.data.name)
    result = _measured_result(run, metadata, recalibration_batches)
    data = ModelCardData(
        library_name="timm",
        pipeline_tag=TASK,
        tags=tags,
        base_model=_started_from(run, metadata.mode) or None,
        datasets=None if data_set is None else [data_set],
        metrics=None if result is None else [result.metric_type],
        model_name=metadata.architecture,
        eval_results=None if result is None else [result],
        model_file=file,
    )
    return dump_yaml(data.to_dict())


def _measured_result(run: Run, metadata: Metadata, recalibration_batches: int) -> EvalResult | None:
    """Return the accuracy of the file, or `None` if it was measured for other weights than the file's."""
    measured = _measured_by_run(run, metadata, recalibration_batches)
    measure = choose_measure(multi_label=metadata.multi_label)
    if metadata.quantization:
        measured = Measured("test", metadata.quantization[f"int8_{measure.key}"])
    if measured is None:
        return None
    metric, name = "accuracy", "Top-1 accuracy"
    if metadata.multi_label:
        metric, name = "mean_average_precision", "Mean average precision"
    data_type, data_name = _describe_data_set(run.config.data)
    return EvalResult(
        task_type=TASK,
        dataset_type=data_type,
        dataset_name=data_name,
        dataset_split=measured.split,
        metric_type=metric,
        metric_name=name,
        metric_value=round(measured.percent / 100, 4),  # a fraction, as hubs compare them
    )


def _measured_by_run(run: Run, metadata: Metadata, recalibration_batches: int) -> Measured | None:
    """Return what the run measured for the weights and the statistics of a file, if it did."""
    epochs = read_table(run.path / "metrics.csv")
    epochs_done = run.checkpoint["epochs_done"]
    is_measured = 0 < epochs_done <= len(epochs) and run.checkpoint["end_of_epoch"]
    has_same_statistics = recalibration_batches == run.config.recalibration_batches or not has_running_statistics(
        run.net
    )
    if not is_measured or not has_same_statistics:
        return None
    mode = metadata.mode
    column = f"{mode}_{choose_measure(multi_label=metadata.multi_label).key}"
    row = epochs[epochs_done - 1]
    if "val_images" not in row:
        return Measured("test", float(row[column]))
    # The epochs of a run with validation images are evaluated on these, and the test images once at its end.
    result = read_result(run.path, run.config, len(epochs))
    if result is not None and result.test is not None and result.exported_epochs[mode] == epochs_done:
        return Measured("test", result.test[column])
    return Measured("validation", float(row[column]))


def _describe_data_set(data: DataConfig) -> tuple[str, str]:
    """Return the type of the data set, as hubs name it, and its name for people."""
    if data.name == "folder" and data.root:
        # Only the folder's name, because its path belongs to one machine.
        return "imagefolder", for_terminal(Path(data.root).name)
    return DATA_SETS_ON_THE_HUB.get(data.name, data.name), data.name


def _started_from(run: Run, mode: Mode) -> list[str]:
    """Return the repositories of the Hugging Face Hub from whose weights the network of `mode` started."""
    model = run.config.model
    sources = {Mode.MOTIVATED: model.motivated_weights, Mode.BASE: model.base_weights}
    # The base's own weights have replaced its part of the motivated network's.
    if mode is Mode.BASE and model.base_weights not in (None, SLICE):
        del sources[Mode.MOTIVATED]
    repositories: list[str] = []
    for subnet, source in sources.items():
        if source in (None, SLICE):
            continue
        name = parse_source(source)
        if isinstance(name, HubName):
            repositories.append(name.repository)
        if isinstance(name, TimmName):
            config = timm.get_pretrained_cfg(str(TimmName(run.net.architectures.of(subnet), name.tag)))
            if config is not None and config.hf_hub_id:
                repositories.append(config.hf_hub_id)
    return repositories
