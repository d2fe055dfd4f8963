"""The sections of a model card as Markdown. Text from outside is escaped here."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch

from nestnet.conditions.description import describe_motivation
from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema_sections import DataConfig
from nestnet.cost.network import forward_cost
from nestnet.data.image_data import ImageData
from nestnet.data.preprocessing import describe_eval_transform
from nestnet.deploy.accuracy import choose_measure
from nestnet.deploy.export_format import ExportFormat, UsageCode
from nestnet.models.registry import find_architecture
from nestnet.nn.mode import Mode
from nestnet.nn.recalibration import has_running_statistics
from nestnet.runs.parts import describe_parts, read_parts
from nestnet.runs.reading import Run, read_cost, read_table
from nestnet.runs.result import read_result
from nestnet.storage.safe_yaml import dump_yaml
from nestnet.text.commands import format_command
from nestnet.text.escape import for_markdown, markdown_block, markdown_code
from nestnet.text.units import format_count, format_macs
from nestnet.version import __version__
from nestnet.weights.metadata import Metadata
from nestnet.weights.source import parse_source

# With more classes than this, only some names are shown.
MAX_SHOWN_NAMES = 20

# Meaning of the channels, by their number.
COLOURS = {1: "grey", 3: "red, green, blue"}


def render_data(metadata: Metadata, data: DataConfig, images: ImageData | None) -> str:
    """Return the section on the training data and the preparation of the input.

    Args:
        metadata: metadata of the file.
        data: section `data` of the run's configuration.
        images: images of the run; `None` where they cannot be read.
    """
    source: str = data.name
    if DATA_SETS[data.name].is_own and data.root:
        # Show only the folder's name, because its path belongs to one machine.
        source = f"{data.name} {markdown_code(Path(data.root).name)}"
    rows = {"data set": source}
    # The images may no longer be on this machine.
    if images is not None:
        counts = [f"{len(images.train_labels):,} for training"]
        if images.val is not None:
            counts.append(f"{len(images.val):,} for choosing the best epoch")
        counts.append(f"{len(images.test):,} for testing")
        rows["images"] = ", ".join(counts)
    # Describe the preparation of the input in a way that can be implemented without nestnet.
    by_file = ""
    if metadata.preprocessing == "inside":
        by_file = "by the file itself: "
    mean = _join_numbers(metadata.mean)
    std = _join_numbers(metadata.std)
    rows |= {
        "classes": f"{metadata.num_classes:,}: {_shown_class_names(metadata)}",
        "input": _describe_input(metadata),
        "reading": metadata.image_reading,
        "size": f"{by_file}{describe_eval_transform(metadata.size, metadata.crop_pct)}",
        "normalisation": f"{by_file}values from 0 to 1, minus {mean}, divided by {std}",
    }
    return _table(rows)


def _describe_input(metadata: Metadata) -> str:
    channels = metadata.input_size[0]
    colours = COLOURS.get(channels, "as they were trained")
    if metadata.preprocessing == "inside":
        return f"raw pixels, uint8 [batch, height, width, {channels}], of any height and width, {colours}"
    size = " x ".join(map(str, metadata.input_size))
    return f"{size} (channels, height, width), {colours}"


def _shown_class_names(metadata: Metadata) -> str:
    """Return the names of the classes; of many classes only the first ones and the last."""
    names = [for_markdown(metadata.class_name(index)) for index in range(metadata.num_classes)]
    if len(names) > MAX_SHOWN_NAMES:
        names = [*names[: MAX_SHOWN_NAMES // 2], "...", names[-1]]
    return ", ".join(names)


def render_accuracy(run: Run, mode: Mode, images: ImageData | None, recalibration_batches: int) -> str:
    """Return the section on the accuracy that the run measured, and the BatchNorm statistics it was measured with.

    Args:
        run: run that trained the network.
        mode: subnet that the file holds.
        images: images of the run; `None` where they cannot be read.
        recalibration_batches: number of batches on which the file's BatchNorm statistics were computed; 0 for
            the running statistics.
    """
    config = run.config
    # The checkpoint may be that of the best epoch instead of the last one.
    epochs = read_table(run.path / "metrics.csv")
    epochs_done = run.checkpoint["epochs_done"]
    if not 0 < epochs_done <= len(epochs):
        return "Not measured: the run had not finished its first epoch."

    row = epochs[epochs_done - 1]
    measure = choose_measure(multi_label=config.data.multi_label)
    accuracy = measure.format(float(row[f"{mode}_{measure.key}"])).capitalize()
    # The epochs of a run with validation images are evaluated on these.
    kind = "validation" if "val_images" in row else "test"
    # Include only the parts of the sentence that are informative.
    number = ""
    if images is not None:
        number = f"{len(images.val if kind == 'validation' and images.val else images.test):,} "
    precision = ""
    if config.precision != "float32":
        precision = f" in {config.precision}"
    measured_statistics = _describe_statistics(run, config.recalibration_batches)
    with_statistics = ""
    if measured_statistics:
        with_statistics = f", with {measured_statistics}"
    sentences = [
        f"{accuracy} on the {number}{kind} images, measured by the run{precision} after epoch "
        f"{epochs_done} of {config.total_epochs}{with_statistics}."
    ]

    tested = _describe_test(run, mode, len(epochs))
    if tested:
        sentences.append(tested)

    # Say how the file differs from the network that was measured.
    if not run.checkpoint["end_of_epoch"]:
        sentences.append("The network has been trained on some further batches since.")
    statistics = _describe_statistics(run, recalibration_batches)
    if statistics != measured_statistics:
        command = format_command("evaluate", "RUN_DIR", mode=mode, best=run.best, recalibrate=recalibration_batches)
        sentences.append(f"This file has {statistics}, with which it was not measured: `{command}` does.")
    return " ".join(sentences)


def _describe_test(run: Run, mode: Mode, finished_epochs: int) -> str:
    """Return the accuracy on the test images if they were evaluated once, for the weights of this file; otherwise nothing."""
    result = read_result(run.path, run.config, finished_epochs)
    if result is None or result.test is None or result.exported_epochs[mode] != run.checkpoint["epochs_done"]:
        return ""
    measure = choose_measure(multi_label=run.config.data.multi_label)
    accuracy = measure.format(result.test[f"{mode}_{measure.key}"]).capitalize()
    return f"{accuracy} on the test images, which were evaluated once, when the run had ended."


def render_quantization(metadata: Metadata) -> str:
    """Return the paragraphs on the accuracy of a file in 8-bit integers, before those on the network in float32.

    Args:
        metadata: metadata of the file, which was quantised.
    """
    measured = metadata.quantization
    measure = choose_measure(multi_label=metadata.multi_label)
    accuracy = measure.format(measured[f"int8_{measure.key}"]).capitalize()
    return (
        f"{accuracy} on {measured['test_images']:,} test images: this file, which computes in 8-bit integers. The same network "
        f"in float32 has {measured[f'float32_{measure.key}']:.2f} % on them.\n\n"
        f"The file was calibrated on {measured['calibration_images']:,} training images by onnxruntime's static "
        "quantisation. Of the network in float32 it is known:"
    )


def _describe_statistics(run: Run, recalibration_batches: int) -> str:
    """Return the source of the BatchNorm statistics; empty for a network without any."""
    if not has_running_statistics(run.net):
        return ""
    if recalibration_batches:
        return f"BatchNorm statistics recomputed on {recalibration_batches} training batches"
    return "running BatchNorm statistics"


def render_cost(metadata: Metadata, run_dir: Path) -> str:
    """Return the section on the cost of the network and of its training.

    Args:
        metadata: metadata of the file.
        run_dir: folder of the run that trained the network.
    """
    name = metadata.architecture
    channels, *size = metadata.input_size
    macs = forward_cost(
        name, img_size=size, num_classes=metadata.num_classes, in_chans=channels, options=metadata.model_args
    )
    parameters = sum(parameter.numel() for parameter in metadata.skeleton().parameters())
    rows = {
        "parameters": f"{parameters:,}",
        "multiply-accumulates": f"{format_macs(macs)} for an image",
    }
    # A run that was stopped early has no costs yet.
    cost: dict[str, Any] = {}
    if (run_dir / "cost.json").exists():
        cost = read_cost(run_dir)
    if cost.get("actual"):
        rows["training"] = _describe_training_cost(cost, metadata)
    return _table(rows)


def _describe_training_cost(cost: dict[str, Any], metadata: Metadata) -> str:
    """Return the cost of a run as text, from its `cost.json`."""
    actual = cost["actual"]
    average = f"{format_macs(actual)} multiply-accumulates per image for the average forward pass"
    relative_to_base = cost.get("relative_to_base", actual / cost["base"])
    if relative_to_base is None:
        return f"{average}; the base was finished before, and is unchanged"
    # Batches that extend the base are additional to those of a network alone.
    alone = cost[metadata.mode]
    multiple = relative_to_base * cost["base"] / alone
    return (
        f"{average}, {multiple:.2f} times those of {for_markdown(metadata.architecture)} trained alone "
        f"({format_macs(alone)}); this trained both networks"
    )


def render_use(metadata: Metadata, usage: UsageCode, check: str, file: str, export_format: ExportFormat) -> str:
    """Return the section with code that uses the file.

    Args:
        metadata: metadata of the file.
        usage: Python that uses the file.
        check: description of how the logits of the file compare with the network's.
        file: name of the file.
        export_format: format of the file.
    """
    # The example needs torch for its images; each import is written once.
    imports = dict.fromkeys([*usage.imports, "import torch"])
    code = [
        *imports,
        "",
        f"{usage.name} = {usage.load}",
        *usage.setup,
        _example_images(metadata, export_format),
        f"logits = {usage.call}",
    ]
    block = markdown_block("\n".join([*code, ""]), "python")
    options = {"model": file}
    # A network of your own must be registered first.
    registered_by = find_architecture("architecture", metadata.architecture).registered_by
    if registered_by not in (None, "nestnet"):
        options["import"] = registered_by
    command = markdown_code(format_command("predict", "IMAGE", **options))
    # nestnet itself does not load files of torch.export.
    note = f"With nestnet, from image files: {command}"
    if export_format.name == "timm":
        note += (
            ". `transform` prepares an image that Pillow has opened as the run's evaluation did; *reading* above says what "
            "precedes it. From the Hugging Face Hub the network loads as `hf-hub:OWNER/NAME`."
        )
    if export_format.name == "torch-export":
        note = "Loading a file of torch.export can execute code: load only files whose origin you trust."
    return "\n\n".join([block, f"Checked with {for_markdown(check)}.", note])


def _example_images(metadata: Metadata, export_format: ExportFormat) -> str:
    """Return a line of Python with images that the file takes."""
    channels, height, width = metadata.input_size
    number = export_format.describe_batches(metadata.preprocessing)
    if metadata.preprocessing == "inside":
        return f"images = torch.zeros(1, 480, 640, {channels}, dtype=torch.uint8)  # raw pixels; {number}"
    return f"images = torch.zeros(1, {channels}, {height}, {width})  # normalised as above; {number}"


def render_training(run: Run) -> str:
    """Return the section on the training of the network, with the complete configuration.

    Args:
        run: run that trained the network.
    """
    config = run.config
    optimizer = for_markdown(config.optimizer.name)
    batches = ", ".join(f"{number:,} trained the {mode} network" for mode, number in run.trained.items())
    rows = {
        "networks": for_markdown(f"{config.model.base} in {config.model.motivated}"),
        "what motivates": for_markdown(_describe_phases(run)),
        "batches": batches,
        "epochs": _describe_epochs(run),
        "batch": f"{config.data.images_per_batch} images",
        "optimizer": f"{optimizer}, learning rate {config.optimizer.lr:g}, {config.schedule.name} schedule",
        "seed": str(config.seed),
        "exported by": f"nestnet {__version__}, torch {torch.__version__}, timm {timm.__version__}",
    }
    # Fold the configuration, because few readers need it.
    text = dump_yaml(_without_places(asdict(config)))
    block = markdown_block(text, "yaml")
    details = f"<details><summary>The complete configuration</summary>\n\n{block}\n\n</details>"
    return f"{_table(rows)}\n\n{details}"


def _describe_epochs(run: Run) -> str:
    """Return the number of epochs, and the parts of a run that was resumed for more."""
    epochs = f"{run.checkpoint['epochs_done']} of {run.config.total_epochs}"
    parts = read_parts(run.path, run.config)
    if len(parts) == 1:
        return epochs
    return f"{epochs}; {describe_parts(parts)}"


def _describe_phases(run: Run) -> str:
    """Return what motivates, and which epochs leave the base as it is."""
    config = run.config
    if config.extends_given_base:
        return "every batch; the base was finished before, and is unchanged"
    motivation = describe_motivation(config.motivation)
    if config.finish_epochs:
        motivation += f"; the base is unchanged in the last {format_count(config.finish_epochs, 'epoch', 'epochs')}"
    return motivation


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the values that belong to one machine: paths, and the device."""
    # Drop the folder of the run and the device.
    for name in ("run_dir", "device"):
        del config[name]
    del config["data"]["root"]
    # Keep the names of weights and of other runs, which may be informative, without their folders.
    model = config["model"]
    for name in ("base_weights", "motivated_weights"):
        if model[name]:
            source = parse_source(model[name])
            model[name] = source.name if isinstance(source, Path) else str(source)
    motivation = config["motivation"]
    if motivation["runs"]:
        motivation["runs"] = [Path(run).name for run in motivation["runs"]]
    return config


def _table(rows: dict[str, str]) -> str:
    """Return a table of names and values, which must be Markdown already."""
    lines = ["| | |", "|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {value} |")
    return "\n".join(lines)


def _join_numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
