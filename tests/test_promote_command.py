"""``kcg-cache promote``, ``archive``, ``enable``, ``disable``: real command lines on real servers, and their faults."""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kcg_cache import Settings, SharedCache, queries
from kcg_cache.cli.exits import ExitCode
from kcg_cache.embedded import EmbeddedValkey, start_postgres, start_valkey
from kcg_cache.settings import variable_of
from tests.pg_fixtures import PostgresServer
from tests.programs import NOBODY, SOURCE, ended
from tests.schemas import valid
from tests.test_cli import Cli
from tests.waiting import eventually

PROMOTE = ("promote", "dark-vessel", "3.3.0", "--role", "PRIMARY")
#: A commit that waits until somebody lets it go on; then it does as it is told.
_GATE = """
    CREATE FUNCTION kcg.gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(4711);
        {then}
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON kcg.detection_model_versions
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION kcg.gate();
"""


@pytest.fixture
def cli(redis_url: str, namespace: str, pg_dsn: str, tmp_path: Path) -> Cli:
    """Give the command line on the test's own namespace, and a database with the sample data."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    return Cli(
        {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": SOURCE,
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            variable_of("redis_url"): redis_url,
            variable_of("namespace"): namespace,
        }
    )


@pytest.fixture
def cache(cli: Cli) -> Iterator[SharedCache]:
    """Give a worker's cache on the same Redis and namespace."""
    cache = SharedCache(settings=Settings(redis_url=cli.redis_url, namespace=cli.namespace))
    yield cache
    cache.close()


def primary(dsn: str) -> list[str]:
    """Give the versions that are the model's ACTIVE PRIMARY."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        cursor.execute(
            "SELECT version FROM kcg.detection_model_versions "
            "WHERE model_id = 'dark-vessel' AND status = 'ACTIVE' AND role = 'PRIMARY'"
        )
        return [version for (version,) in cursor.fetchall()]


def execute(dsn: str, sql: str) -> None:
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(sql)


def test_a_promotion_is_committed_withdrawn_and_receipted(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """A worker that held the old rows reads the new ones next."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn:
        cache.read(conn)
        document = valid("change", cli.json(*PROMOTE, "--yes", "--dsn", pg_dsn))
        assert primary(pg_dsn) == ["3.3.0"]
        assert document["committed"]
        assert document["invalidation"]["in_force"]
        assert document["invalidation"]["reason"] == "promote dark-vessel 3.3.0 to PRIMARY"
        roles = {row["version"]: row["role"] for row in cache.read(conn).rows if row["model_id"] == "dark-vessel"}
    assert roles == {"3.3.0": "PRIMARY", "4.0.0-alpha": "SHADOW"}


def test_a_dry_run_shows_row_by_row_and_changes_nothing(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """Nor does it withdraw anything."""
    ended = cli(*PROMOTE, "--demote-to", "SHADOW", "--dry-run", "--dsn", pg_dsn)
    assert (ended.code, ended.err) == (0, "")
    assert "not done yet" in ended.out
    assert "3.2.0: ACTIVE PRIMARY → ACTIVE SHADOW" in ended.out
    changed = [line.split() for line in ended.out.splitlines() if "→" in line and "role" in line]
    assert changed == [["role", '"PRIMARY"', "→", '"SHADOW"'], ["role", '"CHALLENGER"', "→", '"PRIMARY"']]
    document = valid("change", cli.json(*PROMOTE, "--dry-run", "--dsn", pg_dsn))
    assert (document["committed"], document["invalidation"]) == (False, None)
    assert primary(pg_dsn) == ["3.2.0"]
    assert cache.inspect(1).invalidations == ()


@pytest.mark.parametrize(
    "command",
    [
        ("archive", "loitering", "2.1.0"),
        ("disable", "risk-score"),
        ("enable", "vessel-type-legacy"),
        ("promote", "gear-conflict", "1.3.0-draft", "--role", "shadow"),
    ],
)
def test_every_change_is_withdrawn(cli: Cli, cache: SharedCache, pg_dsn: str, command: tuple[str, ...]) -> None:
    """And its document is as the schema says."""
    document = valid("change", cli.json(*command, "--yes", "--no-wait", "--dsn", pg_dsn))
    assert document["difference"]
    (event,) = cache.inspect(1).invalidations
    assert event["reason"] == document["change"]


def test_what_is_so_already_is_said_and_nothing_withdrawn(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """It is no failure: a script may say it twice."""
    ended = cli("enable", "drift", "--yes", "--dsn", pg_dsn)
    assert (ended.code, ended.err) == (0, "")
    assert "it is so already: nothing to do" in ended.out
    assert cache.inspect(1).invalidations == ()


def test_what_the_rows_do_not_allow_is_one_line_and_a_finding(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """And nothing is withdrawn."""
    ended = cli("disable", "dark-vessel", "--yes", "--dsn", pg_dsn)
    assert (ended.code, ended.out) == (ExitCode.FINDING, "")
    assert ended.err.startswith("kcg-cache: enabled models take input of dark-vessel (rendezvous, risk-score)")
    assert cache.inspect(1).invalidations == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (PROMOTE, "give --yes"),
        (("promote", "a", "1", "--role", "BOSS", "--yes"), "none of PRIMARY, CHALLENGER, SHADOW"),
        (("promote", "a", "1", "--role", "SHADOW", "--demote-to", "SHADOW", "--yes"), "--demote-to"),
        ((*PROMOTE, "--yes", "--no-wait", "--wait-for-fleet", "1s"), "--no-wait and --wait-for-fleet"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    """No server is asked: there is none here."""
    ended = cli(*arguments, KCG_CACHE_REDIS_URL=NOBODY)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert words in ended.err


@pytest.mark.parametrize(
    ("answer", "code", "then"), [("y", 0, ["3.3.0"]), ("n", 1, ["3.2.0"]), ("\x03", 130, ["3.2.0"])]
)
def test_a_person_is_shown_what_will_change_and_asked(
    cli: Cli, pg_dsn: str, answer: str, code: int, then: list[str]
) -> None:
    """Nobody else waits for the answer: no transaction is open meanwhile."""
    with cli.asked(*PROMOTE, "--dsn", pg_dsn) as terminal:
        terminal.until("[y/N]")
        assert "dark-vessel 3.2.0" in terminal.shown
        execute(pg_dsn, "UPDATE kcg.detection_model_versions SET updated_at = now() WHERE model_id = 'dark-vessel'")
        terminal.type(answer if answer == "\x03" else f"{answer}\n")
        shown = terminal.rest()
        assert terminal.process.wait() == code, shown
    assert primary(pg_dsn) == then


def test_rows_that_changed_while_a_person_thought_are_not_overwritten(cli: Cli, pg_dsn: str) -> None:
    """What was shown is what is done, or nothing."""
    with cli.asked(*PROMOTE, "--dsn", pg_dsn) as terminal:
        terminal.until("[y/N]")
        execute(pg_dsn, "UPDATE kcg.detection_model_versions SET params = '{}' WHERE version = '3.3.0'")
        terminal.type("y\n")
        shown = terminal.rest()
        assert terminal.process.wait() == ExitCode.FINDING
    assert "changed meanwhile" in shown
    assert primary(pg_dsn) == ["3.2.0"]


# --- faults -----------------------------------------------------------------------------------------------------------


def test_with_redis_down_before_it_nothing_is_committed(cli: Cli, pg_dsn: str) -> None:
    """What cannot be withdrawn is not to be committed."""
    ended = cli(*PROMOTE, "--yes", "--dsn", pg_dsn, KCG_CACHE_REDIS_URL=NOBODY)
    assert (ended.code, ended.out) == (ExitCode.REDIS, "")
    assert primary(pg_dsn) == ["3.2.0"]


def test_with_postgresql_down_nothing_is_withdrawn(cli: Cli, cache: SharedCache) -> None:
    """The error is PostgreSQL's."""
    ended = cli(*PROMOTE, "--yes", "--dsn", "host=127.0.0.1 port=1 dbname=nobody")
    assert ended.code == ExitCode.POSTGRES
    assert cache.inspect(1).invalidations == ()


class Gate:
    """A commit that waits until it is let go on."""

    def __init__(self, dsn: str, then: str) -> None:
        execute(dsn, _GATE.format(then=then))
        self._conn = psycopg2.connect(dsn)
        self._execute("SELECT pg_advisory_xact_lock(4711)")

    def _execute(self, sql: str) -> Any:
        with self._conn.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    def reached(self) -> bool:
        """Tell whether a commit waits."""
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
        return bool(self._execute(waiting)[0][0])

    def open(self) -> None:
        """Let it go on."""
        self._conn.close()


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """Give a server of the test's own, to be stopped."""
    with start_valkey() as server:
        yield server


def _at_the_commit(cli: Cli, dsn: str, redis: str, then: str, meanwhile: Callable[[], None]) -> Any:
    gate = Gate(dsn, then)
    process = cli.start(
        *PROMOTE,
        "--yes",
        "--reason",
        "it's tested",
        "--dsn",
        dsn,
        environment={"KCG_CACHE_REDIS_URL": redis},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    eventually(gate.reached)
    meanwhile()
    gate.open()
    return ended(process)


def test_redis_that_fails_after_the_commit_is_said_with_what_to_run(
    cli: Cli, pg_dsn: str, valkey: EmbeddedValkey
) -> None:
    """Committed, not yet invalidated."""
    end = _at_the_commit(cli, pg_dsn, valkey.url, "", valkey.stop)
    assert (end.code, end.out) == (ExitCode.REDIS, "")
    assert "committed, not yet invalidated" in end.err
    assert """kcg-cache invalidate --reason 'it'"'"'s tested'""" in end.err
    assert valkey.password not in end.err
    assert primary(pg_dsn) == ["3.3.0"]


def test_a_commit_that_fails_withdraws_nothing(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """The error is PostgreSQL's."""
    end = _at_the_commit(cli, pg_dsn, cli.redis_url, "RAISE EXCEPTION 'not on a Friday';", lambda: None)
    assert (end.code, end.out) == (ExitCode.POSTGRES, "")
    assert "not on a Friday" in end.err
    assert primary(pg_dsn) == ["3.2.0"]
    assert cache.inspect(1).invalidations == ()


def test_a_connection_lost_before_the_commit_was_done_is_asked_about(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """PostgreSQL knows that it was rolled back."""
    end = _at_the_commit(cli, pg_dsn, cli.redis_url, "PERFORM pg_terminate_backend(pg_backend_pid());", lambda: None)
    assert (end.code, end.out) == (ExitCode.POSTGRES, "")
    assert "asking PostgreSQL what became of it" in end.err
    assert "rolled back: nothing was changed" in end.err
    assert primary(pg_dsn) == ["3.2.0"]
    assert cache.inspect(1).invalidations == ()


def test_a_connection_lost_after_the_commit_was_done_is_asked_about(cli: Cli, cache: SharedCache) -> None:
    """The answer never came, and the change is withdrawn all the same."""
    with start_postgres() as server:
        execute(server.dsn, queries.load("schema") + queries.load("sample_data"))
        with contextlib.closing(psycopg2.connect(server.dsn)) as conn:
            conn.autocommit = True
            with conn.cursor() as cursor:
                # From here on a commit is done, and then waits for a standby that there is not.
                cursor.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
                cursor.execute("SELECT pg_reload_conf()")
                eventually(lambda: _shown(server) == "nobody")
                process = cli.start(
                    *PROMOTE, "--yes", "--dsn", server.dsn, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
                eventually(lambda: _terminated(cursor))
                end = ended(process)
        assert (end.code, end.err.count("it was committed")) == (0, 1), end.err
        assert primary(server.dsn) == ["3.3.0"]
    assert len(cache.inspect(10).invalidations) == 1


def _shown(server: PostgresServer) -> str:
    with contextlib.closing(psycopg2.connect(server.dsn)) as conn, conn.cursor() as cursor:
        cursor.execute("SHOW synchronous_standby_names")
        return str(cursor.fetchall()[0][0])


def _terminated(cursor: Any) -> bool:
    cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return bool(cursor.fetchall())


def test_a_standby_is_refused(cli: Cli, postgres_server: PostgresServer, pg_dsn: str) -> None:
    """By the words of PostgreSQL; read-only transactions are what a standby has."""
    ended = cli(*PROMOTE, "--yes", "--dsn", pg_dsn, PGOPTIONS="-c default_transaction_read_only=on")
    assert (ended.code, ended.out) == (ExitCode.POSTGRES, "")
    assert "read-only" in ended.err


def test_the_receipt_names_who_is_on_the_new_rows(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """Nobody reads here but this test, which is past its lease when it is looked for."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn:
        cache.read(conn)
    document = valid("change", cli.json(*PROMOTE, "--yes", "--wait-for-fleet", "60s", "--dsn", pg_dsn))
    fleet = document["invalidation"]["fleet"]
    assert fleet["complete"]
    assert [reader["pid"] for reader in fleet["silent"]] == [os.getpid()]
    json.dumps(document)
