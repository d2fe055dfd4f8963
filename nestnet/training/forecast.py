"""What a run will cost, before any of it is trained: the text of `nestnet cost`."""

from dataclasses import dataclass

from nestnet.conditions.base import JOINT, Condition, expected_fraction
from nestnet.config.schema import Config
from nestnet.cost.network import Cost, network_cost
from nestnet.cost.run import expected_cost
from nestnet.data.image_data import load_data
from nestnet.data.sources import KNOWN
from nestnet.models.registry import check_pair
from nestnet.nn.mode import Mode, PerMode
from nestnet.training.condition_plan import plan_condition


@dataclass(frozen=True)
class Extent:
    """How much there is to train on.

    Attributes:
        classes: of the labels.
        images: for training.
        channels: of an image.
        img_size: height and width of a training image.
    """

    classes: int
    images: int
    channels: int
    img_size: int


def extent(config: Config) -> Extent:
    """From the configuration alone for data sets that are known, so that nothing need be there; others are looked at."""
    data = config.data
    if data.name in KNOWN:
        classes, images, size = KNOWN[data.name]
        return Extent(classes, images, config.model.in_chans or 3, data.img_size or size)
    found = load_data(data, config.model)
    channels, size, _ = found.input_size
    return Extent(len(found.class_names), len(found.train), channels, size)


def forecast_run(config: Config) -> str:
    """Both networks' parameters, multiply-accumulates and activation memory, and the run's cost against either alone.

    Raises:
        ValueError: for networks, images or earlier runs that cannot be had.
    """
    names, to = PerMode(config.model.base, config.model.motivated), extent(config)
    check_pair(names.base, names.motivated)
    batch = config.data.batch_size
    condition, batches = plan_condition(config, to.images)
    if not batches:
        raise ValueError(f"data.batch_size = {batch}: there are only {to.images} training images; take fewer a batch")
    size, classes, channels = to.img_size, to.classes, to.channels
    costs = [network_cost(names.of(m), img_size=size, num_classes=classes, in_chans=channels) for m in Mode]
    return "\n".join(
        [
            f"{config.data.name}: {to.images:,} training images, {size} x {size} pixels, {classes} classes; "
            f"{config.epochs} epochs of {batches} batches of {batch}",
            "",
            *in_columns(_networks(names, costs, batch)),
            "",
            *expected_of_run(config, PerMode(*(cost.macs for cost in costs)), condition, batches),
        ]
    )


def _networks(names: PerMode[str], costs: list[Cost], batch: int) -> list[tuple[str, ...]]:
    """A row a figure, both networks beside each other."""
    return [
        ("", "base", "motivated"),
        ("network", names.base, names.motivated),
        ("parameters", *(f"{cost.parameters:,}" for cost in costs)),
        ("MACs, forward pass of an image", *(f"{cost.macs:,}" for cost in costs)),
        ("activations of a batch, MiB", *(f"{cost.activation_bytes * batch / 2**20:,.1f}" for cost in costs)),
    ]


def in_columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of equally many texts as lines: names to the left, figures to the right."""
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [f"{name:<{first}}", *(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))]
        ).rstrip()
        for name, *texts in rows
    ]


def expected_of_run(config: Config, macs: PerMode[int], condition: Condition, batches: int) -> list[str]:
    """The motivated batches to expect, and what the run costs with them, a line each.

    Args:
        macs: of a forward pass of one image.
        condition: of the run.
        batches: of an epoch.
    """
    names = PerMode(config.model.base, config.model.motivated)
    joint = config.motivation.name == JOINT
    fraction = expected_fraction(condition, batches)
    average = expected_cost(macs, fraction, joint=joint)
    if average is None:
        return [
            f"{config.motivation.name}: no telling how many batches will be motivated; an average forward pass will take "
            f"{macs.base:,} to {macs.motivated:,} MACs"
        ]
    if joint:
        motivated = "joint training: both networks at every batch"
    else:
        motivated = f"expected of {condition!r}: {fraction:.2%} motivated batches"
    total = average * batches * config.data.batch_size * config.epochs
    both = macs.base + macs.motivated
    return [
        motivated,
        f"expected average forward pass: {average:,.0f} MACs; of the whole run: {total:.3g}, and about twice that for backward",
        f"against training {names.base} alone: {average / macs.base:.3f} times the cost",
        f"against training {names.motivated} alone: {average / macs.motivated:.3f} times the cost",
        f"against training both, one after the other: {average / both:.3f} times the cost",
    ]
