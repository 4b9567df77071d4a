"""What is explored: small sets for every test run, and larger ones for `scripts/model --full`.

No set mixes everything: each fault set is explored with the reads that it can hurt. `unique_grants` says whether the
scripts tell every two grants of the lock apart; see docs/model.md.
"""

from dataclasses import replace

from tests.model.config import Config, budget

_ONE_CHANGE = {"commit": 1, "invalidate": 1}


def _set(name: str, *workers: tuple[str, ...], **amounts: int) -> Config:
    return Config(name, workers, budget(**(_ONE_CHANGE | amounts)), fence=True)


#: Explored completely by the tests, each within seconds.
QUICK: tuple[Config, ...] = (
    _set("two readers", ("pp",), ("pp",)),
    _set("plain and forced", ("p",), ("xp",)),
    _set("lost messages", ("p",), ("p",), lose=1),
    _set("late duplicates", ("p",), ("p",), duplicate=1, commit=0),
    _set("one worker, late duplicates", ("xp",), duplicate=1),
    replace(_set("sending and executing apart", ("pp",), ("p",)), split=True),
    _set("one worker, lost messages", ("xpp",), lose=2),
    _set("lock ends", ("p",), ("p",), lock_ends=1),
    _set("crash", ("p",), ("p",), crash=1),
    _set("evictions", ("pp",), ("xp",), evict=2, invalidate=0),
    _set("FLUSHALL", ("p",), ("p",), flush=1),
    _set("failover and failback", ("pp",), save=1, failover=2),
    _set("restart from an old RDB file", ("ppp",), save=1, restart=1),
    _set("clock steps", ("p",), ("xf",), clock=1, lock_ends=1, invalidate=0),
    _set("cut off", ("pp",), ("p",), cut=1, invalidate=0),
    _set("one worker, cut off", ("ppp",), cut=1),
    _set("wait_timeout", ("p",), ("p",), timeout=1),
    _set("renewals, oversized", ("p",), ("p",), renew=1, oversized=1, commit=0),
    replace(_set("stale if error", ("p",), ("p",), age=1, load_fails=1), stale_if_error=True),
    replace(_set("refresh ahead", ("p",), ("p",), age=1), refresh_ahead=True),
    replace(_set("refresh ahead, threads", ("ppp", "x"), age=1, invalidate=0), refresh_ahead=True),
    _set("threads", ("pp", "p")),
    _set("threads, plain and forced", ("pp", "f"), invalidate=0, lose=1),
    replace(_set("threads, giving up", ("pp", "px"), evict=1, invalidate=0), tries=1),
    _set("tainted callers", ("P", "p"), ("p",), lose=1, commit=0, invalidate=0),
    replace(_set("operator in a worker", ("pp", "p")), operator_in=0),
    replace(_set("waiting on events", ("p",), ("p",), ("P",), load_fails=1, commit=0), events=True),
    replace(_set("one load for plain reads", ("p",), ("p",), ("p",), invalidate=0), most_loads=1),
    replace(_set("two loads for forced reads", ("f",), ("f",), ("f",), invalidate=0), most_loads=2),
)

#: Larger, and several faults at once: minutes each.
FULL: tuple[Config, ...] = (
    _set("three readers", ("p",), ("p",), ("p",)),
    _set("plain and forced, longer", ("xx",), ("xx",)),
    _set("late duplicates, longer", ("pp",), ("p",), duplicate=1),
    _set("lost and duplicated", ("p",), ("p",), lose=1, duplicate=1),
    _set("lock ends, crash", ("pp",), ("p",), lock_ends=1, crash=1),
    _set("evictions, longer", ("pp",), ("p",), evict=1, flush=1),
    _set("failover and failback, longer", ("pp",), ("p",), save=1, failover=2),
    _set("restart, longer", ("pp",), ("p",), save=1, restart=1),
    _set("clock steps, longer", ("pp",), ("x",), clock=1, lock_ends=1),
    _set("cut off, wait_timeout", ("pp",), ("p",), cut=1, timeout=1),
    _set("failover, two workers", ("p",), ("p",), save=1, failover=1),
    _set("renewals, oversized, longer", ("pp",), ("p",), renew=1, oversized=1),
    _set("failover and duplicates", ("p",), ("p",), save=1, failover=1, duplicate=1),
    replace(_set("stale if error and loss", ("pp",), ("p",), age=1, load_fails=1, lose=1), stale_if_error=True),
    replace(_set("refresh ahead and loss", ("pp",), ("p",), age=1, lose=1), refresh_ahead=True),
    replace(_set("refresh ahead in threads", ("pp", "pp"), ("x",), age=1), refresh_ahead=True),
    _set("threads and loss", ("pp", "p"), ("p",), lose=1),
    _set("threads, plain and forced, longer", ("pp", "x"), ("p",)),
    replace(_set("threads, giving up, longer", ("pp", "px"), evict=1, lose=1), tries=1),
    replace(_set("three tries", ("pp",), ("p",), evict=3, invalidate=0), tries=3),
    _set("two commits, two invalidates", ("pp",), ("p",), commit=2, invalidate=2),
    _set("tainted callers, longer", ("Pp", "p"), ("p",), lose=1),
    replace(_set("operator in a worker, longer", ("pp", "x"), ("p",)), operator_in=0),
)

#: Were the grant time not in the lock's value twice, a late duplicate of a `read` might be granted its original's lock.
RECURRING_LOCK = replace(
    _set("a lock's value recurs", ("f",), commit=0, duplicate=1, clock=1, evict=1), unique_grants=False
)

#: Explored for the promise that every waiting read can finish.
LIVE: tuple[Config, ...] = (
    _set("lost messages and a crash", ("p",), ("x",), lose=1, crash=1, commit=0, invalidate=0),
    _set("late duplicates", ("p",), ("x",), duplicate=1, commit=0, invalidate=0),
    _set("a replicated lock", ("p",), ("p",), save=1, failover=1, commit=0, invalidate=0),
    _set("threads", ("p", "p"), lose=1, evict=1, commit=0, invalidate=0),
    replace(_set("events", ("p",), ("p",), ("P",), load_fails=1, commit=0, invalidate=0), events=True),
)
