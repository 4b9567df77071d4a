"""What is counted and measured: every counter, histogram and gauge named and explained, in one place.

`COUNTERS` are what the code counts, by short names. `FAMILIES` are what a monitoring system is shown, by Prometheus's
conventions; docs/metrics.md lists them, and a test holds it to this file.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

#: Each counter and what one more of it means.
COUNTERS = {
    "reads_near": "covered reads: answered from the near copy, without socket or lock (approximate under threads)",
    "reads_redis": "reads answered from the shared entry",
    "reads_database": "reads answered by a load of their own",
    "reads_handed_over": "reads answered by the private load of a thread that this one was queueing behind (R12)",
    "lease_renewals": "reads whose near copy Redis confirmed as current (SAME)",
    "scripts_read": "`read` scripts sent; one read may need several (R11, a large payload that changes meanwhile)",
    "loads": "loads from the database begun, of every kind",
    "load_errors": "loads that raised",
    "fills_published": "fills that Redis took (PUBLISHED)",
    "fills_rejected": "fills that were overtaken by an invalidate, an expired lock or a new incarnation (REJECTED, R3)",
    "fills_given_up": "reads that were rejected three times and returned their own load (R4)",
    "fills_oversized": "fills whose payload is over max_payload (R14)",
    "fills_unanswered": "fills whose publish was not answered or not taken by Redis (R6)",
    "fills_failed": "fills that gave their lock back because the load raised or was interrupted (R11)",
    "fills_tainted": "fills that gave their lock back because the connection may not be shared from (R13)",
    "locks_lost": "fill locks found lost while renewing (R3)",
    "renew_errors": "renewals that Redis did not answer; the next one may",
    "release_errors": "locks that could not be released; they expire by themselves",
    "waits": "times that a read waited for another's fill (R11)",
    "wait_timeouts": "reads that waited for wait_timeout and loaded for themselves (R11)",
    "private_loads": "loads that were shared with nobody because Redis did not serve (R8)",
    "tainted_reads": "loads on a connection whose transaction or server may not be shared from (R13)",
    "entries_rejected": "shared entries that were corrupt, foreign, unsigned, oversized or of an unknown format (R14)",
    "store_errors": "Redis calls that failed, of every kind",
    "breaker_opened": "times that Redis was left alone for a breaker window (R8)",
    "stale_served": "reads answered past the TTL because the load failed (R15)",
    "refreshes": "fills begun ahead of expiry (R16)",
    "near_dropped": "near copies dropped because an older request's reply came after them (R6)",
    "foreign_sources": "fills that found another database's name in the namespace (R13)",
    "bad_params": "rows whose params were no JSON object and became {}",
    "invalidations": "invalidates confirmed",
    "invalidate_errors": "invalidates that could not be confirmed (R9)",
    "exporter_errors": "times that an exporter raised when it was told of what had been counted",
}

#: Counters that are also kept apart by what was the matter: their labels, all of closed sets.
LABELLED = {
    "tainted_reads": ("cause",),
    "entries_rejected": ("reason",),
    "store_errors": ("operation", "symptom"),
}
#: What may be the matter, where it is shown as 0 before it happens the first time: an alert on the increase would else
#: miss the first. A test holds them to what `postgres` and `codec` say.
KNOWN: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "tainted_reads": (("old snapshot",), ("uncommitted writes",), ("standby",)),
    "entries_rejected": tuple(
        (reason,) for reason in ("ahead", "digest", "format", "malformed", "oversized", "payload", "signature", "type")
    ),
}

_FAST = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Kind = Literal["counter", "gauge", "histogram"]


# Plain classes, here and in `events`: a NamedTuple or a dataclass is made by running code that is made first, and every
# process would pay for it at import.
class Family:
    """One metric as a monitoring system sees it. Every sample has the labels `namespace` and `dataset`, too."""

    __slots__ = ("buckets", "by", "help", "kind", "labels", "name", "of", "together")

    def __init__(  # noqa: PLR0913 - each kind needs a few of them
        self,
        name: str,
        kind: Kind,
        help: str,  # noqa: A002 - what Prometheus calls it
        labels: tuple[str, ...] = (),
        *,
        of: Mapping[tuple[str, ...], tuple[str, ...]] | None = None,
        by: str = "",
        buckets: tuple[float, ...] = (),
        together: Literal["", "livesum", "livemax"] = "",
    ) -> None:
        #: By Prometheus's conventions, with the unit; a counter's samples end in ``_total``.
        self.name = name
        self.kind: Kind = kind
        self.help = help
        self.labels = labels
        #: Of a counter: which of `COUNTERS` make up the sample of each set of label values.
        self.of = of or {}
        #: Of a counter that is kept apart by its labels: which of `LABELLED`.
        self.by = by
        #: Of a histogram: upper bounds, in seconds; one more is without bound.
        self.buckets = buckets
        #: Of a gauge: how the processes of one host are put together, as prometheus_client calls it.
        self.together: Literal["", "livesum", "livemax"] = together


def _counter(name: str, *, shown_as: str = "") -> Family:
    return Family(f"kcg_cache_{shown_as or name}", "counter", COUNTERS[name], of={(): (name,)})


def _labelled(name: str, *, shown_as: str = "") -> Family:
    return Family(f"kcg_cache_{shown_as or name}", "counter", COUNTERS[name], LABELLED[name], by=name)


#: All that is exported, in the order of docs/metrics.md.
FAMILIES = (
    Family(
        "kcg_cache_reads",
        "counter",
        "reads answered, by where the rows came from: near copy, Redis (asked), a load of their own, another thread's",
        ("source",),
        of={
            ("near",): ("reads_near",),
            ("redis",): ("reads_redis", "lease_renewals", "stale_served"),
            ("database",): ("reads_database",),
            ("handed_over",): ("reads_handed_over",),
        },
    ),
    _counter("lease_renewals"),
    _counter("stale_served"),
    _counter("scripts_read", shown_as="read_scripts"),
    _counter("loads"),
    _counter("load_errors"),
    Family(
        "kcg_cache_load_duration_seconds",
        "histogram",
        "seconds that one load took, from asking for the connection to rows that are encoded; loads that raised too",
        buckets=_SLOW,
    ),
    _counter("private_loads"),
    _labelled("tainted_reads"),
    _counter("bad_params", shown_as="bad_params_rows"),
    Family(
        "kcg_cache_fills",
        "counter",
        "fill locks granted, by what came of them; all but published and rejected were abandoned",
        ("result",),
        of={
            (result,): (f"fills_{result}",)
            for result in ("published", "rejected", "unanswered", "oversized", "failed", "tainted")
        },
    ),
    _counter("fills_given_up", shown_as="reads_given_up"),
    _counter("refreshes"),
    _counter("waits", shown_as="lock_waits"),
    Family(
        "kcg_cache_lock_wait_seconds",
        "histogram",
        "seconds that one read waited for another's fill, all its waits together; reads that waited only (R11)",
        buckets=_SLOW,
    ),
    _counter("wait_timeouts", shown_as="lock_wait_timeouts"),
    _counter("locks_lost"),
    _counter("renew_errors", shown_as="lock_renew_errors"),
    _counter("release_errors", shown_as="lock_release_errors"),
    _labelled("entries_rejected"),
    _counter("foreign_sources"),
    _counter("near_dropped"),
    _labelled("store_errors", shown_as="redis_errors"),
    Family(
        "kcg_cache_redis_call_duration_seconds",
        "histogram",
        "seconds that Redis took to answer, or the call to fail, by what it was asked",
        ("operation",),
        buckets=_FAST,
    ),
    _counter("breaker_opened"),
    Family(
        "kcg_cache_breaker_open",
        "gauge",
        "1 while Redis is left alone because it failed last (R8); of several processes, how many",
        together="livesum",
    ),
    _counter("invalidations"),
    _counter("invalidate_errors"),
    Family(
        "kcg_cache_invalidation_in_force_seconds",
        "histogram",
        "seconds from sending an invalidate to the moment from which no reader uses what it withdrew (R7)",
        buckets=(1.02, 1.03, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0),
    ),
    Family(
        "kcg_cache_served_age_seconds",
        "gauge",
        "age of the rows that are served, as of now or of the lease's end; of several processes, the oldest",
        together="livemax",
    ),
    Family("kcg_cache_ttl_seconds", "gauge", "the setting ttl", together="livemax"),
    Family("kcg_cache_stale_if_error_seconds", "gauge", "the setting stale_if_error", together="livemax"),
    _counter("exporter_errors"),
)
#: By the name that the code uses: that of the family without prefix and unit.
HISTOGRAMS = {
    family.name.removeprefix("kcg_cache_").removesuffix("_seconds"): family
    for family in FAMILIES
    if family.kind == "histogram"
}
GAUGES = {family.name.removeprefix("kcg_cache_"): family for family in FAMILIES if family.kind == "gauge"}


class Of(NamedTuple):
    """Whose a sample is."""

    namespace: str
    dataset: str


class Distribution:
    """What a histogram holds."""

    __slots__ = ("counts", "sum")

    def __init__(self, counts: tuple[int, ...], sum_: float) -> None:
        #: Of each bucket alone, not of those below it too; one more than the family has bounds.
        self.counts = counts
        self.sum = sum_


class Sample:
    """One value of one family: `labels` are those of `Of` and then the family's."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: tuple[str, ...], value: float | Distribution) -> None:
        self.labels = labels
        self.value = value


class Collected:
    """One family and all its samples of one moment."""

    __slots__ = ("family", "samples")

    def __init__(self, family: Family, samples: list[Sample]) -> None:
        self.family = family
        self.samples = samples


class Totals:
    """Counts and distributions of one or several caches of the same dataset. Not for several threads at once."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.labelled = {(name, values): 0 for name, every in KNOWN.items() for values in every}
        #: (histogram, label values) → the counts of its buckets and, at the end, the sum.
        self.observed: dict[tuple[str, tuple[str, ...]], list[float]] = {
            (name, ()): _empty(family) for name, family in HISTOGRAMS.items() if not family.labels
        }

    def observe(self, name: str, value: float, values: tuple[str, ...]) -> None:
        """Put one value into its bucket."""
        family = HISTOGRAMS[name]
        cells = self.observed.get((name, values))
        if cells is None:
            cells = self.observed[name, values] = _empty(family)
        cells[bisect_left(family.buckets, value)] += 1
        cells[-1] += value

    def add(self, other: "Totals") -> None:
        """Add another's."""
        for name, count in other.counts.items():
            self.counts[name] += count
        for key, count in other.labelled.items():
            self.labelled[key] = self.labelled.get(key, 0) + count
        for key, cells in other.observed.items():
            mine = self.observed.get(key)
            self.observed[key] = cells.copy() if mine is None else list(map(sum, zip(mine, cells, strict=True)))

    def copy(self, *, observed: bool = True) -> "Totals":
        """Give one that does not change any more; without `observed` it has no distributions, and costs little."""
        copy = object.__new__(Totals)
        copy.counts, copy.labelled = self.counts.copy(), self.labelled.copy()
        copy.observed = {key: cells.copy() for key, cells in self.observed.items()} if observed else {}
        return copy

    def counters(self, family: Family) -> Iterator[tuple[tuple[str, ...], int]]:
        """Give label values and count of each sample of a counter."""
        for values, names in family.of.items():
            yield values, sum(self.counts[name] for name in names)
        for (name, values), count in self.labelled.items():
            if name == family.by:
                yield values, count

    def distributions(self, family: Family) -> Iterator[tuple[tuple[str, ...], Distribution]]:
        """Give label values and contents of each sample of a histogram."""
        for (name, values), cells in self.observed.items():
            if HISTOGRAMS[name] is family:
                yield values, Distribution(tuple(map(int, cells[:-1])), cells[-1])


def _empty(family: Family) -> list[float]:
    return [0] * (len(family.buckets) + 2)


#: Gauges, as of now: by the names of `GAUGES`; one that has no value is not among them.
Levels = Mapping[str, float]


def collected(found: Mapping[Of, tuple[Totals, Levels]]) -> list[Collected]:
    """Make every family of what each dataset's caches counted."""
    families = []
    for family in FAMILIES:
        samples: list[Sample] = []
        for of, (totals, levels) in found.items():
            match family.kind:
                case "counter":
                    samples += [Sample((*of, *values), count) for values, count in totals.counters(family)]
                case "histogram":
                    samples += [Sample((*of, *values), cells) for values, cells in totals.distributions(family)]
                case "gauge":
                    samples += [Sample((*of,), level) for name, level in levels.items() if GAUGES[name] is family]
        families.append(Collected(family, samples))
    return families


class Metrics:
    """The counts of one cache in one process. Reading is free; counting off the covered path takes a lock."""

    def __init__(self, namespace: str = "", dataset: str = "", levels: Callable[[], Levels] = dict) -> None:
        #: Added to without a lock: under the interpreter's own lock an addition is lost very rarely, and a lock on the
        #: covered path would cost more than the read.
        self.reads_near = 0
        self.of = Of(namespace, dataset)
        #: Gives the gauges.
        self.levels = levels
        self._totals = Totals()
        self._lock = threading.Lock()

    def add(self, name: str, *values: str) -> None:
        """Count one more `name`, with the values of its labels if it has any; an unknown name raises `KeyError`."""
        with self._lock:
            self._totals.counts[name] += 1
            if values:
                labelled = self._totals.labelled
                labelled[name, values] = labelled.get((name, values), 0) + 1

    def observe(self, name: str, value: float, *values: str) -> None:
        """Put a value into one of `HISTOGRAMS`; an unknown name raises `KeyError`."""
        with self._lock:
            self._totals.observe(name, value, values)

    def as_dict(self) -> dict[str, int]:
        """Give all the counts as of now."""
        with self._lock:
            return self._totals.counts | {"reads_near": self.reads_near}

    def __getitem__(self, name: str) -> int:
        return self.as_dict()[name]

    def by_label(self, name: str) -> dict[tuple[str, ...], int]:
        """Give one of `LABELLED`, by its label values."""
        with self._lock:
            return {values: count for (counted, values), count in self._totals.labelled.items() if counted == name}

    def totals(self, *, observed: bool = True) -> Totals:
        """Give all that was counted and, with `observed`, measured, as of now."""
        with self._lock:
            totals = self._totals.copy(observed=observed)
        totals.counts["reads_near"] = self.reads_near
        return totals

    def collect(self) -> list[Collected]:
        """Give every family of this cache, for a monitoring system; `exporting.collect` gives those of all caches."""
        return collected({self.of: (self.totals(), self.levels())})

    def begin_anew_after_fork(self) -> None:
        """Count from 0, under a fresh lock: what was counted so far the parent did, and tells.

        Another thread of the parent may have held the lock at the fork, and is not here to let go.
        """
        self._lock = threading.Lock()
        self._totals = Totals()
        self.reads_near = 0
