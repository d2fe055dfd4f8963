"""From a configuration to what it names: condition, optimizer, schedule, initial weights, device."""

from dataclasses import replace

from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.distributed.process_group import ProcessGroup
from nestnet.models.registry import ARCHITECTURES, takes_img_size
from nestnet.training.condition_plan import counts_of_earlier_runs


def resolve_config(config: Config, images: ImageData) -> Config:
    """The configuration with what the data decides filled in.

    Raises:
        ValueError: if `model.num_classes` is not what the data has, or a network made for one size is to be tested at another.
    """
    classes = len(images.class_names)
    if config.model.num_classes not in (None, classes):
        raise ValueError(
            f"model.num_classes = {config.model.num_classes}: the data has {classes} classes; leave it out"
        )
    name = config.model.motivated
    if takes_img_size(name) and images.eval_size != images.input_size[1:]:
        raise ValueError(
            f"data.eval_img_size = {config.data.eval_img_size}: a {ARCHITECTURES[name].family} is made for one size; leave it "
            "out, or give data.img_size"
        )
    model = replace(config.model, num_classes=classes, in_chans=images.input_size[0])
    data = replace(config.data, img_size=images.input_size[1], mean=images.mean, std=images.std, augment=images.augment)
    motivation = config.motivation
    if motivation.name == "random_like":
        motivation = replace(motivation, counts=counts_of_earlier_runs(config))
    return replace(config, model=model, data=data, motivation=motivation)


def check_batch_divides(config: Config, process_group: ProcessGroup) -> None:
    """Raises ValueError where a batch cannot be shared equally, in as many parts as it is to be trained in."""
    batch, parts = config.data.batch_size, process_group.size * config.accumulate
    if batch % parts:
        divided = f"{process_group.size} processes" + (
            f" with accumulate = {config.accumulate}" if config.accumulate > 1 else ""
        )
        raise ValueError(f"data.batch_size = {batch}: it must be a multiple of {parts}, for equal parts in {divided}")
    if (config.data.mixup or config.data.cutmix) and batch // process_group.size % 2:
        raise ValueError(
            f"data.batch_size = {batch}: each of {process_group.size} processes must have an even part, to mix pairs"
        )
    if batch == parts:
        raise ValueError(f"data.batch_size = {batch}: BatchNorm needs more than one image in each of {parts} parts")
