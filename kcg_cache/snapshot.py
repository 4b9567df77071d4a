"""`Snapshot`: what one read answers, rows and where they are from."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Source = Literal["near", "redis", "database"]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The rows of one dataset, as one read saw them. Immutable and shared: covered reads all return the same one."""

    #: The rows: immutable dicts that equal plain ones. One tuple for all readers of a process, never copied per read.
    rows: tuple[Any, ...]
    #: BLAKE2b-128 of the payload, as hex: the same for the same content on every host.
    digest: str
    #: Redis server time, in µs, at which the fill that produced the rows began (PROTOCOL R5); None for rows that this
    #: process loaded for itself and could not share.
    loaded_at_us: int | None
    #: "near": this process's copy under its lease; "redis": the shared entry; "database": this very read loaded them.
    source: Source
    #: True for rows past their TTL, served because the load failed (PROTOCOL R15).
    stale: bool
    #: True when the rows are those of the shared entry; False when nobody else gets these (PROTOCOL R4, R8, R13, R14).
    shared: bool
    #: How old the rows were, in seconds, at `as_of` on the clock of this host.
    age_then: float
    as_of: float
    clock: Callable[[], float]

    def given_by(self, source: Source) -> "Snapshot":
        """Give the same rows as another source's: `dataclasses.replace`, which takes twice as long."""
        return Snapshot(
            self.rows,
            self.digest,
            self.loaded_at_us,
            source,
            self.stale,
            self.shared,
            self.age_then,
            self.as_of,
            self.clock,
        )

    @property
    def age(self) -> float:
        """Seconds since the rows' load began, now: no less than that, unless the Redis clock stepped back meanwhile."""
        return self.age_then + self.clock() - self.as_of

    @property
    def loaded_at(self) -> datetime | None:
        """`loaded_at_us` as a UTC time on the Redis server's clock."""
        return None if self.loaded_at_us is None else datetime.fromtimestamp(self.loaded_at_us / 1e6, UTC)

    def __repr__(self) -> str:
        return (
            f"Snapshot({len(self.rows)} rows, digest={self.digest[:12]}, age={self.age:.3f} s, source={self.source!r}"
            f"{', stale' if self.stale else ''}{'' if self.shared else ', not shared'})"
        )
