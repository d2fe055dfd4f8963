"""Timing several calls in turns, so that they share whatever else the machine does meanwhile."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Number of times that each call has its turn.
ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Durations of a call that was repeated.

    Attributes:
        count: number of times that it was timed.
        lower: lower quartile of the durations in seconds.
        median: median of the durations in seconds.
        upper: upper quartile of the durations in seconds.
    """

    count: int
    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, durations: Sequence[float]) -> "Timing":
        """Summarise durations.

        Args:
            durations: at least two durations in seconds.
        """
        lower, median, upper = statistics.quantiles(durations, n=4, method="inclusive")
        return cls(len(durations), lower, median, upper)


def time_in_turns(
    calls: Sequence[Callable[[], object]],
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time calls in turns: in each of `ROUNDS` rounds, each call is repeated for its share of the time.

    Args:
        calls: calls to time, which return when their work is done.
        seconds: time in seconds for each call, above 0. Every call is timed at least once in each round, however long it
            takes.
        clock: function that returns the time in seconds.

    Returns:
        The timing of each call.
    """
    # The first call of a network allocates memory and may choose its kernels.
    for call in calls:
        call()
    durations: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, own_durations in zip(calls, durations, strict=True):
            # The threads of the call before may still wait for more work, and the caches hold its data.
            call()
            end = clock() + seconds / ROUNDS
            is_time_left = True
            while is_time_left:
                start = clock()
                call()
                stop = clock()
                own_durations.append(stop - start)
                is_time_left = stop < end
    return [Timing.of(own_durations) for own_durations in durations]
