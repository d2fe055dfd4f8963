"""The figures that arXiv 2602.21064 publishes: a row for each network of its tables 1 to 11.

How many falling losses motivated (k) is read off the published costs: the share of motivated batches that they imply is, in
every row, close to 1/(k+1)! (see `nestnet.motivation.motivated_rate`).
"""

import re
from dataclasses import dataclass
from typing import Literal

Role = Literal["C", "B", "M"]
"""`C`: trained alone, classically. `B` and `M`: the base and the motivated network of one nested training."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the paper prints of one network.

    Attributes:
        table: the numbers of the paper's tables that print it.
        network: timm's name of the network whose accuracy this is.
        dataset: as a configuration's `data.name`.
        role: how it was trained.
        accuracy: top-1 on the test images in percent, the mean over the runs.
        std: its standard deviation over 3 runs; `None` where not printed.
        cost: operations of an average forward pass in the paper's convention (`nestnet.cost.forward_cost`); `None` where not
            printed.
        pair: base and motivated network; for one trained alone, the smaller one that its ACC/FLOPs compares with, and itself.
        condition: as a configuration's `motivation.name`; for one trained alone `never`.
        k: of the condition; `None` where it does not follow.
        acc_flops: ACC/FLOPs as printed, in `unit`.
        f_ratio: F_Ratio as printed.
        fine_tuned: whether `dataset` is what the network was fine-tuned on. Role, pair and k are then those of its training on
            ImageNet.
    """

    table: str
    network: str
    dataset: str
    role: Role
    accuracy: float
    std: float | None = None
    cost: float | None = None
    pair: tuple[str, str] | None = None
    condition: str = "loss_decrease"
    k: int | None = None
    acc_flops: float | None = None
    f_ratio: float | None = None
    fine_tuned: bool = False

    @property
    def name(self) -> str:
        """As the paper writes it: `ResNet-20-C`, `Res-20-32-B`."""
        return row_name(self.network, self.role, self.pair)

    @property
    def unit(self) -> float:
        """What an ACC/FLOPs of 1 stands for in this row's table, in percentage points an operation."""
        return {"1, 8": 1e-2 / 1e6, "1, 10": 1e-2 / 1e9}.get(self.table, 1 / 1e9)


def classical(network: str, dataset: str, *, fine_tuned: bool = False) -> Published | None:
    """The published row of a network trained alone; `None` if there is none.

    >>> classical("resnet20", "cifar10").accuracy
    92.62
    """
    wanted = (network, dataset, "C", fine_tuned)
    return next((row for row in ROWS if (row.network, row.dataset, row.role, row.fine_tuned) == wanted), None)


def nested(
    base: str,
    motivated: str,
    dataset: str,
    role: Role,
    *,
    condition: str = "loss_decrease",
    k: int | None = None,
    fine_tuned: bool = False,
) -> Published | None:
    """The published row of the base or the motivated network of a nested training; `None` if there is none.

    Args:
        base: timm's name of the base.
        motivated: of the motivated network.
        dataset: as a configuration's `data.name`.
        role: `"B"` or `"M"`, which of the two.
        condition: as a configuration's `motivation.name`.
        k: of the condition. If `None`, where there are several, the one that was tuned for the base's accuracy.
        fine_tuned: on `dataset`, after ImageNet.

    >>> nested("efficientnet_b1", "efficientnet_b2", "cifar100", "B").cost
    720000000.0
    >>> nested("efficientnet_b1", "efficientnet_b2", "cifar100", "B", k=2).cost
    750000000.0
    """
    wanted = ((base, motivated), dataset, role, condition, fine_tuned)
    rows = (row for row in ROWS if (row.pair, row.dataset, row.role, row.condition, row.fine_tuned) == wanted)
    return next((row for row in rows if k is None or row.k in (None, k)), None)


def row_name(network: str, role: Role, pair: tuple[str, str] | None = None) -> str:
    """How the paper names a network that was trained alone (`"C"`), or as part of a pair (`"B"`, `"M"`).

    >>> row_name("vit_tiny_patch16_224", "C")
    'ViT-tiny-C'
    >>> row_name("efficientnet_b1", "M", ("efficientnet_b0", "efficientnet_b1"))
    'Eff-0-1-M'
    """
    alone, together = next((names for prefix, names in FAMILIES.items() if network.startswith(prefix)), ("", ""))
    if role == "C":
        return f"{alone}{_size(network)}-C"
    assert pair is not None, "B and M are of a pair"
    return f"{together}{'-'.join(map(_size, pair))}-{role}"


FAMILIES = {"resnet": ("ResNet-", "Res-"), "vit_": ("ViT-", "ViT-"), "efficientnet_b": ("EfficientNet-B", "Eff-")}
"""What timm's names begin with, and the paper's for a network alone and for a pair."""


def _size(network: str) -> str:
    return re.sub("|".join(FAMILIES) + "|_patch16_224", "", network)


def _alone(
    table: str,
    network: str,
    dataset: str,
    accuracy: float,
    std: float | None = None,
    cost: float | None = None,
    over: str = "",
    acc_flops: float | None = None,
) -> Published:
    """A row of a network trained alone, whose ACC/FLOPs compares with the smaller network `over`."""
    return Published(
        table=table,
        network=network,
        dataset=dataset,
        role="C",
        accuracy=accuracy,
        std=std,
        cost=cost,
        pair=(over, network) if over else None,
        condition="never",
        acc_flops=acc_flops,
        fine_tuned=table == "3",
    )


def _pair(
    table: str,
    base: str,
    motivated: str,
    dataset: str,
    accuracy: float,
    std: float | None = None,
    cost: float | None = None,
    k: int | None = None,
    acc_flops: float | None = None,
    f_ratio: float | None = None,
    role: Role = "B",
    condition: str = "loss_decrease",
) -> Published:
    """A row of a nested training."""
    return Published(
        table=table,
        network=motivated if role == "M" else base,
        dataset=dataset,
        role=role,
        accuracy=accuracy,
        std=std,
        cost=cost,
        pair=(base, motivated),
        condition=condition,
        k=k,
        acc_flops=acc_flops,
        f_ratio=f_ratio,
        fine_tuned=table == "3",
    )


TINY, SMALL_IMAGE_SIDE = "vit_tiny_patch16_224", "vit_small_patch16_224"
B0, B1, B2, B3, B4, B5 = (f"efficientnet_b{size}" for size in range(6))

# table, network, data, top-1, its deviation, cost, the network it is compared with, ACC/FLOPs
# table, base, motivated, data, top-1, its deviation, cost, k, ACC/FLOPs, F_Ratio, role, condition
ROWS: tuple[Published, ...] = (
    _alone("1, 8", "resnet20", "cifar10", 92.62, 0.17, 82.82e6),
    _pair("1, 8", "resnet20", "resnet32", "cifar10", 92.83, 0.20, 92.47e6, 2, 2.18, 1.24),
    _alone("1, 8", "resnet32", "cifar10", 93.63, 0.13, 140.13e6, "resnet20", 1.76),
    _pair("1, 8", "resnet32", "resnet44", "cifar10", 93.66, 0.05, 149.67e6, 2, 0.31, 0.60),
    _alone("1, 8", "resnet44", "cifar10", 93.93, 0.12, 197.44e6, "resnet32", 0.52),
    _pair("1, 8", "resnet44", "resnet56", "cifar10", 94.10, 0.19, 197.86e6, 4, 40.48, 122.67),
    _alone("1, 8", "resnet56", "cifar10", 94.12, 0.23, 254.76e6, "resnet44", 0.33),
    _alone("1, 8", "resnet20", "cifar100", 68.86, 0.23, 82.82e6),
    _pair("1, 8", "resnet20", "resnet32", "cifar100", 69.00, 0.48, 85.12e6, 3, 6.90, 2.23),
    _alone("1, 8", "resnet32", "cifar100", 70.63, 0.38, 140.13e6, "resnet20", 3.09),
    _pair("1, 8", "resnet32", "resnet44", "cifar100", 70.67, 0.41, 142.44e6, 3, 1.73, 1.24),
    _alone("1, 8", "resnet44", "cifar100", 71.43, 0.23, 197.44e6, "resnet32", 1.39),
    _pair("1, 8", "resnet44", "resnet56", "cifar100", 71.76, 0.42, 197.87e6, 4, 76.74, 41.04),
    _alone("1, 8", "resnet56", "cifar100", 72.50, 0.28, 254.76e6, "resnet44", 1.87),
    _alone("1, 10", TINY, "cifar10", 89.70, 0.12, 1.3e9),
    _pair("1, 10", TINY, SMALL_IMAGE_SIDE, "cifar10", 89.74, 0.25, 1.323e9, 4, 173.91, 1.75),
    _alone("1, 10", SMALL_IMAGE_SIDE, "cifar10", 92.98, 0.14, 4.6e9, TINY, 99.39),
    _alone("1, 10", TINY, "cifar100", 70.38, 0.68, 1.3e9),
    _pair("1, 10", TINY, SMALL_IMAGE_SIDE, "cifar100", 70.53, 0.44, 1.304e9, 5, 3750, 84.19),
    _alone("1, 10", SMALL_IMAGE_SIDE, "cifar100", 71.85, 0.55, 4.6e9, TINY, 44.54),
    _alone("2, 9", "resnet50", "imagenet", 78.06, None, 3.8e9),
    _pair("2, 9", "resnet50", "resnet101", "imagenet", 78.40, None, 3.84e9, 4, 8.5, 18.48),
    _alone("2, 9", "resnet101", "imagenet", 79.80, None, 7.6e9, "resnet50", 0.46),
    _alone("3", "resnet50", "cifar10", 93.71, 0.04),
    _pair("3", "resnet50", "resnet101", "cifar10", 97.15, 0.03, k=4),
    _alone("3", "resnet50", "cifar100", 74.16, 0.36),
    _pair("3", "resnet50", "resnet101", "cifar100", 85.15, 0.16, k=4),
    _alone("3", "resnet50", "flowers102", 73.56, 0.66),
    _pair("3", "resnet50", "resnet101", "flowers102", 94.67, 0.28, k=4),
    _alone("3", "resnet50", "oxford_pets", 93.48, 0.07),
    _pair("3", "resnet50", "resnet101", "oxford_pets", 96.87, 0.07, k=4),
    _alone("4, 11", B0, "cifar100", 79.09, 0.50, 0.39e9),
    _pair("4, 11", B0, B1, "cifar100", 79.23, 0.34, 0.44e9, 2, 2.8, 1.26),
    _alone("4, 11", B1, "cifar100", 79.92, 0.60, 0.7e9, B0, 2.22),
    _pair("4, 11", B1, B2, "cifar100", 80.37, 0.08, 0.72e9, 3, 22.5, 6.76),
    _alone("4, 11", B2, "cifar100", 80.18, 0.57, 1.0e9, B1, 3.33),
    _pair("4, 11", B2, B3, "cifar100", 80.32, 0.24, 1.01e9, 4, 14, 14.89),
    _alone("4, 11", B3, "cifar100", 80.93, 0.46, 1.8e9, B2, 0.94),
    _pair("4, 11", B3, B4, "cifar100", 80.81, 0.50, 1.82e9, 4, -6, -100),
    _alone("4, 11", B4, "cifar100", 81.08, 0.20, 4.2e9, B3, 0.06),
    _pair("4, 11", B4, B5, "cifar100", 81.27, 0.27, 4.43e9, 3, 0.83, 4.61),
    _alone("4, 11", B5, "cifar100", 82.10, 0.33, 9.9e9, B4, 0.18),
    # trained once, deployed twice
    _pair("5", B0, B1, "cifar100", 79.23, 0.34, 0.44e9, 2),
    _pair("5", B0, B1, "cifar100", 80.09, 0.27, 0.44e9, 2, role="M"),
    _pair("5", B1, B2, "cifar100", 80.37, 0.08, 0.75e9, 2),
    _pair("5", B1, B2, "cifar100", 81.02, 0.18, 0.75e9, 2, role="M"),
    _pair("5", B2, B3, "cifar100", 80.17, 0.23, 1.13e9, 2),
    _pair("5", B2, B3, "cifar100", 81.32, 0.17, 1.13e9, 2, role="M"),
    _pair("5", B3, B4, "cifar100", 80.28, 0.46, 2.18e9, 2),
    _pair("5", B3, B4, "cifar100", 81.60, 0.34, 2.18e9, 2, role="M"),
    _pair("5", B4, B5, "cifar100", 81.04, 0.40, 5.14e9, 2),
    _pair("5", B4, B5, "cifar100", 81.94, 0.26, 5.14e9, 2, role="M"),
    # the ablation: its experiments A and B; ResNet-32-C again, with another deviation than in table 1
    _pair("6", "resnet20", "resnet32", "cifar10", 92.38, 0.32, condition="random"),
    _pair("6", "resnet20", "resnet32", "cifar10", 92.62, 0.36, condition="random_like"),
    _pair("6", B0, B1, "cifar100", 79.01, 0.44, condition="random"),
    _pair("6", B0, B1, "cifar100", 79.13, 0.19, condition="random_like"),
    _alone("6", "resnet32", "cifar10", 93.63, 0.20),
    # other conditions
    _pair("7", "resnet20", "resnet32", "cifar10", 92.78, 0.23, condition="ema_decrease"),
    _pair("7", "resnet20", "resnet32", "cifar10", 92.65, 0.17, condition="held_out_loss_decrease"),
    _pair("7", "resnet20", "resnet32", "cifar10", 92.74, 0.24, condition="gradient_norm_increase"),
)
