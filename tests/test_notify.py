"""`sql/notify.sql` on a real PostgreSQL: who is told of a change, how often, and of which not."""

import io
import json
import secrets
import select
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors, sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

from kcg_cache import queries

pytestmark = pytest.mark.operators

CHANNEL = "kcg_changes"
TABLES = ("detection_models", "detection_model_versions", "detection_model_dependencies")
#: A statement of each kind for each table, in an order in which each can be run on the rows of `notified`.
STATEMENTS = {
    "detection_models": {
        "INSERT": "INSERT INTO kcg.detection_models (model_id, display_name) VALUES ('new', 'x'), ('newer', 'y')",
        "UPDATE": "UPDATE kcg.detection_models SET is_enabled = false",
        "DELETE": "DELETE FROM kcg.detection_models WHERE model_id = 'spare'",
        "TRUNCATE": "TRUNCATE kcg.detection_models CASCADE",
    },
    "detection_model_versions": {
        "INSERT": "INSERT INTO kcg.detection_model_versions (model_id, version, role) VALUES ('drift', '9', 'SHADOW')",
        "UPDATE": "UPDATE kcg.detection_model_versions SET status = 'ARCHIVED'",
        "DELETE": "DELETE FROM kcg.detection_model_versions",
        "TRUNCATE": "TRUNCATE kcg.detection_model_versions",
    },
    "detection_model_dependencies": {
        "INSERT": "INSERT INTO kcg.detection_model_dependencies VALUES ('drift', 'spare', 'x')",
        "UPDATE": "UPDATE kcg.detection_model_dependencies SET input_key = 'z'",
        "DELETE": "DELETE FROM kcg.detection_model_dependencies",
        "TRUNCATE": "TRUNCATE kcg.detection_model_dependencies",
    },
}
EVERY = [(table, kind) for table, kinds in STATEMENTS.items() for kind in kinds]


class Ear:
    """A session that listens, and tells what it heard up to now; the order of commits is that of the notifications."""

    def __init__(self, listener: Connection, marker: Connection) -> None:
        """Listen on `listener`; `marker` is another session, which says "up to here"."""
        self._listener, self._marker = listener, marker
        listener.autocommit = marker.autocommit = True
        run(listener, f"LISTEN {CHANNEL}")

    def payloads(self) -> list[str]:
        """Give what came since the last call."""
        end = secrets.token_hex(8)
        run(self._marker, "SELECT pg_notify(%s, %s)", CHANNEL, end)
        heard: list[str] = []
        while end not in heard:
            assert select.select([self._listener], [], [], 60)[0], "the notification did not come"
            self._listener.poll()
            heard += [note.payload for note in self._listener.notifies]
            self._listener.notifies.clear()
        assert heard[-1] == end
        return heard[:-1]

    def reasons(self) -> list[str]:
        """Give the reasons that came since the last call; each payload holds nothing else."""
        documents = [json.loads(payload) for payload in self.payloads()]
        assert all(list(document) == ["reason"] for document in documents)
        return [document["reason"] for document in documents]


def run(conn: Connection, statement: str | sql.Composable, *values: Any) -> None:
    with conn.cursor() as cursor:
        cursor.execute(statement, values or None)


def triggers(conn: Connection) -> list[tuple[str, str, str]]:
    """Give every trigger of ours, with its table and whether it is enabled (A: always)."""
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT tgname::text, tgrelid::regclass::text, tgenabled::text FROM pg_trigger"
            " WHERE NOT tgisinternal ORDER BY 2"
        )
        return cursor.fetchall()


INSTALLED = [("kcg_notify_changed", f"kcg.{table}", "A") for table in sorted(TABLES)]


@pytest.fixture
def notified(pg: Connection) -> Connection:
    """Give a connection to a database with two models, a version and an edge, and with the triggers."""
    run(pg, "INSERT INTO kcg.detection_models VALUES ('drift', 'x'), ('other', 'x'), ('spare', 'x')")
    run(pg, "INSERT INTO kcg.detection_model_versions (model_id, version, role) VALUES ('drift', '1', 'PRIMARY')")
    run(pg, "INSERT INTO kcg.detection_model_dependencies VALUES ('drift', 'other', 'x')")
    run(pg, queries.load("notify"))
    pg.commit()
    return pg


@pytest.fixture
def ear(notified: Connection, pg_connect: Callable[[], Connection]) -> Ear:
    """Listen to that database, from now on."""
    assert notified.status == psycopg2.extensions.STATUS_READY
    return Ear(pg_connect(), pg_connect())


def allow(conn: Connection, rights: str, role: str) -> None:
    """Grant `rights` to a role, and become that role."""
    run(conn, sql.SQL("GRANT {} TO {}").format(sql.SQL(rights), sql.Identifier(role)))
    run(conn, sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize(("table", "kind"), EVERY)
@pytest.mark.parametrize("role", ["origin", "replica", "local"])
def test_each_kind_of_statement_tells_once_when_it_is_committed(
    notified: Connection, ear: Ear, table: str, kind: str, role: str
) -> None:
    """However many rows it changes, under every session_replication_role; not before the commit."""
    run(notified, f"SET session_replication_role = {role}")
    run(notified, STATEMENTS[table][kind])
    assert ear.reasons() == []
    notified.commit()
    expected = [f"{kind} kcg.{table}"]
    if (table, kind) == ("detection_models", "TRUNCATE"):  # and all that refers to it, by CASCADE
        expected = [f"TRUNCATE kcg.{each}" for each in sorted(TABLES)]
    assert sorted(ear.reasons()) == expected


@pytest.mark.parametrize(("table", "kind"), EVERY)
def test_nothing_is_told_of_what_was_rolled_back(notified: Connection, ear: Ear, table: str, kind: str) -> None:
    """Neither of a transaction, nor of a savepoint in one that commits."""
    run(notified, STATEMENTS[table][kind])
    notified.rollback()
    run(notified, "SAVEPOINT a")
    run(notified, STATEMENTS[table][kind])
    run(notified, "ROLLBACK TO SAVEPOINT a")
    run(notified, "SELECT kcg.notify_change('kept')")
    notified.commit()
    assert ear.reasons() == ["kept"]


def test_copy_tells_once(notified: Connection, ear: Ear) -> None:
    """A bulk load is one statement."""
    with notified.cursor() as cursor:
        lines = io.StringIO("".join(f"drift\tother\tkey{n}\n" for n in range(100)))
        cursor.copy_expert("COPY kcg.detection_model_dependencies FROM STDIN", lines)
    notified.commit()
    assert ear.reasons() == ["INSERT kcg.detection_model_dependencies"]


def test_an_upsert_tells_of_both_that_it_may_have_been(notified: Connection, ear: Ear) -> None:
    """PostgreSQL fires the statement triggers of INSERT and of UPDATE, whichever it came to."""
    run(
        notified,
        "INSERT INTO kcg.detection_models VALUES ('drift', 'y')"
        " ON CONFLICT (model_id) DO UPDATE SET display_name = excluded.display_name",
    )
    notified.commit()
    assert sorted(ear.reasons()) == ["INSERT kcg.detection_models", "UPDATE kcg.detection_models"]


def test_one_transaction_tells_the_same_once(notified: Connection, ear: Ear) -> None:
    """A migration of a thousand statements is no thousand notifications; two transactions are two."""
    for _ in range(2):
        for status in ("TESTING", "ACTIVE", "ARCHIVED"):
            run(notified, "UPDATE kcg.detection_model_versions SET status = %s", status)
        notified.commit()
    assert ear.reasons() == ["UPDATE kcg.detection_model_versions"] * 2


def test_another_table_tells_nothing(notified: Connection, ear: Ear) -> None:
    """The parameter sets of the track correlation are no part of it."""
    run(notified, "INSERT INTO kcg.correlation_param_models (name, display_name, params) VALUES ('a', 'b', '{}')")
    notified.commit()
    assert ear.reasons() == []


# The function that a service calls itself.


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("drift v3: 승격", "drift v3: 승격"),
        (None, ""),
        ("", ""),
        ('a "quoted"\n\\line\x1b[31m', 'a "quoted"\n\\line\x1b[31m'),
        ("가" * 5000, "가" * 1000),
        ("\U0001f6a2" * 5000, "\U0001f6a2" * 1000),
        ("\x01" * 5000, "\x01" * 1000),
        ('"' * 5000, '"' * 1000),
        ("x" * 1_000_000, "x" * 1000),
    ],
    ids=[
        "korean",
        "null",
        "empty",
        "controls",
        "long korean",
        "long emoji",
        "long controls",
        "long quotes",
        "a megabyte",
    ],
)
def test_a_reason_arrives_whole_or_cut_and_never_fails(
    notified: Connection, ear: Ear, reason: str | None, told: str
) -> None:
    """PostgreSQL fails from 8000 bytes on; the transaction that makes the change must not."""
    run(notified, "SELECT kcg.notify_change(%s)", reason)
    assert ear.payloads() == []
    notified.commit()
    (payload,) = ear.payloads()
    assert json.loads(payload) == {"reason": told}
    assert len(payload.encode()) < 8000


def test_the_longest_reason_that_is_kept_is_within_the_bound(notified: Connection, ear: Ear) -> None:
    """A thousand of the characters that JSON writes longest."""
    run(notified, "SELECT kcg.notify_change(%s)", "\x01" * 1000)
    notified.commit()
    (payload,) = ear.payloads()
    assert len(payload) == 6 * 1000 + len('{"reason" : ""}')


def test_whoever_may_use_the_schema_may_call_the_function(notified: Connection, ear: Ear, pg_role: str) -> None:
    """It takes no rights to any table."""
    allow(notified, "USAGE ON SCHEMA kcg", pg_role)
    run(notified, "SELECT kcg.notify_change('mine')")
    notified.commit()
    assert ear.reasons() == ["mine"]


# Rights and search paths.


def test_a_role_that_may_only_insert_tells_too(notified: Connection, ear: Ear, pg_role: str) -> None:
    """And its write does not fail for want of rights to our functions."""
    run(notified, "REVOKE EXECUTE ON FUNCTION kcg.notify_change(text), kcg.notify_changed() FROM PUBLIC")
    run(notified, "REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    run(notified, sql.SQL("GRANT USAGE ON SCHEMA kcg TO {}").format(sql.Identifier(pg_role)))
    allow(notified, "INSERT ON kcg.detection_models", pg_role)
    run(notified, STATEMENTS["detection_models"]["INSERT"])
    notified.commit()
    assert ear.reasons() == ["INSERT kcg.detection_models"]


def test_a_role_that_writes_through_a_view_tells_too(notified: Connection, ear: Ear, pg_role: str) -> None:
    """It has no rights in the schema at all."""
    run(notified, "CREATE VIEW public.models AS SELECT * FROM kcg.detection_models")
    allow(notified, "UPDATE, SELECT ON public.models", pg_role)
    run(notified, "UPDATE public.models SET is_enabled = false")
    notified.commit()
    assert ear.reasons() == ["UPDATE kcg.detection_models"]


def test_the_functions_ask_postgresql_and_not_the_search_path(notified: Connection, ear: Ear) -> None:
    """Functions and operators of the caller's, which the trigger would run as its owner, are not called."""
    run(notified, "CREATE SCHEMA shadow")
    for signature, kind in (
        ("pg_notify(text, text)", "void"),
        ("json_build_object(text, text)", "json"),
        ('"left"(text, int)', "text"),
        ("joined(text, text)", "text"),
    ):
        run(
            notified,
            f"CREATE FUNCTION shadow.{signature} RETURNS {kind} LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$",
        )
    run(notified, "CREATE OPERATOR shadow.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = shadow.joined)")
    run(notified, "SET search_path = shadow, pg_catalog")
    run(notified, "UPDATE kcg.detection_models SET is_enabled = false")
    run(notified, "SELECT kcg.notify_change('mine')")
    notified.commit()
    assert ear.reasons() == ["UPDATE kcg.detection_models", "mine"]


def test_the_functions_fix_their_search_path_and_only_the_trigger_runs_as_its_owner(notified: Connection) -> None:
    """As the catalog has it: a change of either is a change of what is safe."""
    with notified.cursor() as cursor:
        cursor.execute(
            "SELECT proname::text, prosecdef, proconfig FROM pg_proc"
            " WHERE pronamespace = 'kcg'::regnamespace ORDER BY 1"
        )
        assert cursor.fetchall() == [
            ("notify_change", False, ["search_path=pg_catalog, pg_temp"]),
            ("notify_changed", True, ["search_path=pg_catalog, pg_temp"]),
        ]


def test_nobody_can_call_the_trigger_function(notified: Connection) -> None:
    """It runs as its owner, as a trigger and not otherwise."""
    with pytest.raises(errors.FeatureNotSupported):
        run(notified, "SELECT kcg.notify_changed()")


# Installing, again, and taking away.


def test_the_role_that_owns_the_tables_installs_and_removes(pg: Connection, pg_role: str) -> None:
    """No superuser is needed, neither the first time nor the second."""
    run(pg, "DROP SCHEMA kcg CASCADE")
    allow(pg, sql.SQL("CREATE ON DATABASE {}").format(sql.Identifier(pg.info.dbname)).as_string(pg), pg_role)
    run(pg, queries.load("schema"))
    for _ in range(2):
        run(pg, queries.load("notify"))
    assert triggers(pg) == INSTALLED
    for _ in range(2):
        run(pg, queries.load("notify_remove"))
    assert triggers(pg) == []


def test_a_second_run_changes_nothing_and_tells_once_as_before(notified: Connection, ear: Ear) -> None:
    """No trigger is there twice, and running it is no change of a row."""
    run(notified, queries.load("notify"))
    notified.commit()
    assert (triggers(notified), ear.reasons()) == (INSTALLED, [])
    run(notified, STATEMENTS["detection_models"]["UPDATE"])
    notified.commit()
    assert ear.reasons() == ["UPDATE kcg.detection_models"]


@pytest.mark.parametrize(
    "state", ["DISABLE TRIGGER ALL", "ENABLE TRIGGER ALL", "ENABLE REPLICA TRIGGER kcg_notify_changed"]
)
def test_a_second_run_enables_what_somebody_disabled(notified: Connection, state: str) -> None:
    """Also what pg_restore --disable-triggers left enabled for ordinary sessions only."""
    for table in TABLES:
        run(notified, f"ALTER TABLE kcg.{table} {state}")
    assert {enabled for *_, enabled in triggers(notified)} != {"A"}
    run(notified, queries.load("notify"))
    assert triggers(notified) == INSTALLED


def test_removal_takes_everything_and_touches_no_row(notified: Connection, ear: Ear) -> None:
    """Afterwards a change tells nothing, and neither function is there."""
    for _ in range(2):
        run(notified, queries.load("notify_remove"))
    run(notified, STATEMENTS["detection_models"]["UPDATE"])
    notified.commit()
    assert (triggers(notified), ear.reasons()) == ([], [])
    with pytest.raises(errors.UndefinedFunction):
        run(notified, "SELECT kcg.notify_change('x')")
    notified.rollback()
    with notified.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM kcg.detection_models")
        assert cursor.fetchall() == [(3,)]


def test_a_transaction_of_somebody_else_holds_it_up_no_longer_than_asked(
    notified: Connection, pg_connect: Callable[[], Connection]
) -> None:
    """With the lock_timeout of its header it gives up whole, and the triggers stay as they are."""
    run(notified, "SELECT 1 FROM kcg.detection_model_dependencies")
    other = pg_connect()
    run(other, "SET lock_timeout = '50ms'")
    other.commit()
    for name in ("notify", "notify_remove"):
        with pytest.raises(errors.LockNotAvailable):
            run(other, queries.load(name))
        other.rollback()
    assert triggers(notified) == INSTALLED
