"""What a fill adds to the bare query and encoding, and what decoding costs (goal 8)."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import psycopg2
import psycopg2.extensions
import redis

from benchmarks import relay
from benchmarks.candidates import Place
from benchmarks.candidates.kcg import settings_of
from benchmarks.crew import Local, Member, crew
from benchmarks.database import Database
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration, spread, times
from benchmarks.rig import Effort, Rig
from benchmarks.timing import Timed, Times, interleaved
from kcg_cache import ACTIVE_VERSIONS, Dataset, SharedCache, codec, postgres
from kcg_cache.store import Store

NAME = "fill"
TITLE = "what a fill adds to the bare query and encoding, and what decoding costs"

_BARE, _OURS, _PING, _SELECT = "bare", "ours", "PING", "SELECT 1"
_LOADS, _DECODE = "orjson.loads", "decode and freeze"
_ROUND_TRIPS, _MARGIN, _DECODING = 2, 1.1, 2.0

#: The parts of a fill: what the table calls it, and the function that is timed.
_PARTS: tuple[tuple[str, Any, str], ...] = (
    ("read script", Store, "read"),
    ("snapshot check", postgres, "origin"),
    ("query", Dataset, "loaded"),
    ("params decoded, encoded, read back, frozen", codec, "encode"),
    ("publish", Store, "publish"),
)
_REST = "the rest: lock, thread, bookkeeping"
_NOTES = (
    (
        "*Bare* is the query, the params of each row decoded by orjson, and `orjson.dumps` of the rows. *Ours* is a "
        "forced read of a process that is warm, on the same connection to the database, in the same rounds: two "
        "scripts, the snapshot check, the rows, and the encoded rows decoded again, so that the process that loads is "
        "given what everyone else is. *Over* is ours without two PINGs, beside bare."
    ),
    (
        "Round trips are counted on the wire, by a relay before each server: how often the client speaks after the "
        "server has. On a connection that opens transactions by itself (psycopg2's default), ours also ends the one "
        "that it opened; the bare query's is counted with its rollback, too. What is added is the question to Redis, "
        "the snapshot check, which has to be answered before the rows are read (R13), and the publish."
    ),
    "The parts are timed in runs of their own, by clocks around the functions; their sum is a whole forced read.",
)


def run(rig: Rig, effort: Effort) -> Result:
    """Count and time fills at S, M and L, then decoding."""
    result = Result(NAME, TITLE)
    fills: list[tuple[str, ...]] = []
    parts: list[tuple[str, ...]] = []
    decodes: list[tuple[str, ...]] = []
    bars: list[Bar] = []
    sizes = effort.of(("S", "M", "L"), ("S",))
    with rig.crew(1) as (member,):
        for size in sizes:
            member.call(_set_up, Place(rig.valkey.url, rig.database(size), rig.namespace()))
            measured = _measure(member, effort)
            of_parts = [member.call(_time_parts) for _ in range(effort.of(9, 1))]
            covered = member.call(_read_covered, effort.of(20_000, 200))
            member.call(_close)
            over = Times(
                tuple(
                    (ours - _ROUND_TRIPS * ping) / bare
                    for ours, ping, bare in zip(
                        *(measured[name].seconds for name in (_OURS, _PING, _BARE)), strict=True
                    )
                )
            )
            decoding = measured[_DECODE].ratios(measured[_LOADS])
            fills.append(_fill_row(size, measured, over))
            decodes.append(_decode_row(size, measured, decoding))
            median = {name: statistics.median(each[name] for each in of_parts) for name in of_parts[0]}
            parts.append((size, *(duration(seconds) for seconds in median.values())))
            bars += [_bar(f"{size}: {name}", measured[name], ours=name == _OURS) for name in (_BARE, _OURS)]
            bars += [_bar(f"{size}: {name}", measured[name], ours=name == _DECODE) for name in (_LOADS, _DECODE)]
            result.goals.append(_fill_goal(size, over))
            if size == sizes[-1]:
                result.goals += [_decode_goal(size, decoding), _covered_goal(covered)]
            result.figures[size] = {
                "seconds": {name: list(found.seconds) for name, found in measured.items()},
                "parts": of_parts,
                "covered": covered,
            }
        trips = _round_trips(rig, member)
    result.figures["round trips"] = trips
    result.goals.insert(0, _trips_goal(trips))
    result.tables += [
        Table("A fill", ("rows", "bare", "ours", "quartiles", "ours / bare", "over", "PING", "SELECT 1"), tuple(fills)),
        Table("Its parts", ("rows", *median), tuple(parts)),
        Table(
            "Round trips, on the wire",
            ("connection", "bare: PostgreSQL", "ours: PostgreSQL", "ours: Redis", "added"),
            tuple(
                (name, str(bare), str(to_postgres), str(to_redis), str(to_postgres + to_redis - bare))
                for name, (bare, to_postgres, to_redis) in trips.items()
            ),
        ),
        Table("Decode and freeze", ("rows", "orjson.loads", "ours", "quartiles", "ratio", "quartiles"), tuple(decodes)),
    ]
    result.pictures.append(Chart("fill", "A fill, and decoding, beside the bare work", "ms", tuple(bars)))
    result.notes += _NOTES
    return result


def _measure(member: Member, effort: Effort) -> dict[str, Times]:
    names = (_BARE, _OURS, _PING, _SELECT, _LOADS, _DECODE)
    timed: dict[str, Timed] = {name: functools.partial(member.call, _time, name) for name in names}
    return interleaved(timed, rounds=effort.of(15, 2), seconds=effort.of(0.2, 0.002))


# --- what the process does ------------------------------------------------------------------------------------------


def _set_up(local: Local, place: Place) -> None:
    cache = SharedCache(place.redis_url, ACTIVE_VERSIONS, settings_of(place))
    client: Any = redis.Redis.from_url(place.redis_url, protocol=2)
    connection = place.database.connection
    payload = codec.encode(ACTIVE_VERSIONS.name, place.load())
    plain = orjson.dumps(place.load())
    cache.read(connection)
    local.things["fill"] = place, cache, client
    local.things["timed"] = {
        _BARE: lambda: orjson.dumps(place.load()),
        _OURS: lambda: _filled(cache, connection),
        _PING: client.ping,
        _SELECT: functools.partial(postgres.fetch, connection, "SELECT 1"),
        _LOADS: lambda: orjson.loads(plain),
        _DECODE: lambda: codec.decode(
            payload.data, payload.format, payload.digest, ACTIVE_VERSIONS.row_type, max_payload=payload.size
        ),
    }


def _time(local: Local, name: str, count: int) -> float:
    work: Callable[[], Any] = local.things["timed"][name]
    began = time.perf_counter()
    for _ in range(count):
        work()
    return time.perf_counter() - began


def _time_parts(local: Local) -> dict[str, float]:
    """Read once, by force; give the seconds of each part."""
    place, cache, _ = local.things["fill"]
    taken: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        for name, owner, function in _PARTS:
            taken[name] = stack.enter_context(_clocked(owner, function))
        began = time.perf_counter()
        _filled(cache, place.database.connection)
        whole = time.perf_counter() - began
    sums = {name: sum(seconds) for name, seconds in taken.items()}
    return sums | {_REST: whole - sum(sums.values()), "whole": whole}


def _read_covered(local: Local, count: int) -> dict[str, int]:
    """Read so many times within one lease; tell how many were covered, and how many rows were decoded for it."""
    place, cache, _ = local.things["fill"]
    connection = place.database.connection
    cache.read(connection, force=True)
    before = cache.metrics["reads_near"]
    with _clocked(codec, "decode") as decoded:
        for _ in range(count):
            cache.read(connection)
    return {"reads": count, "covered": cache.metrics["reads_near"] - before, "decoded": len(decoded)}


@contextlib.contextmanager
def _clocked(owner: Any, name: str) -> Iterator[list[float]]:
    """Have every call of a function timed, for the length of the block."""
    function = getattr(owner, name)
    seconds: list[float] = []

    @functools.wraps(function)
    def timed(*arguments: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds.append(time.perf_counter() - began)

    setattr(owner, name, timed)
    try:
        yield seconds
    finally:
        setattr(owner, name, function)


def _close(local: Local) -> None:
    place, cache, client = local.things.pop("fill")
    del local.things["timed"]
    cache.close()
    client.close()
    place.database.close()


# --- round trips ----------------------------------------------------------------------------------------------------


def _round_trips(rig: Rig, member: Member) -> dict[str, tuple[int, int, int]]:
    """Count, for both kinds of connection: bare to PostgreSQL, ours to PostgreSQL, ours to Redis."""
    trips: dict[str, tuple[int, int, int]] = {}
    dsn = rig.database("S").dsn
    with crew(1, rig.board, rig.client_cores) as (linker,):
        port = linker.call(relay.open_relay, "redis", rig.valkey.host, rig.valkey.port, None)
        url = rig.valkey.url.replace(f":{rig.valkey.port}/", f":{port}/")
        port = linker.call(relay.open_relay, "postgres", rig.postgres.host, rig.postgres.port, None)
        relayed = psycopg2.extensions.make_dsn(dsn, port=port)

        def turns() -> tuple[int, int]:
            return linker.call(relay.counts, "postgres").turns, linker.call(relay.counts, "redis").turns

        for name, autocommit in (("autocommit", True), ("with transactions", False)):
            member.call(_open_relayed, Place(url, Database(relayed), rig.namespace()), autocommit)
            start = turns()
            member.call(_load_bare)
            bare = turns()
            member.call(_fill_once)
            ours = turns()
            member.call(_close_relayed)
            trips[name] = bare[0] - start[0], ours[0] - bare[0], ours[1] - bare[1]
        for name in ("redis", "postgres"):
            linker.call(relay.close_relay, name)
    return trips


def _open_relayed(local: Local, place: Place, autocommit: bool) -> None:  # noqa: FBT001 - through a pipe
    cache = SharedCache(place.redis_url, ACTIVE_VERSIONS, settings_of(place))
    place.database.connection.autocommit = autocommit
    local.things["relayed"] = place, cache
    _fill_once(local)  # connected, and the scripts are there


def _load_bare(local: Local) -> None:
    place, _ = local.things["relayed"]
    place.load()
    if not place.database.connection.autocommit:
        place.database.connection.rollback()


def _fill_once(local: Local) -> None:
    place, cache = local.things["relayed"]
    _filled(cache, place.database.connection)


def _filled(cache: SharedCache, connection: Any) -> None:
    snapshot = cache.read(connection, force=True)
    if snapshot.source != "database" or not snapshot.shared:
        raise RuntimeError("a forced read was no fill: Redis did not answer in time")


def _close_relayed(local: Local) -> None:
    place, cache = local.things.pop("relayed")
    cache.close()
    place.database.close()


# --- what is made of it ---------------------------------------------------------------------------------------------


def _fill_row(size: str, measured: dict[str, Times], over: Times) -> tuple[str, ...]:
    ours, bare = measured[_OURS], measured[_BARE]
    return (
        size,
        duration(bare.median),
        duration(ours.median),
        spread(ours.low, ours.high),
        times(ours.ratios(bare).median),
        f"{over.median - 1:+.0%}",
        duration(measured[_PING].median),
        duration(measured[_SELECT].median),
    )


def _decode_row(size: str, measured: dict[str, Times], ratio: Times) -> tuple[str, ...]:
    ours = measured[_DECODE]
    return (
        size,
        duration(measured[_LOADS].median),
        duration(ours.median),
        spread(ours.low, ours.high),
        times(ratio.median),
        spread(ratio.low, ratio.high, times),
    )


def _bar(label: str, found: Times, *, ours: bool) -> Bar:
    return Bar(label, found.median * 1e3, found.low * 1e3, found.high * 1e3, ours)


def _fill_goal(size: str, over: Times) -> Goal:
    return Goal(
        8,
        f"a fill of {size}, beside the bare query and encoding",
        "≤ 2 round trips + 10 %",
        f"2 round trips {over.median - 1:+.0%}",
        over.median <= _MARGIN,
    )


def _trips_goal(trips: dict[str, tuple[int, int, int]]) -> Goal:
    added = {name: to_postgres + to_redis - bare for name, (bare, to_postgres, to_redis) in trips.items()}
    return Goal(
        8,
        "round trips that a fill adds",
        "≤ 2",
        ", ".join(f"{count} ({name})" for name, count in added.items()),
        max(added.values()) <= _ROUND_TRIPS,
    )


def _decode_goal(size: str, ratio: Times) -> Goal:
    return Goal(
        8,
        f"decode and freeze of a changed {size}",
        "≤ 2 × orjson.loads, or as close as measurement allows",
        times(ratio.median),
        ratio.median <= _DECODING,
    )


def _covered_goal(covered: dict[str, int]) -> Goal:
    return Goal(
        8,
        "decoding on the covered path",
        "never",
        f"{covered['decoded']} times in {covered['covered']:,} covered reads",
        covered["decoded"] == 0 and covered["covered"] > 0,
    )
