"""Goal 1: what a read costs that the cache covers, of 20, 200 and 2,000 rows, at every candidate."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks import readers
from benchmarks.candidates import CATALOGUE, Candidate, InProcess, Ours, OursRead, Place, RedisGet
from benchmarks.crew import Member
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration, spread, times
from benchmarks.rig import Effort, Rig
from benchmarks.rows import SIZES
from benchmarks.timing import Timed, Times, interleaved

NAME = "covered"
TITLE = "A read that the cache covers"

_PING = "redis-py PING"
#: Longer than the rounds take, so that no load is in them: that is another benchmark's.
_TTL = 3600.0
_MOST_OF_IN_PROCESS = 1.5
_FASTER_THAN_GET = {"S": 300, "M": 1000, "L": 5000}
_MOST_BETWEEN_SIZES = 1.2

_OURS = {kind.name for kind in CATALOGUE if kind.ours}


class _Ping(RedisGet):
    """No candidate: the round trip that who asks Redis cannot do without, on a connection like that of `RedisGet`."""

    name = _PING

    def read(self) -> Any:
        return self._client.ping()


def run(rig: Rig, effort: Effort) -> Result:
    """Time every candidate in a process of its own, at each size in interleaved rounds."""
    result = Result(NAME, TITLE, figures={"sizes": {}})
    for size in effort.of(("S", "M", "L"), ("S",)):
        with _warm(rig, (*CATALOGUE, _Ping), size, effort) as members:
            found = _timed(members, effort)
        _report(result, size, found)
    _same_at_every_size(result, rig, effort)
    result.notes.append(
        "Each candidate has a process of its own, and one process works at a time. A call of an asyncio library is "
        "timed as an await in a running loop. kcg_cache with lease=1 asks Redis at the start of a timed loop and "
        "once a second in it. The "
        "in-process cache and load_active_versions give each caller a list of its own; the other near caches hand out "
        "the list that they keep, and those that keep Redis's replies decode at every read."
    )
    return result


def _report(result: Result, size: str, found: Mapping[str, Times]) -> None:
    base, get, ours = found[InProcess.name], found[RedisGet.name], found[Ours.name]
    rows = []
    for name, took in found.items():
        to_base, faster = took.ratios(base), get.ratios(took)
        rows.append(
            (name, duration(took.median), spread(took.low, took.high), times(to_base.median), times(faster.median))
        )
    amount = f"{size}: {SIZES[size].rows:,} rows of about {SIZES[size].params_bytes:,} B of params"
    result.tables.append(
        Table(amount, ("candidate", "median", "quartiles", "÷ in-process", "faster than GET + orjson"), tuple(rows))
    )
    result.pictures.append(
        Chart(
            f"covered-{size.lower()}",
            f"A read that the cache covers, {amount}",
            "s",
            tuple(Bar(name, took.median, took.low, took.high, ours=name in _OURS) for name, took in found.items()),
        )
    )
    result.figures["sizes"][size] = {name: _figures(took) for name, took in found.items()}

    ratio = ours.ratios(base)
    result.goals.append(
        Goal(
            1,
            f"load_active_versions beside the in-process cache, {size}",
            f"at most {_MOST_OF_IN_PROCESS:g} ×",
            f"{times(ratio.median)} ({spread(ratio.low, ratio.high, times)})",
            ratio.median <= _MOST_OF_IN_PROCESS,
        )
    )
    faster = get.ratios(ours)
    result.goals.append(
        Goal(
            1,
            f"load_active_versions faster than redis-py GET + orjson, {size}",
            f"at least {_FASTER_THAN_GET[size]:,} ×",
            f"{times(faster.median)} ({spread(faster.low, faster.high, times)})",
            faster.median >= _FASTER_THAN_GET[size],
        )
    )


def _same_at_every_size(result: Result, rig: Rig, effort: Effort) -> None:
    """Time `SharedCache.read` of all sizes in the same rounds: figures of different minutes say nothing of a size."""
    with contextlib.ExitStack() as stack:
        members = {
            size: stack.enter_context(_warm(rig, (OursRead,), size, effort))[OursRead]
            for size in effort.of(("S", "M", "L"), ("S", "M"))
        }
        timed: dict[str, Timed] = {size: partial(member.call, readers.time_reads) for size, member in members.items()}
        found = interleaved(timed, rounds=effort.of(15, 2), seconds=effort.of(0.5, 0.01))
    medians = {size: took.median for size, took in found.items()}
    ratio = max(medians.values()) / min(medians.values())
    result.tables.append(
        Table(
            "SharedCache.read at every size",
            ("size", "median", "quartiles"),
            tuple((size, duration(took.median), spread(took.low, took.high)) for size, took in found.items()),
        )
    )
    result.figures["every_size"] = {size: _figures(took) for size, took in found.items()}
    result.goals.append(
        Goal(
            1,
            "SharedCache.read, slowest size ÷ fastest size",
            f"the same: at most {_MOST_BETWEEN_SIZES:g} ×",
            times(ratio),
            ratio <= _MOST_BETWEEN_SIZES,
        )
    )


def _timed(members: Mapping[type[Candidate], Member], effort: Effort) -> dict[str, Times]:
    timed: dict[str, Timed] = {kind.name: partial(member.call, readers.time_reads) for kind, member in members.items()}
    found = interleaved(timed, rounds=effort.of(15, 2), seconds=effort.of(0.4, 0.005))
    for kind, member in members.items():
        loads = member.call(readers.loads_of)
        if loads != _loads_of_one(kind):
            raise AssertionError(f"{kind.name}: loaded {loads} times: it was not covered")
    return found


def _loads_of_one(kind: type[Candidate]) -> int:
    return 0 if kind is _Ping else 1


@contextlib.contextmanager
def _warm(
    rig: Rig, kinds: tuple[type[Candidate], ...], size: str, effort: Effort
) -> Iterator[dict[type[Candidate], Member]]:
    """Give a process for each, which has loaded and cached the rows."""
    dsn = rig.database(size).dsn
    with rig.crew(len(kinds)) as free:
        members = dict(zip(kinds, free, strict=True))
        for kind, member in members.items():
            place = Place(rig.valkey.url, readers.CountingDatabase(dsn), rig.namespace(), ttl=_TTL)
            readers.named(kind, partial(member.call, readers.open_candidate, kind, place))
            readers.named(kind, partial(member.call, readers.read_often, effort.of(20, 2)))
        yield members
        for member in members.values():
            member.call(readers.close_candidate)


def _figures(took: Times) -> dict[str, float]:
    return {"median": took.median, "low": took.low, "high": took.high}
