"""What this process tells the fleet of itself, with the questions that it asks anyway (PROTOCOL, Presence).

It is written for people and decides nothing, so threads share it without a lock: the worst is a count told twice.
"""

import orjson

from kcg_cache.answers import Report
from kcg_cache.metrics import Metrics
from kcg_cache.near import NearCopy
from kcg_cache.settings import LEASE_MAX, Settings
from kcg_cache.system import System
from kcg_cache.version import __version__

#: What is counted from one settled answer to the next, and the counters that it is made of.
COUNTS = {
    "near": ("reads_near",),
    "redis": ("reads_redis", "lease_renewals"),
    "database": ("reads_database",),
    "handed_over": ("reads_handed_over",),
    "private": ("private_loads",),
    "cut_off": ("breaker_opened",),
}
#: Settings that the fleet should agree on; of the signing keys no more than whether there are any.
SETTINGS = ("ttl", "lock_ttl", "wait_timeout", "max_payload", "stale_if_error", "refresh_ahead")
#: Seconds between two reports of the same rows where the lease is shorter: with `lease=0` every read is a question.
REPORT_EVERY = LEASE_MAX / 2
_HOST = 255  # characters


class Presence:
    """The presence of one cache in one process."""

    def __init__(self, settings: Settings, metrics: Metrics, system: System) -> None:
        self._settings = settings
        self._metrics = metrics
        self._system = system
        # The digest of the rows that this process has, and since when.
        self._held: str | None = None
        self._held_since = 0.0
        self._begin()

    def _begin(self) -> None:
        # Its name among the readers and what it tells each time; made once, by whichever thread is first.
        self._introduction: dict[str, tuple[str, bytes]] = {}
        self._totals = self._counted()
        self._totals_at: float | None = None
        # The digest that Redis was last told together with an answer that settled it, and when.
        self._told: str | None = None
        self._told_at = 0.0

    def begin_anew(self) -> None:
        """Be another reader: after a fork there are two of them."""
        self._begin()

    def holds(self, digest: str, since: float) -> None:
        """Note which rows this process has now."""
        if digest != self._held:
            self._held, self._held_since = digest, since

    def report(self, known: str | None, copy: NearCopy | None, at: float, *, always: bool = False) -> Report | None:
        """Give what is to be told with a request that is sent at `at`; None when the same has just been told.

        `known` is the digest that the request names, `copy` the near copy. With `always` it is told in any case.
        """
        often = self._settings.lease < REPORT_EVERY and not always
        if often and known is not None and known == self._told and at < self._told_at + REPORT_EVERY:
            return None
        reader, static = self._introduction.get("") or self._introduction.setdefault("", self._introduced())
        totals = self._counted()
        told = {
            name: now - before for name, now, before in zip(COUNTS, totals, self._totals, strict=True) if now != before
        }
        dynamic: dict[str, object] = {"counts": told}
        if self._totals_at is not None:
            dynamic["over_ms"] = max(0, round((at - self._totals_at) * 1000))
        if copy is not None and copy.identity is None:
            dynamic["private_ms"] = max(0, round((at - copy.snapshot.as_of) * 1000))
        held = at - self._held_since if known is not None and known == self._held else 0.0
        presence = static + orjson.dumps(dynamic)[1:]
        return Report(reader, max(0, round(held * 1e6)), presence, totals, at)

    def told(self, report: Report, digest: str | None) -> None:
        """Note that Redis has a report; `digest` is that of the rows which came with its answer, None for none yet.

        Until rows come, the counts go on: else they would begin anew in the middle of a fill.
        """
        self._told, self._told_at = digest, report.sent_at
        if digest is not None:
            self._totals, self._totals_at = report.totals, report.sent_at

    def _counted(self) -> tuple[int, ...]:
        counts = self._metrics.as_dict()
        return tuple(sum(counts[name] for name in names) for names in COUNTS.values())

    def _introduced(self) -> tuple[str, bytes]:
        """Make what stays the same for as long as this process lives."""
        settings = self._settings
        static = {
            "host": self._system.host()[:_HOST],
            "pid": self._system.pid(),
            "application": settings.application or self._system.program(),
            "version": __version__,
            "lease": settings.lease,
            "settings": {
                **{name: getattr(settings, name) for name in SETTINGS},
                "signed": bool(settings.signing_keys),
            },
        }
        return self._system.reader(), orjson.dumps(static)[:-1] + b","
