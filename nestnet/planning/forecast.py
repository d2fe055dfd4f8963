"""The forecast of a run's cost, before any training: the text of `nestnet cost`."""

from dataclasses import dataclass

from nestnet.conditions.base import WATCHED_ON_HELD_OUT_BATCH, Condition, watched_quantity
from nestnet.conditions.description import describe_motivation
from nestnet.conditions.limits import MotivationLimits
from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_size
from nestnet.cost.cascade import CascadeCosts
from nestnet.cost.network import Cost, network_cost
from nestnet.cost.run import expected_cost, relative_to_base
from nestnet.data.image_data import load_data
from nestnet.data.loaders import check_fills_a_batch
from nestnet.models.build import structural_options_of
from nestnet.models.registry import check_pair
from nestnet.nn.mode import Mode, PerMode
from nestnet.text.tables import align_columns
from nestnet.text.units import format_mebibytes, format_size
from nestnet.training.condition_plan import plan_condition
from nestnet.training.motivation_plan import build_limits, build_policy, check_limits


@dataclass(frozen=True)
class TrainingImages:
    """Properties of the training images that the cost of a run depends on.

    Attributes:
        num_classes: number of classes.
        count: number of images.
        channels: number of channels of an image.
        size: height and width of an image in pixels.
    """

    num_classes: int
    count: int
    channels: int
    size: tuple[int, int]


def forecast_run(config: Config) -> str:
    """Forecast the cost of both networks and of the whole run.

    Args:
        config: configuration of the run. The images of a known data set need not be present.

    Returns:
        A text of several lines: parameters, multiply-accumulates and activation memory of both networks, and
        the cost of the run relative to training either network alone.

    Raises:
        ValueError: If the networks do not nest, or images or earlier runs cannot be read.
    """
    names = PerMode(config.model.base, config.model.motivated)
    images = describe_training_images(config)
    check_pair(names.base, names.motivated)
    batch_size = config.data.images_per_batch
    condition, batches = plan_condition(config, images.count)
    # The batch for the held-out loss is not trained on.
    trained_images = images.count
    if watched_quantity(condition) in WATCHED_ON_HELD_OUT_BATCH:
        trained_images = max(images.count - batch_size, 0)
    check_fills_a_batch(trained_images, config.data)

    # Both networks' costs follow from their architectures.
    options = structural_options_of(config)
    costs: list[Cost] = []
    for mode in Mode:
        cost = network_cost(
            names.of(mode),
            img_size=images.size,
            num_classes=images.num_classes,
            in_chans=images.channels,
            options=options.of(mode),
        )
        costs.append(cost)
    macs = PerMode(*(cost.macs for cost in costs))
    epochs = f"{config.epochs} epochs"
    if config.extends_given_base:
        epochs = f"{config.finish_epochs} epochs that extend the base,"
    elif config.finish_epochs:
        epochs += f" and {config.finish_epochs} that extend the base,"
    headline = (
        f"{config.data.name}: {images.count:,} training images, {format_size(images.size)} pixels, "
        f"{images.num_classes} classes; {epochs} of {batches} batches of {batch_size}"
    )
    lines = [headline, ""]
    lines += align_columns(_network_rows(names, costs, batch_size))
    lines += [""]
    lines += describe_expected_cost(config, macs, condition, batches)
    if trained_images < images.count:
        lines.append("beside it, each batch is followed by a forward pass of a held-out batch")
    lines.append(_describe_cascade(macs))
    return "\n".join(lines)


def describe_training_images(config: Config) -> TrainingImages:
    """Return the number, size and classes of the training images of a run.

    Args:
        config: configuration of the run.

    Returns:
        The properties: facts for a known data set, which is not read; otherwise counted from the images.
    """
    data = config.data
    # The classes and images of a folder are only known from its files.
    facts = DATA_SETS[data.name]
    if facts.num_classes is not None and facts.train_images is not None:
        channels = facts.channels or config.model.in_chans or 3
        # Rounding by class may hold out a few images more or fewer.
        count = facts.train_images - round(data.val_fraction * facts.train_images)
        return TrainingImages(facts.num_classes, count, channels, as_size(data.img_size or facts.img_size))
    images = load_data(data, config.model)
    channels, *size = images.input_size
    return TrainingImages(len(images.class_names), len(images.train), channels, as_size(size))


def describe_expected_cost(config: Config, macs: PerMode[int], condition: Condition, batches: int) -> list[str]:
    """Return the expected share of motivated batches, and the expected cost of the run.

    Args:
        config: configuration of the run.
        macs: multiply-accumulates of a forward pass of one image in each mode.
        condition: motivation condition of the run.
        batches: number of batches of an epoch.

    Returns:
        The lines of the text.
    """
    names = PerMode(config.model.base, config.model.motivated)
    policy = build_policy(config)
    limits = build_limits(config, batches, macs)
    check_limits(config, limits, condition)
    fraction = limits.expected_fraction(condition)
    # The average is over the batches of all phases; it is `None` without a forecast.
    average = expected_cost(macs, fraction, policy, config.epochs, config.finish_epochs)
    if average is None:
        return _describe_range(config, macs, limits)
    # Sum over all images of all epochs; incomplete batches are left out.
    total = average * batches * config.data.images_per_batch * config.total_epochs
    whole = f"of the whole run: {total:.3g}, and about twice that for backward"
    if config.extends_given_base:
        return [
            f"the base is finished: every batch trains what {names.motivated} has beside it",
            f"forward pass: {average:,.0f} MACs; {whole}",
        ]
    expectation = f"expected of {describe_motivation(config.motivation)}: {fraction:.2%} motivated batches"
    if policy.trains == "both":
        expectation += ", each of which trains both networks"
    if config.finish_epochs:
        expectation += f"; then {config.finish_epochs} epochs of the motivated network, which leave the base as it is"
    # The networks alone would be trained for `epochs`.
    times = relative_to_base(average, macs, config.epochs, config.finish_epochs)
    base_macs = times * macs.base
    both = macs.base + macs.motivated
    return [
        expectation,
        f"expected average forward pass: {average:,.0f} MACs; {whole}",
        f"against training {names.base} alone: {times:.3f} times the cost",
        f"against training {names.motivated} alone: {base_macs / macs.motivated:.3f} times the cost",
        f"against training both, one after the other: {base_macs / both:.3f} times the cost",
    ]


def _describe_range(config: Config, macs: PerMode[int], limits: MotivationLimits) -> list[str]:
    """Return the least and the most that a run can cost whose motivated batches cannot be forecast."""
    extra = limits.batch_costs.motivated - limits.batch_costs.base
    most = macs.base + extra * limits.most() / limits.steps
    bounds = f"an average forward pass will take {macs.base:,} to {most:,.0f} MACs"
    if config.finish_epochs:
        bounds += f" in the first {config.epochs} epochs, and then {macs.motivated:,}"
    return [
        f"{describe_motivation(config.motivation)}: how many batches will be motivated cannot be forecast; {bounds}"
    ]


def _describe_cascade(macs: PerMode[int]) -> str:
    """Return where a cascade of both networks cannot pay."""
    costs = CascadeCosts(macs.base, macs.motivated)
    if costs.break_even == 0:
        return "a cascade of both cannot pay: the base costs as much as the motivated network"
    return (
        "a cascade, which runs the base first, can pay only if it passes fewer than "
        f"{costs.break_even:.0%} of the images on"
    )


def _network_rows(names: PerMode[str], costs: list[Cost], batch_size: int) -> list[list[str]]:
    """Return a row per quantity, with both networks side by side."""
    # The first column holds names; each network then adds its column.
    rows = [
        ["", "base", "motivated"],
        ["network", names.base, names.motivated],
        ["parameters"],
        ["MACs, forward pass of an image"],
        ["activations of a batch, MiB"],
    ]
    for cost in costs:
        rows[2].append(f"{cost.parameters:,}")
        rows[3].append(f"{cost.macs:,}")
        rows[4].append(format_mebibytes(cost.activation_bytes * batch_size))
    return rows
