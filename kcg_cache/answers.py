"""What the scripts are asked and what they answer, typed. No I/O.

All are named tuples: as immutable as frozen dataclasses, made in less than half of the time on every read, and defined
in a seventh of it at import.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from kcg_cache.codec import Claim

#: The streams of a dataset, by the names of their keys (`kcg_cache.keys.Keys`).
Stream = Literal["invalidations", "events"]


class Floor(NamedTuple):
    """An oldest acceptable `loaded_at` that the server resolved, and the incarnation whose clock it is on."""

    value: str
    incarnation: str


class Report(NamedTuple):
    """What a reader tells of itself with a question or a fill (PROTOCOL, Presence)."""

    #: 16 hex digits: this cache in this process.
    reader: str
    #: Microseconds for which it has held the rows that it knows, or publishes.
    held_us: int
    #: A JSON object.
    presence: bytes
    #: The counts behind it, and when it is sent: for the reader itself.
    totals: tuple[int, ...] = ()
    sent_at: float = 0.0


class Question(NamedTuple):
    """What `read` asks (PROTOCOL R2)."""

    token: str
    #: Digest of the rows that the caller holds; None for none.
    known: str | None = None
    #: The oldest acceptable rows: True for "none from before this call".
    now: bool = False
    #: …or an age in seconds; None for any age.
    max_age: float | None = None
    #: The floor that an earlier answer in the same call gave.
    resolved: Floor | None = None
    #: `Entry.identity` of an entry that the caller found corrupt.
    rejected: str | None = None
    #: Who asks; None leaves no presence.
    report: Report | None = None


class Entry(NamedTuple):
    """A shared entry, as one answer gave it. Not yet believed: digest and signature are the caller's to check."""

    digest: str
    format: str
    loaded_at: str
    load_us: str
    source: str
    signature: str
    incarnation: str
    #: Seconds since `loaded_at`, on the server's clock, when it answered; never negative.
    age: float
    #: Seconds until the TTL (negative past it), and until the end of stale_if_error.
    fresh: float
    life: float
    #: None when the caller holds it: its digest is the one that the caller named. Of a script's own answer b"" where it
    #: is yet to be fetched; `Store.read` gives no such entry.
    payload: bytes | None

    @property
    def identity(self) -> str:
        """What tells this entry from the next one of the same incarnation."""
        return f"{self.digest}:{self.loaded_at}"

    @property
    def full_identity(self) -> str:
        """What tells this entry from every other."""
        return f"{self.identity}:{self.incarnation}"

    def claim(self, namespace: str, dataset: str) -> Claim:
        """Give what its signature must vouch for."""
        return Claim(
            namespace,
            dataset,
            self.format,
            self.source,
            self.digest,
            self.loaded_at,
            self.load_us,
            self.incarnation,
        )


class Current(NamedTuple):
    """SAME or ROWS: this entry is current."""

    entry: Entry
    floor: Floor
    note: str


class Grant(NamedTuple):
    """A fill lock, as granted: what `publish`, `renew` and `release` are held to (PROTOCOL R3)."""

    token: str
    granted_at: str
    incarnation: str
    #: Server time at which the granting script ran: it differs where `granted_at` is the same floor.
    granted_when: str

    @property
    def value(self) -> str:
        """The lock's value in Redis."""
        return f"{self.token}|{self.granted_at}|{self.incarnation}|{self.granted_when}"


class Fill(NamedTuple):
    """FILL: the lock is the caller's. `fallback` may be served if the load fails (PROTOCOL R15, R16)."""

    grant: Grant
    fallback: Entry | None
    floor: Floor
    note: str


class Wait(NamedTuple):
    """WAIT: someone else is filling."""

    lock_left: float
    last_event: bytes
    fallback: Entry | None
    floor: Floor
    note: str


Answer = Current | Fill | Wait


class Published(NamedTuple):
    """PUBLISHED: at which server time (µs), and which database the rows before came from ('' if unknown)."""

    at: int
    previous_source: str


class Deleted(NamedTuple):
    """What an invalidate's script did; `at` is server time in µs."""

    at: int
    existed: bool
    digest: str | None
    fill_cancelled: bool
    logged: bool


class State(NamedTuple):
    """What is in Redis under the keys of one dataset, for people to look at."""

    at: int
    incarnation: str
    entry: Mapping[str, str]
    entry_ttl_ms: int
    payload_bytes: int
    lock: Grant | None
    lock_ttl_ms: int
    events: tuple[Mapping[str, str], ...]
    invalidations: tuple[Mapping[str, str], ...]


class Logged(NamedTuple):
    """One entry of a stream, as it is there: anyone may have written it."""

    #: Redis's own: milliseconds, a dash, a number.
    id: str
    fields: Mapping[str, str]


class NotAllowed(NamedTuple):
    """The server does not let this user ask that, or has no such command: a managed service, or an ACL."""

    why: str
