"""What one exploration looks at: who reads, how often which fault may happen, which rule is broken on purpose."""

from dataclasses import dataclass, field

#: What may happen, and how often: the places in `State.budget`.
BUDGETS = (
    "commit",  # the writer commits the next version
    "invalidate",  # the operator calls invalidate()
    "lose",  # a request or a reply is lost, and its sender is told so by an error
    "duplicate",  # a copy of a request is on its way, or the request was run and is sent again
    "crash",  # a process dies and starts anew
    "lock_ends",  # the lock's life ends although its holder loads: it pauses, or renewals are lost
    "evict",  # Redis evicts the entry, the lock or the events
    "flush",  # FLUSHALL
    "age",  # the entry gets older: refresh window, TTL, end of stale_if_error
    "save",  # the other server is synchronised, or an RDB file is written
    "restart",  # the server restarts with what was saved: another run_id, the same master_replid
    "failover",  # the other server takes over with what it has: its own run_id, a new master_replid
    "clock",  # the Redis clock steps back or forward
    "cut",  # a worker is cut off from Redis
    "load_fails",  # a database read raises
    "timeout",  # a wait_timeout passes
    "oversized",  # a payload is over max_payload
    "renew",  # a renewal is sent (it does nothing to a lock that is held; it must do nothing to another)
)
_PLACE = {name: place for place, name in enumerate(BUDGETS)}
(
    COMMIT, INVALIDATE, LOSE, DUPLICATE, CRASH, LOCK_ENDS, EVICT, FLUSH, AGE, SAVE, RESTART, FAILOVER, CLOCK, CUT,
    LOAD_FAILS, TIMEOUT, OVERSIZED, RENEW,
) = range(len(BUDGETS))  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One exploration."""

    name: str
    #: One tuple per process, one string per thread: the kinds of its reads, in order (`state.PLAIN` …).
    workers: tuple[tuple[str, ...], ...]
    budget: tuple[int, ...]
    #: The rule that is broken on purpose, a name in `mutations`; '' for the protocol as built.
    mutation: str = ""
    #: Optimisations that are left out, names in `mutations.VARIANTS`.
    without: frozenset[str] = frozenset()
    #: Redis tells every two grants apart, by the server's time.
    unique_grants: bool = True
    #: How often a rejected filler starts over.
    tries: int = 2
    refresh_ahead: bool = False
    stale_if_error: bool = False
    #: The process that the operator calls from, -1 for one of its own.
    operator_in: int = -1
    #: Waiters block on the events stream and are woken by it alone.
    events: bool = False
    #: Sending and executing are two steps in a process of one thread too.
    split: bool = False
    #: Check R3 by itself: no fill that began before an invalidate ran is published after it.
    fence: bool = False
    #: At most so many loads, counted where all threads ask before the first load ends; 0 for no bound.
    most_loads: int = 0

    #: The process of each thread.
    homes: tuple[int, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        homes = tuple(process for process, threads in enumerate(self.workers) for _ in threads)
        object.__setattr__(self, "homes", homes)


def budget(**amounts: int) -> tuple[int, ...]:
    """Give the budget of a configuration by names."""
    unknown = amounts.keys() - _PLACE.keys()
    if unknown:
        raise ValueError(f"no such budget: {sorted(unknown)}")
    return tuple(amounts.get(name, 0) for name in BUDGETS)
