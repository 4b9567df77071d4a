"""Values → text for people."""

from datetime import UTC, datetime

_UNITS = ("kB", "MB", "GB", "TB")
#: Characters of a digest or an id that are enough to tell two apart by eye.
SHORT = 12


def duration(seconds: float) -> str:
    """Give a time span with two telling units at most: ``2.3 ms``, ``4.20 s``, ``4 min 12 s``, ``3 d 4 h``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, unit, smaller, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {below}" if rest else f"{whole // size} {unit}"
    raise AssertionError(seconds)


def size(count: int) -> str:
    """Give a number of bytes, in powers of 1000: ``812 B``, ``12.3 kB``."""
    if count < 1000:
        return f"{count} B"
    power = 1
    while count >= 999.5 * 1000**power and power < len(_UNITS):
        power += 1
    return f"{count / 1000**power:.3g} {_UNITS[power - 1]}"


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


def count(number: int, one: str, many: str = "") -> str:
    """Give ``1 row``, ``2 rows``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
