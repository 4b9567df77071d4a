"""Whatever comes from PostgreSQL, end to end on real servers: the same rows cold and warm, or the driver's own error.

An error reaches the caller as psycopg2 raised it, the fill lock is free at once, and nothing old or half is shared:
whoever reads next, once the database is mended, fills.

What is shown elsewhere and not again here:

==========================================  ==============================================================
integers of 23 digits, 1e400, -0.0, NULL,   test_contract.py, test_extreme_values_are_the_same_too_…
600 and 4000 levels, params that are no
object, 2 MB of params
any JSONB value                             test_contract.py, test_cold_warm_and_plain_rows_are_the_same_…
params that a custom loader gives           test_contract.py, test_params_of_a_custom_loader_may_be_…
an empty result of a loader                 test_cache.py, test_an_empty_result_is_cached_like_any_other
old snapshots, uncommitted writes,          test_postgres.py
standbys, wrappers, pools
a loader's own error with stale rows        test_cache.py, test_stale_rows_are_served_when_the_load_fails_…
==========================================  ==============================================================
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

import kcg_cache
from kcg_cache import ACTIVE_VERSIONS, DatasetError, Settings, SharedCache, api, codec, postgres
from kcg_cache.keys import Keys
from tests.waiting import eventually

pytestmark = pytest.mark.once

VERSIONS = "kcg.detection_model_versions"
MEGABYTE = 1_000_000


@dataclass
class Fleet:
    """Workers that share one namespace of a real Valkey and one real database."""

    url: str
    namespace: str
    client: Any
    owner: Connection
    connect: Callable[[], Connection]
    made: list[SharedCache] = field(default_factory=list)

    def worker(self, **settings: Any) -> SharedCache:
        """Make one more "process"."""
        chosen = Settings(namespace=self.namespace, **settings)
        self.made.append(SharedCache(self.url, ACTIVE_VERSIONS, chosen))
        return self.made[-1]

    def run(self, sql: str, *values: Any) -> None:
        """Change the database, and commit."""
        with self.owner, self.owner.cursor() as cursor:
            cursor.execute(sql, values or None)

    def add(self, params: str | None) -> None:
        """Add one ACTIVE version with these params, as JSON text."""
        self.run(
            f"INSERT INTO {VERSIONS} (model_id, version, role, status, params)"
            f" SELECT 'm', count(*)::text, 'SHADOW', 'ACTIVE', %s::jsonb FROM {VERSIONS}",
            params,
        )

    def locked(self) -> bool:
        """Tell whether someone holds the fill lock."""
        return bool(self.client.exists(Keys.of(self.namespace, ACTIVE_VERSIONS.name).lock))

    def shared(self) -> list[Any] | None:
        """Give the params that a stranger is given without a load; None when it would have to load."""

        def refuse() -> Any:
            raise LookupError

        with contextlib.suppress(LookupError):
            return [row["params"] for row in self.worker().read(refuse).rows]
        return None


@pytest.fixture
def fleet(
    redis_url: str, client: Any, namespace: str, pg: Connection, pg_connect: Callable[[], Connection]
) -> Iterator[Fleet]:
    """Give workers with one model and one version, ``{"n": 1}``."""
    fleet = Fleet(redis_url, namespace, client, pg, pg_connect)
    fleet.run("INSERT INTO kcg.detection_models (model_id, display_name) VALUES ('m', 'm')")
    fleet.add('{"n": 1}')
    yield fleet
    for cache in fleet.made:
        cache.close()


# --- values ---------------------------------------------------------------------------------------------------------


def test_ten_megabytes_of_params_are_shared(fleet: Fleet) -> None:
    """One row of them; cold, warm and near rows are the same."""
    text = "가나다라" * (10 * MEGABYTE // 12)
    fleet.run(f"UPDATE {VERSIONS} SET params = jsonb_build_object('text', %s)", text)
    cold = fleet.worker().read(fleet.connect())
    assert cold.shared
    assert cold.rows[0]["params"] == {"text": text}
    reader = fleet.worker()
    warm = reader.read(None)
    assert (warm.source, warm.rows) == ("redis", cold.rows)
    assert reader.read(None).rows is warm.rows


def test_params_over_max_payload_are_given_and_shared_with_nobody(fleet: Fleet) -> None:
    """Counted, logged, and the lock is free: the next one loads for itself too (R14)."""
    fleet.run(f"UPDATE {VERSIONS} SET params = jsonb_build_object('text', repeat('x', 2000000))")
    for _ in range(2):
        worker = fleet.worker(max_payload=MEGABYTE)
        snapshot = worker.read(fleet.connect())
        assert (len(snapshot.rows[0]["params"]["text"]), snapshot.shared) == (2_000_000, False)
        assert worker.metrics["fills_oversized"] == 1
        assert not fleet.locked()
    assert fleet.shared() is None


@pytest.mark.parametrize("change", [f"DELETE FROM {VERSIONS}", "UPDATE kcg.detection_models SET is_enabled = false"])
def test_an_empty_result_set_is_a_valid_and_cached_empty_list(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Not a failure, and no reason to load again; the next version is seen after its invalidate."""
    fleet.run(change)
    monkeypatch.setattr(api, "_default", None)
    cache = kcg_cache.configure(fleet.url, namespace=fleet.namespace)
    assert kcg_cache.load_active_versions(fleet.connect()) == []
    assert kcg_cache.load_active_versions(None) == []
    assert fleet.shared() == []
    assert cache.metrics["loads"] == 1
    fleet.run("UPDATE kcg.detection_models SET is_enabled = true")
    fleet.add('{"n": 2}')
    kcg_cache.invalidate_cache()
    assert {"n": 2} in [row["params"] for row in kcg_cache.load_active_versions(fleet.connect())]
    cache.close()


@pytest.mark.parametrize(
    "params",
    [
        '{"n": 12345678901234567890123, "m": -12345678901234567890123}',
        '{"n": 1e308, "m": 1e309}',
        '{"n": 1e400}',
        '{"n": -0.0, "m": 0.0, "k": -0}',
        '{"n": 1.0, "m": 1, "k": 1.10}',
        '{"n": 0.1e-400}',
        '{"deep": ' + "[" * 940 + "]" * 940 + "}",
        '{"deep": ' + '{"a":' * 900 + "1" + "}" * 901,
        '{"a": 1, "a": 2}',
        '{"": {"": ""}, "\\u007f\\u2028": "\\ud83d\\udea2"}',
    ],
    ids=lambda params: params[:30],
)
def test_what_jsonb_holds_is_the_same_cold_and_warm(fleet: Fleet, params: str) -> None:
    """To the sign and the digit, as psycopg2 and json read it; over a real Redis, in every format."""
    fleet.add(params)
    fleet.add('{"next": true}')
    cold, warm = fleet.worker().read(fleet.connect()), fleet.worker().read(None)
    assert (cold.source, warm.source) == ("database", "redis")
    plain = postgres.fetch(fleet.connect(), f"SELECT params FROM {VERSIONS} ORDER BY id")
    told = [_params_told(rows) for rows in (plain, cold.rows, warm.rows)]
    assert told[0] == told[1] == told[2]


def _params_told(rows: Any) -> str:
    """Give what tells params from all others; on a stack of its own, which is deep enough."""
    return str(codec.on_own_stack(lambda: repr([row["params"] for row in rows])))


def test_params_that_python_cannot_hold_cost_no_other_row(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """{} with one line each that names the row, for the loader and for whoever shares."""
    for params in (
        '{"n": ' + "[" * 950 + "]" * 950 + "}",
        '{"n": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"n": 1e5000}',
        "[1]",
        '{"n": 2}',
    ):
        fleet.add(params)
    worker = fleet.worker()
    with caplog.at_level(logging.WARNING, "kcg_cache"):
        cold = worker.read(fleet.connect())
    assert [row["params"] for row in cold.rows] == [{"n": 1}, {}, {}, {}, {}, {"n": 2}]
    assert fleet.shared() == [{"n": 1}, {}, {}, {}, {}, {"n": 2}]
    assert worker.metrics["bad_params"] == 4
    bad = [row["id"] for row in cold.rows[1:5]]
    assert [f"id={number}" in record.getMessage() for number, record in zip(bad, caplog.records, strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("text", '{"n": 3}', {"n": 3}),
        ("text", "no JSON", {}),
        ("text", '{"n": NaN}', {}),
        ("json", '{"n": 1, "n": 3}', {"n": 3}),
        ("json", '{"n": 1e99999}', {}),
        ("bytea", "\\x7b7d", {}),
        ("integer", "5", {}),
    ],
)
def test_params_of_another_type_are_read_as_far_as_they_are_an_object(
    fleet: Fleet, kind: str, value: str, read: dict[str, Any]
) -> None:
    """Someone's table may have a column of text."""
    fleet.run(f"ALTER TABLE {VERSIONS} DROP COLUMN params; ALTER TABLE {VERSIONS} ADD COLUMN params {kind}")
    fleet.run(f"UPDATE {VERSIONS} SET params = %s", value)
    cold, warm = fleet.worker().read(fleet.connect()), fleet.worker().read(None)
    assert cold.rows[0]["params"] == warm.rows[0]["params"] == read
    assert warm.source == "redis"


def test_a_column_whose_type_json_does_not_have_says_so_and_frees_the_lock(fleet: Fleet) -> None:
    """With the row and the column in the message; nothing is shared."""
    fleet.run(f"ALTER TABLE {VERSIONS} ALTER COLUMN version TYPE numeric USING 1.5")
    with pytest.raises(DatasetError, match=r"row 0\['version'\] is Decimal"):
        fleet.worker().read(fleet.connect())
    assert not fleet.locked()
    assert fleet.shared() is None


# --- errors between two reads ---------------------------------------------------------------------------------------

ROLE = "{role}"  # stands for a role with no rights of its own


@dataclass(frozen=True)
class Trouble:
    """How the database fails, what psycopg2 says then, and how it is mended."""

    error: type[Exception]
    #: Statements of the owner, before and after.
    breaks: str = ""
    mends: str = ""
    #: A statement on the reader's own connection, committed, before it reads.
    reader: str = ""
    encoding: str = "UTF8"


TROUBLES = {
    "the table is gone": Trouble(
        errors.UndefinedTable,
        f"ALTER TABLE {VERSIONS} RENAME TO away",
        "ALTER TABLE kcg.away RENAME TO detection_model_versions",
    ),
    "the table was dropped": Trouble(
        errors.UndefinedTable,
        f"CREATE TABLE kcg.kept AS TABLE {VERSIONS}; DROP TABLE {VERSIONS}",
        "ALTER TABLE kcg.kept RENAME TO detection_model_versions",
    ),
    "the schema is gone": Trouble(
        errors.UndefinedTable, "ALTER SCHEMA kcg RENAME TO away", "ALTER SCHEMA away RENAME TO kcg"
    ),
    "a column was renamed": Trouble(
        errors.UndefinedColumn,
        f"ALTER TABLE {VERSIONS} RENAME params TO away",
        f"ALTER TABLE {VERSIONS} RENAME away TO params",
    ),
    "a column is of another type": Trouble(
        errors.DatatypeMismatch,
        "ALTER TABLE kcg.detection_models RENAME is_enabled TO away;"
        " ALTER TABLE kcg.detection_models ADD is_enabled int",
        "ALTER TABLE kcg.detection_models DROP is_enabled; ALTER TABLE kcg.detection_models RENAME away TO is_enabled",
    ),
    "a view whose rows fail": Trouble(
        errors.DivisionByZero,
        f"ALTER TABLE {VERSIONS} RENAME TO away; CREATE VIEW {VERSIONS} AS"
        " SELECT id, model_id, version, role, status, to_jsonb(1 / (id - id)) AS params FROM kcg.away",
        f"DROP VIEW {VERSIONS}; ALTER TABLE kcg.away RENAME TO detection_model_versions",
    ),
    "the right to a table was revoked": Trouble(
        errors.InsufficientPrivilege,
        f"REVOKE SELECT ON {VERSIONS} FROM {ROLE}",
        f"GRANT SELECT ON {VERSIONS} TO {ROLE}",
        f"SET ROLE {ROLE}",
    ),
    "the right to the schema was revoked": Trouble(
        errors.InsufficientPrivilege,
        f"REVOKE USAGE ON SCHEMA kcg FROM {ROLE}",
        f"GRANT USAGE ON SCHEMA kcg TO {ROLE}",
        f"SET ROLE {ROLE}",
    ),
    "the right to a column was revoked": Trouble(
        errors.InsufficientPrivilege,
        f"REVOKE SELECT ON {VERSIONS} FROM {ROLE};"
        f" GRANT SELECT (id, model_id, version, role, status) ON {VERSIONS} TO {ROLE}",
        f"GRANT SELECT ON {VERSIONS} TO {ROLE}",
        f"SET ROLE {ROLE}",
    ),
    "row security without a policy's function": Trouble(
        errors.UndefinedObject,
        f"ALTER TABLE {VERSIONS} ENABLE ROW LEVEL SECURITY;"
        f" CREATE POLICY p ON {VERSIONS} USING (current_setting('kcg.tenant') = 'a')",
        f"DROP POLICY p ON {VERSIONS}; ALTER TABLE {VERSIONS} DISABLE ROW LEVEL SECURITY",
        f"SET ROLE {ROLE}",
    ),
    "characters that the client's encoding has not": Trouble(
        errors.UntranslatableCharacter,
        f"""UPDATE {VERSIONS} SET params = '{{"n": "가"}}'""",
        f"""UPDATE {VERSIONS} SET params = '{{"n": 2}}'""",
        encoding="LATIN1",
    ),
    "bytes that are no characters to the driver": Trouble(
        UnicodeDecodeError,
        f"""UPDATE {VERSIONS} SET params = '{{"n": "가"}}'""",
        f"""UPDATE {VERSIONS} SET params = '{{"n": 2}}'""",
        encoding="SQL_ASCII",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_an_error_of_the_database_reaches_its_caller_and_the_next_one_after_the_repair_fills(
    fleet: Fleet, pg_role: str, name: str
) -> None:
    """As psycopg2 raised it; the lock is free at once, and nothing old or half is shared."""
    trouble = TROUBLES[name]
    fleet.run(f"GRANT USAGE ON SCHEMA kcg TO {pg_role}; GRANT SELECT ON ALL TABLES IN SCHEMA kcg TO {pg_role}")
    conn = fleet.connect()
    conn.set_client_encoding(trouble.encoding)
    if trouble.reader:
        with conn, conn.cursor() as cursor:
            cursor.execute(trouble.reader.format(role=pg_role))
    assert fleet.worker().read(conn).shared
    fleet.run(f"""UPDATE {VERSIONS} SET params = '{{"n": 2}}'""")
    fleet.run(trouble.breaks.replace(ROLE, pg_role))

    # Whoever needs no database does not notice, and a forced read that fails withdraws nothing.
    with pytest.raises(trouble.error):
        fleet.worker().read(conn, force=True)
    assert not fleet.locked()
    assert fleet.shared() == [{"n": 1}]

    operator, reader = fleet.worker(), fleet.worker()
    operator.invalidate(wait=False)
    for _ in range(2):
        with pytest.raises(trouble.error) as raised:
            reader.read(conn)
        assert type(raised.value) is trouble.error
        assert not fleet.locked()
        assert fleet.shared() is None
        assert not postgres.transaction_open(conn)
    assert reader.metrics["load_errors"] == 2

    fleet.run(trouble.mends.replace(ROLE, pg_role))
    assert [row["params"] for row in fleet.worker().read(conn).rows] == [{"n": 2}]
    assert fleet.shared() == [{"n": 2}]
    assert [row["params"] for row in reader.read(None).rows] == [{"n": 2}]


def test_a_failed_transaction_of_the_caller_shares_nothing_and_is_left_to_it(fleet: Fleet) -> None:
    """It has to end it; the next read on the same connection then fills."""
    conn = fleet.connect()
    with pytest.raises(psycopg2.Error), conn.cursor() as cursor:
        cursor.execute("SELECT 1/0")
    for options in ({}, {"force": True}):
        with pytest.raises(errors.InFailedSqlTransaction):
            fleet.worker().read(conn, **options)
        assert not fleet.locked()
        assert fleet.shared() is None
    assert postgres.transaction_open(conn)
    conn.rollback()
    assert fleet.worker().read(conn).shared
    assert fleet.shared() == [{"n": 1}]


def closed(conn: Connection, fleet: Fleet) -> None:
    conn.close()


def killed(conn: Connection, fleet: Fleet) -> None:
    fleet.run("SELECT pg_terminate_backend(%s, 5000)", conn.info.backend_pid)


@pytest.mark.parametrize(
    ("end", "error"),
    [(closed, psycopg2.InterfaceError), (killed, psycopg2.OperationalError)],
    ids=["closed here", "ended by the server"],
)
def test_a_connection_that_is_gone_is_its_callers_error_and_nobody_elses(
    fleet: Fleet, end: Callable[[Connection, Fleet], None], error: type[Exception]
) -> None:
    """The driver's own words; with another connection the same process fills at once."""
    worker, conn = fleet.worker(), fleet.connect()
    end(conn, fleet)
    with pytest.raises(error):
        worker.read(conn)
    assert conn.closed
    assert not fleet.locked()
    assert fleet.shared() is None
    with pytest.raises(psycopg2.InterfaceError):
        worker.read(conn, force=True)
    assert worker.read(fleet.connect()).shared
    # A hit needs no connection that works.
    assert worker.read(conn).source == "near"
    assert fleet.worker().read(conn).source == "redis"


# --- errors in the middle of a load ---------------------------------------------------------------------------------


def ended_by(function: str) -> Callable[[Fleet, Connection], None]:
    def end(fleet: Fleet, conn: Connection) -> None:
        fleet.run(f"SELECT {function}(%s)", conn.info.backend_pid)

    return end


def by_itself(_fleet: Fleet, _conn: Connection) -> None:
    """Wait for the timeout that the connection has set."""


def waits_for_the_table(fleet: Fleet, conn: Connection) -> bool:
    sql = f"SELECT 1 AS one FROM pg_locks WHERE NOT granted AND pid = {conn.info.backend_pid}"
    found = postgres.fetch(fleet.owner, sql)
    fleet.owner.rollback()
    return bool(found)


@contextlib.contextmanager
def table_locked(fleet: Fleet) -> Iterator[None]:
    """Let every load wait in the middle of it, between the question of R13 and its rows."""
    blocker = fleet.connect()
    with blocker.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {VERSIONS}")
    try:
        yield
    finally:
        blocker.rollback()


@pytest.mark.parametrize(
    ("setting", "end", "error"),
    [
        ("", ended_by("pg_terminate_backend"), psycopg2.OperationalError),
        ("", ended_by("pg_cancel_backend"), errors.QueryCanceled),
        ("SET statement_timeout = '1s'", by_itself, errors.QueryCanceled),
        ("SET lock_timeout = '1s'", by_itself, errors.LockNotAvailable),
    ],
    ids=["pg_terminate_backend", "pg_cancel_backend", "statement_timeout", "lock_timeout"],
)
@pytest.mark.parametrize("autocommit", [False, True], ids=["transaction", "autocommit"])
def test_a_load_that_is_ended_in_the_middle_frees_its_waiters_at_once(
    fleet: Fleet, setting: str, end: Callable[[Fleet, Connection], None], error: type[Exception], *, autocommit: bool
) -> None:
    """Its own caller gets the driver's error; the one that waited for its rows loads, and those are shared."""
    first, second, conn, other = fleet.worker(), fleet.worker(), fleet.connect(), fleet.connect()
    with conn, conn.cursor() as cursor:
        cursor.execute(setting or "SELECT 1")
    conn.autocommit = autocommit
    with ThreadPoolExecutor(2) as pool:
        with table_locked(fleet):
            failing: Future[Any] = pool.submit(first.read, conn)
            eventually(lambda: waits_for_the_table(fleet, conn))
            waiting: Future[Any] = pool.submit(second.read, other)
            # Or loads already, where a timeout has been the faster one.
            eventually(lambda: second.metrics["waits"] or waits_for_the_table(fleet, other))
            end(fleet, conn)
            with pytest.raises(error):
                failing.result(timeout=30)
            # Not when the first one's lock has expired: it was released, and the stream says why.
            eventually(lambda: waits_for_the_table(fleet, other))
            assert second.inspect().events[0]["reason"] == "failed"
        assert waiting.result(timeout=30).shared
    assert (first.metrics["load_errors"], second.metrics["loads"]) == (1, 1)
    assert second.metrics["wait_timeouts"] == 0
    assert fleet.shared() == [{"n": 1}]
    assert not fleet.locked()
    # The connection is as its caller would have it after the same error of its own.
    assert bool(conn.closed) == (error is psycopg2.OperationalError)
    assert conn.closed or not postgres.transaction_open(conn)


def test_a_table_that_is_dropped_under_a_waiting_load_is_an_error_and_no_rows(fleet: Fleet) -> None:
    """The load had begun before."""
    worker, conn, dropper = fleet.worker(), fleet.connect(), fleet.connect()
    with ThreadPoolExecutor(1) as pool:
        with dropper.cursor() as cursor:
            cursor.execute(f"CREATE TABLE kcg.kept AS TABLE {VERSIONS}; DROP TABLE {VERSIONS}")
        loading = pool.submit(worker.read, conn)
        eventually(lambda: waits_for_the_table(fleet, conn))
        dropper.commit()
        with pytest.raises(errors.UndefinedTable):
            loading.result(timeout=30)
    assert not fleet.locked()
    assert fleet.shared() is None
    fleet.run("ALTER TABLE kcg.kept RENAME TO detection_model_versions")
    assert worker.read(conn).shared
