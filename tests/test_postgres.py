"""Whose transaction it is, and what may be shared from it (PROTOCOL R13), on a real PostgreSQL."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ, ISOLATION_LEVEL_SERIALIZABLE
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

from kcg_cache import ConfigurationError, Dataset, Settings, SharedCache, postgres, testing
from kcg_cache.embedded import EmbeddedPostgres, start_postgres, start_replica
from tests.doubles import TickedSystem
from tests.waiting import eventually

pytestmark = pytest.mark.once

NUMBER = Dataset("number", lambda conn: postgres.fetch(conn, "SELECT n FROM kcg_number"))


@pytest.fixture
def number(pg: Connection) -> Connection:
    """Give a connection to a database that holds one number, 1."""
    with pg, pg.cursor() as cursor:
        cursor.execute("CREATE TABLE kcg_number (n int); INSERT INTO kcg_number VALUES (1)")
    return pg


@pytest.fixture
def redis() -> Iterator[Any]:
    """Give a fake Redis of the test's own."""
    client = testing.fake_redis()
    yield client
    client.close()


def cache(redis: Any, **settings: Any) -> SharedCache:
    return SharedCache(redis, NUMBER, Settings(**settings))


def number_in(snapshot: Any) -> int:
    return int(snapshot.rows[0]["n"])


def set_number(conn: Connection, value: int) -> None:
    with conn.cursor() as cursor:
        cursor.execute("UPDATE kcg_number SET n = %s", (value,))


def shared_number(redis: Any, conn: Connection) -> int | None:
    """Give what a stranger would get from Redis; None when it would have to load."""
    snapshot = cache(redis).read(conn)
    return number_in(snapshot) if snapshot.source == "redis" else None


@pytest.mark.parametrize("level", [ISOLATION_LEVEL_REPEATABLE_READ, ISOLATION_LEVEL_SERIALIZABLE])
def test_an_old_snapshot_reaches_nobody_else(
    redis: Any, number: Connection, pg_connect: Callable[[], Connection], level: int
) -> None:
    """A caller above READ COMMITTED whose transaction was open gets what it sees, alone."""
    old = pg_connect()
    old.set_session(isolation_level=level)
    assert postgres.fetch(old, "SELECT n FROM kcg_number") == [{"n": 1}]
    set_number(number, 2)
    number.commit()
    worker = cache(redis)
    snapshot = worker.read(old)
    assert (number_in(snapshot), snapshot.shared, snapshot.source) == (1, False, "database")
    assert worker._near.copy is None
    assert worker.metrics["tainted_reads"] == 1
    assert shared_number(redis, number) is None
    assert number_in(worker.read(old)) == 2  # a hit by now: what is shared


def test_a_fresh_transaction_above_read_committed_is_shared(redis: Any, number: Connection) -> None:
    """Its snapshot is taken by the question itself, after the lock's grant."""
    number.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ)
    assert cache(redis).read(number).shared
    assert not postgres.transaction_open(number)


@pytest.mark.parametrize("savepoint", [False, True])
def test_uncommitted_writes_reach_nobody_else(redis: Any, number: Connection, *, savepoint: bool) -> None:
    """The caller sees its own, and after its rollback nobody has them."""
    if savepoint:
        with number.cursor() as cursor:
            cursor.execute("SAVEPOINT here")
    set_number(number, 99)
    worker = cache(redis)
    snapshot = worker.read(number)
    assert (number_in(snapshot), snapshot.shared) == (99, False)
    assert worker._near.copy is None
    number.rollback()
    assert shared_number(redis, number) is None
    assert number_in(worker.read(number)) == 1


def test_a_private_load_is_checked_too(number: Connection) -> None:
    """With Redis away nothing tainted is kept either (R8, R13)."""
    set_number(number, 99)
    worker = SharedCache("redis://127.0.0.1:1/0", NUMBER, Settings())
    assert number_in(worker.read(number)) == 99
    assert worker._near.copy is None
    number.rollback()
    assert number_in(worker.read(number)) == 1


def test_a_tainted_filler_frees_the_lock_before_it_reads_the_rows(redis: Any, number: Connection) -> None:
    """Callers inside their transactions do not hold up the fleet."""
    set_number(number, 99)
    seen: list[Any] = []
    worker: SharedCache

    def load(conn: Any) -> list[dict[str, Any]]:
        seen.append((worker.inspect().lock, worker._slow.locked()))
        return NUMBER.load(conn)  # type: ignore[return-value]

    worker = SharedCache(redis, Dataset("number", load), Settings())
    worker.read(number)
    assert seen == [(None, False)]
    assert [event["reason"] for event in worker.inspect().events] == ["tainted: uncommitted writes"]


def test_a_tainted_private_load_frees_the_slow_path_before_it_reads_the_rows(number: Connection) -> None:
    """With Redis away callers inside their transactions do not hold up the other threads either."""
    set_number(number, 99)
    seen: list[bool] = []
    worker: SharedCache

    def load(conn: Any) -> list[dict[str, Any]]:
        seen.append(worker._slow.locked())
        return NUMBER.load(conn)  # type: ignore[return-value]

    worker = SharedCache("redis://127.0.0.1:1/0", Dataset("number", load), Settings())
    worker.read(number)
    assert seen == [False]


def test_what_decoding_a_row_reports_is_counted(redis: Any, number: Connection) -> None:
    """Whatever source the rows came from."""

    def mend(row: Any, report: Any) -> Any:
        report("a row was mended")
        return row

    worker = SharedCache(redis, Dataset("number", NUMBER.load, decode_row=mend), Settings())
    assert worker.read(number).shared
    assert worker.metrics["bad_params"] == 1


def test_a_refresh_ahead_of_a_tainted_caller_gives_it_the_shared_rows(
    redis: Any, number: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """It was a hit: there was no need to load, so no load failed."""
    worker = cache(redis, refresh_ahead=0.9, lease=0)
    worker.read(number)
    redis.pexpire("{kcg:number}:entry", 60_000)
    set_number(number, 99)
    with caplog.at_level(logging.INFO, "kcg_cache"):
        snapshot = worker.read(number)
    assert (number_in(snapshot), snapshot.source) == (1, "redis")
    assert [record.kcg_event for record in caplog.records] == ["tainted"]  # type: ignore[attr-defined]


def test_a_transaction_that_the_load_opened_is_ended(redis: Any, number: Connection) -> None:
    """No connection is left idle in transaction."""
    assert not postgres.transaction_open(number)
    cache(redis).read(number)
    assert not postgres.transaction_open(number)


def test_a_transaction_that_the_caller_had_open_is_left_alone(redis: Any, number: Connection) -> None:
    """Its work can still be committed."""
    with number.cursor() as cursor:
        cursor.execute("SELECT 1")
    cache(redis).read(number)
    assert postgres.transaction_open(number)
    set_number(number, 5)
    cache(redis).read(number, force=True)
    number.commit()
    assert postgres.fetch(number, "SELECT n FROM kcg_number") == [{"n": 5}]


def test_autocommit_is_shared_and_left_as_it_is(redis: Any, number: Connection) -> None:
    """Every statement has its own snapshot."""
    number.autocommit = True
    assert cache(redis).read(number).shared
    assert number.autocommit


def test_a_transaction_that_a_failing_load_opened_is_ended_too(redis: Any, pg: Connection) -> None:
    """The error is psycopg2's own, and the connection is usable after it."""
    with pytest.raises(psycopg2.errors.UndefinedTable):
        cache(redis).read(pg)
    assert not postgres.transaction_open(pg)
    assert postgres.fetch(pg, "SELECT 1 AS one") == [{"one": 1}]


def test_a_failed_transaction_of_the_callers_says_so_and_frees_the_lock(redis: Any, number: Connection) -> None:
    """As psycopg2 raises it."""
    with pytest.raises(psycopg2.Error), number.cursor() as cursor:
        cursor.execute("SELECT 1/0")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cache(redis).read(number)
    assert not redis.exists("{kcg:number}:lock")


class Wrapper:
    """What a pool or an ORM hands out: a connection behind another object."""

    def __init__(self, inner: Any) -> None:
        self._connection = inner

    def cursor(self) -> Any:
        """Give a cursor."""
        return self._connection.cursor()

    def rollback(self) -> None:
        """End the transaction."""
        self._connection.rollback()


class Opaque:
    """A wrapper that shows nothing of what it wraps."""

    def __init__(self, inner: Any) -> None:
        self.cursor = inner.cursor
        self.rollback = inner.rollback


def test_the_check_sees_through_a_wrapper(redis: Any, number: Connection) -> None:
    """Whatever wraps the connection (R13)."""
    wrapped = Wrapper(number)
    assert cache(redis).read(wrapped).shared
    assert not postgres.transaction_open(number)
    set_number(number, 99)
    assert not cache(redis).read(wrapped, force=True).shared


def test_behind_an_opaque_wrapper_writes_and_old_snapshots_are_still_seen(redis: Any, number: Connection) -> None:
    """Nothing is ended there, and what may be old is not shared."""
    opaque = Opaque(number)
    set_number(number, 99)
    assert not cache(redis).read(opaque).shared
    number.rollback()
    assert cache(redis).read(opaque).shared
    number.rollback()
    number.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ)
    assert not cache(redis).read(opaque, force=True).shared
    number.rollback()
    number.autocommit = True
    assert cache(redis).read(opaque, force=True).shared


@pytest.mark.parametrize(
    "factory", [psycopg2.extras.RealDictCursor, psycopg2.extras.DictCursor, psycopg2.extras.NamedTupleCursor]
)
def test_the_connections_own_row_type_does_not_matter(redis: Any, number: Connection, factory: Any) -> None:
    """Rows are read by column name."""
    number.cursor_factory = factory
    assert number_in(cache(redis).read(number)) == 1


def test_a_callable_lends_the_connection_and_gets_it_back(redis: Any, number: Connection) -> None:
    """Also when the load fails."""
    lent: list[str] = []

    @contextlib.contextmanager
    def pool() -> Iterator[Any]:
        lent.append("out")
        try:
            yield number
        finally:
            lent.append("back")

    assert cache(redis).read(pool).shared
    assert lent == ["out", "back"]
    broken = SharedCache(redis, Dataset("broken", lambda _conn: 1 / 0), Settings())  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        broken.read(pool)
    assert lent == ["out", "back"] * 2


@pytest.mark.parametrize("conn", [None, "dbname=x", lambda: 5])
def test_what_is_no_connection_is_refused_in_words(redis: Any, conn: Any) -> None:
    """A dataset whose source is PostgreSQL needs a connection."""
    with pytest.raises(ConfigurationError, match="context manager"):
        cache(redis).read(conn)
    with pytest.raises(ConfigurationError, match="context manager"):
        cache(redis, mode="bypass").read(conn)


def test_the_entry_names_the_database_that_it_came_from(redis: Any, number: Connection) -> None:
    """System identifier and name (R13)."""
    worker = cache(redis)
    worker.read(number)
    identifier, _, name = worker.inspect().entry["source"].partition("/")
    assert identifier.isdigit()
    assert name == number.info.dbname


def test_a_second_database_behind_one_namespace_is_noticed(
    redis: Any, number: Connection, postgres_server: Any
) -> None:
    """Two environments share it by mistake (R13)."""
    cache(redis).read(number)
    with contextlib.closing(psycopg2.connect(postgres_server.dsn_for("postgres"))) as other:
        with other.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE kcg_number AS SELECT 7 AS n")
        other.commit()
        worker = cache(redis)
        worker.read(other, force=True)
    assert worker.metrics["foreign_sources"] == 1


@pytest.fixture(scope="module")
def primary_and_standby() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """Give a server and a real streaming replica of it."""
    with start_postgres() as primary, start_replica(primary) as standby:
        yield primary, standby


def test_rows_of_a_standby_reach_nobody_else(
    redis: Any, primary_and_standby: tuple[EmbeddedPostgres, EmbeddedPostgres]
) -> None:
    """It may lag: here its replay is paused while the primary goes on."""
    primary, standby = primary_and_standby
    with (
        contextlib.closing(psycopg2.connect(primary.dsn)) as writer,
        contextlib.closing(psycopg2.connect(standby.dsn)) as reader,
    ):
        writer.autocommit = reader.autocommit = True
        with writer.cursor() as cursor:
            cursor.execute("CREATE TABLE kcg_number (n int); INSERT INTO kcg_number VALUES (1)")
        eventually(lambda: postgres.fetch(reader, "SELECT to_regclass('kcg_number') IS NOT NULL AS there")[0]["there"])
        eventually(lambda: postgres.fetch(reader, "SELECT n FROM kcg_number"))
        with reader.cursor() as cursor:
            cursor.execute("SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state() AS state"
        eventually(lambda: postgres.fetch(reader, paused)[0]["state"] == "paused")
        set_number(writer, 2)
        worker = cache(redis)
        snapshot = worker.read(reader)
        assert (number_in(snapshot), snapshot.shared) == (1, False)
        assert worker._near.copy is None
        assert number_in(worker.read(writer)) == 2
        assert number_in(cache(redis).read(reader)) == 2  # a hit: what the primary gave


def test_tainted_rows_are_handed_to_nobody(redis: Any, number: Any) -> None:
    """Also not to those that were queueing (R12, R13)."""
    set_number(number, 99)
    worker = cache(redis)
    worker.read(number)
    assert worker._handover is None


def test_autocommit_above_read_committed_is_shared_through_any_wrapper(redis: Any, number: Any) -> None:
    """The question was its transaction's first statement (R13)."""
    number.autocommit = True
    with number.cursor() as cursor:
        cursor.execute("SET default_transaction_isolation TO 'repeatable read'")
    assert cache(redis).read(Opaque(number)).shared


def test_the_lease_of_a_private_load_counts_from_before_the_taint_question(number: Any) -> None:
    """The transaction's first statement (R6)."""
    system = TickedSystem()

    class Slow:
        def __init__(self, inner: Any) -> None:
            self._connection = inner
            self.rollback = inner.rollback

        def cursor(self) -> Any:
            system.tick(0.3)
            return self._connection.cursor()

    worker = SharedCache("redis://127.0.0.1:1/0", NUMBER, Settings(), system=system)
    began = system.time
    worker.read(Slow(number))
    assert worker._near.copy is not None
    assert worker._near.copy.valid_until == pytest.approx(began + 1.0)


def test_a_reason_not_to_share_is_logged_once_and_counted_each_time(
    redis: Any, number: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that always reads inside transactions does not fill the log (R13)."""
    set_number(number, 99)
    worker = cache(redis)
    with caplog.at_level(logging.WARNING, "kcg_cache"):
        worker.read(number)
        worker.read(number)
        assert [(record.levelname, record.kcg_event) for record in caplog.records] == [("WARNING", "tainted")]  # type: ignore[attr-defined]
        assert caplog.records[0].kcg_details == {"reason": "uncommitted writes"}  # type: ignore[attr-defined]
        assert ": None" not in caplog.records[0].getMessage()
        worker._on_taint("another reason")
        assert len(caplog.records) == 2
    assert worker.metrics["tainted_reads"] == 3
    assert worker.metrics["reads_database"] == 2


def test_a_failing_load_leaves_the_callers_transaction_alone(redis: Any, number: Connection) -> None:
    """Its writes are the caller's to commit or to roll back (R13)."""

    def load(_conn: Any) -> list[dict[str, Any]]:
        raise LookupError("the loader's own error")

    set_number(number, 99)
    with pytest.raises(LookupError):
        SharedCache(redis, Dataset("number", load), Settings()).read(number)
    assert postgres.fetch(number, "SELECT n FROM kcg_number") == [{"n": 99}]
