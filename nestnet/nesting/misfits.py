"""Reasons why two networks do not nest, which are collected and reported together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

REPORTED_MISFITS = 20
"""Largest number of misfits that one message lists."""


@dataclass(frozen=True)
class Misfit:
    """A reason why two networks do not nest.

    Attributes:
        kind: reason in a word or two, by which misfits are counted.
        text: what does not fit: the name, what each network has, and the rule.
    """

    kind: str
    text: str


class MisfitError(ValueError):
    """Two networks do not nest.

    Args:
        names: names of the base and of the motivated network.
        misfits: all reasons, at least one.

    Attributes:
        misfits: all reasons.
    """

    def __init__(self, names: str, misfits: Iterable[Misfit]) -> None:
        self.misfits = tuple(misfits)
        super().__init__(f"{names} do not nest: {list_reasons(self.misfits, REPORTED_MISFITS)}")


def list_reasons(misfits: Sequence[Misfit], most: int) -> str:
    """Return the first reasons, and the number of the others, as a part of a sentence.

    Args:
        misfits: all reasons.
        most: largest number of reasons that are listed.
    """
    reasons = [misfit.text for misfit in misfits[:most]]
    further = len(misfits) - len(reasons)
    if further:
        reasons.append(f"and {further} more")
    return "; ".join(reasons)
