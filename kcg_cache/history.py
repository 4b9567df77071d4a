"""What happened to the shared rows: a dataset's two streams as one timeline, for people to look at.

The stream of invalidations is the record: fills cannot push them out of it. The events stream adds the fills, for as
far back as it goes. Anyone may have written either: what is not understood is given as it is.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from kcg_cache.answers import Logged, Stream
from kcg_cache.backoff import Backoff
from kcg_cache.errors import StoreError
from kcg_cache.keys import EVENTS_TTL_MS
from kcg_cache.refusal import NO_TIME, whole_number
from kcg_cache.store import Store
from kcg_cache.system import System

#: Entries that are asked for at a time: Redis answers nobody else meanwhile.
PAGE = 128
#: Entries of a stream that are looked at, at most: more than the scripts keep.
MOST = 8192
#: Seconds for which a look at what is new waits, and a pause where it cannot wait.
_ROUND = 0.25
#: Rounds without anything new after which it is looked whether the streams are still the same.
_QUIET_ROUNDS = 8

_Thing = TypeVar("_Thing")
Kind = Literal["invalidation", "fill", "release", "other"]
Only = Literal["invalidations", "fills"]
_KINDS: dict[Only, tuple[Kind, ...]] = {"invalidations": ("invalidation",), "fills": ("fill", "release")}
#: What an entry of the stream of invalidations has, of which one is enough to be shown as such.
_OF_INVALIDATIONS = frozenset({"who", "host", "reason", "digest", "existed", "fill_cancelled"})
_EVENTS: dict[str | None, Kind] = {"invalidated": "invalidation", "filled": "fill", "released": "release"}


@dataclass(slots=True, eq=False)
class Happening:
    """One thing that happened. Fields are text as it is in Redis, and may be missing or anything."""

    kind: Kind
    stream: Stream
    id: str
    #: Redis server time in µs, as the script wrote it, or else of the entry's id; None for an id that is no time.
    at_us: int | None
    fields: Mapping[str, str] = field(repr=False)
    #: Of an invalidation: the first fill after it.
    fill: "Happening | None" = field(default=None, repr=False)
    #: …and whether the events stream goes back to it: if not, None says nothing.
    fill_known: bool = False
    #: Of a fill: the last invalidation that it is the first fill after.
    after: "Happening | None" = field(default=None, repr=False)
    #: Of a fill: the digest of the rows that were shared before, as far as it is known.
    digest_before: str | None = None


class Gap(NamedTuple):
    """A stream lacks the entry that was read last: trimmed, or made anew; what came in between may be missing."""

    stream: Stream


class Lost(NamedTuple):
    """Redis failed, and is asked again and again."""

    error: StoreError


class Regained(NamedTuple):
    """Redis answers again, after so many seconds; `restarted` when it is another server, or another start of it."""

    seconds: float
    restarted: bool


Seen = Happening | Gap | Lost | Regained


class Past(NamedTuple):
    """What had happened when it was looked. `happenings` are in their order, the newest last."""

    #: Redis server time, in µs.
    at_us: int
    happenings: tuple[Happening, ...]
    #: Whether there is more from before them, which was not asked for.
    more: bool
    #: Under whose keys something else than a stream stands.
    foreign: tuple[Stream, ...]


class History:
    """Reads the streams of one dataset; every method raises `StoreError`. One instance, one reader."""

    def __init__(self, store: Store, system: System) -> None:
        self._store = store
        self._system = system
        self._timeline = _Timeline()
        #: The newest entry that was read of each stream.
        self._read: dict[Stream, str] = {"invalidations": _BEGINNING, "events": _BEGINNING}
        self._incarnation = ""
        #: Redis server time minus this host's clock, in µs.
        self._offset = 0.0

    def now_us(self) -> int:
        """Give Redis's server time, in µs, as of the last look at it."""
        return round(self._system.now() * 1e6 + self._offset)

    def past(self, *, since_us: int | None = None, limit: int | None = None, only: Only | None = None) -> Past:
        """Give what happened, the newest last: at most `limit` of it, none from before the server time `since_us`."""
        at_us = self.look()
        # Fills are looked for further back than they are asked for: they say what came of an invalidate.
        invalidations, more_invalidations = self._newest("invalidations", since_us, limit)
        events, more_events = self._newest("events", since_us, None)
        found = self._timeline.add(invalidations or (), events or ())
        wanted = [
            happening
            for happening in found
            if _is_wanted(happening, only)
            and (since_us is None or happening.at_us is None or happening.at_us >= since_us)
        ]
        kept = wanted if limit is None else wanted[max(0, len(wanted) - limit) :]
        foreign: list[Stream] = []
        foreign += ["invalidations"] if invalidations is None else []
        foreign += ["events"] if events is None else []
        more = len(kept) < len(wanted) or more_invalidations or more_events
        return Past(at_us, tuple(kept), more, tuple(foreign))

    def follow(self, only: Only | None = None) -> Iterator[Sequence[Seen]]:
        """Give what happens from the last look (`past`) on, as it happens; nothing, now and then, when nothing does.

        A Redis that fails is asked again until it answers, unless it refuses this user (`StoreError`).
        """
        quiet = 0
        backoff, failed_at = Backoff(self._system), None
        while True:
            read = dict(self._read)
            try:
                seen: list[Seen] = []
                if failed_at is not None:
                    before = self._incarnation
                    self.look()
                    seen.append(Regained(self._system.now() - failed_at, before != self._incarnation))
                    quiet = _QUIET_ROUNDS
                found = self._drained()
                quiet = 0 if found else quiet + 1
                if found or quiet >= _QUIET_ROUNDS:
                    quiet = 0
                    seen += self._gaps(read, found)
            except StoreError as error:
                self._read = read
                if error.symptom == "denied":
                    raise
                if failed_at is None:
                    failed_at = self._system.now()
                    yield [Lost(error)]
                self._system.sleep(backoff.next())
                yield ()
            else:
                failed_at = None
                backoff.over()
                told = self._timeline.add(found.get("invalidations", ()), found.get("events", ()))
                yield [*seen, *(happening for happening in told if _is_wanted(happening, only))]

    def look(self) -> int:
        """Look which server it is and what its clock shows, in µs."""
        sent = self._system.now()
        state = self._store.inspect(1)
        self._offset = state.at - sent * 1e6
        self._incarnation = state.incarnation
        return state.at

    def _newest(self, stream: Stream, since_us: int | None, most: int | None) -> tuple[list[Logged] | None, bool]:
        """Read back, page by page; give what was read, oldest first, and whether there is more before it."""
        most = MOST if most is None else min(most, MOST)
        entries: list[Logged] = []
        before = ""
        while True:
            page = self._store.logged(stream, PAGE, before=before)
            if page is None:
                return None, False
            if not before and page:
                self._read[stream] = page[0].id
            for entry in page:
                too_old = since_us is not None and _ms_of(entry.id) * 1000 + 999 < since_us
                if too_old or len(entries) >= most:
                    return entries[::-1], True
                entries.append(entry)
            if len(page) < PAGE:
                return entries[::-1], False
            before = page[-1].id

    def _drained(self, *, wait: bool = True) -> dict[Stream, list[Logged]]:
        """Read all that is new, in pages: both streams to the same end, for one event may stand in both."""
        found: dict[Stream, list[Logged]] = {}
        began = self._system.now()
        seconds = _ROUND if wait else 0.0
        for _ in range(MOST // PAGE):
            new = self._store.logged_after(self._read, PAGE, seconds)
            if not any(new.values()):
                break
            seconds = 0.0
            for stream, entries in new.items():
                if entries:
                    found.setdefault(stream, []).extend(entries)
                    self._read[stream] = entries[-1].id
        if not found and wait and self._system.now() - began < _ROUND / 8:  # it did not wait: a foreign type
            self._system.sleep(_ROUND)
        return found

    def _gaps(self, read: Mapping[Stream, str], found: dict[Stream, list[Logged]]) -> list[Gap]:
        """Look whether the streams still have what was read last, `read`; add to `found` what those have that do not.

        They are read from their beginning: where one was made anew after a clock that stepped back, its ids are lower.
        """
        gone = [
            stream
            for stream, entry_id in read.items()
            if entry_id != _BEGINNING and not self._store.has_logged(stream, entry_id)
        ]
        if not gone:
            return []
        for stream in gone:
            self._read[stream] = _BEGINNING
        for stream, entries in self._drained(wait=False).items():
            found.setdefault(stream, []).extend(entries)
        # The events stream ends by itself a day after its last event: then nothing came in between.
        gaps = [
            Gap(stream)
            for stream in gone
            if stream != "events" or self.now_us() // 1000 - _ms_of(read[stream]) < EVENTS_TTL_MS
        ]
        if gaps:
            self._timeline.forget_open()
        return gaps


#: The id before the first.
_BEGINNING = "0-0"
#: What makes the same invalidate in both streams.
_IDENTITY = ("time", "who", "host", "reason", "digest")
#: Ids and invalidations that are remembered as told: more than the streams hold.
_REMEMBERED = 2 * MOST


class _Timeline:
    """Brings entries of both streams into one order, and finds out what came of each invalidate."""

    def __init__(self) -> None:
        #: Invalidations that no fill came after yet, though it would have been seen.
        self._open: list[Happening] = []
        #: Of the last fill or invalidation that was seen: which rows are shared now; None when it is not known.
        self._digest: str | None = None
        self._told: dict[tuple[str, str], None] = {}
        #: Invalidations that were told of from one stream, whose sibling in the other may yet come.
        self._siblings: dict[tuple[Stream, tuple[str | None, ...]], None] = {}
        #: Whether the events before the next ones were seen.
        self._continues = False

    def forget_open(self) -> None:
        """Forget what the next fill would be told to be the first after: events may be missing."""
        self._open.clear()
        self._digest = None
        self._continues = False

    def add(self, invalidations: Iterable[Logged], events: Iterable[Logged]) -> list[Happening]:
        """Take the next entries of each stream, oldest first; give what they tell of, in order."""
        invalidations = [entry for entry in invalidations if self._is_new("invalidations", entry)]
        events = [entry for entry in events if self._is_new("events", entry)]
        # An invalidation from before the first event that was seen may have been followed by others that are gone.
        reach = None if self._continues else _key(events[0].id) if events else _NEVER
        self._continues = True
        waiting: dict[tuple[str | None, ...], list[Logged]] = {}
        for entry in invalidations:
            waiting.setdefault(_identity(entry.fields), []).append(entry)
        paired: set[str] = set()
        ordered: list[tuple[tuple[int, int], Happening]] = []
        for entry in events:
            kind = _EVENTS.get(entry.fields.get("event"), "other")
            if kind == "invalidation":
                identity = _identity(entry.fields)
                if ("events", identity) in self._siblings:
                    continue  # told of already, from the other stream
                same = waiting.get(identity)
                if same:
                    record = same.pop(0)
                    paired.add(record.id)
                    happening = _happening("invalidation", "invalidations", record)
                else:
                    happening = _happening(kind, "events", entry)
                    self._remember(self._siblings, ("invalidations", identity))
            else:
                happening = _happening(kind, "events", entry)
            ordered.append((_key(entry.id), happening))
        alone: list[tuple[tuple[int, int], Happening]] = []
        for entry in invalidations:
            if entry.id in paired:
                continue
            identity = _identity(entry.fields)
            if ("invalidations", identity) in self._siblings:
                continue
            ours = not _OF_INVALIDATIONS.isdisjoint(entry.fields)
            if ours:
                self._remember(self._siblings, ("events", identity))
            alone.append((_key(entry.id), _happening("invalidation" if ours else "other", "invalidations", entry)))
        told: list[Happening] = []
        for key, happening in heapq.merge(alone, ordered, key=lambda keyed: keyed[0]):
            self._link(happening, known=reach is None or key >= reach)
            told.append(happening)
        return told

    def _link(self, happening: Happening, *, known: bool) -> None:
        digest = happening.fields.get("digest")
        if happening.kind == "invalidation":
            happening.fill_known = known
            if known:
                self._open.append(happening)
            self._digest = digest or self._digest
        elif happening.kind == "fill":
            happening.digest_before = self._digest
            for invalidation in self._open:
                invalidation.fill = happening
            happening.after = self._open[-1] if self._open else None
            self._open.clear()
            self._digest = digest

    def _is_new(self, stream: Stream, entry: Logged) -> bool:
        identity = (stream, entry.id)
        if identity in self._told:
            return False
        self._remember(self._told, identity)
        return True

    @staticmethod
    def _remember(memory: dict[_Thing, None], what: _Thing) -> None:
        memory[what] = None
        if len(memory) > _REMEMBERED:
            del memory[next(iter(memory))]


_NEVER = (2**64, 0)


def _happening(kind: Kind, stream: Stream, entry: Logged) -> Happening:
    at_us = whole_number(entry.fields.get("time", ""), below=NO_TIME)
    if at_us is None:
        by_id = _ms_of(entry.id) * 1000
        at_us = by_id if by_id < NO_TIME else None
    return Happening(kind, stream, entry.id, at_us, entry.fields)


def _is_wanted(happening: Happening, only: Only | None) -> bool:
    return only is None or happening.kind in _KINDS[only]


def _identity(fields: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(fields.get(name) for name in _IDENTITY)


def _key(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return _ms_of(ms), whole_number(number, below=2**64) or 0


def _ms_of(entry_id: str) -> int:
    return whole_number(entry_id.partition("-")[0], below=2**64) or 0
