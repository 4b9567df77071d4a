"""Asking: the one part of the doctor that does I/O. What a server will not tell is a value, never a crash."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import kcg_cache.fleet
from kcg_cache import codec, postgres, queries, rights
from kcg_cache.answers import NotAllowed, State
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.doctor import fleet, redis_server
from kcg_cache.errors import DatasetError, StoreError, StoreNotReady
from kcg_cache.outage import NO_ANSWER
from kcg_cache.rows import Dependency
from kcg_cache.store import Store

Connect = Callable[[], AbstractContextManager[Any]]

#: How often each server is asked, to measure it.
PINGS = 20
ROUNDS = 8
#: Events among which every fill of the last day is, most likely.
EVENTS = 512


def redis(store: Store) -> redis_server.RedisFacts:
    """Ask a Redis all that is looked at. Raises `StoreError` when it does not answer, or no more."""
    # First by itself: a server that does not answer is told of at once.
    ping, first = _first_ping(store)
    pings: tuple[float, ...] | NotAllowed = first if isinstance(first, NotAllowed) else ()
    if not isinstance(pings, NotAllowed):
        pings = tuple(_timed(lambda: store.ask(ping))[0] for _ in range(PINGS))
    began = time.time()
    took, at = _timed(store.time_us)
    info = _told(lambda: store.server(*redis_server.INFO))
    commands = rights.all_commands(store.keys)
    state: State | NotAllowed = _told(lambda: store.inspect(EVENTS))
    return redis_server.RedisFacts(
        pings=pings,
        info=info,
        config=store.config(*redis_server.CONFIG),
        ahead=at if isinstance(at, NotAllowed) else at / 1e6 - (began + took / 2),
        asked_for=took,
        rights=dict(zip(commands, store.may(commands), strict=True)),
        state=state,
        entry=store.whole_entry(),
        readers=_readers(store, state),
    )


def _first_ping(store: Store) -> tuple[str, Any]:
    """Give the command to measure with, and its first answer: PING, which a server refuses whose disk failed (MISCONF).

    Such a server answers all that reads, and is examined: it is to be told of as KCG-R07.
    """
    try:
        return "PING", store.ask("PING")
    except StoreNotReady as error:
        if error.symptom != "readonly":
            raise
        return "TIME", store.ask("TIME")


def _readers(store: Store, state: State | NotAllowed) -> Sequence[fleet.Reader] | NotAllowed:
    """Ask who reads."""
    if isinstance(state, NotAllowed):
        return state
    records = _told(store.presences)
    return records if isinstance(records, NotAllowed) else fleet.readers_of(kcg_cache.fleet.seen(state, records))


@dataclass(frozen=True, slots=True)
class Failed:
    """A question that PostgreSQL answered with an error."""

    why: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load gave: how many rows, what was mended in them, the size of their payload, and how long it took."""

    rows: int
    mended: tuple[str, ...]
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """What a PostgreSQL that answers told; a part that failed is `Failed`."""

    server: Mapping[str, Any]
    source: str | Failed
    pooling: postgres.Pooling
    rounds: tuple[float, ...]
    #: Seconds by which its clock is ahead of this host's, and how long the question took.
    ahead: float
    asked_for: float
    columns: Sequence[Mapping[str, Any]]
    indexes: Sequence[Mapping[str, Any]]
    triggers: Sequence[Mapping[str, Any]]
    plan: Mapping[str, Any] | Failed
    models: Sequence[Mapping[str, Any]] | Failed
    dependencies: Sequence[Dependency] | Failed
    loaded: Loaded | Failed


def database(connect: Connect) -> PostgresFacts:
    """Ask a PostgreSQL all that is looked at. Raises one of `postgres.ERRORS` when it does not answer, or no more."""
    with connect() as conn:
        # Each question by itself: one that fails must not take the others with it.
        conn.autocommit = True
        began = time.time()
        took, (server,) = _timed(lambda: postgres.fetch(conn, queries.load("doctor_server")))
        rounds = tuple(_timed(lambda: postgres.fetch(conn, "SELECT 1 AS one"))[0] for _ in range(ROUNDS))
        facts = PostgresFacts(
            server=server,
            source=_tried(conn, lambda: postgres.origin(conn).source),
            pooling=postgres.Pooling.NONE,
            rounds=rounds,
            ahead=server["time_us"] / 1e6 - (began + took / 2),
            asked_for=took,
            columns=postgres.fetch(conn, queries.load("doctor_columns")),
            indexes=postgres.fetch(conn, queries.load("doctor_indexes")),
            triggers=postgres.fetch(conn, queries.load("doctor_triggers")),
            plan=_tried(conn, lambda: _plan(conn)),
            models=_tried(conn, lambda: postgres.fetch(conn, queries.load("doctor_models"))),
            dependencies=_tried(
                conn, lambda: [Dependency(**row) for row in postgres.fetch(conn, queries.load("dependencies"))]
            ),
            loaded=_tried(conn, lambda: _load(conn)),
        )
        # Last, for it opens other connections: until then Ctrl-C interrupts this one.
        return replace(facts, pooling=postgres.pooling(conn, connect))


def _plan(conn: Any) -> Mapping[str, Any]:
    (row,) = postgres.fetch(conn, "EXPLAIN (FORMAT JSON) " + queries.load("active_versions"))
    (plan,) = row["QUERY PLAN"]
    return dict(plan["Plan"])


def _load(conn: Any) -> Loaded:
    mended: list[str] = []
    seconds, loaded = _timed(lambda: ACTIVE_VERSIONS.loaded(conn))
    rows = len(loaded)
    payload = codec.encode(ACTIVE_VERSIONS.name, ACTIVE_VERSIONS.decoded(loaded, mended.append))
    return Loaded(rows, tuple(mended), payload.size, seconds)


#: What a question may come to, on a connection that lives.
_QUESTION: tuple[type[Exception], ...] = (*postgres.ERRORS, DatasetError)


def _tried(conn: Any, ask: Callable[[], Any]) -> Any:
    """Give the answer, or `Failed`; a connection that is gone is for the caller to tell of."""
    try:
        return ask()
    except _QUESTION as error:
        if conn.closed:
            raise
        return Failed(" ".join(str(error).split()))


def _told(ask: Callable[[], Any]) -> Any:
    """Give the answer, or `NotAllowed`; a server that does not answer is for the caller to tell of."""
    try:
        return ask()
    except StoreError as error:
        if error.symptom in NO_ANSWER:
            raise
        return NotAllowed(" ".join(str(error).split()))


def _timed(ask: Callable[[], Any]) -> tuple[float, Any]:
    """Give how many seconds the answer took, and the answer."""
    began = time.perf_counter()
    answer = ask()
    return time.perf_counter() - began, answer
