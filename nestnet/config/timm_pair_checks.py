"""Checks of a pair of networks that timm builds: its options, how it nests, and the images that it takes."""

from typing import Any

import torch

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_img_size, as_size
from nestnet.models.timm_architecture import TimmArchitecture, as_groups
from nestnet.models.timm_networks import build_on_meta
from nestnet.models.timm_options import split_options
from nestnet.nesting.matching import match_networks
from nestnet.nesting.misfits import list_reasons
from nestnet.nesting.module_tree import ModuleTree
from nestnet.nn.mode import Mode, PerMode
from nestnet.text.messages import first_line


def check_timm_pair(config: Config, motivated: TimmArchitecture) -> None:
    """Check that a pair can be built with its options, that it nests, and that its base takes the images.

    Whether the base's computation lies inside the motivated network's is checked when the pair is built with its
    weights: see `nestnet.verify_nesting`.

    Args:
        config: configuration, each of whose values is in its own range.
        motivated: motivated network.

    Raises:
        ValueError: If a field breaks a rule.
    """
    model = config.model
    data = config.data
    img_size = data.img_size or DATA_SETS[data.name].img_size
    size = as_size(img_size)
    if motivated.fixed_img_size is not None and motivated.fixed_img_size != size:
        fixed = as_img_size(motivated.fixed_img_size)
        refuse("data.img_size", img_size, f"{motivated.name} takes images of {fixed} pixels alone; take {fixed}")

    names = PerMode(model.base, model.motivated)
    options = split_options("model.options", model.options or {})
    in_chans = model.in_chans or 3
    networks: list[Any] = []
    for mode in Mode:
        arguments = {"num_classes": model.num_classes or 10, "in_chans": in_chans, **options.of(mode)}
        if motivated.takes_img_size:
            arguments["img_size"] = size
        try:
            networks.append(build_on_meta(names.of(mode), **arguments))
        except ValueError as error:
            raise ValueError(f"model.{mode}: {error}") from error
    base, bigger = networks
    try:
        groups = as_groups(model.groups)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    # The other rules are those of `nestnet.nest`.
    matching = match_networks(
        ModuleTree.of(base), ModuleTree.of(bigger), depth_map=model.depth_map or "last", groups=groups
    )
    if matching.misfits:
        reasons = list_reasons(matching.misfits, MAX_REASONS)
        refuse("model.base", model.base, f"it must fit inside {model.motivated}, and does not: {reasons}")
    try:
        with torch.no_grad():
            parameter = next(base.parameters())
            base.eval()(torch.zeros(2, in_chans, *size, device=parameter.device))
    except NotImplementedError:
        return  # an operation that only works with values
    except Exception as error:  # whatever the network raises for images of another size
        reason = (
            f"{model.base} does not take images of this size ({first_line(error)}); take another one, such as 64 or 224"
        )
        refuse("data.img_size", img_size, reason)


MAX_REASONS = 3
"""Number of reasons for which a pair does not nest that the message about a configuration lists."""
