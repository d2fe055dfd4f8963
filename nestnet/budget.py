"""What a run will cost, before any of it is trained: the text of `nestnet cost`."""

from dataclasses import dataclass

from nestnet.config import Config
from nestnet.cost import network_cost
from nestnet.data import load_data
from nestnet.mode import Mode, PerMode
from nestnet.models.registry import check_pair
from nestnet.sources import KNOWN
from nestnet.training import JOINT, motivation


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


def budget(config: Config) -> str:
    """Both networks' parameters, multiply-accumulates and activation memory, and the run's cost against either alone.

    Raises:
        ValueError: for networks, images or earlier runs that cannot be had.
    """
    names, to = PerMode(config.model.base, config.model.motivated), extent(config)
    check_pair(names.base, names.motivated)
    batch, batches = config.data.batch_size, to.images // config.data.batch_size
    if not batches:
        raise ValueError(f"data.batch_size = {batch}: there are only {to.images} training images; take fewer a batch")
    base, motivated = (
        network_cost(names.of(mode), img_size=to.img_size, num_classes=to.classes, in_chans=to.channels)
        for mode in Mode
    )
    rows = [
        ("", "base", "motivated"),
        ("network", names.base, names.motivated),
        ("parameters", f"{base.parameters:,}", f"{motivated.parameters:,}"),
        ("MACs, forward pass of an image", f"{base.macs:,}", f"{motivated.macs:,}"),
        (
            "activations of a batch, MiB",
            *(f"{cost.activation_bytes * batch / 2**20:,.1f}" for cost in (base, motivated)),
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{config.data.name}: {to.images:,} training images, {to.img_size} x {to.img_size} pixels, {to.classes} classes; "
        f"{config.epochs} epochs of {batches} batches of {batch}",
        "",
        *(f"{name:<{widths[0]}}  {ours:>{widths[1]}}  {theirs:>{widths[2]}}" for name, ours, theirs in rows),
        "",
    ]
    condition, name = motivation(config, batches), config.motivation.name
    fraction = getattr(condition, "expected_fraction", None)
    if name == JOINT:
        average = float(base.macs + motivated.macs)
        lines.append("joint training: both networks at every batch")
    elif fraction is None:
        lines.append(
            f"{name}: no forecast of the motivated batches; the run costs {base.macs:,} to {motivated.macs:,} MACs a pass"
        )
        return "\n".join(lines)
    else:
        average = base.macs + (motivated.macs - base.macs) * fraction
        lines.append(f"motivated batches expected of {condition!r}: {fraction:.2%}")
    total = average * batches * batch * config.epochs
    lines += [
        f"expected average forward pass: {average:,.0f} MACs; of the whole run: {total:.3g}, and about twice that for backward",
        f"against training {names.base} alone: {average / base.macs:.3f} times the cost",
        f"against training {names.motivated} alone: {average / motivated.macs:.3f} times the cost",
        f"against training both, one after the other: {average / (base.macs + motivated.macs):.3f} times the cost",
    ]
    return "\n".join(lines)
