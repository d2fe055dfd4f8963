"""Checks of the section `data`."""

import re

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_pair, as_size
from nestnet.config.schema_sections import DataConfig

AUTO_AUGMENT = re.compile(r"cifar10|imagenet|rand(-(m(10|\d)|n\d+|p\d*\.?\d+|mstd\d*\.?\d+|mmax\d+|inc[01]))+")
"""Policies of AutoAugment, and timm's notation of RandAugment. timm ignores parts of it that it does not know."""


def check_data(config: Config) -> None:
    """Check the source of the images, and how they are augmented and mixed.

    Args:
        config: configuration, each of whose values is in its own range and whose networks are known.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    check_source(config.data)
    _check_multi_label(config)
    _check_validation(config.data)
    _check_augmentation(config)
    _check_mixing(config.data)
    _check_balance(config.data)


def check_source(data: DataConfig) -> None:
    """Check which images are named, and that each field is for images of this kind.

    Args:
        data: configuration of the images.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    facts = DATA_SETS[data.name]
    if facts.is_own and data.root is None:
        refuse("data.root", data.root, "it must be a folder of images: set data.root")
    if data.name == "csv" and data.labels is None:
        refuse("data.labels", data.labels, "it must be the CSV file with the labels: set data.labels")
    if data.name == "python" and data.root is not None:
        refuse("data.root", data.root, "the images are data sets that are given in Python; leave it out")
    _check_own_fields(data)
    if data.name == "digits" and data.root is not None:
        reason = (
            "the digits come with scikit-learn; leave it out, or set data.name to what the folder holds, such as folder"
        )
        refuse("data.root", data.root, reason)
    if data.download and not facts.can_download:
        downloaded = [name for name, facts in DATA_SETS.items() if facts.can_download]
        refuse("data.download", data.download, f"it is for {', '.join(downloaded)}; leave it out")
    if data.corrupt != "stop" and not facts.has_image_files:
        with_files = [name for name, facts in DATA_SETS.items() if facts.has_image_files]
        refuse("data.corrupt", data.corrupt, f"{data.name} has no image files; it is for {', '.join(with_files)}")


def _check_multi_label(config: Config) -> None:
    data = config.data
    if data.multi_label and config.loss.name != "bce":
        reason = f"a softmax chooses one label, and data.multi_label = {data.multi_label}; set it to bce"
        refuse("loss.name", config.loss.name, reason)
    if data.multi_label:
        reason = "it is for images with one label each; leave it out"
        if data.class_weights is not None:
            refuse("data.class_weights", data.class_weights, reason)
        if data.sampler == "balanced":
            refuse("data.sampler", data.sampler, reason)
    if data.label_separator is not None and not data.multi_label:
        reason = "it is for images with several labels; leave it out, or set data.multi_label to true"
        refuse("data.label_separator", data.label_separator, reason)


def _check_own_fields(data: DataConfig) -> None:
    """Refuse a field that is for images of another kind."""
    sources_of_field: dict[str, list[str]] = {}
    for source, facts in DATA_SETS.items():
        for field in facts.fields:
            sources_of_field.setdefault(field, []).append(source)
    for field, sources in sources_of_field.items():
        value = getattr(data, field)
        if value and data.name not in sources:
            refuse(
                f"data.{field}", value, f"it is for data.name = {' or '.join(sources)}; leave it out, or set data.name"
            )


def _check_validation(data: DataConfig) -> None:
    if data.val_fraction and data.multi_label:
        reason = (
            "images with several labels cannot be divided by class; leave it out, or name the images by a column split"
        )
        refuse("data.val_fraction", data.val_fraction, reason)
    if data.val_fraction and data.name == "python":
        refuse("data.val_fraction", data.val_fraction, "leave it out, and give the data set val in Python")


def _check_augmentation(config: Config) -> None:
    data = config.data
    facts = DATA_SETS[data.name]
    # Image files are read in colour unless the network asks for grey.
    channels = facts.channels or config.model.in_chans or 3
    for name, values in (("data.mean", data.mean), ("data.std", data.std)):
        if values is not None and len(values) != channels:
            refuse(name, values, f"it must be a number for each of the {channels} channels")
    if data.auto_augment is not None:
        if AUTO_AUGMENT.fullmatch(data.auto_augment) is None:
            rule = "cifar10, imagenet, or timm's RandAugment by its magnitude m (0 to 10) such as rand-m9-mstd0.5-inc1"
            refuse("data.auto_augment", data.auto_augment, f"it must be {rule}")
        if channels != 3:
            reason = "it is for colour images, and these are grey; leave it out"
            refuse("data.auto_augment", data.auto_augment, reason)
    side = min(as_size(data.img_size or facts.img_size))
    if data.cutout > side:
        refuse("data.cutout", data.cutout, f"it must be at most the {side} pixels of an image")
    if isinstance(data.batch_size, int) and data.repeats > data.batch_size:
        refuse("data.repeats", data.repeats, f"it must be at most data.batch_size = {data.batch_size}")


def _check_mixing(data: DataConfig) -> None:
    # timm mixes each image with the one at the mirrored position in the batch.
    is_mixed = data.mixup > 0 or data.cutmix > 0
    if is_mixed and isinstance(data.batch_size, int) and data.batch_size % 2 != 0:
        refuse("data.batch_size", data.batch_size, "it must be even, because Mixup and CutMix mix pairs of images")
    if is_mixed and not any(as_pair(data.mixup_prob)):
        reason = "it must be above 0, or data.mixup and data.cutmix have no effect"
        refuse("data.mixup_prob", data.mixup_prob, reason)
    if not is_mixed and data.mixup_prob != 1:
        reason = "nothing is mixed; give data.mixup or data.cutmix, or leave it out"
        refuse("data.mixup_prob", data.mixup_prob, reason)


def _check_balance(data: DataConfig) -> None:
    weights = data.class_weights
    if weights is None:
        return
    if data.sampler == "balanced":
        reason = "data.sampler = balanced makes up for the sizes of the classes already; leave one of both out"
        refuse("data.class_weights", weights, reason)
    if isinstance(weights, str):
        return
    values = list(weights.values()) if isinstance(weights, dict) else weights
    if not values:
        refuse("data.class_weights", weights, "it must have a weight; give some, or leave it out")
    if min(values) <= 0:
        refuse("data.class_weights", weights, "each weight must be above 0")
