"""Values → text for people."""

from datetime import UTC, datetime

from kcg_cache.units import count, duration, size

__all__ = ["SHORT", "count", "duration", "iso", "moment", "size"]

#: Characters of a digest or an id that are enough to tell two apart by eye.
SHORT = 12


def moment(micros: int | str) -> str:
    """Give a Redis server time in µs as UTC, to the millisecond; what is no such time comes back as it is."""
    try:
        return datetime.fromtimestamp(int(micros) / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        return str(micros)


def iso(micros: int | str | None) -> str | None:
    """Give a Redis server time in µs as ISO 8601, for JSON; None for what is no such time."""
    try:
        return None if micros is None else datetime.fromtimestamp(int(micros) / 1e6, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
