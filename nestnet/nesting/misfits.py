"""Reasons why two networks do not nest, which are collected and reported together."""

from collections.abc import Iterable
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
        lines = [misfit.text for misfit in self.misfits[:REPORTED_MISFITS]]
        further = len(self.misfits) - len(lines)
        if further:
            lines.append(f"and {further} more")
        super().__init__(f"{names} do not nest: " + "; ".join(lines))
