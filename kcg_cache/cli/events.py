"""Entries of the two streams → text for people. Anyone may have written them."""

from collections.abc import Mapping
from typing import Any

from kcg_cache.cli import shown
from kcg_cache.refusal import whole_number

#: Microseconds and bytes that are shown as such are fewer.
_MANY = 10**18


def timed(event: Mapping[str, str], now: int) -> dict[str, Any]:
    """Give an event for JSON, as it is but for its time: ISO 8601, and how long ago at the server time `now` (µs)."""
    return {**event, "time": shown.iso(event.get("time")), "age_seconds": since(event.get("time"), now)}


def since(then: str | None, now: int) -> float | None:
    """Give the seconds from one server time (µs) to another, never negative; None for what is no time."""
    seconds = micros(then)
    return None if seconds is None else round(max(0.0, now / 1e6 - seconds), 6)


def micros(text: str | None) -> float | None:
    """Give microseconds, as text, in seconds; None for what is no number."""
    number = whole_number(text or "", below=_MANY)
    return None if number is None else number / 1e6


def count_of(text: str | None) -> int | None:
    """Give a number of bytes; None for what is no number."""
    return whole_number(text or "", below=_MANY)


def when(event: Mapping[str, Any]) -> str:
    """Give an event's time (`timed`), to the second."""
    return str(event["time"] or "?").replace("T", " ")[:19]


def ago(event: Mapping[str, Any]) -> str:
    """Give how long ago an event (`timed`) was."""
    return spell(event["age_seconds"])


def spell(seconds: float | None) -> str:
    """Give a time span, or that nobody knows."""
    return "?" if seconds is None else shown.duration(seconds)


def short(digest: str | None) -> str:
    """Give as much of a digest as tells two apart by eye."""
    return (digest or "?")[: shown.SHORT]


def filled(event: Mapping[str, Any]) -> str:
    """Tell of a fill: who, how long it took, how much it gave."""
    size = count_of(event.get("bytes"))
    parts = [f"by {event.get('by', '?')}", f"in {spell(micros(event.get('load_us')))}"]
    return ", ".join(parts if size is None else [*parts, shown.size(size)])


def withdrew(event: Mapping[str, Any]) -> str:
    """Tell what an invalidation deleted: the digest's beginning, or that there was nothing."""
    digest = event.get("digest")
    return short(digest) if digest else "?" if event.get("existed") == "1" else "nothing"


def told(event: Mapping[str, Any]) -> str:
    """Tell of an event in one line."""
    match event.get("event"):
        case "filled":
            return f"{filled(event)}, digest {short(event.get('digest'))}"
        case "invalidated":
            return f"by {event.get('who', '?')} on {event.get('host', '?')}: {event.get('reason') or '(no reason)'}"
        case _:
            return f"by {event.get('by', '?')}: {event.get('reason', '?')}"
