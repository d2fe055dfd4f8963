"""A recipe for a folder of your own images, from the images themselves: `nestnet train --data.root FOLDER` and no more.

It is a start that should train well, not the best there is: whatever is given goes over it. Sources: "He" is He et al.
2016 (arXiv 1512.03385; section 4.2 for CIFAR, 3.4 for ImageNet), "Goyal" Goyal et al. 2017 (arXiv 1706.02677), "DeiT" Touvron
et al. 2021 (arXiv 2012.12877, table 9), "torchvision" its references/classification, "timm" its train.py and the commands
in its documentation.
"""

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nestnet.config.schema import Config
from nestnet.data.image_files import Unreadable, open_image, upright_size
from nestnet.data.image_folder import read_folder
from nestnet.data.preprocessing import SMALL_IMAGE_SIDE
from nestnet.models.registry import ARCHITECTURES, complete_pair
from nestnet.text.escape import for_terminal, quoted

SAMPLE = 200
"""So many images, spread over the folder, are opened for their sizes; their pixels are not read."""

ENOUGH_FOR_TWO = 6
"""Batches of an epoch from which on k = 2 motivates at least half as many as in long epochs, by the forecast."""

GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
"""Modes of PIL without colours."""


class Training(NamedTuple):
    """How a family is trained from new weights: the learning rate is that of batches of `lr_batch` images, and goes with the
    batch to the power of `scaling`: 1 by Goyal, and 0.5 in timm for Adam and its kin."""

    optimizer: str
    lr: float
    lr_batch: int
    weight_decay: float
    scaling: float = 1.0
    options: dict[str, Any] | None = None
    channels_last: bool = True


CIFAR_RESNET = Training("momentum", 0.1, 128, 5e-4)  # He; the weight decay is that of arXiv 2602.21064, section 4.1
RESNET = Training("momentum", 0.1, 256, 1e-4)  # He, torchvision, Goyal
FAMILIES = {
    "ResNet": RESNET,
    "EfficientNet": Training(
        "rmsproptf", 0.048, 768, 1e-5, options={"eps": 1e-3}
    ),  # timm's command for EfficientNet-B0
    "ViT": Training("adamw", 5e-4, 512, 0.05, scaling=0.5, channels_last=False),  # DeiT
}
OWN_FAMILY = Training("adamw", 5e-4, 512, 0.05, scaling=0.5)
"""For a family of your own: AdamW as DeiT has it, which suits most networks, with BatchNorm or without."""


@dataclass(frozen=True)
class FolderSummary:
    """What a look at a folder gives.

    Attributes:
        root: the folder.
        train: how many images there are for training.
        test: likewise, for testing.
        classes: how many there are.
        divided: whether the folder says itself which images are for testing.
        width: of an image in the middle, of those that were opened, in pixels.
        height: likewise.
        side: likewise, of the shorter of the two.
        grey: whether none of them has colours.
    """

    root: str
    train: int
    test: int
    classes: int
    divided: bool
    width: int
    height: int
    side: int
    grey: bool

    def recipe(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration for these images, as nested fields.

        Args:
            given: what is set besides, likewise; what follows from it is chosen with it.

        Raises:
            ValueError: for another optimizer without a learning rate.
        """
        model, data, optimizer = (given.get(name, {}) for name in ("model", "data", "optimizer"))
        trained = bool(model.get("base_weights") or model.get("motivated_weights"))
        base, motivated = complete_pair(model.get("base"), model.get("motivated"))
        size = data.get("img_size") or self._img_size(trained, motivated)
        if motivated is None:  # He's ResNets for 32 x 32 pixels, or those for 224, for which alone timm has weights
            base, motivated = (
                ("resnet20", "resnet32") if size <= SMALL_IMAGE_SIDE and not trained else ("resnet18", "resnet34")
            )
        way = _training(motivated)
        batch_size = data.get("batch_size") or self._batch_size(given.get("motivation", {}).get("k"))
        steps = max(self.train // batch_size, 1)
        epochs = given.get("epochs") or _epochs(steps, trained)
        if "name" in optimizer and "lr" not in optimizer:
            raise ValueError(
                f"optimizer.name = {optimizer['name']!r}: the learning rate chosen for a folder of images is for "
                f"{way.optimizer}; give optimizer.lr as well"
            )
        chosen = {} if "name" in optimizer else {
            "name": way.optimizer,
            # trained weights take a tenth: 0.01 with SGD at 256 images is in the middle of what suits them (Kornblith et
            # al. 2019, arXiv 1805.08974, section A.5)
            "lr": float(f"{way.lr * (batch_size / way.lr_batch) ** way.scaling * (0.1 if trained else 1):.2g}"),
            "weight_decay": way.weight_decay,
            "options": way.options or {},
        }  # fmt: skip
        warmup = min(5, epochs // 10)
        return {
            "model": {"base": base, "motivated": motivated} | ({"in_chans": 1} if self.grey else {}),
            "data": {
                "name": "folder",
                "img_size": size,
                "batch_size": batch_size,
                # as He and torchvision: a border, a crop and a flip, or a part of the image and a flip
                "augment": "crop" if size <= SMALL_IMAGE_SIDE else "resized_crop",
                "workers": 0
                if size <= SMALL_IMAGE_SIDE
                else min(4, os.cpu_count() or 1),  # small images are read once; timm's are 4
            },
            "loss": {"label_smoothing": 0.1},  # timm's and torchvision's
            "optimizer": chosen,
            # cosine is timm's; Goyal's warm-up of 5 epochs, of which a short run has a tenth
            "schedule": {"name": "cosine"} | ({"warmup_epochs": warmup, "warmup_lr": 0.0} if warmup else {}),
            # the first k + 1 batches of an epoch are never motivated: k = 2 needs a few more to motivate any
            "motivation": {"k": 1} if steps < ENOUGH_FOR_TWO else {},
            "epochs": epochs,
            "channels_last": way.channels_last,
        }

    def told(self, config: Config) -> str:
        """Two lines for a person: what was seen, and how it is to be trained."""
        c, d, o = config, config.data, config.optimizer
        held_out = "" if self.divided else " (about a fifth of each class held out)"
        flips = (
            "" if d.augment in ("shift", "none") else ", with flips (--data.augment shift where left and right matter)"
        )
        steps = f"{c.epochs} epoch{'s' * (c.epochs > 1)} of {self.train // d.batch_size} batches of {d.batch_size}"
        return (
            f"{for_terminal(self.root)}: {self.train:,} training and {self.test:,} test images{held_out}, "
            f"{self.classes} classes, typically of {self.width} x {self.height} pixels{', grey' if self.grey else ''}\n"
            f"trained as {c.model.base} in {c.model.motivated} at {d.img_size} x {d.img_size}, {steps}, "
            f"{o.name} at lr {o.lr:g}{_usual(config)}{flips}; options go over it"
        )

    def _img_size(self, trained: bool, motivated: str | None) -> int:
        """Pixels a side: those that the networks are made for, or fewer where the images have fewer."""
        small = 32 if self.side <= 40 else SMALL_IMAGE_SIDE  # a few pixels less are far cheaper than twice as many
        if _is_for_small(motivated):
            return small
        if trained:
            return 224  # of weights for other sizes, it is given
        return (
            small if self.side <= SMALL_IMAGE_SIDE else min(224, -(-self.side // 32) * 32)
        )  # ResNets divide a side by 32

    def _batch_size(self, k: int | None) -> int:
        """He's 128 images, or fewer where an epoch would have less than 40 batches, since its first k + 1 are never motivated.

        Not below 8, for BatchNorm, unless an epoch would then have no batch that can be motivated.

        Args:
            k: as it is given; `None`: it is chosen afterwards.
        """
        least_batches = 4 if k is None else k + 2
        for size in (128, 64, 32, 16):
            if self.train >= 40 * size and self.train >= least_batches * size:
                return size
        return next((size for size in (8, 4) if self.train >= least_batches * size), 2)


def inspect_folder(root: str) -> FolderSummary:
    """Lists a folder, and opens some of its images.

    Raises:
        ValueError: as `nestnet.image_folder.read_folder`, or if none of the opened files is an image.
    """
    found = read_folder(root)
    every = max(1, len(found.train) // SAMPLE)
    sizes = []
    modes = set()
    for path, _ in found.train[::every]:
        try:
            with open_image(path) as (image, _):
                sizes.append(upright_size(image))
                modes.add(image.mode)
        except Unreadable:  # it is named when it is read, and skipped if that is wanted
            continue
    if not sizes:
        raise ValueError(
            f"data.root = {quoted(root)}: {found.train[0][0]} and others cannot be read as images; replace or remove them"
        )
    width, height = (round(statistics.median(sides)) for sides in zip(*sizes, strict=True))
    side = round(statistics.median(min(size) for size in sizes))
    train, test, classes = len(found.train), len(found.test), len(found.class_names)
    return FolderSummary(root, train, test, classes, found.divided, width, height, side, modes <= GREY)


def _is_for_small(name: str | None) -> bool:
    return getattr(ARCHITECTURES.get(name or ""), "cifar", False)


def _training(motivated: str) -> Training:
    if _is_for_small(motivated) or motivated not in ARCHITECTURES:
        return CIFAR_RESNET
    return FAMILIES.get(ARCHITECTURES[motivated].family, OWN_FAMILY)


def _usual(config: Config) -> str:
    """A remark where the optimizer was chosen without knowing the family."""
    family = ARCHITECTURES[config.model.motivated].family
    if family in FAMILIES or config.optimizer.name != OWN_FAMILY.optimizer:
        return ""
    return f" (usual values, {family} has no recipe of its own)"


def _epochs(steps: int, trained: bool) -> int:
    """From new weights as many as give He's 64,000 steps on CIFAR, from torchvision's 90 to the 200 of arXiv 2602.21064.
    Trained weights take a tenth of that: 5,000 to 10,000 steps are usual (Kolesnikov et al. 2020, arXiv 1912.11370)."""
    epochs = min(200, max(90, round(64_000 / steps)))
    return epochs // 10 if trained else epochs
