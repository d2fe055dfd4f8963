"""The base class of a family of networks: how two of its networks nest, and facts that other modules use."""

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import timm

from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import PerMode
from nestnet.nn.model import NestedModel


@dataclass(frozen=True)
class TrainingDefaults:
    """Usual settings with which a family is trained from scratch.

    The recipe for a folder of images starts from these values.

    Attributes:
        optimizer: timm's name of the optimizer.
        lr: learning rate for batches of `lr_batch` images.
        lr_batch: number of images per batch for which `lr` is meant.
        weight_decay: weight decay of the optimizer.
        lr_scaling: exponent with which the learning rate grows with the batch size: 1 (linear, Goyal et al. 2017,
            arXiv 1706.02677) or 0.5 (timm's for Adam and related optimizers).
        options: further arguments of the optimizer.
        channels_last: whether images and weights are stored with the channels last, which suits convolutions.
    """

    optimizer: str
    lr: float
    lr_batch: int
    weight_decay: float
    lr_scaling: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = True


class Architecture(ABC):
    """Base class of families of networks. An instance holds the numbers from which one network is built.

    A subclass is a frozen dataclass whose fields tell the family's networks apart. It sets `family`, defines
    `contains` and `nest`, and overrides the other class attributes where the defaults do not hold.

    Attributes:
        family: name of the family, which messages show. Networks nest within a family only.
        has_batch_norm: whether the networks have BatchNorm, whose running statistics can be recalibrated,
            synchronised and shared by both modes.
        img_size_divisor: number that the height and width of training images must be multiples of, in pixels,
            such as the side of a transformer's patch.
        is_for_small_images: whether the networks are made for images of about 32 x 32 pixels.
        training_defaults: settings of the family in the recipe for a folder of images. The default is AdamW with DeiT's
            values (Touvron et al. 2021, arXiv 2012.12877, table 9), which suit most networks, with BatchNorm
            or without.
        registered_by: name of the module whose import makes the networks known to timm; `None` for timm's own
            networks.
        paper_counts_flops: whether arXiv 2602.21064 prints the costs of these networks in floating point
            operations instead of multiply-accumulates: see `nestnet.cost.forward_cost`.
    """

    # The recipe, the validation, the costs and the exports use these facts, so that none of them names a family.
    # They are no fields of the dataclasses below: a family sets them for all of its networks.
    family: str
    has_batch_norm: bool = True
    img_size_divisor: int = 1
    is_for_small_images: bool = False
    training_defaults: TrainingDefaults = TrainingDefaults("adamw", 5e-4, 512, 0.05, lr_scaling=0.5)
    registered_by: str | None = None
    paper_counts_flops: bool = False

    @abstractmethod
    def contains(self, base: Any) -> bool:
        """Return whether another network fits inside this one.

        Args:
            base: network of the same family.

        Returns:
            Whether `base` can be the base of a nested network with this motivated network.
        """

    @staticmethod
    @abstractmethod
    def nest(*args: Any, **options: Any) -> NestedModel:
        """Return the nested network of a pair, with uninitialised weights.

        A family lists its options as keyword arguments: `num_classes`, `in_chans`, and further options, which
        `nestnet.create_model` then accepts. A family with the option `img_size` builds its networks for
        one size of images.

        Args:
            args: `names`, timm's name of each mode's network as a `nestnet.nn.mode.PerMode`, and
                `architectures`, the family's instance for each mode as a `PerMode`.
            options: options of the family.

        Returns:
            The nested network, of a class of the family.

        Raises:
            ValueError: If an option has a value that is not allowed.
        """

    def create(
        self,
        names: PerMode[str],
        architectures: PerMode[Any],
        *,
        num_classes: int,
        in_chans: int,
        **options: Any,
    ) -> NestedModel:
        """Return the nested network of a pair, with the weights with which timm initialises the motivated network.

        Args:
            names: timm's name of each mode's network.
            architectures: the family's instance for each mode.
            num_classes: number of outputs of the head.
            in_chans: number of channels of the images.
            options: options of the family.

        Returns:
            The nested network.

        Raises:
            ValueError: If an option has a value that is not allowed.
        """
        # timm draws the weights below, so that they are the same as those of timm's motivated network.
        with meta_device():
            net = self.nest(names, architectures, num_classes=num_classes, in_chans=in_chans, **options)
        initial = timm.create_model(
            names.motivated, num_classes=num_classes, in_chans=in_chans, **net.timm_options.motivated
        )
        net.load_state_dict(initial.state_dict(), assign=True)
        return net

    @property
    def option_names(self) -> list[str]:
        """Names of the family's own options, which are keyword arguments of `nest`."""
        # `num_classes` and `in_chans` are arguments of every family.
        names = []
        for parameter in inspect.signature(self.nest).parameters.values():
            is_common = parameter.name in ("num_classes", "in_chans")
            if parameter.kind is parameter.KEYWORD_ONLY and not is_common:
                names.append(parameter.name)
        return names

    @property
    def takes_img_size(self) -> bool:
        """Whether the networks are built for one size of images, which `nest` takes as the option `img_size`."""
        return "img_size" in self.option_names
