"""The fleet as Redis remembers it: who reads, on which rows, and who has taken up an invalidate (PROTOCOL, Presence).

All of it is what readers told of themselves, and anyone may have written it: what cannot be read is counted, and
skipped. It is evidence for people. That an invalidate is in force is known from its receipt alone (PROTOCOL R7).
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from kcg_cache.answers import State
from kcg_cache.errors import StoreError
from kcg_cache.keys import FLEET_FORGET_US
from kcg_cache.presence import COUNTS, REPORT_EVERY, SETTINGS
from kcg_cache.receipt import Invalidation, utc
from kcg_cache.settings import LEASE_MAX
from kcg_cache.system import System

#: Clocks run apart by 1 %, on either side (PROTOCOL, Assumptions).
_DRIFT = 1.02
#: Seconds between two looks at the fleet.
_POLL = 0.15
#: Events among which the one that filled the entry is looked for.
SEARCHED = 64
# Compiled when somebody looks at the fleet: a worker never does, and would pay for it at import.
_READER = rb"[0-9a-f]{16}"
_RECORD = rb"(?s)([0-9]{1,15}|[1-8][0-9]{15})\|([A-Z]{1,20})\|([!-{}~]{0,64})\|([0-9]{0,16})\|([0-9]{1,16})\|(.*)"
_LONGEST_TEXT = 255
_MANY = 2**53


class Reader(NamedTuple):
    """One process that reads, as it told of itself with its last question. Times are Redis server time, in µs."""

    id: str
    host: str
    pid: int | None
    application: str
    version: str
    seen_us: int
    #: What it was answered: SAME, ROWS, FILL (it loads), WAIT (for another's load) or PUBLISHED (its own load).
    kind: str
    #: Which rows that answer gave, and when their load began; None while there were none.
    digest: str | None
    loaded_at_us: int | None
    #: Since when it has these rows.
    since_us: int
    #: Since when, at the earliest, it has rows that it shares with nobody (PROTOCOL R8); None when it has none.
    private_since_us: int | None
    #: Seconds for which it reads without asking.
    lease: float
    #: Reads since its last settled answer by source (near, redis, database, handed_over), private loads and cut-offs.
    counts: Mapping[str, int]
    #: Seconds that the counts are of; None for its first report.
    counted_seconds: float | None
    #: The settings that it runs with, as far as it told them.
    settings: Mapping[str, Any]

    def silent_at(self, now_us: int) -> bool:
        """Tell whether its lease is over: idle or dead, it has to ask before it reads again."""
        # One with a short lease does not tell of each of its questions.
        unsaid = REPORT_EVERY if self.lease < REPORT_EVERY else 0.0
        return now_us - self.seen_us > (self.lease + unsaid) * _DRIFT * 1e6

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON-able values; times are ISO 8601 on the Redis server's clock."""
        return {
            "reader": self.id,
            "host": self.host,
            "pid": self.pid,
            "application": self.application,
            "version": self.version,
            "seen": _iso(self.seen_us),
            "answer": self.kind,
            "digest": self.digest,
            "loaded_at": _iso(self.loaded_at_us),
            "since": _iso(self.since_us) if self.digest is not None else None,
            "private_since": _iso(self.private_since_us),
            "lease": self.lease,
            "counts": dict(self.counts),
            "counted_seconds": self.counted_seconds,
            "settings": dict(self.settings),
        }


#: What a reader is at: on the entry's rows; on others within its lease, so that it follows; on rows that it shares with
#: nobody; loading, or waiting for a load; given other rows than the entry's although that was stored before (which must
#: not be); past its lease.
Standing = Literal["current", "following", "private", "loading", "waiting", "lagging", "silent"]


class Fleet(NamedTuple):
    """Who reads one dataset, at one moment on the Redis server's clock."""

    at_us: int
    #: The shared entry; None when there is none.
    digest: str | None
    loaded_at_us: int | None
    #: When it was stored; None when that is not known any more.
    filled_at_us: int | None
    #: By host, application and process.
    readers: tuple[Reader, ...]
    #: Records that nobody could read.
    unreadable: int

    def standing(self, reader: Reader) -> Standing:
        """Tell what a reader is at."""
        if reader.silent_at(self.at_us):
            return "silent"
        if reader.digest is None:
            if reader.private_since_us is not None:
                return "private"
            return "waiting" if reader.kind == "WAIT" else "loading"
        if reader.digest == self.digest:
            return "current"
        if self.filled_at_us is not None and self.loaded_at_us is not None:
            older = reader.loaded_at_us is not None and reader.loaded_at_us < self.loaded_at_us
            if older and reader.seen_us > self.filled_at_us:
                return "lagging"
        return "following"

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON-able values."""
        return {
            "time": _iso(self.at_us),
            "entry": None
            if self.digest is None
            else {
                "digest": self.digest,
                "loaded_at": _iso(self.loaded_at_us),
                "filled_at": _iso(self.filled_at_us),
            },
            "readers": [
                {
                    "standing": self.standing(reader),
                    "seen_seconds": _ago(reader.seen_us, self.at_us),
                    **reader.as_dict(),
                }
                for reader in self.readers
            ],
            "unreadable": self.unreadable,
        }


class FleetReceipt(NamedTuple):
    """Who has taken up an invalidate, as far as readers told (PROTOCOL, Presence)."""

    invalidation: Invalidation
    at_us: int
    #: Whether the invalidate was in force by then: nobody, seen or not, can read the old rows any more (PROTOCOL R7).
    in_force: bool
    #: On rows that were loaded after the invalidate.
    new: tuple[Reader, ...]
    #: Within the lease of before the invalidate, or loading, or waiting for a load.
    pending: tuple[Reader, ...]
    #: Not seen since, and past their lease: idle or dead, they can only read the new rows next.
    silent: tuple[Reader, ...]
    #: Seen since, with rows that were loaded before: must not be, and is to be reported.
    lagging: tuple[Reader, ...]
    unreadable: int

    @property
    def complete(self) -> bool:
        """Whether nobody can have old rows and everyone who was seen since has taken up the new."""
        return self.in_force and not self.pending and not self.lagging

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON-able values."""

        def told(readers: tuple[Reader, ...]) -> list[dict[str, Any]]:
            return [{"seen_seconds": _ago(reader.seen_us, self.at_us), **reader.as_dict()} for reader in readers]

        return {
            "time": _iso(self.at_us),
            "complete": self.complete,
            "in_force": self.in_force,
            "new": told(self.new),
            "pending": told(self.pending),
            "silent": told(self.silent),
            "lagging": told(self.lagging),
            "unreadable": self.unreadable,
        }


def seen(state: State, records: Mapping[bytes, bytes]) -> Fleet:
    """Make out who reads, from what Redis holds."""
    readers: list[Reader] = []
    unreadable = 0
    for field, value in records.items():
        reader = parsed(field, value)
        if reader is None:
            unreadable += 1
        elif abs(state.at - reader.seen_us) <= FLEET_FORGET_US:  # the scripts drop those only when others come
            readers.append(reader)
    readers.sort(key=lambda reader: (reader.host, reader.application, reader.pid or 0, reader.id))
    digest, loaded_at = state.entry.get("digest"), state.entry.get("loaded_at", "")
    if state.entry.get("incarnation") != state.incarnation:
        digest = None  # nobody reads it (PROTOCOL R10)
    filled = next(
        (
            event.get("time", "")
            for event in state.events
            if event.get("event") == "filled" and event.get("loaded_at") == loaded_at
        ),
        "",
    )
    return Fleet(
        at_us=state.at,
        digest=digest,
        loaded_at_us=None if digest is None else _time(loaded_at),
        filled_at_us=None if digest is None else _time(filled),
        readers=tuple(readers),
        unreadable=unreadable,
    )


def taken_up(fleet: Fleet, receipt: Invalidation) -> FleetReceipt:
    """Hold every reader against an invalidate.

    Where the clock stepped back, or another server took over, a reader may look as if it had not been seen since: it is
    pending, then, until it asks at a later time.
    """
    found: dict[str, list[Reader]] = {"new": [], "pending": [], "silent": [], "lagging": []}
    for reader in fleet.readers:
        found[_uptake(reader, receipt.when_us, fleet.at_us)].append(reader)
    return FleetReceipt(
        invalidation=receipt,
        at_us=fleet.at_us,
        in_force=receipt.in_force,
        new=tuple(found["new"]),
        pending=tuple(found["pending"]),
        silent=tuple(found["silent"]),
        lagging=tuple(found["lagging"]),
        unreadable=fleet.unreadable,
    )


def _uptake(reader: Reader, deleted_us: int, now_us: int) -> str:
    if reader.loaded_at_us is not None and reader.loaded_at_us > deleted_us:
        return "new"
    if reader.private_since_us is not None and reader.private_since_us > deleted_us:
        return "new"
    if reader.seen_us <= deleted_us:
        return "silent" if reader.silent_at(now_us) else "pending"
    return "pending" if reader.loaded_at_us is None else "lagging"


def wait(
    look: Callable[[], Fleet],
    receipt: Invalidation,
    seconds: float,
    system: System,
    progress: Callable[[FleetReceipt], None] | None = None,
) -> FleetReceipt:
    """Look at the fleet until the invalidate is taken up, at most for `seconds`; see `SharedCache.wait_for_fleet`.

    Raises the `StoreError` of the last look, when that is how the time ended.
    """
    until = system.now() + seconds
    while True:
        found, failure = None, None
        try:
            found = taken_up(look(), receipt)
        except StoreError as error:  # a failover, say: there is time left to see its end
            failure = error
        if found is not None:
            if progress is not None:
                progress(found)
            if found.complete:
                return found
        left = until - system.now()
        if left <= 0:
            if found is not None:
                return found
            assert failure is not None
            raise failure
        system.sleep(min(_POLL, left))


def parsed(field: bytes, value: bytes) -> Reader | None:
    """Read what one reader told; None for what is none of ours."""
    record = re.fullmatch(_RECORD, value)
    if record is None or re.fullmatch(_READER, field) is None:
        return None
    seen_us, kind, digest, loaded_at, since, presence = record.groups()
    if kind not in _KINDS:
        return None
    try:
        told = orjson.loads(presence)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    private_ms = _number(told.get("private_ms"))
    over_ms = _number(told.get("over_ms"))
    lease = _number(told.get("lease"))
    pid, counts, settings = told.get("pid"), told.get("counts"), told.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    return Reader(
        id=field.decode(),
        host=_text(told.get("host")),
        pid=pid if type(pid) is int and 0 <= pid < _MANY else None,
        application=_text(told.get("application")),
        version=_text(told.get("version")),
        seen_us=int(seen_us),
        kind=kind.decode(),
        digest=digest.decode() or None,
        loaded_at_us=_time(loaded_at.decode()),
        since_us=int(since),
        # It counted on its own clock, which may run slow.
        private_since_us=None if private_ms is None else int(seen_us) - round(private_ms * 1000 * _DRIFT),
        lease=LEASE_MAX if lease is None else min(lease, LEASE_MAX),
        counts=MappingProxyType({name: count for name in COUNTS if (count := _count(counts, name)) is not None}),
        counted_seconds=None if over_ms is None else over_ms / 1000,
        settings=MappingProxyType(
            {name: settings[name] for name in (*SETTINGS, "signed") if _plain(settings.get(name))}
        ),
    )


_KINDS = frozenset({b"SAME", b"ROWS", b"FILL", b"WAIT", b"PUBLISHED"})


def _text(value: object) -> str:
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return value if type(value) in (int, float) and 0 <= value < _MANY else None  # type: ignore[operator, return-value]


def _count(counts: object, name: str) -> int | None:
    value = counts.get(name, 0) if isinstance(counts, dict) else None
    return value if type(value) is int and 0 <= value < _MANY else None


def _plain(value: object) -> bool:
    return type(value) in (int, float, bool)


def _time(micros: str) -> int | None:
    digits = micros.isascii() and micros.isdecimal() and len(micros) <= 16
    return int(micros) if digits and int(micros) < 9_000_000_000_000_000 else None


def _iso(micros: int | None) -> str | None:
    if micros is None:
        return None
    try:
        return utc(micros).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _ago(micros: int, now_us: int) -> float:
    return round(max(0, now_us - micros) / 1e6, 6)
