"""Checks of settings of data and loss that may differ between the two networks."""

from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_pair


def check_pairs(config: Config) -> None:
    """Check the fields of `data` and `loss` that hold one number for both networks, or a pair of numbers.

    Args:
        config: configuration, each of whose values is in its own range and whose networks are known.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    # What changes the images that a network sees, and what changes its targets alone.
    changes_images = {"data.random_erasing": config.data.random_erasing, "data.mixup_prob": config.data.mixup_prob}
    for name, value in {**changes_images, "loss.label_smoothing": config.loss.label_smoothing}.items():
        if not isinstance(value, list):
            continue
        if len(value) != 2:
            refuse(name, value, "it must be one number, or a pair [base, motivated]")
        if value[0] != value[1] and config.model.base == config.model.motivated:
            refuse(name, value, f"base and motivated are both {config.model.base}; give one number")
    # A teacher's answers are for the images that it was shown.
    if not config.motivation.distillation:
        return
    for name, value in changes_images.items():
        base, motivated = as_pair(value)
        if base != motivated:
            reason = (
                "with motivation.distillation the base learns the motivated network's answers, so that both must see the "
                "same images; give one number, or leave distillation out"
            )
            refuse(name, value, reason)
