"""The model card beside an exported file: what it is, how good, what it costs, how it is used and how it came about.

In the form of Hugging Face's model cards: YAML, then Markdown. The licence is for whoever publishes the file to say.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import yaml

from nestnet.cost.network import forward_cost
from nestnet.data.image_data import ImageData
from nestnet.data.preprocessing import in_words
from nestnet.deploy.formats import Format, Usage
from nestnet.nn.mode import Mode
from nestnet.nn.recalibration import has_statistics
from nestnet.runs.reading import Run, read_cost, read_table
from nestnet.storage.files import open_regular
from nestnet.storage.read_back import parse_yaml
from nestnet.text.escape import for_markdown, for_shell, markdown_block, markdown_code
from nestnet.training.subnet_warnings import untrained
from nestnet.version import __version__
from nestnet.weights.metadata import Metadata

LONGEST_HEAD = 4096
"""Bytes within which the YAML of a card ends."""
NAMES = 20
"""Class names that are shown; where there are more, a few of them."""


@dataclass(frozen=True)
class Export:
    """All that a card tells of.

    Attributes:
        file: its name.
        size: in bytes.
        usage: Python that uses it, run in its folder.
        images: of the run, where they could be read.
        recalibrated: training batches on which its BatchNorm statistics were computed anew; 0: they are the running ones.
        check: how its logits compare with the network's.
    """

    run: Run
    metadata: Metadata
    file: str
    size: int
    kind: Format
    usage: Usage
    images: ImageData | None
    recalibrated: int
    check: str


def model_card(export: Export) -> str:
    """The card, as Markdown."""
    head = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": [
            "image-classification",
            "timm",
            "nestnet",
            *([export.kind.name] if export.kind.name == "onnx" else []),
        ],
        "model_file": export.file,
    }
    base, motivated = (for_markdown(export.run.net.architectures.of(mode)) for mode in Mode)
    name, mode = for_markdown(export.metadata.architecture), export.metadata.mode
    trained = "not trained, " * (untrained(mode, export.run.trained) is not None)
    sections = {
        f"{name}, {trained or 'trained as '}the {mode} network of {base} in {motivated}": _what(export),
        "Data": _data(export),
        "Accuracy": _accuracy(export),
        "Cost": _cost(export),
        "Use": _use(export),
        "Training": _training(export),
        "Limits": LIMITS,
    }
    body = "\n".join(
        f"{'#' if place == 0 else '##'} {title}\n\n{text}\n" for place, (title, text) in enumerate(sections.items())
    )
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n{body}"


def described_file(card: Path) -> str | None:
    """The name of the file that a card is of, if it was written here and so may be written anew; else `None`."""
    try:
        with open_regular(card) as file:
            begin = file.read(LONGEST_HEAD).decode(errors="replace")
    except OSError:
        return None
    parts = begin.split("---\n", 2)
    if len(parts) < 3 or parts[0]:
        return None
    try:
        head = parse_yaml(parts[1])
    except yaml.YAMLError:
        return None
    if not isinstance(head, dict):
        return None
    tags = head.get("tags")
    described = head.get("model_file")
    if not isinstance(tags, list) or "nestnet" not in tags or not isinstance(described, str):
        return None
    return described


def card_path(path: Path) -> Path:
    """Where the card of an exported file belongs: `b.md` for `b.onnx`, or `b.onnx.md` where `b.md` is of another file."""
    card = path.with_suffix(".md")
    if described_file(card) in (None, path.name):
        return card
    return path.with_name(f"{path.name}.md")


LIMITS = """\
It was evaluated on the test images of this data set alone. Nothing is known of images from elsewhere: other cameras, light,
sizes, or people and places that the data set does not show. It gives one of its classes for every image, whatever that shows.
Its probabilities are a softmax of the logits, and were not calibrated."""


def _what(export: Export) -> str:
    name, mode = export.metadata.architecture, export.metadata.mode
    base, motivated = (for_markdown(export.run.net.architectures.of(each)) for each in Mode)
    never = untrained(mode, export.run.trained)
    return (
        f"An image classifier of {export.metadata.num_classes:,} classes: timm's {markdown_code(name)}. It is the *{mode}* "
        f"network of a nested pair, {base} in {motivated}, whose weights are shared in training by nestnet. "
        f"{markdown_code(export.file)} ({export.size / 2**20:.1f} MiB) holds {for_markdown(name)} alone."
        + (f"\n\n**Do not use this file**: {never}." if never else "")
    )


def _data(export: Export) -> str:
    metadata, data, images = export.metadata, export.run.config.data, export.images
    source: str = data.name
    if data.name == "folder" and data.root:
        source = f"folder {markdown_code(Path(data.root).name)}"
    rows = {"data set": source}
    if images is not None:
        choosing = f", {len(images.val):,} for choosing the best epoch" if images.val is not None else ""
        rows["images"] = f"{len(images.train_labels):,} for training{choosing}, {len(images.test):,} for testing"
    names = [for_markdown(metadata.name_of(index)) for index in range(metadata.num_classes)]
    shown = names if len(names) <= NAMES else [*names[: NAMES // 2], "...", names[-1]]
    rows |= {
        "classes": f"{len(names):,}: {', '.join(shown)}",
        "input": f"{' x '.join(map(str, metadata.input_size))} (channels, height, width), {_colour(metadata)}",
        "reading": metadata.image_reading,
        "size": in_words(metadata.size, metadata.crop_pct),
        "normalisation": f"values from 0 to 1, minus {_list(metadata.mean)}, divided by {_list(metadata.std)}",
    }
    return _table(rows)


def _colour(metadata: Metadata) -> str:
    return {1: "grey", 3: "red, green, blue"}.get(metadata.input_size[0], "as they were trained")


def _accuracy(export: Export) -> str:
    run, mode = export.run, export.metadata.mode
    epochs, done = read_table(run.path / "metrics.csv"), run.checkpoint["epochs_done"]
    if not 0 < done <= len(epochs):
        return "Not measured: the run had not finished its first epoch."
    number = f"{len(export.images.test):,} " if export.images is not None else ""
    precision = "" if run.config.precision == "float32" else f" in {run.config.precision}"
    last = epochs[done - 1]
    measured = _statistics(run, run.config.recalibration_batches)
    own = _statistics(run, export.recalibrated)
    lines = [
        f"Top-1 {float(last[f'{mode}_top1']):.2f} % on the {number}test images, measured by the run{precision} after epoch "
        f"{done} of {run.config.epochs}{measured and f', with {measured}'}."
    ]
    if not run.checkpoint["end_of_epoch"]:
        lines.append("The network was trained on some further batches since.")
    if own != measured:
        best = " --best" if run.best else ""
        command = f"nestnet evaluate RUN_DIR --mode {mode}{best} --recalibrate {export.recalibrated}"
        lines.append(f"This file has {own}, with which it was not measured: `{command}` does.")
    return " ".join(lines)


def _statistics(run: Run, batches: int) -> str:
    """Where the BatchNorm statistics come from; nothing of a network that has none."""
    if not has_statistics(run.net):
        return ""
    return (
        f"BatchNorm statistics computed anew on {batches} training batches"
        if batches
        else "running BatchNorm statistics"
    )


def _cost(export: Export) -> str:
    metadata, path = export.metadata, export.run.path
    channels, size, _ = metadata.input_size
    name, classes = metadata.architecture, metadata.num_classes
    macs = forward_cost(name, img_size=size, num_classes=classes, in_chans=channels)
    rows = {
        "parameters": f"{sum(p.numel() for p in metadata.skeleton().parameters()):,}",
        "multiply-accumulates": f"{_millions(macs)} for an image",
    }
    cost = read_cost(path) if (path / "cost.json").exists() else {}
    if actual := cost.get("actual"):
        alone = cost[metadata.mode]
        rows["training"] = (
            f"{_millions(actual)} multiply-accumulates for an image's forward pass on average, {actual / alone:.2f} times "
            f"those of {for_markdown(name)} trained alone ({_millions(alone)}); both networks came of it"
        )
    return _table(rows)


def _use(export: Export) -> str:
    usage, size = export.usage, ", ".join(map(str, export.metadata.input_size))
    imports = list(dict.fromkeys([*usage.imports, "import torch"]))
    code = [
        *imports,
        "",
        f"{usage.name} = {usage.load}",
        *usage.more,
        f"images = torch.zeros(1, {size})  # normalised as above; any number of them",
        f"logits = {usage.call}",
    ]
    block = markdown_block("".join(f"{line}\n" for line in code), "python")
    lines = [block, "", f"Checked with {for_markdown(export.check)}."]
    if export.kind.name != "torch-export":
        command = f"nestnet predict IMAGE --model {for_shell(export.file)}"
        lines += ["", f"With nestnet, from image files: {markdown_code(command)}"]
    else:
        lines += [
            "",
            "Loading a file of torch.export can execute what it holds: load only those whose origin you trust.",
        ]
    return "\n".join(lines)


def _training(export: Export) -> str:
    run, config = export.run, export.run.config
    condition = config.motivation.name + (
        f", k = {config.motivation.k}" if "decrease" in config.motivation.name else ""
    )
    optimizer = f"{for_markdown(config.optimizer.name)}, learning rate {config.optimizer.lr:g}"
    rows = {
        "networks": for_markdown(f"{config.model.base} in {config.model.motivated}"),
        "what motivates": for_markdown(condition),
        "batches": ", ".join(f"{number:,} trained the {mode} network" for mode, number in export.run.trained.items()),
        "epochs": f"{run.checkpoint['epochs_done']} of {config.epochs}",
        "batch": f"{config.data.batch_size} images",
        "optimizer": f"{optimizer}, {config.schedule.name} schedule",
        "seed": str(config.seed),
        "exported by": f"nestnet {__version__}, torch {torch.__version__}, timm {timm.__version__}",
    }
    text = yaml.safe_dump(_public(dataclasses.asdict(config)), sort_keys=False)
    block = markdown_block(text, "yaml")
    details = f"<details><summary>The whole configuration</summary>\n\n{block}\n\n</details>"
    return f"{_table(rows)}\n\n{details}"


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Without the places of one machine: the run's folder, the data's, its device, and where weights lay."""
    config = {name: value for name, value in config.items() if name not in ("run_dir", "device")}
    config["data"] = {name: value for name, value in config["data"].items() if name != "root"}
    for name in ("base_weights", "motivated_weights"):
        if config["model"][name]:
            config["model"][name] = Path(config["model"][name]).name
    if config["motivation"]["runs"]:
        config["motivation"]["runs"] = [Path(run).name for run in config["motivation"]["runs"]]
    return config


def _table(rows: dict[str, str]) -> str:
    """Rows of names and values; what comes from outside is made Markdown before."""
    cells = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *cells])


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _millions(macs: float) -> str:
    return f"{macs / 1e6:,.2f} M"
