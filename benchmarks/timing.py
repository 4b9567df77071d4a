"""Interleaved rounds: all is timed in every round, so a noisy moment strikes all of it, and only ratios count."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: Does something so many times, and gives the seconds that it took.
Timed = Callable[[int], float]

_MOST_AT_ONCE = 20_000_000


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds per call, one figure for each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round."""
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        """The first quartile of the rounds."""
        return _quantile(self.seconds, 0.25)

    @property
    def high(self) -> float:
        """The third quartile of the rounds."""
        return _quantile(self.seconds, 0.75)

    def ratios(self, base: "Times") -> "Times":
        """Give, round by round, how many times as long as `base` it took."""
        return Times(tuple(mine / its for mine, its in zip(self.seconds, base.seconds, strict=True)))


def interleaved(
    timed: Mapping[str, Timed], *, rounds: int, seconds: float, counts: Mapping[str, int] | None = None
) -> dict[str, Times]:
    """Time everything once a round, in an order that changes, about `seconds` at a time; give seconds per call.

    How many calls that are is found out first, each by itself, unless `counts` says.
    """
    found = {name: (counts or {}).get(name) or calibrated(work, seconds) for name, work in timed.items()}
    chance = random.Random(rounds)  # noqa: S311 - an order, no secret
    per_call: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name in chance.sample(list(timed), len(timed)):
            per_call[name].append(timed[name](found[name]) / found[name])
    return {name: Times(tuple(values)) for name, values in per_call.items()}


def calibrated(work: Timed, seconds: float) -> int:
    """Tell how often `work` can be done in `seconds`; at least once. It is warm then."""
    count = 1
    while (took := work(count)) < seconds / 4 and count < _MOST_AT_ONCE:
        count = min(_MOST_AT_ONCE, max(count * 2, int(count * seconds / 4 / max(took, 1e-7))))
    return max(1, min(_MOST_AT_ONCE, round(count * seconds / max(took, 1e-9))))


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    at = part * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)
