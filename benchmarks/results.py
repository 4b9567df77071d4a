"""What a benchmark gives: which goals it was held to, tables and charts for people, raw figures for programs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal of the project's table, what was measured, and whether it was met."""

    number: int
    what: str
    goal: str
    measured: str
    #: None where the goal is to measure and explain.
    met: bool | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text: what stands in the cells is formatted already."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart: a median and the quartiles around it, or the same thrice."""

    label: str
    value: float
    low: float
    high: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Horizontal bars, one picture: ``<file>.svg``."""

    file: str
    title: str
    unit: str
    bars: tuple[Bar, ...]
    log: bool = True


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines over a common axis, one picture: ``<file>.svg``."""

    file: str
    title: str
    x_unit: str
    y_unit: str
    #: Label, then points (x, y).
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(slots=True)
class Result:
    """All that one benchmark found out."""

    name: str
    title: str
    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Chart | Lines] = field(default_factory=list)
    #: Sentences that the figures need to be read rightly; each a paragraph.
    notes: list[str] = field(default_factory=list)
    #: Raw figures, JSON-able: seconds, bytes and counts.
    figures: dict[str, Any] = field(default_factory=dict)


def duration(seconds: float) -> str:
    """Write a time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def amount(size: float) -> str:
    """Write a number of bytes with three digits and its unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= factor:
            return f"{_digits(size / factor)} {unit}"
    return f"{size:.0f} B"


def times(ratio: float) -> str:
    """Write a ratio with three digits."""
    return f"{_digits(ratio)} ×"


def _digits(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def spread(low: float, high: float, write: Any = duration) -> str:
    """Write the quartiles around a median."""
    return f"{write(low)} to {write(high)}"


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Tell how wide each column is."""
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
