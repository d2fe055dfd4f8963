"""The published results of arXiv 2602.21064: a row for each network of its tables 1 to 11.

The number of falling losses k is derived from the published costs: in every row, the share of motivated batches
that they imply is close to 1/(k+1)! (see `nestnet.conditions.base.motivated_rate`).
"""

from dataclasses import dataclass

from nestnet.paper.network_names import Role, format_network_name

# An ACC/FLOPs of 1 means this many percentage points per operation. Tables 1, 8 and 10 print hundredths
# of a percentage point per million (ResNet) or per billion operations (ViT), the others percentage points
# per billion.
ACC_FLOPS_UNITS = {"1, 8": 1e-2 / 1e6, "1, 10": 1e-2 / 1e9}
USUAL_ACC_FLOPS_UNIT = 1 / 1e9


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """Published result of one network.

    Attributes:
        table: numbers of the paper's tables that print it.
        network: timm's name of the network whose accuracy this is.
        dataset: data set, as a configuration's `data.name`.
        role: how the network was trained.
        accuracy: top-1 on the test images in percent, the mean over the runs.
        std: standard deviation of the accuracy over 3 runs; `None` where it is not printed.
        cost: operations of an average forward pass in the paper's convention (`nestnet.cost.forward_cost`);
            `None` where it is not printed.
        pair: base and motivated network. For a network trained alone: the smaller network with which its
            ACC/FLOPs is computed, and the network itself.
        condition: motivation condition, as a configuration's `motivation.name`; `never` for a network
            trained alone.
        k: k of the condition; `None` where it does not follow from what is printed.
        acc_flops: ACC/FLOPs as printed, in `acc_flops_unit`.
        f_ratio: F_Ratio as printed.
        fine_tuned: whether the network was fine-tuned on `dataset`. Role, pair and k are then those of its
            training on ImageNet.
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
        """The paper's name of the network: `ResNet-20-C`, `Res-20-32-B`."""
        return format_network_name(self.network, self.role, self.pair)

    @property
    def acc_flops_unit(self) -> float:
        """Unit of ACC/FLOPs in this row's table, in percentage points per operation."""
        return ACC_FLOPS_UNITS.get(self.table, USUAL_ACC_FLOPS_UNIT)


def find_classical_result(network: str, dataset: str, *, fine_tuned: bool = False) -> PublishedResult | None:
    """Return the published result of a network trained alone.

    Args:
        network: timm's name of the network.
        dataset: data set, as a configuration's `data.name`.
        fine_tuned: whether it was fine-tuned on the data set, after ImageNet.

    Returns:
        The result, or `None` if there is none.

    Example:
        >>> find_classical_result("resnet20", "cifar10").accuracy
        92.62
    """
    wanted = (network, dataset, "C", fine_tuned)
    for result in PUBLISHED_RESULTS:
        if (result.network, result.dataset, result.role, result.fine_tuned) == wanted:
            return result
    return None


def find_nested_result(
    base: str,
    motivated: str,
    dataset: str,
    role: Role,
    *,
    condition: str = "loss_decrease",
    k: int | None = None,
    fine_tuned: bool = False,
) -> PublishedResult | None:
    """Return the published result of the base or the motivated network of a nested training.

    Args:
        base: timm's name of the base.
        motivated: timm's name of the motivated network.
        dataset: data set, as a configuration's `data.name`.
        role: `"B"` for the base, `"M"` for the motivated network.
        condition: motivation condition, as a configuration's `motivation.name`.
        k: k of the condition; `None` for the one tuned for the base's accuracy, if there are several.
        fine_tuned: whether it was fine-tuned on the data set, after ImageNet.

    Returns:
        The result, or `None` if there is none.

    Example:
        >>> find_nested_result("efficientnet_b1", "efficientnet_b2", "cifar100", "B").cost
        720000000.0
        >>> find_nested_result("efficientnet_b1", "efficientnet_b2", "cifar100", "B", k=2).cost
        750000000.0
    """
    wanted = ((base, motivated), dataset, role, condition, fine_tuned)
    for result in PUBLISHED_RESULTS:
        found = (result.pair, result.dataset, result.role, result.condition, result.fine_tuned)
        is_of_k = k is None or result.k is None or result.k == k
        if found == wanted and is_of_k:
            return result
    return None


def _alone(
    table: str,
    network: str,
    dataset: str,
    accuracy: float,
    std: float | None = None,
    cost: float | None = None,
    compared_with: str | None = None,
    acc_flops: float | None = None,
) -> PublishedResult:
    """Return the result of a network trained alone, whose ACC/FLOPs compares with a smaller network."""
    pair = None
    if compared_with is not None:
        pair = (compared_with, network)
    return PublishedResult(
        table=table,
        network=network,
        dataset=dataset,
        role="C",
        accuracy=accuracy,
        std=std,
        cost=cost,
        pair=pair,
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
) -> PublishedResult:
    """Return the result of a network of a nested training."""
    return PublishedResult(
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


VIT_TINY = "vit_tiny_patch16_224"
VIT_SMALL = "vit_small_patch16_224"
B0 = "efficientnet_b0"
B1 = "efficientnet_b1"
B2 = "efficientnet_b2"
B3 = "efficientnet_b3"
B4 = "efficientnet_b4"
B5 = "efficientnet_b5"

# _alone: table, network, data, top-1, its deviation, cost, the network to compare with, ACC/FLOPs
# _pair: table, base, motivated, data, top-1, its deviation, cost, k, ACC/FLOPs, F_Ratio, role, condition
PUBLISHED_RESULTS: tuple[PublishedResult, ...] = (
    # CIFAR-10 and CIFAR-100, ResNet (section 4.1)
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
    # ViT (section 4.2)
    _alone("1, 10", VIT_TINY, "cifar10", 89.70, 0.12, 1.3e9),
    _pair("1, 10", VIT_TINY, VIT_SMALL, "cifar10", 89.74, 0.25, 1.323e9, 4, 173.91, 1.75),
    _alone("1, 10", VIT_SMALL, "cifar10", 92.98, 0.14, 4.6e9, VIT_TINY, 99.39),
    _alone("1, 10", VIT_TINY, "cifar100", 70.38, 0.68, 1.3e9),
    _pair("1, 10", VIT_TINY, VIT_SMALL, "cifar100", 70.53, 0.44, 1.304e9, 5, 3750, 84.19),
    _alone("1, 10", VIT_SMALL, "cifar100", 71.85, 0.55, 4.6e9, VIT_TINY, 44.54),
    # ImageNet (section 4.1)
    _alone("2, 9", "resnet50", "imagenet", 78.06, None, 3.8e9),
    _pair("2, 9", "resnet50", "resnet101", "imagenet", 78.40, None, 3.84e9, 4, 8.5, 18.48),
    _alone("2, 9", "resnet101", "imagenet", 79.80, None, 7.6e9, "resnet50", 0.46),
    # fine-tuned after ImageNet (section 4.1)
    _alone("3", "resnet50", "cifar10", 93.71, 0.04),
    _pair("3", "resnet50", "resnet101", "cifar10", 97.15, 0.03, k=4),
    _alone("3", "resnet50", "cifar100", 74.16, 0.36),
    _pair("3", "resnet50", "resnet101", "cifar100", 85.15, 0.16, k=4),
    _alone("3", "resnet50", "flowers102", 73.56, 0.66),
    _pair("3", "resnet50", "resnet101", "flowers102", 94.67, 0.28, k=4),
    _alone("3", "resnet50", "oxford_pets", 93.48, 0.07),
    _pair("3", "resnet50", "resnet101", "oxford_pets", 96.87, 0.07, k=4),
    # EfficientNet, with the k that is best for the base (section 4.3)
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
    # EfficientNet, trained once and deployed twice (section 4.3)
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
    # the ablation, experiments A and B (section 4.4.1); ResNet-32-C has another deviation than in table 1
    _pair("6", "resnet20", "resnet32", "cifar10", 92.38, 0.32, condition="random"),
    _pair("6", "resnet20", "resnet32", "cifar10", 92.62, 0.36, condition="random_like"),
    _pair("6", B0, B1, "cifar100", 79.01, 0.44, condition="random"),
    _pair("6", B0, B1, "cifar100", 79.13, 0.19, condition="random_like"),
    _alone("6", "resnet32", "cifar10", 93.63, 0.20),
    # other motivation conditions (section 4.4.2)
    _pair("7", "resnet20", "resnet32", "cifar10", 92.78, 0.23, condition="ema_decrease"),
    _pair("7", "resnet20", "resnet32", "cifar10", 92.65, 0.17, condition="held_out_loss_decrease"),
    _pair("7", "resnet20", "resnet32", "cifar10", 92.74, 0.24, condition="gradient_norm_increase"),
)
