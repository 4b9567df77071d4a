"""What an operator changes, on a real PostgreSQL: which rows become what, and what is refused."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

from kcg_cache import queries
from kcg_cache.changes import Archive, Promote, Switch, Wish, carry_out, is_so
from kcg_cache.errors import ChangeRefused
from tests.waiting import eventually

pytestmark = pytest.mark.operators


@pytest.fixture
def conn(pg: Connection) -> Connection:
    """Give a connection to the sample data."""
    with pg.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    pg.commit()
    return pg


def versions(conn: Connection, model: str) -> dict[str, tuple[str, str]]:
    """Give each version's status and role."""
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT version, status, role FROM kcg.detection_model_versions WHERE model_id = %s ORDER BY id", (model,)
        )
        return {version: (status, role) for version, status, role in cursor.fetchall()}


def refused(conn: Connection, wish: Wish) -> str:
    """Give why a wish is refused; nothing is changed."""
    with pytest.raises(ChangeRefused) as caught:
        carry_out(conn, wish)
    conn.rollback()
    return str(caught.value)


def test_a_new_primary_archives_the_one_before_it(conn: Connection) -> None:
    """In one transaction, and the difference is what workers read."""
    done = carry_out(conn, Promote("dark-vessel", "3.3.0", "PRIMARY"))
    assert done.steps == ("3.2.0: ACTIVE PRIMARY → ARCHIVED PRIMARY", "3.3.0: ACTIVE CHALLENGER → ACTIVE PRIMARY")
    found = versions(conn, "dark-vessel")
    assert found["3.2.0"] == ("ARCHIVED", "PRIMARY")
    assert found["3.3.0"] == ("ACTIVE", "PRIMARY")
    told = [(change.kind, change.label, [field.path for field in change.fields]) for change in done.changes]
    assert told == [("removed", "dark-vessel 3.2.0", []), ("changed", "dark-vessel 3.3.0", ["role"])]


def test_the_primary_before_may_be_kept_in_another_role(conn: Connection) -> None:
    """The index of one ACTIVE PRIMARY holds at every moment."""
    carry_out(conn, Promote("dark-vessel", "3.3.0", "PRIMARY", demote_to="SHADOW"))
    found = versions(conn, "dark-vessel")
    assert found["3.2.0"] == ("ACTIVE", "SHADOW")
    assert found["3.3.0"] == ("ACTIVE", "PRIMARY")


def test_a_draft_becomes_active_in_its_role_and_is_dated(conn: Connection) -> None:
    """As a CHALLENGER it replaces nobody; updated_at is set by whoever changes."""
    with conn.cursor() as cursor:
        cursor.execute("UPDATE kcg.detection_model_versions SET updated_at = 'epoch'")
    conn.commit()
    carry_out(conn, Promote("gear-conflict", "1.3.0-draft", "CHALLENGER"))
    assert versions(conn, "gear-conflict") == {"1.2.0": ("ACTIVE", "PRIMARY"), "1.3.0-draft": ("ACTIVE", "CHALLENGER")}
    with conn.cursor() as cursor:
        cursor.execute("SELECT version FROM kcg.detection_model_versions WHERE updated_at = now()")
        assert cursor.fetchall() == [("1.3.0-draft",)]


def test_what_is_so_already_takes_no_step(conn: Connection) -> None:
    """Nor does it write anything."""
    for wish in (Promote("drift", "1.0.2", "PRIMARY"), Switch("drift", on=True)):
        done = carry_out(conn, wish)
        assert (done.steps, done.changes) == ((), ())


def test_a_version_is_archived(conn: Connection) -> None:
    """It keeps its role, which tells what it was."""
    done = carry_out(conn, Archive("loitering", "2.1.0"))
    assert versions(conn, "loitering")["2.1.0"] == ("ARCHIVED", "SHADOW")
    assert [(change.kind, change.label) for change in done.changes] == [("removed", "loitering 2.1.0")]


def test_a_model_is_disabled_and_enabled_with_all_its_versions(conn: Connection) -> None:
    """And enabled again."""
    off = carry_out(conn, Switch("loitering", on=False, force=True))
    on = carry_out(conn, Switch("loitering", on=True))
    labels = ["loitering 2.0.0", "loitering 2.1.0"]
    assert [(change.kind, change.label) for change in off.changes] == [("removed", label) for label in labels]
    assert [(change.kind, change.label) for change in on.changes] == [("added", label) for label in labels]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Promote("dark-vesel", "3.3.0", "PRIMARY"), ["no model 'dark-vesel'", "dark-vessel"]),
        (Promote("dark-vessel", "3.3", "PRIMARY"), ["no version '3.3' of dark-vessel", "3.3.0"]),
        (Promote("dark-vessel", "3.1.0", "PRIMARY"), ["is archived", "--force brings it back"]),
        (Promote("dark-vessel", "3.2.0", "SHADOW"), ["without it the model has none", "--demote-to"]),
        (Archive("dark-vessel", "3.1.0"), ["archived already"]),
        (Archive("dark-vessel", "3.2.0"), ["without it the model has none", "--force"]),
        (Archive("dark-vessel", "9"), ["no version '9'"]),
        (Switch("dark", on=True), ["no model 'dark'"]),
        (Switch("dark-vessel", on=False), ["risk-score", "take input of dark-vessel", "--force"]),
    ],
    ids=lambda value: str(value) if not isinstance(value, list) else "",
)
def test_what_the_rows_do_not_allow_is_refused(conn: Connection, wish: Wish, words: list[str]) -> None:
    """With what to do instead."""
    before = versions(conn, wish.model)
    said = refused(conn, wish)
    assert all(word in said for word in words), said
    assert versions(conn, wish.model) == before


@pytest.mark.parametrize(
    "wish",
    [
        Promote("dark-vessel", "3.1.0", "CHALLENGER", force=True),
        Promote("dark-vessel", "3.2.0", "SHADOW", force=True),
        Archive("dark-vessel", "3.2.0", force=True),
        Switch("dark-vessel", on=False, force=True),
    ],
    ids=str,
)
def test_force_does_it_and_warns(conn: Connection, wish: Wish) -> None:
    """The operator knows better."""
    done = carry_out(conn, wish)
    assert done.steps
    assert done.warnings


def test_a_disabled_model_is_promoted_with_a_warning(conn: Connection) -> None:
    """Workers read none of its versions."""
    carry_out(conn, Switch("drift", on=False, force=True))
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO kcg.detection_model_versions (model_id, version, role) VALUES ('drift', '2', 'SHADOW')"
        )
    conn.commit()
    done = carry_out(conn, Promote("drift", "2", "PRIMARY"))
    assert done.changes == ()
    assert "disabled" in done.warnings[0]


def test_a_model_whose_inputs_are_disabled_is_enabled_with_a_warning(conn: Connection) -> None:
    """They may be about to follow."""
    carry_out(conn, Switch("risk-score", on=False))
    carry_out(conn, Switch("dark-vessel", on=False, force=True))
    done = carry_out(conn, Switch("risk-score", on=True))
    assert any("dark-vessel" in warning for warning in done.warnings)


def _waits_for_a_lock(conn: Connection, pid: int) -> bool:
    with conn.cursor() as cursor:
        cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", (pid,))
        return bool(cursor.fetchall()[0][0])


def test_of_two_promotions_at_once_the_second_sees_the_first(
    conn: Connection, pg_connect: Callable[[], Connection]
) -> None:
    """It waits for the locks, and then archives the PRIMARY that the first has made."""
    other, looking = pg_connect(), pg_connect()
    carry_out(conn, Promote("dark-vessel", "3.3.0", "PRIMARY"))
    results: list[Any] = []
    wish = Promote("dark-vessel", "4.0.0-alpha", "PRIMARY")
    thread = threading.Thread(target=lambda: results.append(carry_out(other, wish)))
    thread.start()
    eventually(lambda: _waits_for_a_lock(looking, other.get_backend_pid()))
    conn.commit()
    thread.join()
    other.commit()
    assert results[0].steps[0].startswith("3.3.0: ACTIVE PRIMARY → ARCHIVED")
    found = versions(conn, "dark-vessel")
    assert [version for version, state in found.items() if state == ("ACTIVE", "PRIMARY")] == ["4.0.0-alpha"]


def test_who_waits_too_long_for_another_change_is_told_so(
    conn: Connection, pg_connect: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was changed."""
    monkeypatch.setattr("kcg_cache.changes._BEGIN", "SET LOCAL lock_timeout = '50ms'")
    carry_out(conn, Promote("dark-vessel", "3.3.0", "PRIMARY"))
    assert "another change of the same rows is under way" in refused(pg_connect(), Archive("dark-vessel", "3.3.0"))


def test_an_operator_may_have_a_stricter_isolation_by_default(conn: Connection) -> None:
    """Under it whoever waited for a lock would be refused afterwards."""
    with conn.cursor() as cursor:
        cursor.execute("SET default_transaction_isolation = 'serializable'")
    conn.commit()
    carry_out(conn, Archive("loitering", "2.1.0"))
    with conn.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchall() == [("read committed",)]


def test_a_user_without_rights_is_told_by_postgresql(conn: Connection, pg_role: str) -> None:
    """The driver's error says which table, and a note which rights are needed."""
    with conn.cursor() as cursor:
        cursor.execute(f"GRANT USAGE ON SCHEMA kcg TO {pg_role}; GRANT SELECT ON ALL TABLES IN SCHEMA kcg TO {pg_role}")
        cursor.execute(f"SET ROLE {pg_role}")
    conn.commit()
    with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="detection_models") as caught:
        carry_out(conn, Archive("loitering", "2.1.0"))
    assert "needs SELECT on the three tables, and UPDATE" in " ".join(caught.value.__notes__)


def test_the_model_itself_is_locked(conn: Connection, pg_connect: Callable[[], Connection]) -> None:
    """Nobody disables it, and none adds a version of it, between the look and the commit."""
    carry_out(conn, Promote("dark-vessel", "3.3.0", "PRIMARY"))
    other = pg_connect()
    with other.cursor() as cursor, pytest.raises(psycopg2.errors.LockNotAvailable):
        cursor.execute("SELECT 1 FROM kcg.detection_models WHERE model_id = 'dark-vessel' FOR KEY SHARE NOWAIT")


def test_params_that_workers_read_as_empty_are_warned_of(conn: Connection) -> None:
    """An operator who promotes such a version should know before its model runs without parameters."""
    with conn.cursor() as cursor:
        cursor.execute("UPDATE kcg.detection_model_versions SET params = '[]' WHERE version = '1.3.0-draft'")
    conn.commit()
    done = carry_out(conn, Promote("gear-conflict", "1.3.0-draft", "CHALLENGER"))
    (warning,) = done.warnings
    assert "became {}" in warning


def test_a_primary_that_is_not_there_cannot_be_demoted(conn: Connection) -> None:
    """It is said: who gives a role for it believes that there is one."""
    carry_out(conn, Archive("drift", "1.0.2", force=True))
    conn.commit()
    done = carry_out(conn, Promote("drift", "1.0.2", "PRIMARY", demote_to="SHADOW", force=True))
    assert any("has no PRIMARY" in warning for warning in done.warnings)
    assert versions(conn, "drift") == {"1.0.2": ("ACTIVE", "PRIMARY")}


def test_a_database_without_the_tables_is_told_what_is_missing(pg: Connection) -> None:
    """It is another database, most likely."""
    with pg.cursor() as cursor:
        cursor.execute("DROP SCHEMA kcg CASCADE")
    pg.commit()
    with pytest.raises(psycopg2.errors.UndefinedTable) as caught:
        carry_out(pg, Switch("drift", on=False))
    assert "kcg-cache sql schema" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("afterwards", "so"),
    [
        ("SELECT 1", True),
        ("UPDATE kcg.detection_model_versions SET status = 'ACTIVE' WHERE version = '3.2.0'", False),
        ("UPDATE kcg.detection_model_versions SET params = '{}' WHERE version = '3.3.0'", False),
        ("UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE version = '3.3.0'", False),
        ("UPDATE kcg.detection_model_versions SET params = '{}' WHERE version = '4.0.0-alpha'", True),
    ],
)
def test_whether_the_rows_are_as_a_change_left_them(conn: Connection, afterwards: str, *, so: bool) -> None:
    """What others did to other rows is no matter."""
    with conn.cursor() as cursor:
        cursor.execute("DROP INDEX kcg.detection_model_versions_one_active_primary")
    conn.commit()
    wish = Promote("dark-vessel", "3.3.0", "PRIMARY")
    done = carry_out(conn, wish)
    with conn.cursor() as cursor:
        cursor.execute(afterwards)
    assert is_so(conn, wish, done) is so
