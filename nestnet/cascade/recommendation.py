"""Whether a cascade is worth deploying, and with which threshold."""

from dataclasses import dataclass

from nestnet.cascade.curve import CascadeCurve
from nestnet.cascade.targets import NoSuchPointError, Target
from nestnet.cost.cascade import CascadeCosts


@dataclass(frozen=True)
class Recommendation:
    """Point of a curve that reaches a target, or the reason not to deploy a cascade.

    Attributes:
        point: index of the chosen point of the curve; `None` if none reaches the target.
        refusal: reason why no cascade is recommended, with what to do instead; `None` if one is.
        point_without_margin: index of the point that would reach the target on the held-out images if nothing were kept in
            hand for new images; `None` if it is the chosen one, or no cascade is recommended.
    """

    point: int | None
    refusal: str | None
    point_without_margin: int | None = None


def recommend(curve: CascadeCurve, target: Target, macs: CascadeCosts, seconds: CascadeCosts) -> Recommendation:
    """Choose the point of a curve for a target, and say whether a cascade pays there.

    Args:
        curve: curve on held-out images.
        target: what the cascade is to reach.
        macs: multiply-accumulates of an image in each network.
        seconds: seconds of an image in each network, as measured on this machine.

    Returns:
        The recommendation.
    """
    try:
        point = target.choose(curve, macs, seconds)
    except NoSuchPointError as error:
        return Recommendation(None, f"{error}; choose another target")
    share = float(curve.passed_on[point])
    if share == 0:
        return Recommendation(point, _explain_base_alone(curve, target))
    if share == 1:
        return Recommendation(point, "every image would be passed on; deploy the motivated network alone")
    for unit, costs in {"multiply-accumulates": macs, "seconds on this machine": seconds}.items():
        if not costs.pays(share):
            return Recommendation(
                point,
                f"{share:.1%} of the images would be passed on, and from {costs.break_even:.1%} on a cascade costs at least as "
                f"many {unit} as the motivated network; deploy the motivated network alone, or allow a larger loss",
            )
    cheaper = target.without_margin()
    if cheaper is None:
        return Recommendation(point, None)
    # A point that reaches the target with a margin reaches it without.
    without_margin = cheaper.choose(curve, macs, seconds)
    return Recommendation(point, None, without_margin if without_margin != point else None)


def _explain_base_alone(curve: CascadeCurve, target: Target) -> str:
    """Return why the base alone is the answer to a target."""
    if curve.motivated_accuracy <= curve.base_accuracy:
        return (
            f"the motivated network is no better than the base on the held-out images ({curve.motivated_accuracy:.2f} % "
            f"and {curve.base_accuracy:.2f} %); deploy the base alone"
        )
    return f"the base alone reaches {target}; deploy it alone"
