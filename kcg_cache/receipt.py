"""`Invalidation`: the receipt of an invalidate."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kcg_cache.system import System


@dataclass(frozen=True, slots=True, eq=False)
class Invalidation:
    """What an `invalidate` did, and from when every reader of the fleet is past the old rows (PROTOCOL R7).

    It exists only for a confirmed deletion: an invalidate that cannot be confirmed raises (PROTOCOL R9).
    """

    dataset: str
    who: str
    host: str
    reason: str | None
    #: Redis server time, in µs, at which the entry and the fill lock were deleted.
    when_us: int
    #: Whether there was an entry, and its digest.
    existed: bool
    digest: str | None
    #: Whether a fill was running, which the deletion of its lock has stopped from publishing (PROTOCOL R3).
    fill_cancelled: bool
    #: Whether the server's own log took the event; a server over ``maxmemory`` deletes and does not log.
    logged: bool
    #: Redis server time, in µs, from which the invalidate is in force, at the latest.
    in_force_at_us: int
    #: The same moment on this host's clock (`kcg_cache.system.System.now`), in seconds.
    in_force_local: float
    system: System

    @property
    def when(self) -> datetime:
        """When the entry was deleted, as a UTC time on the Redis server's clock."""
        return utc(self.when_us)

    @property
    def in_force_at(self) -> datetime:
        """From when no reader can use the old rows, as a UTC time on the Redis server's clock."""
        return utc(self.in_force_at_us)

    @property
    def in_force(self) -> bool:
        """Whether that moment has come."""
        return self.in_force_in <= 0

    @property
    def in_force_in(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self.in_force_local - self.system.now())

    def wait(self) -> "Invalidation":
        """Return when the invalidate is in force: at once if it is."""
        while (left := self.in_force_in) > 0:
            self.system.sleep(left)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Give the receipt as JSON-able values; times are ISO 8601 on the Redis server's clock."""
        return {
            "dataset": self.dataset,
            "who": self.who,
            "host": self.host,
            "reason": self.reason,
            "when": self.when.isoformat(),
            "existed": self.existed,
            "digest": self.digest,
            "fill_cancelled": self.fill_cancelled,
            "logged": self.logged,
            "in_force": self.in_force,
            "in_force_at": self.in_force_at.isoformat(),
        }


def utc(micros: int) -> datetime:
    """Give a Redis server time in µs as a UTC time."""
    return datetime.fromtimestamp(micros / 1e6, UTC)
