"""A load that races an invalidate, and for how long the rows that it had read are served afterwards."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.candidates import CATALOGUE, Candidate, Ours, Place, few
from benchmarks.crew import Local, clock
from benchmarks.database import Database, make_database
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration
from benchmarks.rig import Effort, Rig
from benchmarks.rows import SIZES, generation_of

NAME = "race"
TITLE = "A load that races an invalidate"

#: How much longer than its query every load takes, and when in it the invalidate comes. All candidates' processes
#: share a core: each must have read its rows by then, and deleted its copy by the end.
_LOAD, _INVALIDATE_AFTER = 1.0, 0.4
#: On a machine that is busy a load may begin too late to race anything: it is tried again.
_MORE_TRIES = 3
#: Between two reads of those who look for the new rows.
_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class _Told:
    """What one process did, and when, on the clock that all share."""

    began: float
    #: When its first read, or the invalidate, had returned.
    ended: float
    #: When it was last given rows from before the change; 0 when it never was.
    last_old: float = 0.0
    #: Whether its load had read the old rows: they came, or (ours) their publication was rejected.
    read_old: bool = False


@dataclass(frozen=True, slots=True)
class _Race:
    """One race of one candidate."""

    #: The load had read the rows from before the change, and ended after the invalidate had deleted what was there.
    raced: bool
    #: For how long after the invalidate had returned old rows were served: by the process that loaded, and by another.
    loader: float
    other: float
    invalidate: float

    @property
    def stale(self) -> float:
        return max(self.loader, self.other)


def run(rig: Rig, effort: Effort) -> Result:
    """Let every candidate's load race an invalidate, all side by side, several times."""
    kinds, ttl = effort.of(CATALOGUE, few()), effort.of(10.0, 1.0)
    database = make_database(rig.postgres.dsn, "bench_race", SIZES["S"])
    races: dict[type[Candidate], list[_Race]] = {kind: [] for kind in kinds}
    wanted = effort.of(2, 1)
    for generation in range(1, wanted + _MORE_TRIES + 1):
        left = [kind for kind in kinds if sum(race.raced for race in races[kind]) < wanted]
        if left:
            for kind, race in zip(left, _one(rig, database, left, ttl, generation), strict=True):
                races[kind].append(race)
    database.close()
    return _result(races, ttl)


def _one(rig: Rig, database: Database, kinds: Sequence[type[Candidate]], ttl: float, generation: int) -> list[_Race]:
    with rig.crew(3 * len(kinds)) as members:
        loaders, others, operators = (members[start::3] for start in range(3))
        for kind, *trio in zip(kinds, loaders, others, operators, strict=True):
            place = Place(
                rig.valkey.url, Database(database.dsn), rig.namespace(), ttl=ttl, timeout=5.0, load_delay=_LOAD
            )
            for member in trio:
                member.call(_open, kind, place)
        start = clock() + 0.05
        for member in loaders:
            member.order(_read_until_new, generation, start, 4 * ttl)
        time.sleep(max(0.0, start + _INVALIDATE_AFTER - clock()))
        database.promote(generation)
        for member in operators:
            member.order(_invalidate)
        # Later than the load's end, or this one's own load would put the new rows in the place of the old ones.
        for member in others:
            member.order(_read_until_new, generation, start + _LOAD + _INVALIDATE_AFTER, 4 * ttl)
        invalidated = [member.answer() for member in operators]
        told = [(loader.answer(), other.answer()) for loader, other in zip(loaders, others, strict=True)]
        for member in members:
            member.call(_close)
    return [
        _Race(
            # Ours returns a second after it has deleted; that it was in time is what the rejection says.
            raced=loader.read_old and (kind.ours or operator.ended < loader.ended),
            loader=max(0.0, loader.last_old - operator.ended),
            other=max(0.0, other.last_old - operator.ended),
            invalidate=operator.ended - operator.began,
        )
        for kind, (loader, other), operator in zip(kinds, told, invalidated, strict=True)
    ]


def _open(local: Local, kind: type[Candidate], place: Place) -> None:
    local.things["candidate"] = kind(place)
    place.database.load()  # a first connection takes its time


def _close(local: Local) -> None:
    local.things["candidate"].close()


def _read_until_new(local: Local, generation: int, start: float, most: float) -> _Told:
    """Read from `start` on until the rows are of this generation, or `most` seconds are over."""
    candidate: Candidate = local.things["candidate"]
    time.sleep(max(0.0, start - clock()))
    first_began = began = clock()
    first_ended = last_old = 0.0
    read_old = False
    while began < first_began + most:
        new = generation_of(candidate.read()) >= generation
        if not first_ended:
            first_ended = clock()
            read_old = not new or (isinstance(candidate, Ours) and candidate.cache.metrics["fills_rejected"] > 0)
        if new:
            break
        last_old = began
        time.sleep(_PAUSE)
        began = clock()
    return _Told(first_began, first_ended, last_old, read_old)


def _invalidate(local: Local) -> _Told:
    candidate: Candidate = local.things["candidate"]
    began = clock()
    candidate.invalidate()
    return _Told(began, clock())


def _result(tried: dict[type[Candidate], list[_Race]], ttl: float) -> Result:
    result = Result(NAME, TITLE)
    # What did not race says nothing.
    races = {kind: [race for race in its if race.raced] for kind, its in tried.items()}
    worst = {kind: max((race.stale for race in its), default=0.0) for kind, its in races.items()}
    ours = max(seconds for kind, seconds in worst.items() if kind.ours)
    others = [seconds for kind, seconds in worst.items() if not kind.ours]
    result.goals.append(
        Goal(
            6,
            "old rows after an invalidate that a load raced",
            f"ours 0 s, others their TTL ({ttl:g} s)",
            f"{ours:g} s; {sum(seconds > 0 for seconds in others)} of {len(others)} others gave old rows, "
            f"for up to {_seconds(others)}",
            ours == 0 and all(its for kind, its in races.items() if kind.ours),
        )
    )
    result.tables.append(
        Table(
            f"Old rows after the invalidate had returned (TTL {ttl:g} s)",
            ("candidate", "the process that loaded", "another process", "the invalidate took", "races"),
            tuple(
                (
                    kind.name,
                    _seconds([race.loader for race in its]),
                    _seconds([race.other for race in its]),
                    duration(max(race.invalidate for race in tried[kind])),
                    f"{len(its)} of {len(tried[kind])} tries",
                )
                for kind, its in races.items()
            ),
        )
    )
    result.pictures.append(
        Chart(
            "race",
            f"A load races an invalidate: old rows afterwards (TTL {ttl:g} s)",
            "s",
            tuple(Bar(kind.name, seconds, seconds, seconds, ours=kind.ours) for kind, seconds in worst.items()),
            log=False,
        )
    )
    result.notes += [
        (
            f"One process begins a load that takes {_LOAD:g} s longer than its query; {_INVALIDATE_AFTER:g} s later an "
            "operator commits a change and invalidates; the load ends, and stores what it had read. That process and "
            "another one read on until they are given the new rows. What is shown is the last read that began after "
            "the invalidate had returned and was still given old ones; the worst race of each."
        ),
        "Without a fence the invalidate deletes what is not there yet, and nothing deletes what is stored after it.",
    ]
    result.figures = {
        kind.name: [
            {"raced": race.raced, "loader_s": race.loader, "other_s": race.other, "invalidate_s": race.invalidate}
            for race in its
        ]
        for kind, its in tried.items()
    }
    return result


def _seconds(seconds: Sequence[float]) -> str:
    """Write the longest."""
    if not seconds:
        return "no race came about"
    return duration(max(seconds)) if max(seconds) else "0 s"
