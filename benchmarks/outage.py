"""Redis killed, and Redis stopped, under load: what a reader that reads all the time sees of it."""

import collections
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.candidates import CATALOGUE, Candidate, Ours, OursRead, Place, RedisGet
from benchmarks.candidates.kcg import settings_of
from benchmarks.crew import Local, clock
from benchmarks.database import Database
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration
from benchmarks.rig import Effort, Rig
from kcg_cache import ACTIVE_VERSIONS, SharedCache
from kcg_cache.embedded import EmbeddedValkey, start_valkey

NAME = "outage"
TITLE = "Redis killed, and stopped, under load"

#: The longest that one Redis call may take, where a library lets one say so.
_TIMEOUT = 0.5
#: The reads are counted in steps of so many seconds.
_STEP = 0.1
_TOGETHER = 3
#: What the scheduler may add to the slowest read: readers share a core with each other.
_NOISE = 0.1
#: Without a lease every read loads, and Redis is tried again every two seconds: this part of the loads' speed is left.
_PART = 0.5
#: Reads that take longer than this are noted one by one; of the others only that they were no longer.
_SLOW = 0.001
_BLOWS = ("killed", "stopped")


@dataclass(slots=True)
class _Step:
    """The reads that ended within one step."""

    reads: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Seen:
    """What one reader saw, step by step, on the clock that all share."""

    steps: dict[int, _Step] = field(default_factory=dict)
    #: The reads that took longer than `_SLOW`: when each began, and how long it took.
    slow: list[tuple[float, float]] = field(default_factory=list)
    #: What reads raised: when, and which type.
    raised: list[tuple[float, str]] = field(default_factory=list)
    #: What loads without any cache took in this process.
    loads: list[float] = field(default_factory=list)
    #: What a read in mode bypass took: the database's speed by way of our own loader. Of the others, the same as above.
    own_loads: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Outage:
    """One blow to one candidate."""

    kind: type[Candidate]
    load: float
    own_load: float
    slowest_load: float
    before: float
    during: float
    slowest: float
    errors: dict[str, int]
    #: Seconds from the server's return until reads came as before; None when that was not seen.
    normal_after: float | None


def run(rig: Rig, effort: Effort) -> Result:
    """Strike every candidate's server both ways, some side by side."""
    seconds = effort.of((1.5, 8.0, 5.0), (0.2, 0.3, 0.2))
    ours = [kind for kind in CATALOGUE if kind.ours]
    peers = [kind for kind in CATALOGUE if not kind.ours]
    parts = [peers[start : start + _TOGETHER] for start in range(0, len(peers), _TOGETHER)]
    # Without a lease every read works: it gets the core for itself.
    parts = effort.of([*parts, ours[:-1], ours[-1:]], [[RedisGet, OursRead]])
    outages = {blow: [one for part in parts for one in _strike(rig, part, blow, seconds)] for blow in _BLOWS}
    return _result(outages, seconds)


def _strike(
    rig: Rig, kinds: Sequence[type[Candidate]], blow: str, seconds: tuple[float, float, float]
) -> list[_Outage]:
    before, during, after = seconds
    board = rig.board
    board.clear()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_server(rig)) for _ in kinds]
        members = stack.enter_context(rig.crew(len(kinds)))
        for kind, server, member in zip(kinds, servers, members, strict=True):
            place = Place(server.url, Database(rig.database("S").dsn), rig.namespace(), timeout=_TIMEOUT)
            member.call(_open, kind, place)
        began = clock()
        for member in members:
            member.order(_read_on)
        time.sleep(before)
        struck = clock()
        for server in servers:
            if blow == "killed":
                server.kill()
            else:
                server.pause()
        time.sleep(during)
        ending = clock()
        returned = []
        for server in servers:
            if blow == "killed":
                server.restart()
                rig.pin_server(server.pid)
            else:
                server.resume()
            returned.append(clock())
        time.sleep(after)
        board.stop = True
        seen = [member.answer() for member in members]
    return [
        _outage(kind, its, (began, struck, ending, back)) for kind, its, back in zip(kinds, seen, returned, strict=True)
    ]


def _outage(kind: type[Candidate], seen: _Seen, times: tuple[float, float, float, float]) -> _Outage:
    """Find out what one reader saw; `times`: reading began, the blow, it was about to end, the server was back."""
    began, struck, ending, back = times
    before = _whole_steps(seen, began, struck)
    during = _whole_steps(seen, struck, ending)
    usual = statistics.median(step.reads for step in before) if before else 0
    normal = next(
        (
            number * _STEP - back
            for number, step in sorted(seen.steps.items())
            if number * _STEP >= back and not step.errors and step.reads >= usual / 2
        ),
        None,
    )
    return _Outage(
        kind=kind,
        load=statistics.median(seen.loads),
        own_load=statistics.median(seen.own_loads),
        slowest_load=max(seen.own_loads),
        before=usual / _STEP,
        during=sum(step.reads - step.errors for step in during) / (_STEP * len(during)) if during else 0.0,
        slowest=max((took for when, took in seen.slow if when + took >= struck), default=_SLOW),
        errors=dict(collections.Counter(name for when, name in seen.raised if when >= struck)),
        normal_after=normal,
    )


def _whole_steps(seen: _Seen, since: float, until: float) -> list[_Step]:
    numbers = range(int(since / _STEP) + 1, int(until / _STEP))
    return [seen.steps.get(number, _Step()) for number in numbers]


@contextlib.contextmanager
def _server(rig: Rig) -> Iterator[EmbeddedValkey]:
    with start_valkey() as server:
        rig.pin_server(server.pid)
        try:
            yield server
        finally:
            server.resume()


def _open(local: Local, kind: type[Candidate], place: Place) -> None:
    candidate = local.things["candidate"] = kind(place)
    candidate.read()


def _read_on(local: Local) -> _Seen:
    """Read without a pause until the board says stop; note what was slow, and what was raised."""
    candidate: Candidate = local.things["candidate"]
    board, seen, read = local.board, _Seen(), candidate.read
    seen.loads = _times_of(candidate.place.load)
    seen.own_loads = seen.loads
    if isinstance(candidate, Ours):
        place = candidate.place
        bypass = SharedCache(place.redis_url, ACTIVE_VERSIONS, settings_of(place, mode="bypass"))
        seen.own_loads = _times_of(lambda: bypass.read(place.database.connection))
    at, step = 0, _Step()
    ended = clock()
    while not board.stop:
        began, error = ended, None
        try:
            read()
        except Exception as raised:  # noqa: BLE001 - whatever a library raises is counted
            error = type(raised).__name__
        ended = clock()
        number = int(ended / _STEP)
        if number != at:
            at, step = number, seen.steps.setdefault(number, _Step())
        step.reads += 1
        if error is not None:
            step.errors += 1
            seen.raised.append((began, error))
        if ended - began > _SLOW:
            seen.slow.append((began, ended - began))
    candidate.close()
    return seen


def _times_of(load: Callable[[], object]) -> list[float]:
    times = [clock()]
    for _ in range(10):
        load()
        times.append(clock())
    return [end - start for start, end in itertools.pairwise(times)]


def _result(outages: dict[str, list[_Outage]], seconds: tuple[float, float, float]) -> Result:
    result = Result(NAME, TITLE)
    ours = [one for its in outages.values() for one in its if one.kind.ours]
    others = [one for its in outages.values() for one in its if not one.kind.ours and one.kind.shared]
    slowest = max(ours, key=lambda one: one.slowest)
    most = _TIMEOUT + slowest.slowest_load + _NOISE
    raised = sum(sum(one.errors.values()) for one in ours)
    asking = min(ours, key=lambda one: one.during)
    result.goals.append(
        Goal(
            7,
            "the slowest read when Redis is killed, and when it is stopped",
            f"<= one redis_timeout ({_TIMEOUT:g} s) and a load, then database speed (>= {_PART:g} × of mode bypass)",
            f"{duration(slowest.slowest)} ({slowest.kind.name}), {raised} reads raised; then {asking.during:,.0f} "
            f"reads/s of the slowest of ours, where mode bypass makes {1 / asking.own_load:,.0f}/s and a bare load "
            f"{1 / asking.load:,.0f}/s; others up to "
            f"{duration(max(one.slowest for one in others))}, {sum(bool(one.errors) for one in others)} of "
            f"{len(others)} outages raised",
            slowest.slowest <= most and raised == 0 and asking.during >= _PART / asking.own_load,
        )
    )
    for blow, its in outages.items():
        result.tables.append(
            Table(
                f"Redis {blow} for {seconds[1]:g} s",
                (
                    "candidate",
                    "slowest read",
                    "reads/s before",
                    "reads/s during",
                    "a bare load",
                    "its own load",
                    "reads that raised",
                    "normal after",
                ),
                tuple(
                    (
                        one.kind.name,
                        duration(one.slowest) if one.slowest > _SLOW else f"< {duration(_SLOW)}",
                        f"{one.before:,.0f}",
                        f"{one.during:,.0f}",
                        duration(one.load),
                        duration(one.own_load) if one.kind.ours else "-",
                        ", ".join(f"{count:,} {name}" for name, count in sorted(one.errors.items())) or "-",
                        _normal(one.normal_after),
                    )
                    for one in its
                ),
            )
        )
        result.pictures.append(
            Chart(
                f"outage-{blow}",
                f"Redis {blow}: the slowest read",
                "s",
                tuple(Bar(one.kind.name, one.slowest, one.slowest, one.slowest, ours=one.kind.ours) for one in its),
            )
        )
    result.notes += [
        (
            f"One process per candidate reads all the time, each on a server of its own; {_TOGETHER} candidates at a "
            f"time, which share a core, so a read may wait for the others' turn ({duration(_NOISE)} is allowed for "
            "that). The slowest read is of the time from the blow to the end, which includes the server's return."
        ),
        (
            "Reads per second during the outage are those that gave rows, all of it counted: the reads that waited "
            "for a timeout too. A killed server refuses connections at once; a stopped one has to be waited for. "
            "With a lease ours goes on reading the rows that it has loaded for itself; without one every read loads. "
            "Its own load is a read in mode bypass: the bare load, the check of the snapshot, encoding and decoding."
        ),
        (
            '"Normal after" is when, after the server was back, a tenth of a second first had no error and half as '
            "many reads as before."
        ),
    ]
    result.figures = {
        blow: {
            one.kind.name: {
                "slowest_s": one.slowest,
                "reads_per_s_before": one.before,
                "reads_per_s_during": one.during,
                "load_s": one.load,
                "own_load_s": one.own_load,
                "slowest_load_s": one.slowest_load,
                "errors": one.errors,
                "normal_after_s": one.normal_after,
            }
            for one in its
        }
        for blow, its in outages.items()
    }
    return result


def _normal(seconds: float | None) -> str:
    if seconds is None:
        return "not seen"
    return f"< {_STEP:g} s" if seconds <= _STEP else duration(seconds)
