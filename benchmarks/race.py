"""A load that races an invalidate, and for how long the rows that it had read are served afterwards."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.candidates import CATALOGUE, Candidate, Place, few
from benchmarks.crew import Local, clock
from benchmarks.database import Database, make_database
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration
from benchmarks.rig import Effort, Rig
from benchmarks.rows import SIZES, generation_of

NAME = "race"
TITLE = "A load that races an invalidate"

#: How much longer than its query every load takes, and when in it the invalidate comes.
_LOAD, _INVALIDATE_AFTER = 0.5, 0.2
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


@dataclass(frozen=True, slots=True)
class _Race:
    """One race of one candidate."""

    #: The load had begun before the change, and had not ended when the invalidate began.
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
    for generation in range(1, effort.of(2, 1) + 1):
        for kind, race in zip(kinds, _one(rig, database, kinds, ttl, generation), strict=True):
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
        committing = clock()
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
            raced=loader.began < committing and operator.began < loader.ended,
            loader=max(0.0, loader.last_old - operator.ended),
            other=max(0.0, other.last_old - operator.ended),
            invalidate=operator.ended - operator.began,
        )
        for (loader, other), operator in zip(told, invalidated, strict=True)
    ]


def _open(local: Local, kind: type[Candidate], place: Place) -> None:
    local.things["candidate"] = kind(place)


def _close(local: Local) -> None:
    local.things["candidate"].close()


def _read_until_new(local: Local, generation: int, start: float, most: float) -> _Told:
    """Read from `start` on until the rows are of this generation, or `most` seconds are over."""
    candidate: Candidate = local.things["candidate"]
    time.sleep(max(0.0, start - clock()))
    first_began = began = clock()
    first_ended = last_old = 0.0
    while began < first_began + most:
        new = generation_of(candidate.read()) >= generation
        first_ended = first_ended or clock()
        if new:
            break
        last_old = began
        time.sleep(_PAUSE)
        began = clock()
    return _Told(first_began, first_ended, last_old)


def _invalidate(local: Local) -> _Told:
    candidate: Candidate = local.things["candidate"]
    began = clock()
    candidate.invalidate()
    return _Told(began, clock())


def _result(races: dict[type[Candidate], list[_Race]], ttl: float) -> Result:
    result = Result(NAME, TITLE)
    worst = {kind: max(race.stale for race in its) for kind, its in races.items()}
    ours = max(seconds for kind, seconds in worst.items() if kind.ours)
    others = [seconds for kind, seconds in worst.items() if not kind.ours]
    all_raced = all(race.raced for kind, its in races.items() if kind.ours for race in its)
    result.goals.append(
        Goal(
            6,
            "old rows after an invalidate that a load raced",
            f"ours 0 s, others their TTL ({ttl:g} s)",
            f"{ours:g} s; {sum(seconds > 0 for seconds in others)} of {len(others)} others gave old rows, "
            f"for up to {duration(max(others))}",
            ours == 0 and all_raced,
        )
    )
    result.tables.append(
        Table(
            f"Old rows after the invalidate had returned (TTL {ttl:g} s)",
            ("candidate", "the process that loaded", "another process", "the invalidate took", "races"),
            tuple(
                (
                    kind.name,
                    _seconds(max(race.loader for race in its)),
                    _seconds(max(race.other for race in its)),
                    duration(max(race.invalidate for race in its)),
                    f"{sum(race.raced for race in its)} of {len(its)}",
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
        for kind, its in races.items()
    }
    return result


def _seconds(seconds: float) -> str:
    return duration(seconds) if seconds else "0 s"
