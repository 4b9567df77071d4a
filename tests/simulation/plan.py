"""What one seed draws: who reads how, what is changed, which faults come when, and how fast everything is."""

import random
from dataclasses import dataclass, field

from kcg_cache import Settings
from kcg_cache.store import INLINE
from tests.simulation.faults import FAULTS
from tests.simulation.network import Fates

#: A payload of so many bytes is too large to be shared.
LARGE = 1000
#: Names of the kinds of run, and how often each is drawn.
SCENARIOS = {"faults": 80, "calm": 10, "cold start": 5, "forced at once": 5}


@dataclass(frozen=True)
class Plan:
    """One run, before it begins."""

    seed: int
    scenario: str
    settings: Settings
    #: Threads of each process, and reads of each thread.
    threads: tuple[int, ...]
    reads: int
    changes: int
    operators: int
    stamped: bool
    #: Whether some versions are too large to be shared, and some hold what orjson does not write.
    odd_rows: bool
    #: The longest usual pause at a door, seconds; how often one is much longer; and the longest time between reads.
    pace: float
    hiccups: float
    think: float
    slowness: tuple[float, float]
    fates: Fates
    #: When which fault begins.
    faults: tuple[tuple[float, str], ...] = ()
    #: How often a read is forced, has a max_age, or is of a tainted caller.
    forced: float = 0.1
    aged: float = 0.1
    tainted: float = 0.1
    #: Rates of the clocks of Redis and of each process: within 1 % of each other.
    rates: tuple[float, ...] = field(default=())
    #: How fine the Redis clock is, in seconds.
    tick: float = 1e-6
    #: The largest payload that read.lua gives itself: 0 for "each is fetched".
    inline: int = INLINE


def drawn(seed: int) -> Plan:
    """Draw the plan of a seed."""
    chance = random.Random(seed)  # noqa: S311 - chance that can be repeated is the point
    (scenario,) = chance.choices(list(SCENARIOS), list(SCENARIOS.values()))
    if scenario in ("cold start", "forced at once"):
        return _herd(seed, scenario, chance)
    faulty = scenario == "faults"
    threads = tuple(chance.choice((1, 1, 2, 3)) for _ in range(chance.choice((1, 2, 2, 3))))
    pace, think = chance.choice(((0.0005, 0.5), (0.0005, 1.2), (0.05, 0.5), (0.2, 0.3)))
    reads = chance.randrange(6, 18)
    span = 1.0 + reads * think * 0.7  # about as long as the readers need
    # Few kinds and often: what two faults of one kind do to each other shows where twenty kinds would be one of each.
    kinds = chance.sample(list(FAULTS), chance.randrange(1, 5))
    settings = _settings(chance)
    faults = [(span * chance.random(), chance.choice(kinds)) for _ in range(chance.randrange(1, 10))]
    if settings.stale_if_error:
        faults += [(span * chance.random(), "database failing") for _ in range(2)]
    return Plan(
        seed=seed,
        scenario=scenario,
        settings=settings,
        threads=threads,
        reads=reads,
        changes=chance.randrange(2, 5),
        operators=chance.choice((1, 1, 2)),
        stamped=chance.random() < 0.7,
        odd_rows=chance.random() < 0.3,
        pace=pace,
        hiccups=chance.choice((0.0, 0.01, 0.05)) if faulty else 0.0,
        think=think,
        slowness=chance.choice(((0.0005, 0.02), (0.0005, 0.5), (0.05, 2.0))),
        fates=_fates(chance) if faulty else Fates(),
        faults=tuple(sorted(faults)) if faulty else (),
        forced=chance.choice((0.0, 0.1, 0.5)),
        aged=chance.choice((0.0, 0.0, 0.2)),
        tainted=chance.choice((0.0, 0.0, 0.15)),
        rates=tuple(chance.uniform(0.9951, 1.0049) for _ in range(2 + len(threads))),
        tick=chance.choice((1e-6, 1e-4)),
        inline=chance.choice((0, INLINE)),
    )


def _herd(seed: int, scenario: str, chance: random.Random) -> Plan:
    """Draw a run in which everybody asks at the same moment, and nothing goes wrong."""
    threads = tuple(chance.choice((1, 2, 3)) for _ in range(chance.randrange(2, 6)))
    return Plan(
        seed=seed,
        scenario=scenario,
        settings=Settings(),
        threads=threads,
        reads=1,
        changes=0,
        operators=0,
        stamped=True,
        odd_rows=False,
        pace=0.002,
        hiccups=0.0,
        think=0.0,
        # Longer than it takes everybody to ask, and than the lock lives without being renewed.
        slowness=chance.choice(((0.5, 1.0), (1.8, 2.2))),
        fates=Fates(),
        forced=1.0 if scenario == "forced at once" else 0.0,
        aged=0.0,
        tainted=0.0,
        rates=tuple(chance.uniform(0.9951, 1.0049) for _ in range(2 + len(threads))),
        inline=chance.choice((0, INLINE)),
    )


def _settings(chance: random.Random) -> Settings:
    lock_ttl = chance.choice((0.5, 3.0, 3.0))
    expiring = chance.random() < 0.3
    return Settings(
        ttl=chance.choice((0.6, 1.5)) if expiring else chance.choice((5.0, 300.0, 300.0)),
        lease=chance.choice((0.0, 0.3, 1.0, 1.0, 1.0)),
        lock_ttl=lock_ttl,
        wait_timeout=chance.choice((2 * lock_ttl, 10.0)),
        breaker_window=chance.choice((0.0, 0.5, 2.0)),
        refresh_ahead=chance.choice((0.0, 0.5)) if expiring else 0.0,
        stale_if_error=chance.choice((0.0, 5.0)) if expiring else 0.0,
        signing_keys=chance.choice(((), (), (b"simulated-key-0123",))),
        max_payload=LARGE,
    )


def _fates(chance: random.Random) -> Fates:
    def rate(*among: float) -> float:
        return chance.choice((0.0, 0.0, 0.0, *among))

    return Fates(
        lost=rate(0.02, 0.15),
        reply_lost=rate(0.02, 0.15),
        reset=rate(0.02, 0.15),
        late=rate(0.02, 0.15),
        duplicated=rate(0.1, 0.5),
    )
