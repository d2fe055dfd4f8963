"""The recipe for a folder of your own images: a complete configuration that suits the images.

It is a starting point that should train well, not an optimum. Fields that are given take precedence.
Sources: "He" is He et al. 2016 (arXiv 1512.03385; section 4.2 for CIFAR, 3.4 for ImageNet), "Goyal" is Goyal
et al. 2017 (arXiv 1706.02677), "torchvision" is its references/classification, and "timm" is its train.py and
the commands in its documentation; "the study" is benchmarks/README.md, "Does one run beat two?".
"""

import os
from collections.abc import Mapping
from typing import Any

from nestnet.conditions.description import describe_motivation
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_size
from nestnet.data.preprocessing import MAX_SMALL_IMG_SIZE
from nestnet.device import choose_device
from nestnet.models.architecture import Architecture, TrainingDefaults
from nestnet.models.pairs import complete_pair
from nestnet.models.registry import find_architecture, is_known
from nestnet.models.timm_architecture import TimmArchitecture
from nestnet.precision import choose_precision, detect_bfloat16
from nestnet.recipes.folder_summary import FolderSummary
from nestnet.text.escape import for_terminal
from nestnet.text.units import format_count, format_size

LARGE_IMG_SIZE = 224
"""Height and width in pixels that networks for large images, and their weights, are made for."""

MIN_BATCHES_FOR_K_2 = 6
"""Number of batches per epoch from which k = 2 is expected to motivate at least half the share of long epochs."""

REFINING_FIELDS = frozenset(
    ("start", "until", "budget", "distillation", "temperature", "motivated_loss_weight", "watched_loss")
)
"""Fields of `motivation` that change the chosen way, and do not replace it."""

USUAL_MIN_BATCHES = 40
"""Number of batches that an epoch should have, because its first k + 1 batches are never motivated."""


def choose_fields(folder: FolderSummary, given: Mapping[str, Any], *, needs_k: bool = False) -> dict[str, Any]:
    """Choose a configuration for a folder of images.

    Args:
        folder: summary of the folder.
        given: fields that are set by the user, as nested dictionaries. Other fields are chosen
            to match them.
        needs_k: whether the condition must have a k.

    Returns:
        Fields of a configuration, as nested dictionaries. The caller lets the given ones take precedence.

    Raises:
        ValueError: If another optimizer is given without a learning rate, or the batch size is `auto`.
    """
    model = given.get("model", {})
    data = given.get("data", {})
    optimizer = given.get("optimizer", {})
    starts_from_weights = bool(model.get("base_weights") or model.get("motivated_weights"))

    # Choose the networks and the image size, which depend on each other.
    base, motivated = complete_pair(model.get("base"), model.get("motivated"))
    img_size = data.get("img_size")
    if not img_size:
        img_size = _choose_img_size(folder.shorter_side, motivated, starts_from_weights)
        img_size = _whole_patches(img_size, motivated)
    longer_side = img_size if isinstance(img_size, int) else max(img_size)
    is_small = longer_side <= MAX_SMALL_IMG_SIZE
    if base is None or motivated is None:
        base, motivated = _choose_networks(is_small, starts_from_weights)

    # Choose the length of training.
    k = given.get("motivation", {}).get("k")
    batch_size = data.get("batch_size") or _choose_batch_size(folder.train_images, k)
    if batch_size == "auto":
        raise ValueError(
            "data.batch_size = 'auto': epochs and learning rate are chosen here by the number of images per batch; give "
            "that number, or a configuration file"
        )
    # A negative size is refused later.
    batch_size = max(batch_size, 1)
    batches = max(folder.train_images // batch_size, 1)
    epochs = given.get("epochs", _choose_epochs(batches, starts_from_weights))
    defaults = _training_defaults(motivated)

    fields: dict[str, Any] = {
        "model": {"base": base, "motivated": motivated},
        "data": {
            "name": data.get("name", "folder"),
            "img_size": img_size,
            "batch_size": batch_size,
            # As He and torchvision: padding, a crop and a flip for small images, a resized crop and a flip for large
            # ones.
            "augment": "crop" if is_small else "resized_crop",
            "workers": _choose_workers(is_small),
        },
        "loss": _choose_loss(data),
        "optimizer": _choose_optimizer(optimizer, defaults, batch_size, starts_from_weights),
        "schedule": _choose_schedule(given.get("schedule", {}), epochs),
        "motivation": {} if epochs == 0 else _choose_motivation(given, base == motivated or needs_k, batches),
        "epochs": epochs,
        # bfloat16 gains most on a CPU together with channels last.
        "precision": "auto",
        "channels_last": defaults.channels_last,
    }
    if folder.is_grey:
        fields["model"]["in_chans"] = 1
    if _starts_at_random(motivated, model):
        fields["model"]["zero_init_last"] = False
    return fields


def describe_choice(folder: FolderSummary, config: Config) -> str:
    """Describe a folder of images, and the training that was chosen for it.

    Args:
        folder: summary of the folder.
        config: configuration that was chosen for it.

    Returns:
        Two lines of text.

    Raises:
        ValueError: If the precision is `auto` and the device is not available.
    """
    model = config.model
    data = config.data
    optimizer = config.optimizer

    # Describe the folder.
    images = f"{folder.train_images:,} training and {folder.test_images:,} test images"
    if not folder.has_test_split:
        images += " (about a fifth held out)" if data.multi_label else " (about a fifth of each class held out)"
    typical = f"typically of {folder.width} x {folder.height} pixels"
    if folder.is_grey:
        typical += ", grey"

    # Describe the training.
    epochs = format_count(config.total_epochs, "epoch", "epochs")
    batches = (
        format_count(folder.train_images // data.images_per_batch, "batch", "batches") + f" of {data.images_per_batch}"
    )
    # The recipe has chosen one, unless the user did.
    assert data.img_size is not None
    training = f"{optimizer.name} at lr {optimizer.lr:g}"
    architecture = find_architecture("model.motivated", model.motivated)
    if isinstance(architecture, TimmArchitecture) and optimizer.name == architecture.training_defaults.optimizer:
        training += f" (usual values for a {architecture.kind} network)"
    elif not _has_own_defaults(architecture) and optimizer.name == Architecture.training_defaults.optimizer:
        training += f" (usual values, there is no recipe for {architecture.family})"
    if config.precision == "auto":
        training += f", in {_describe_precision(config)}"
    if data.augment not in ("shift", "none"):
        training += ", with flips (set data.augment to shift where left and right matter)"

    return (
        f"{for_terminal(folder.source)}: {images}, {folder.classes} classes, {typical}\n"
        f"trained as {model.base} in {model.motivated} at {format_size(as_size(data.img_size))}, {epochs} of {batches}, "
        f"{training}, motivation {describe_motivation(config.motivation)}; any field that you set takes precedence"
    )


def _choose_loss(data: Mapping[str, Any]) -> dict[str, Any]:
    # A softmax would choose one of several labels. timm's recipes for binary cross-entropy have no smoothing.
    if data.get("multi_label"):
        return {"name": "bce"}
    return {"label_smoothing": 0.1}  # as timm and torchvision


def _choose_img_size(shorter_side: int, motivated: str | None, starts_from_weights: bool) -> int:
    # Use the size that the networks are made for, or a smaller one if the images are smaller. Images of slightly
    # more than 32 pixels are shrunk, which is far cheaper than enlarging them to twice the size.
    small_size = 32 if shorter_side <= 40 else MAX_SMALL_IMG_SIZE
    architecture = _find(motivated)
    if architecture is not None and architecture.is_for_small_images:
        return small_size
    if isinstance(architecture, TimmArchitecture) and architecture.fixed_img_size is not None:
        return architecture.fixed_img_size[0]
    # For weights that are made for another image size, the user sets `data.img_size`.
    if starts_from_weights:
        return LARGE_IMG_SIZE
    if shorter_side <= MAX_SMALL_IMG_SIZE:
        return small_size
    # ResNets downsample by a factor of 32.
    rounded_up = -(-shorter_side // 32) * 32
    return min(LARGE_IMG_SIZE, rounded_up)


def _whole_patches(img_size: int, motivated: str | None) -> int:
    """Return an image size that is a whole number of a transformer's patches, at least one."""
    architecture = _find(motivated)
    if architecture is None:
        return img_size
    patch = architecture.img_size_divisor
    return max(img_size // patch, 1) * patch


def _choose_networks(is_small: bool, starts_from_weights: bool) -> tuple[str, str]:
    # He's ResNets for 32 x 32 pixels, or those for 224; timm has weights for the latter only.
    if is_small and not starts_from_weights:
        return "resnet20", "resnet32"
    return "resnet18", "resnet34"


def _choose_batch_size(train_images: int, k: int | None) -> int:
    # The first k + 1 batches of an epoch are never motivated. If k is not given, it is chosen later by the number
    # of batches.
    min_batches = k + 2 if k is not None else 4
    # He's 128 images, or fewer where an epoch would have too few batches.
    for size in (128, 64, 32, 16):
        if train_images >= max(USUAL_MIN_BATCHES, min_batches) * size:
            return size
    # At least 8, for BatchNorm, unless an epoch would then have no batch that can be motivated.
    for size in (8, 4):
        if train_images >= min_batches * size:
            return size
    return 2


def _choose_epochs(batches: int, starts_from_weights: bool) -> int:
    # From new weights: He's 64,000 steps on CIFAR, but not fewer than torchvision's 90 epochs nor more than the 200 of arXiv
    # 2602.21064.
    epochs = min(200, max(90, round(64_000 / batches)))
    if starts_from_weights:
        # 5,000 to 10,000 steps are usual: Kolesnikov et al. 2020, arXiv 1912.11370.
        return epochs // 10
    return epochs


def _choose_optimizer(
    given: Mapping[str, Any], defaults: TrainingDefaults, batch_size: int, starts_from_weights: bool
) -> dict[str, Any]:
    # Another optimizer needs other values, which the user must give.
    if given.get("name", defaults.optimizer) != defaults.optimizer:
        if "lr" not in given:
            raise ValueError(
                f"optimizer.name = {given['name']!r}: the learning rate chosen for a folder of images is for "
                f"{defaults.optimizer}; give optimizer.lr as well"
            )
        return {}
    lr = defaults.lr * (batch_size / defaults.lr_batch) ** defaults.lr_scaling
    if starts_from_weights:
        # 0.01 with SGD and 256 images is in the middle of what suits trained weights: Kornblith et al. 2019, arXiv
        # 1805.08974, section A.5
        lr *= 0.1
    return {
        "name": defaults.optimizer,
        "lr": float(f"{lr:.2g}"),
        "weight_decay": defaults.weight_decay,
        "options": dict(defaults.options),
    }


def _choose_motivation(given: Mapping[str, Any], by_losses: bool, batches: int) -> dict[str, Any]:
    motivation = given.get("motivation") or {}
    # The user who sets another field chooses the condition or the policy, and begins from the paper's.
    if by_losses or not set(motivation) <= REFINING_FIELDS:
        return {"k": 1} if batches < MIN_BATCHES_FOR_K_2 else {}
    # The base alone for half of the run, and then both networks. Of the ways in the study that leave the base as good as
    # alone, this one makes the bigger network best.
    chosen: dict[str, Any] = {"name": "always", "trains": "both"}
    # The base cannot learn the answers to images that it does not see.
    data = given.get("data", {})
    if not (_is_pair(data.get("random_erasing")) or _is_pair(data.get("mixup_prob"))):
        chosen["distillation"] = 0.5
    if "until" not in motivation:
        chosen["start"] = 0.5
    return chosen


def _is_pair(value: Any) -> bool:
    """Return whether a field has a number for each network, and they differ."""
    return isinstance(value, list) and len(set(value)) > 1


def _starts_at_random(motivated: str, model: Mapping[str, Any]) -> bool:
    # Branches that start at zero, timm's default for ResNets, hold back such small networks, above all blocks that join
    # in the second half: see the study. Trained weights of the motivated network take the place of any start.
    architecture = _find(motivated)
    if architecture is None or model.get("motivated_weights"):
        return False
    return architecture.is_for_small_images and "zero_init_last" in architecture.option_names


def _choose_schedule(given: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    # Cosine is timm's default. The warm-up is Goyal's 5 epochs, but at most a tenth of the run.
    warmup_epochs = given.get("warmup_epochs", min(5, epochs // 10))
    if warmup_epochs == 0 or given.get("name") == "none":
        return {"name": "cosine"}
    return {"name": "cosine", "warmup_epochs": warmup_epochs, "warmup_lr": 0.0}


def _choose_workers(is_small: bool) -> int:
    if is_small:
        return 0  # small images are read once, and then kept on the device
    return min(4, os.cpu_count() or 1)  # 4 is timm's default


def _describe_precision(config: Config) -> str:
    """Return the precision that `auto` stands for here, and why."""
    device = choose_device(config.device)
    return f"{choose_precision(config.precision, device)} ({detect_bfloat16(device).reason})"


def _training_defaults(motivated: str) -> TrainingDefaults:
    # An unknown network is reported when the configuration is validated.
    architecture = _find(motivated)
    if architecture is None:
        return Architecture.training_defaults
    return architecture.training_defaults


def _find(name: str | None) -> Architecture | None:
    """Return the architecture of a name; `None` if there is no name, or it is unknown."""
    if name is None or not is_known(name):
        return None
    return find_architecture("model.motivated", name)


def _has_own_defaults(architecture: Architecture) -> bool:
    return architecture.training_defaults is not Architecture.training_defaults
