"""A weights map to be checked, and what running the two networks with it shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nestnet.nesting.channels import TOLERANCE, Location
from nestnet.nn.placement import Placement


@dataclass(frozen=True)
class Plan:
    """A weights map to be checked.

    Attributes:
        placements: placement of each base parameter.
        skipped: paths of the motivated blocks that base mode skips.
        kept: those of them that are not left out of the check, because what they add is beside what the base has.
        widened: those of them that have more outputs than inputs. What passes them by gets zeros for the further channels.
        followers: base modules whose rows have the layout of the channels that an earlier base module reads: the path
            of that module by the path of the one that follows. Further rows of theirs come behind.
        modules: path of the motivated module that holds each base module, which the check does not use.
    """

    placements: Mapping[str, Placement]
    skipped: tuple[str, ...]
    kept: frozenset[str] = frozenset()
    widened: frozenset[str] = frozenset()
    followers: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Paths of the blocks that are left out of the check."""
        return tuple(path for path in self.skipped if path not in self.kept)


@dataclass
class Trace:
    """What was found by running two networks side by side.

    Attributes:
        difference: largest difference of the outputs, relative to the largest output.
        order: paths of the base's modules with parameters, in the order in which they run.
        found: paths of those that get the base's input among theirs, before the first that does not.
        first_lost: path of the first module that gets another input than in the base; `None` if there is none.
        locations: where the input of each module is, by its path.
        placements: placements of base parameters that the inputs show to be others than was assumed, by name.
        error: what the motivated network raised; `None` if it ran.
    """

    difference: float = float("inf")
    order: tuple[str, ...] = ()
    found: set[str] = field(default_factory=set)
    first_lost: str | None = None
    locations: dict[str, Location] = field(default_factory=dict)
    placements: dict[str, Placement] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def agrees(self) -> bool:
        """Whether the motivated network computes what the base does."""
        return self.error is None and self.difference < TOLERANCE

    @property
    def progress(self) -> int:
        """Number of modules that get the base's input, and 1 more if the outputs agree too."""
        return len(self.found) + self.agrees
