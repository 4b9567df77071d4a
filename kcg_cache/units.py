"""Time spans, sizes and numbers as people read them."""

_UNITS = ("kB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """Give a time span with two telling units at most: ``2.3 ms``, ``4.20 s``, ``4 min 12 s``, ``3 d 4 h``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size_, unit, smaller, below in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size_:
            rest = whole % size_ // smaller
            return f"{whole // size_} {unit} {rest} {below}" if rest else f"{whole // size_} {unit}"
    raise AssertionError(seconds)


def size(count: int) -> str:
    """Give a number of bytes, in powers of 1000: ``812 B``, ``12.3 kB``."""
    if count < 1000:
        return f"{count} B"
    power = 1
    while count >= 999.5 * 1000**power and power < len(_UNITS):
        power += 1
    return f"{count / 1000**power:.3g} {_UNITS[power - 1]}"


def count(number: int, one: str, many: str = "") -> str:
    """Give ``1 row``, ``2 rows``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
