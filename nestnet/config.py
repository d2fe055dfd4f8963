"""The configuration of a run: plain dataclasses, filled from YAML with dotted overrides.

The only file that calls jsonargparse. Every field says its unit, its range and its effect; `nestnet train --help` prints them.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml

from nestnet.config_files import contents, nearest
from nestnet.escape import is_utf8
from nestnet.files import write_atomically
from nestnet.messages import in_one_line
from nestnet.paths import expand_home

Pair = float | list[float]
Corrupt = Literal["stop", "skip"]
Augmentation = Literal["shift", "crop", "resized_crop", "none"]
DataName = Literal["digits", "cifar10", "cifar100", "flowers102", "oxford_pets", "imagenet", "folder"]

PATHS = ("run_dir", "data.root", "model.base_weights", "model.motivated_weights", "motivation.runs")
"""Fields that name files or folders: a `~` at their beginning is the home directory."""

IMG_SIZES: dict[str, int] = {"digits": 8, "cifar10": 32, "cifar100": 32}
"""Pixels a side of training images where `data.img_size` names no other; 224 of all other data."""


@dataclass
class ModelConfig:
    """The pair of networks. Options left at null are the family's defaults: see `nestnet.create_model`."""

    base: str = "resnet20"
    """timm's name of the network that trains by default."""
    motivated: str = "resnet32"
    """timm's name of the network around it."""
    num_classes: int | None = None
    """Outputs of the head; null: the classes of the data."""
    in_chans: int | None = None
    """Channels of the images, 1 or 3; null: those of the data."""
    batch_norm: Literal["private", "shared"] | None = None
    """Whether each mode keeps its own running statistics or both share one set (the paper's way). Not for a ViT, which has
    none."""
    depth_map: Literal["last", "first"] | None = None
    """Which motivated block holds a stage's last base block: the last, or the first free one."""
    qkv_map: Literal["heads", "prefix"] | None = None
    """ViT: whether the base has part of the queries, keys and values each, or the first rows of the packed matrix."""
    drop_rate: Pair | None = None
    """Dropout before the head, from 0 to below 1: one number, or a pair [base, motivated]."""
    drop_path_rate: Pair | None = None
    """Stochastic depth of the last block, from 0 to below 1: one number, or a pair [base, motivated]."""
    pos_drop_rate: Pair | None = None
    """ViT: dropout of the position embedding."""
    proj_drop_rate: Pair | None = None
    """ViT: dropout after the projections of attention and MLP."""
    attn_drop_rate: Pair | None = None
    """ViT: dropout of the attention weights."""
    zero_init_last: bool | None = None
    """ResNet: whether each block's last BatchNorm starts at 0."""
    base_weights: str | None = None
    """Start the base from an export or another checkpoint file of that network, or, with `timm`, from the weights that timm
    downloads for it. A head is taken by the names of the classes; one for other classes, or for classes without names, is left
    out with a notice. Where no networks are named, they and the image size are those of the export."""
    motivated_weights: str | None = None
    """Likewise the motivated network, of which the base is a part; `base_weights` are then written over that part."""


@dataclass
class DataConfig:
    """The images."""

    name: DataName = "digits"
    """`digits`: the 1,797 scikit-learn digits, 8 x 8 grey pixels, a fifth held out. `cifar10`, `cifar100`, `flowers102`,
    `oxford_pets`: as torchvision stores them below `root`. `imagenet`: `train/` and `val/` with a folder for each WordNet
    id. `folder`: images of your own."""
    root: str | None = None
    """Where the images lie. folder: it holds `train/` and `test/` or `val/` (or other usual names of theirs), each with a
    folder of images for each class, or the class folders themselves: about a fifth of each class is then held out for
    testing, chosen by the names of the files. With `val/` and `test/` the best epoch is chosen on the former, and the latter is
    reported. null: `data`, but a folder must be named."""
    corrupt: Corrupt = "stop"
    """What an image file that cannot be read does. `stop`: it ends the run. `skip`: in training the next readable image is
    taken in its place; of the test images it is left out, for which they are all read once at the start. Each such file
    is named on standard error. A training image of a resumed run that is not there any more is treated in the
    same way."""
    download: bool = False
    """Whether torchvision may download what is not there (CIFAR, Flowers, Pets)."""
    img_size: int | None = None
    """Height and width in pixels that training images are brought to; null: 8 for digits, 32 for CIFAR, else 224."""
    eval_img_size: int | None = None
    """The same for test images; null: `img_size`."""
    crop_pct: float | None = None
    """The part of a large test image's shorter side that is kept, from 0.01 to 1; null: timm's of the network."""
    batch_size: int = 128
    """Images a training step, at least 2, of all processes together: each gets an equal part. A last, smaller batch of an
    epoch is left out."""
    eval_batch_size: int = 256
    """Images at a time in evaluation; it does not change the result."""
    augment: Augmentation | None = None
    """Training images. `shift`: padded by an eighth and cropped at random. `crop`: that and a random flip, usual for
    small images. `resized_crop`: a random part, flipped at random, usual for large ones. null: `shift` for digits, `crop`
    up to 64 pixels, else `resized_crop`."""
    auto_augment: str | None = None
    """After that: `cifar10` or `imagenet`, AutoAugment's policies for them, or timm's RandAugment, such as
    `rand-m9-mstd0.5-inc1`. For colour images."""
    random_erasing: float = 0.0
    """The probability that a random rectangle of an image is filled with noise (timm's), from 0 to 1."""
    cutout: int = 0
    """Side in pixels of a square of each training image that is set to the mean colour, anywhere in it; 0 for none. Usual
    for CIFAR are 8 and 16."""
    mixup: float = 0.0
    """Alpha of Mixup (timm's): 0 for none; usual are 0.1 to 0.8."""
    cutmix: float = 0.0
    """Alpha of CutMix (timm's): 0 for none; usual is 1. With both, each batch gets one of them."""
    mixup_prob: float = 1.0
    """The probability that a batch is mixed, above 0, at most 1. For Mixup and CutMix."""
    repeats: int = 1
    """Repeated augmentation: how often an epoch has each of its images, differently augmented, at least 1. The epoch stays
    as long; it has fewer different images."""
    mean: list[float] | None = None
    """Of each channel of images with values from 0 to 1, by which they are normalised, itself from 0 to 1; null: those of the
    data set (digits, CIFAR), else timm's of the motivated network."""
    std: list[float] | None = None
    """Likewise, above 0."""
    loader: Literal["auto", "resident", "files"] = "auto"
    """`resident`: all images are kept on the device as bytes and augmented there, a whole batch at a time; for images of up
    to 64 pixels and the augmentations of `augment` and `cutout`. `files`: each image is read and augmented by itself.
    `auto`: `resident` where that can be. The two draw different random numbers."""
    workers: int = 0
    """Processes that read images (resident ones once, at the start); 0 reads them in the training process."""


@dataclass
class LossConfig:
    """The loss that is trained."""

    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """`bce`: binary cross entropy of each class (timm's), averaged over the classes."""
    label_smoothing: float = 0.0
    """The part of a label that is spread over all classes, from 0 to below 1."""
    target_threshold: float | None = None
    """bce with Mixup or CutMix: targets above it count as 1 and the others as 0, so that an image mixed of two counts as both,
    from 0 to below 1; null: targets are as Mixup and smoothing make them."""


@dataclass
class OptimizerConfig:
    """One of timm's optimizers. Biases, norms, position embedding and class token have no weight decay."""

    name: str = "momentum"
    """timm's name: `momentum` (SGD), `sgd` (SGD with Nesterov's momentum), `adamw`, `rmsprop`, `lamb` ... `docs/optimizers.md`
    says of each whether it trains as the paper's copying does."""
    lr: float = 0.1
    """Learning rate, above 0, at most 1e30."""
    weight_decay: float = 5e-4
    """At least 0, at most 1e6."""
    momentum: float = 0.9
    """From 0 to below 1; for optimizers that have one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, such as `{betas: [0.9, 0.99]}`."""
    step_count: Literal["own", "literal"] = "own"
    """Adam and its kin: whether the differential part of a weight counts its own steps, or takes over the base's count as
    the paper's copying does. `literal` is for optimizers that count the steps of each weight, and so not for SGD and LAMB;
    nor for those that update a tensor as a whole, such as Adafactor."""
    clip_grad: float | None = None
    """Largest norm of all gradients together, above 0; null: no clipping."""


@dataclass
class ScheduleConfig:
    """One of timm's learning rate schedules."""

    name: Literal["cosine", "tanh", "step", "multistep", "poly", "none"] = "cosine"
    """timm's name; `none` keeps the learning rate."""
    interval: Literal["step", "epoch"] = "step"
    """Whether the learning rate changes after each batch or after each epoch."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up, from 0 to below `epochs`, of which they are a part. Not with `none`."""
    warmup_lr: float = 1e-5
    """Learning rate at the start of warm-up, from 0 to `optimizer.lr`. Only with warm-up."""
    warmup_prefix: bool = False
    """Whether the schedule starts when warm-up ends; else warm-up covers its first epochs. Only with warm-up."""
    min_lr: float = 0.0
    """cosine, tanh, poly: learning rate at the end, from 0 to `optimizer.lr`."""
    decay_epochs: float = 30.0
    """step: epochs between decays, above 0 and below `epochs`."""
    decay_milestones: list[int] = field(default_factory=lambda: [30, 60])
    """multistep: the epochs of decays, rising, from 1 to below `epochs`."""
    decay_rate: float = 0.1
    """step, multistep: what a decay multiplies the learning rate by, above 0; poly: the power, above 0. Above 1 the learning
    rate grows, to 1e30 at most."""


@dataclass
class MotivationConfig:
    """What motivates: which of the two networks a batch trains."""

    name: str = "loss_decrease"
    """`loss_decrease`: k falling losses in a row, the paper's. `ema_decrease`: k falls of the loss's moving average.
    `held_out_loss_decrease`: k falling losses, by the configured loss function, on one batch of training images that is kept
    out of training.
    `gradient_norm_increase`: k rising gradient norms. `random`: a random number of random batches in each epoch (the
    paper's experiment A). `random_like`: random batches, as many as in earlier runs (experiment B). `periodic`: every
    period-th batch. `always`, `never`: classical training of the motivated or the base network. `joint`: both
    networks at every batch. Others: `nestnet.register_condition`."""
    k: int = 2
    """From 1 to 20. With falling losses about one batch in (k+1)! is motivated: a sixth for 2, a 24th for 3. The first k + 1
    batches of an epoch never are, so that an epoch must have more. No effect on conditions that count nothing, so that one
    configuration can be trained with each."""
    decay: float | None = None
    """ema_decrease: the average's share of itself at each batch, from 0 to below 1; null: 0.9."""
    min_drop: float | None = None
    """ema_decrease: the smallest relative fall that counts; null: 0.002."""
    period: int | None = None
    """periodic: every how many batches; null: (k+1)!, as often as k falling losses are expected."""
    runs: list[str] | None = None
    """random_like: the run directories whose motivated batches are counted."""
    counts: list[int] | None = None
    """random_like: the motivated batches of each epoch; null: those that `runs` had on average, which the run then records
    here, so that it does not need them any more."""
    distillation: float | None = None
    """joint: the share of the motivated network's output, against that of the labels, in the base's targets, from 0 to 1;
    null: 0. At 1 the base learns from the motivated network alone (in-place distillation)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of a condition of your own."""


@dataclass
class Config:
    """A run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    motivation: MotivationConfig = field(default_factory=MotivationConfig)
    epochs: int = 20
    """Passes over the training images, at least 1."""
    seed: int = 0
    """Of the initial weights, the order of the images, their augmentation and dropout; at least 0."""
    run_dir: str | None = None
    """Where the run leaves its files; it must be new or empty. null: a new folder below `runs/`."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto`: cuda where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: autocast, in training and evaluation. It pays on GPUs and on CPUs with AMX or AVX512-BF16."""
    channels_last: bool = False
    """Memory format of images and convolutions. It pays for convolutional networks."""
    accumulate: int = 1
    """Parts that each batch is trained in, one after another and in the same mode, with one step of the optimizer: a large
    batch in less memory. BatchNorm sees a part at a time."""
    ema_decay: float | None = None
    """Keep a moving average of the weights, its share of itself at each step above 0 and below 1, such as 0.999; it is what is
    evaluated and exported. It warms up as timm's does: after t steps the share is at most 1 - (1 + t)^(-2/3). null: none."""
    compile: bool = False
    """Whether torch.compile makes kernels for each mode's forward and backward pass, at its first step. On a CPU it takes a
    C++ compiler."""
    cuda_graphs: bool = False
    """On CUDA: whether the whole step of each mode is captured after its first three and then replayed, without the
    host's work. It pays where a step takes few milliseconds. The optimizer must be torch's SGD, Adam, AdamW, Adamax, NAdam,
    RAdam, RMSprop or Adadelta."""
    sync_batch_norm: bool = False
    """With several processes: whether BatchNorm sees the images of all of them, as one process would. No effect on one."""
    recalibration_batches: int = 0
    """Training batches on which the BatchNorm statistics of each network are computed anew before each evaluation; the exports
    have those of the last one. Where an epoch has fewer batches, those of the following epochs are taken too. 0: the running
    statistics are used."""
    snapshot_steps: int = 0
    """Batches between the snapshots of the base's weights that `nestnet dynamics` draws; 0: none."""
    checkpoint_steps: int = 0
    """Batches between checkpoints, besides that of each epoch; 0: by `checkpoint_minutes` alone."""
    checkpoint_minutes: float = 10.0
    """Minutes after which a checkpoint is due, besides that of each epoch; 0: by `checkpoint_steps` alone."""
    non_finite: Literal["stop", "skip"] = "stop"
    """A batch whose loss is NaN or infinite never moves the weights. `stop`: the run ends with a checkpoint from before it.
    `skip`: it goes on with the next batch, and the skipped ones are counted."""
    deterministic: bool = False
    """On CUDA: take only algorithms that give the same bits each time, at some cost in speed. On a CPU all are."""
    tensorboard: bool = False
    """Whether to write losses and accuracies for TensorBoard too, below `tensorboard/` in the run directory. It takes
    `pip install "nestnet[tensorboard]"`."""


SECTIONS: dict[str, Any] = {"model": ModelConfig, "data": DataConfig, "loss": LossConfig, "optimizer": OptimizerConfig}
SECTIONS |= {"schedule": ScheduleConfig, "motivation": MotivationConfig}


def parse(
    arguments: list[str],
    *,
    prog: str = "nestnet train",
    others: Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
    literal: Collection[str] | None = (),
) -> Config:
    """The configuration of a command line: `--config FILE` and `--section.key value`, later ones over earlier ones.

    A file may start from others: `include: FILE`, or a list of them, taken from its own folder; its own fields go over theirs.
    Without a file, `--data.root FOLDER` is enough for a folder of images: all else is chosen by them
    (`nestnet.own_data`), and the arguments go over it.

    Args:
        others: names of options that the verb has besides, so that a misspelt one can be told from them.
        tell: gets a line or two about what was chosen for a folder of images.
        literal: paths whose `~` is not the home directory, such as those that an earlier run has resolved; `None`: all.

    Raises:
        ValueError: for an unknown key, a value of the wrong type or out of range, values that do not go together, or an absent
            file: one line that names the field, its value, the rule and the remedy.
    """
    from nestnet.rules import checked  # they know the networks, which take a second to import

    parser, arguments = _parser(prog), _expanded(arguments, others)
    try:
        given = _at_home(parser.parse_args(arguments, defaults=False), literal).as_dict()
        chosen = _of_exports(given)
        seen = _own_data(given)
        if seen is not None:
            chosen = seen.recipe(_over(given, chosen))
        if chosen:
            arguments = [f"--config={json.dumps(chosen)}", *arguments]
        namespace = _at_home(parser.parse_args(arguments), literal)
    except jsonargparse.ArgumentError as error:
        raise ValueError(_one_line(str(error))) from error
    namespace.pop("config", None)
    config = checked(Config(**vars(parser.instantiate(namespace))))
    if seen is not None and tell is not None:
        tell(seen.told(config))
    return config


def split(arguments: Sequence[str], own_options: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Divide a verb's arguments into those of the configuration and its own, such as the folder of `nestnet resume`.

    An option of the configuration has one value, which follows it or stands behind `=`. What comes after that value belongs to
    the verb itself, and not to an option of the verb further ahead: `--k 2 --epochs 3 4` has no second k.

    Args:
        own_options: names of the verb's own options; an unknown one is left to `parse`, which refuses it.

    Returns:
        The arguments for `parse`, and the verb's own, of which those that belong to no option come first.
    """
    settings: list[str] = []
    positional: list[str] = []
    own: list[str] = []
    rest = list(arguments)
    after_own_option = False
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.removeprefix("--").partition("=")
        is_own = name in own_options or not argument.startswith("--") or name in ("", "help")
        if not is_own:
            settings.append(argument)
            after_own_option = False
            if not equals and rest and not rest[0].startswith("--"):
                settings.append(rest.pop(0))
        elif argument.startswith("-") or after_own_option:
            own.append(argument)
            after_own_option = True
        else:
            positional.append(argument)
    return settings, [*positional, *own]


def _at_home(namespace: jsonargparse.Namespace, literal: Collection[str] | None) -> jsonargparse.Namespace:
    """The same namespace, whose paths have the home directory in place of `~`, unless they are `literal`."""

    def expanded(path: str, name: str) -> str:
        return path if literal is None or path in literal else expand_home(path, name)

    for name in PATHS:
        value = namespace.get(name)
        if isinstance(value, str):
            namespace[name] = expanded(value, name)
        elif isinstance(value, list):
            namespace[name] = [expanded(path, name) for path in value]
    return namespace


def paths_of(config: Config) -> list[str]:
    """The files and folders that a configuration names."""
    fields = dotted(dataclasses.asdict(config))
    paths: list[str] = []
    for name in PATHS:
        value = fields[name]
        if isinstance(value, str):
            paths.append(value)
        elif value is not None:
            paths += value
    return paths


def _own_data(given: dict[str, Any]) -> Any:
    """A look at a folder of images that is given without a file, and without another name of the data."""
    data = given.get("data", {})
    if "config" in given or data.get("root") is None or data.get("name", "folder") != "folder":
        return None
    from nestnet.own_data import look  # it takes torchvision

    return look(data["root"])


def _of_exports(given: dict[str, Any]) -> dict[str, Any]:
    """The networks and the image size of the exports that a run starts from, where it does not name them itself."""
    model = given.get("model", {})
    if not model.get("base_weights") and not model.get("motivated_weights"):
        return {}
    from nestnet.pretrained import fields_of_exports  # it takes timm

    return fields_of_exports(model, given.get("data", {}))


def _over(given: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Nested fields with those that are given over those that were chosen."""
    sections = {name: {**fields, **given.get(name, {})} for name, fields in chosen.items()}
    return {**given, **sections}


def load(path: Path) -> Config:
    """The configuration in a YAML file, with its paths as they are. Raises ValueError as `parse` does."""
    return parse([option_of(path)], literal=None)


def option_of(path: Path) -> str:
    """The option that names a configuration file, whose `~` is not the home directory."""
    return f"--config={os.path.join(os.curdir, path)}"


def dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration, given as nested dictionaries, by their dotted names."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        section = name in SECTIONS and isinstance(value, dict)
        fields |= {f"{name}.{key}": entry for key, entry in value.items()} if section else {name: value}
    return fields


def dump(config: Config, path: Path) -> None:
    """Write all fields as YAML, so that `load` gives the same configuration."""
    write_atomically(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


ABOUT = {
    "nestnet train": "Train a nested network and export both subnets. Without --config, --data.root FOLDER alone trains on a "
    "folder of images. With --dry_run, take some steps, tell what the run will need and take, and write nothing."
}
"""What `--help` says first."""


@functools.cache
def _parser(prog: str) -> jsonargparse.ArgumentParser:
    """It takes a tenth of a second to make."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the fields' docstrings are the help
    jsonargparse.set_loader("nestnet", _value, exceptions=(yaml.YAMLError,))
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        exit_on_error=False,
        description=ABOUT.get(prog, "A configuration of a run."),
        parser_mode="nestnet",
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with any of the fields below.")
    parser.add_class_arguments(Config)
    return parser


def _value(text: str) -> Any:
    """The value of an option, or the contents of a configuration file, which `_expanded` gives as JSON.

    YAML reads JSON too, but not the escapes of an emoji, or of a byte of a path that is not UTF-8.
    """
    if text.startswith("{"):
        try:
            return json.loads(text, parse_constant=str)  # no field can be infinite or NaN: as a text it is refused
        except json.JSONDecodeError:
            pass  # a mapping of YAML, or a name
    if not is_utf8(text):
        return text  # a path, which YAML's reader refuses
    value = jsonargparse.get_loader("yaml")(text)
    if value is None and text.strip().lower() not in ("", "~", "null"):
        return text  # a name that YAML takes for a comment or an anchor
    return value


def _expanded(arguments: list[str], others: Iterable[str]) -> list[str]:
    """The arguments with the contents of configuration files in place of their names.

    Unknown names are refused with the nearest right one, among them those of the verb's `others`.
    """
    names = {"config", "help", "print_config", *(f.name for f in dataclasses.fields(Config) if f.name not in SECTIONS)}
    names |= {f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in dataclasses.fields(kind)}
    expanded, previous = [], ""
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name not in names:
            raise ValueError(f"--{name} is no option{nearest(name, {*names, *others}, SECTIONS)}")
        if path := argument if previous == "--config" else value if argument.startswith("--config=") else "":
            files = contents(Path(expand_home(path, "config")), names, SECTIONS)
            expanded += [f"--config={json.dumps(content)}" for content in files]
        elif argument != "--config":
            expanded.append(argument)
        previous = argument
    return [*expanded, "--config"] if previous == "--config" else expanded


def _one_line(message: str) -> str:
    """jsonargparse's message about a value as `field = value: rule`."""
    found = re.search(r'Parser key "(.+?)":\s*(.*)', message, re.DOTALL)
    if not found:
        line = in_one_line(message)
        if line.startswith("unrecognized arguments"):
            line += (
                "; images are given as --data.root FOLDER, a file as --config FILE, any field as --section.key value"
            )
        return line
    name, rest = found[1], found[2]
    value = re.search(r"(?:Got value|Given value): (.*?)(?:\n|$)", rest)
    kinds = re.findall(r"Expected an? (.+?)(?:\. Got|\n|$)", rest)
    plain = sorted({_plain(kind) for kind in kinds}, key=lambda kind: (kind == "null", kind))
    rule = " or ".join(plain) or in_one_line(rest)
    return f"{name} = {value[1] if value else '?'}: it must be {rule}"


def _plain(kind: str) -> str:
    """`typing.Literal['a', 'b']` and `<class 'int'>` in plain words."""
    if kind.startswith("typing.Literal["):
        return "one of " + kind.removeprefix("typing.Literal[").rstrip("]").replace("'", "")
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": "a list"}
    return {f"<class '{k}'>": v for k, v in (words | {"NoneType": "null", "dict": "a mapping"}).items()}.get(kind, kind)
