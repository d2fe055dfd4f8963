"""The settings of a run that depend on its images, its device or its processes."""

from dataclasses import replace

from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_img_size
from nestnet.data.image_data import ImageData
from nestnet.device import DeviceContext
from nestnet.distributed.process_group import ProcessGroup
from nestnet.models.registry import find_architecture
from nestnet.precision import choose_precision
from nestnet.training.earlier_runs import resolve_counts


def resolve_config(config: Config, images: ImageData) -> Config:
    """Return the configuration with the values that follow from the images.

    Args:
        config: configuration of a run.
        images: images of the run.

    Returns:
        The configuration that the run records, with the number of classes, the channels, size and normalisation
        of the images, and for `random_like` the number of motivated batches in each epoch.

    Raises:
        ValueError: If `model.num_classes` is not the number of classes of the images, or the images are
            evaluated at a size that the network does not accept.
    """
    num_classes = len(images.class_names)
    # A configured number of classes must agree with the data.
    if config.model.num_classes not in (None, num_classes):
        raise ValueError(
            f"model.num_classes = {config.model.num_classes}: the data has {num_classes} classes; leave it out"
        )
    # The position embedding of a ViT fits one image size only.
    architecture = find_architecture("model.motivated", config.model.motivated)
    if architecture.takes_img_size and images.eval_size != images.input_size[1:]:
        raise ValueError(
            f"data.eval_img_size = {config.data.eval_img_size}: a {architecture.family} is made for one size; "
            "leave it out, or set data.img_size"
        )

    # Record the values that follow from the data.
    channels, *size = images.input_size
    model = replace(config.model, num_classes=num_classes, in_chans=channels)
    data = replace(config.data, img_size=as_img_size(size), mean=images.mean, std=images.std, augment=images.augment)
    motivation = config.motivation
    if motivation.name == "random_like":
        motivation = replace(motivation, counts=resolve_counts(config))
    return replace(config, model=model, data=data, motivation=motivation)


def resolve_precision(config: Config, context: DeviceContext) -> Config:
    """Return the configuration with the precision that `auto` stands for.

    Args:
        config: configuration of a run.
        context: device and processes of the run.

    Returns:
        The configuration that the run records, so that a resumed run keeps the precision on any device.
    """
    precision = choose_precision(config.precision, context.device, context.process_group)
    return replace(config, precision=precision)


def check_batch_divides(config: Config, process_group: ProcessGroup) -> None:
    """Check that a batch divides equally among the processes and into the parts of `accumulate`.

    Args:
        config: configuration of a run.
        process_group: processes that train it.

    Raises:
        ValueError: If it does not, if a part has a single image, or if Mixup or CutMix would leave an image
            without a partner.
    """
    batch_size = config.data.images_per_batch
    # Each process divides its share of a batch into the parts of `accumulate`.
    parts = process_group.size * config.accumulate
    if batch_size % parts:
        division = f"{process_group.size} processes"
        if config.accumulate > 1:
            division += f" with accumulate = {config.accumulate}"
        raise ValueError(
            f"data.batch_size = {batch_size}: it must be a multiple of {parts}, for equal parts in {division}"
        )
    # Mixup and CutMix mix each image with another one in the same process.
    mixes_pairs = config.data.mixup or config.data.cutmix
    if mixes_pairs and batch_size // process_group.size % 2:
        raise ValueError(
            f"data.batch_size = {batch_size}: each of {process_group.size} processes must have an even part, to mix pairs"
        )
    if batch_size == parts:
        raise ValueError(
            f"data.batch_size = {batch_size}: BatchNorm needs more than one image in each of {parts} parts"
        )
