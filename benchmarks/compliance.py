"""Is every candidate set up rightly? None is measured that does not cache, does not share, or gives other rows."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import readers
from benchmarks.candidates import CATALOGUE, Candidate, CashewsNear, GlideNear, Place, RedisTracking
from benchmarks.candidates.redis_get import client_of
from benchmarks.crew import Member
from benchmarks.results import Result, Table
from benchmarks.rig import Effort, Rig
from benchmarks.rows import generation_of
from tests.waiting import eventually

NAME = "compliance"
TITLE = "What each candidate is, and that it is set up rightly"

#: Reads of which Redis is to hear nothing where a near copy answers, but for what a library says in the background.
_READS = 50
_BACKGROUND = 10
#: Those with a near copy that are told of an invalidate, a moment later; ours is bound to know, the rest waits its TTL.
_TOLD = (RedisTracking, CashewsNear, GlideNear)


@dataclass(frozen=True, slots=True)
class _Trio:
    """The three processes of one candidate."""

    kind: type[Candidate]
    first: Member
    #: The second reader, who is the operator later.
    second: Member
    #: Who comes when all is over.
    late: Member
    place: Place

    @property
    def name(self) -> str:
        return self.kind.name

    def check(self, holds: object, what: str) -> None:
        if not holds:
            raise AssertionError(f"{self.name}: {what}")


def run(rig: Rig, _effort: Effort) -> Result:
    """Check all candidates at size S, each in processes of its own; raise with the name of one that is wrong."""
    database = rig.database("S")
    before = database.load()
    with _trios(rig, database.dsn) as trios:
        _all(trios, lambda trio: trio.first, readers.open_candidate, opening=True)
        _the_first_loads_once(trios, before)
        _near_means_near(trios)
        _all(trios, lambda trio: trio.second, readers.open_candidate, opening=True)
        _the_second_shares(trios, before)

        generation = generation_of(before) + 1
        database.promote(generation)
        _all(trios, lambda trio: trio.second, readers.invalidate)
        _all(trios, lambda trio: trio.late, readers.open_candidate, opening=True)
        _who_comes_late_sees(trios, database.load(), generation)
        _who_is_told_sees(trios, generation)
        for who in (lambda trio: trio.first, lambda trio: trio.second, lambda trio: trio.late):
            _all(trios, who, readers.close_candidate)
    return Result(NAME, TITLE, tables=[_table()], figures={"candidates": [kind.name for kind in CATALOGUE]})


def _the_first_loads_once(trios: list[_Trio], expected: list[dict[str, Any]]) -> None:
    for _ in range(2):
        for trio, rows in zip(trios, _all(trios, lambda trio: trio.first, readers.read_rows), strict=True):
            trio.check(rows == expected, "a read gave other rows than the database has")
    for trio, loads in zip(trios, _all(trios, lambda trio: trio.first, readers.loads_of), strict=True):
        trio.check(loads == 1, f"two reads loaded {loads} times")


def _near_means_near(trios: list[_Trio]) -> None:
    client = client_of(trios[0].place)
    try:
        for trio in trios:
            heard = client.info("stats")["total_commands_processed"]
            trio.first.call(readers.read_often, _READS)
            heard = client.info("stats")["total_commands_processed"] - heard
            if trio.kind.near:
                trio.check(heard <= _BACKGROUND, f"{_READS} near reads asked Redis {heard} times")
            else:
                trio.check(heard >= _READS, f"{_READS} reads that ask Redis asked it {heard} times")
    finally:
        client.close()


def _the_second_shares(trios: list[_Trio], expected: list[dict[str, Any]]) -> None:
    for trio, rows in zip(trios, _all(trios, lambda trio: trio.second, readers.read_rows), strict=True):
        trio.check(rows == expected, "a second process read other rows than the database has")
    for trio, loads in zip(trios, _all(trios, lambda trio: trio.second, readers.loads_of), strict=True):
        wanted = 0 if trio.kind.shared else 1
        trio.check(loads == wanted, f"a read in a second process loaded {loads} times, not {wanted}")


def _who_comes_late_sees(trios: list[_Trio], expected: list[dict[str, Any]], generation: int) -> None:
    for trio, rows in zip(trios, _all(trios, lambda trio: trio.late, readers.read_rows), strict=True):
        found = generation_of(rows)
        trio.check(found == generation, f"after an invalidate a new process read generation {found}, not {generation}")
        trio.check(rows == expected, "after an invalidate a new process read other rows than the database has")


def _who_is_told_sees(trios: list[_Trio], generation: int) -> None:
    for trio in trios:
        if trio.kind in _TOLD:
            readers.named(trio.kind, partial(_await_told, trio, generation))
        elif trio.kind.ours or not trio.kind.near:
            found = _generation_at(trio)
            trio.check(found == generation, f"after an invalidate a warm process read generation {found}")


def _await_told(trio: _Trio, generation: int) -> None:
    eventually(lambda: _generation_at(trio) == generation)


def _generation_at(trio: _Trio) -> int:
    return generation_of(trio.first.call(readers.read_rows))


@contextlib.contextmanager
def _trios(rig: Rig, dsn: str) -> Iterator[list[_Trio]]:
    with rig.crew(3 * len(CATALOGUE)) as members:
        free = iter(members)
        yield [
            _Trio(
                kind,
                next(free),
                next(free),
                next(free),
                Place(rig.valkey.url, readers.CountingDatabase(dsn), rig.namespace()),
            )
            for kind in CATALOGUE
        ]


def _all(
    trios: list[_Trio], who: Callable[[_Trio], Member], what: Callable[..., Any], *, opening: bool = False
) -> list[Any]:
    """Have one process of each do something at once; give their answers in order."""
    for trio in trios:
        who(trio).order(what, *((trio.kind, trio.place) if opening else ()))
    return [readers.named(trio.kind, who(trio).answer) for trio in trios]


def _table() -> Table:
    return Table(
        "The candidates",
        (
            "candidate",
            "versions",
            "answers without Redis",
            "shared",
            "what its documentation promises of an invalidate",
        ),
        tuple(
            (
                kind.name,
                readers.versions(kind) or "-",
                "yes" if kind.near else "no",
                "yes" if kind.shared else "no",
                kind.promise,
            )
            for kind in CATALOGUE
        ),
    )
