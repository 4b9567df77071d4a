"""What a soak is to do: its options, its settings, and in which order the faults come."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Of so many steps one is of two faults at once.
_PAIR_ONE_IN = 5


class UsageError(ValueError):
    """An option is wrong."""


@dataclass(frozen=True)
class Options:
    """What to do; raises `UsageError` for what cannot be done."""

    #: For how long; None: until every fault was applied `rounds` times.
    minutes: float | None = None
    rounds: int = 1
    workers: int = 8
    operators: int = 4
    seed: int = 1
    #: Names of faults; all when empty.
    faults: tuple[str, ...] = ()
    #: Two faults at once now and then.
    pairs: bool = True
    #: How long a fault lasts, as a part of what it lasts by itself.
    scale: float = 1.0
    #: Short leases, locks and breaker windows: more of everything per minute.
    quick: bool = False
    #: One fault at a time, the library's default settings, and readers that only read: for the price list.
    prices: bool = False
    #: A fault of the cache itself, planted (`tests.soak.plants`).
    plant: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 64:
            raise UsageError(f"workers is {self.workers}; allowed: 1 to 64")
        if not 1 <= self.operators <= 64:
            raise UsageError(f"operators is {self.operators}; allowed: 1 to 64")
        if self.minutes is not None and not 0 < self.minutes <= 7 * 24 * 60:
            raise UsageError(f"minutes is {self.minutes:g}; allowed: above 0, to 10080")
        if not 1 <= self.rounds <= 1000:
            raise UsageError(f"rounds is {self.rounds}; allowed: 1 to 1000")

    def settings(self) -> dict[str, Any]:
        """Give the settings that the whole fleet shares, but for the address of Redis."""
        if self.prices:
            return {"namespace": "soak"}
        common: dict[str, Any] = {"namespace": "soak", "ttl": 20.0}
        if self.seed % 2:
            common["signing_keys"] = "soak-soak-soak-soak"
        if self.quick:
            return common | {"redis_timeout": 0.3, "breaker_window": 0.2, "lock_ttl": 0.5, "wait_timeout": 2.0}
        return common | {"breaker_window": 1.0, "lock_ttl": 1.0, "wait_timeout": 4.0}

    def worker(self, number: int) -> dict[str, Any]:
        """Give what is peculiar to one worker: no two of the first are alike."""
        if self.prices:
            return {"threads": 1, "batch": 200, "plain_only": True, "keeps_connection": True, "settings": {}}
        lease = 0.4 if self.quick else 1.0
        kinds: tuple[dict[str, Any], ...] = (
            # Asks on every read: it is the first to see that a fault is over.
            {"batch": 2, "settings": {"lease": 0}},
            {"threads": 4, "settings": {"lease": lease}},
            {"settings": {"lease": lease}},
            {"keeps_connection": True, "settings": {"lease": lease, "stale_if_error": 5.0}},
            {"threads": 3, "settings": {"lease": lease, "refresh_ahead": 0.97}},
            {"settings": {"lease": 1.0, "ttl": 2.0}},
            {"keeps_connection": True, "threads": 2, "settings": {"lease": 0.25}},
            {"settings": {"lease": 1.0}},
        )
        plain = {"threads": 1, "batch": 200, "plain_only": False, "keeps_connection": False}
        return plain | kinds[number % len(kinds)]


@dataclass
class Schedule:
    """Names of faults, a step at a time: each round has every fault once, in an order of its own."""

    names: Sequence[str]
    areas: dict[str, str]
    seed: int
    pairs: bool
    shuffled: bool = True
    #: How many rounds have been begun.
    rounds: int = field(default=0, init=False)

    def steps(self) -> Iterator[tuple[str, ...]]:
        """Give the steps, without end."""
        chance = random.Random(self.seed)  # noqa: S311 - a seeded run, no secret
        while True:
            self.rounds += 1
            names = list(self.names)
            if self.shuffled:
                chance.shuffle(names)
            for name in names:
                others = [other for other in self.names if self.areas[other] != self.areas[name]]
                if self.pairs and others and chance.randrange(_PAIR_ONE_IN) == 0:
                    yield name, chance.choice(others)
                else:
                    yield (name,)
