"""What two benchmarks say together: how fast a covered read is, and whether it may be stale (goal 1)."""

from collections.abc import Mapping
from typing import Any

from benchmarks.candidates import CATALOGUE, OursRead
from benchmarks.results import Goal, Table, duration, times

_COLUMN = "fresh after invalidate?"
_UNKNOWN = "not measured"


def with_freshness(table: Table, fresh: Mapping[str, Any]) -> Table:
    """Add what each candidate's reads were found to be, from the figures of `fresh`, to a table of candidates."""
    if table.head[0] != "candidate":
        return table
    verdicts = [fresh.get(row[0], {}).get("verdict", _UNKNOWN if row[0] in _NAMES else "") for row in table.rows]
    return Table(
        table.title,
        (*table.head, _COLUMN),
        tuple((*row, verdict) for row, verdict in zip(table.rows, verdicts, strict=True)),
    )


def beside_the_fresh(covered: Mapping[str, Any], fresh: Mapping[str, Any]) -> Goal:
    """Hold `SharedCache.read` to the fastest peer library that gave no stale read, at size M."""
    medians = {name: found["median"] for name, found in covered["sizes"]["M"].items() if name in _PEERS}
    never_stale = {name: median for name, median in medians.items() if fresh.get(name, {}).get("fresh")}
    ours = covered["sizes"]["M"][OursRead.name]["median"]
    goal = "≥ 50 × faster than the fastest peer library without a stale read in 1000 invalidations, a hang included"
    fastest = min(never_stale or medians, key=medians.__getitem__)
    found = f"{times(medians[fastest] / ours)} ({fastest}, {duration(medians[fastest])})"
    if never_stale:
        return Goal(1, _WHAT, goal, found, medians[fastest] >= 50 * ours)
    asking = {name: median for name, median in medians.items() if name in _ASKING}
    nearest = min(asking, key=asking.__getitem__)
    return Goal(
        1,
        _WHAT,
        goal,
        f"every peer gave stale reads; the fastest of all is {found}, of those that ask Redis each time "
        f"{times(asking[nearest] / ours)} ({nearest}, {duration(asking[nearest])})",
        asking[nearest] >= 50 * ours,
    )


_WHAT = "SharedCache.read beside peers that are as fresh, M"
_NAMES = {kind.name for kind in CATALOGUE}
_PEERS = {kind.name for kind in CATALOGUE if not kind.ours and kind.shared}
_ASKING = {kind.name for kind in CATALOGUE if not kind.ours and kind.shared and not kind.near}
