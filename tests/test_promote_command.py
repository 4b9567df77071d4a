"""``kcg-cache promote``, ``archive``, ``enable``, ``disable``: real command lines on real servers, and their faults."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis

from kcg_cache import SharedCache, queries
from kcg_cache.changes import Promote, carry_out
from kcg_cache.cli import changing, outcome, withdrawing
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop
from kcg_cache.embedded import EmbeddedPostgres, EmbeddedValkey, start_postgres, start_replica, start_valkey
from tests import test_cli
from tests.pg_fixtures import PostgresServer
from tests.pooling import PGBOUNCER, pgbouncer
from tests.programs import NOBODY, ended
from tests.schemas import valid
from tests.test_cli import Cli
from tests.waiting import eventually

pytestmark = pytest.mark.operators

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


cli = test_cli.cli
cache = test_cli.cache


@pytest.fixture(autouse=True)
def _sampled(pg_dsn: str) -> None:
    """See to it that the database has the sample data."""
    execute(pg_dsn, queries.load("sample_data"))


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


def test_a_dry_run_with_redis_down_shows_the_change_and_that_it_would_fail(cli: Cli, pg_dsn: str) -> None:
    """The rows are PostgreSQL's; whether they could be withdrawn is another question."""
    ended = cli(*PROMOTE, "--dry-run", "--dsn", pg_dsn, "--json", KCG_CACHE_REDIS_URL=NOBODY)
    assert ended.code == ExitCode.REDIS
    assert valid("change", json.loads(ended.out))["difference"]
    assert "cannot be withdrawn now" in ended.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), "it does not accept writes"),
        (("ACL", "SETUSER", "default", "-del"), "rights do not suffice"),
    ],
)
def test_with_a_redis_that_answers_and_deletes_nothing_nothing_is_committed(
    cli: Cli, pg_dsn: str, valkey: EmbeddedValkey, command: tuple[str, ...], words: str
) -> None:
    """It gives every look, and would refuse the invalidate after the commit."""
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command(*command)
    ended = cli(*PROMOTE, "--yes", "--dsn", pg_dsn, KCG_CACHE_REDIS_URL=valkey.url)
    assert (ended.code, ended.out) == (ExitCode.REDIS, "")
    assert words in ended.err
    assert "nothing was changed: what cannot be withdrawn now is not committed" in ended.err
    assert primary(pg_dsn) == ["3.2.0"]


def test_with_redis_gone_while_a_person_thought_nothing_is_committed(
    cli: Cli, pg_dsn: str, valkey: EmbeddedValkey
) -> None:
    """It is asked again after the answer."""
    with cli.asked(*PROMOTE, "--dsn", pg_dsn, KCG_CACHE_REDIS_URL=valkey.url) as terminal:
        terminal.until("[y/N]")
        valkey.stop()
        terminal.type("y\n")
        shown = terminal.rest()
        assert terminal.process.wait() == ExitCode.REDIS
    assert "nothing was changed" in shown
    assert primary(pg_dsn) == ["3.2.0"]


def test_a_connection_closed_for_idleness_while_a_person_thought_is_no_trouble(cli: Cli, pg_dsn: str) -> None:
    """The change is made on another one."""
    with cli.asked(*PROMOTE, "--dsn", pg_dsn) as terminal:
        terminal.until("[y/N]")
        execute(
            pg_dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        terminal.type("y\n")
        shown = terminal.rest()
        assert terminal.process.wait() == 0, shown
    assert primary(pg_dsn) == ["3.3.0"]


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


def _at_the_commit(cli: Cli, dsn: str, redis_url: str, then: str, meanwhile: Callable[[], None]) -> Any:
    gate = Gate(dsn, then)
    process = cli.start(
        *PROMOTE,
        "--yes",
        "--reason",
        "it's tested",
        "--dsn",
        dsn,
        environment={"KCG_CACHE_REDIS_URL": redis_url},
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
    assert "is not known" not in end.err
    assert primary(pg_dsn) == ["3.2.0"]
    assert cache.inspect(1).invalidations == ()


@pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer on this machine")
def test_behind_a_pooler_by_transactions_all_is_the_same(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """The transaction is one server's from its first statement to its end, and a lost one is asked about."""
    # Not pytest's own directory, which is its user's alone.
    with (
        tempfile.TemporaryDirectory(prefix="kcg-pgbouncer-") as place,
        pgbouncer(pg_dsn, "transaction", Path(place)) as address,
    ):
        done = valid("change", cli.json(*PROMOTE, "--demote-to", "SHADOW", "--yes", "--dsn", address))
        assert primary(pg_dsn) == ["3.3.0"]
        execute(pg_dsn, _GATE.format(then="PERFORM pg_terminate_backend(pg_backend_pid());"))
        lost = cli("promote", "dark-vessel", "3.2.0", "--role", "PRIMARY", "--yes", "--dsn", address)
        assert primary(pg_dsn) == ["3.3.0"]
    assert done["committed"]
    assert lost.code == ExitCode.POSTGRES
    assert "asking PostgreSQL what became of it" in lost.err
    assert "rolled back: nothing was changed" in lost.err
    assert len(cache.inspect(10).invalidations) == 1


@pytest.mark.slow
def test_a_connection_lost_after_the_commit_was_done_is_asked_about(cli: Cli, cache: SharedCache) -> None:
    """The answer never came, and the change is withdrawn all the same."""
    end, then = _unanswered(cli, cli.redis_url, lambda: None)
    assert (end.code, end.err.count("it was committed")) == (0, 1), end.err
    assert then == ["3.3.0"]
    assert len(cache.inspect(10).invalidations) == 1


@pytest.mark.slow
def test_redis_that_fails_after_a_commit_that_was_asked_about_is_said_too(cli: Cli, valkey: EmbeddedValkey) -> None:
    """Two faults at once: committed, not yet invalidated."""
    end, then = _unanswered(cli, valkey.url, valkey.stop)
    assert (end.code, end.out) == (ExitCode.REDIS, "")
    assert "it was committed" in end.err
    assert "committed, not yet invalidated: run `kcg-cache invalidate --reason 'promote dark-vessel 3.3.0" in end.err
    assert then == ["3.3.0"]


def _unanswered(cli: Cli, redis_url: str, meanwhile: Callable[[], None]) -> tuple[Any, list[str]]:
    """Promote on a server of its own where the commit is done and its answer lost; give the end, and who is PRIMARY."""
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
                    *PROMOTE,
                    "--yes",
                    "--dsn",
                    server.dsn,
                    environment={"KCG_CACHE_REDIS_URL": redis_url},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                eventually(lambda: _waiting_for_a_standby(cursor))
                meanwhile()
                cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                end = ended(process)
        return end, primary(server.dsn)


def test_an_interrupt_in_the_commit_says_what_is_not_known(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """It is heard when the commit has been answered, and nothing is withdrawn: the operator is told what to run."""
    gate = Gate(pg_dsn, "")
    process = cli.start(*PROMOTE, "--yes", "--dsn", pg_dsn, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(gate.reached)
    process.send_signal(signal.SIGINT)
    gate.open()
    end = ended(process)
    assert (end.code, end.out) == (ExitCode.INTERRUPTED, "")
    assert "run `kcg-cache invalidate --reason 'promote dark-vessel 3.3.0 to PRIMARY'" in end.err
    assert primary(pg_dsn) == ["3.3.0"]
    assert cache.inspect(1).invalidations == ()


@pytest.mark.slow
def test_a_server_that_crashed_in_the_commit_is_asked_when_it_is_back(cli: Cli, cache: SharedCache) -> None:
    """What was not in its log is rolled back, also where it has forgotten that there was such a transaction."""
    with start_postgres() as server:
        process = _crashed_in_the_commit(cli, server)
        server.restart()
        end = ended(process)
        assert primary(server.dsn) == ["3.2.0"]
    assert (end.code, end.out) == (ExitCode.POSTGRES, "")
    assert "rolled back: nothing was changed" in end.err
    assert "is not known" not in end.err
    assert cache.inspect(1).invalidations == ()


@pytest.mark.slow
def test_an_interrupt_while_postgresql_is_asked_says_what_to_look_at(cli: Cli) -> None:
    """It does not come back, and nobody waits for ever."""
    with start_postgres() as server:
        process = _crashed_in_the_commit(cli, server)
        process.send_signal(signal.SIGINT)
        end = ended(process)
    assert (end.code, end.out) == (ExitCode.INTERRUPTED, "")
    assert "whether the change is committed is not known" in end.err
    assert "kcg-cache invalidate --reason" in end.err
    assert "pg_xact_status" in end.err


def _crashed_in_the_commit(cli: Cli, server: EmbeddedPostgres) -> Any:
    """Give the process that has lost its server in the middle of its commit, and asks it what became of that."""
    execute(server.dsn, queries.load("schema") + queries.load("sample_data"))
    gate = Gate(server.dsn, "")
    process = cli.start(*PROMOTE, "--yes", "--dsn", server.dsn, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(gate.reached)
    server.kill()
    gate.open()
    assert b"asking PostgreSQL" in process.stderr.readline()
    return process


def test_a_server_that_cannot_be_asked_leaves_it_open_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the question to ask of it, and behind it what the commit's own error says."""
    monkeypatch.setattr(outcome, "_TRIES", 2)
    monkeypatch.setattr(outcome, "_PAUSE", 0)
    lost = psycopg2.OperationalError("lost")
    with pytest.raises(Stop, match=r"pg_xact_status\('4711'\)") as caught:
        outcome.settled("host=127.0.0.1 port=1", "4711", lost, lambda _conn: True)
    assert caught.value.__cause__ is lost


def _shown(server: PostgresServer) -> str:
    with contextlib.closing(psycopg2.connect(server.dsn)) as conn, conn.cursor() as cursor:
        cursor.execute("SHOW synchronous_standby_names")
        return str(cursor.fetchall()[0][0])


def _waiting_for_a_standby(cursor: Any) -> bool:
    cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return bool(cursor.fetchall())


def test_a_standby_is_refused(cli: Cli, postgres_server: PostgresServer, pg_dsn: str) -> None:
    """By the words of PostgreSQL; read-only transactions are what a standby has."""
    ended = cli(*PROMOTE, "--yes", "--dsn", pg_dsn, PGOPTIONS="-c default_transaction_read_only=on")
    assert (ended.code, ended.out) == (ExitCode.POSTGRES, "")
    assert "read-only" in ended.err


@pytest.mark.slow
def test_a_real_standby_is_refused_with_what_to_do(cli: Cli, cache: SharedCache) -> None:
    """Nothing was changed, and nothing is withdrawn."""
    with start_postgres() as server, start_replica(server) as standby:
        execute(server.dsn, queries.load("schema") + queries.load("sample_data"))
        eventually(lambda: _has_rows(standby.dsn))
        ended = cli(*PROMOTE, "--yes", "--dsn", standby.dsn)
        assert primary(server.dsn) == ["3.2.0"]
    assert (ended.code, ended.out) == (ExitCode.POSTGRES, "")
    assert "connect to the primary; nothing was changed" in ended.err
    assert cache.inspect(1).invalidations == ()


def _has_rows(dsn: str) -> bool:
    try:
        return primary(dsn) == ["3.2.0"]
    except psycopg2.errors.UndefinedTable:
        return False


def test_a_user_without_rights_is_told_which_are_needed(cli: Cli, pg_dsn: str, pg_role: str) -> None:
    """Reading is not enough."""
    execute(pg_dsn, f"GRANT USAGE ON SCHEMA kcg TO {pg_role}; GRANT SELECT ON ALL TABLES IN SCHEMA kcg TO {pg_role}")
    ended = cli(*PROMOTE, "--yes", "--dsn", pg_dsn, PGOPTIONS=f"-c role={pg_role}")
    assert (ended.code, ended.out) == (ExitCode.POSTGRES, "")
    assert "permission denied" in ended.err
    assert "UPDATE on kcg.detection_models and kcg.detection_model_versions" in ended.err


def test_another_change_that_does_not_end_is_waited_for_and_told_of(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """Its locks are held, and nobody knows for how long."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT 1 FROM kcg.detection_models WHERE model_id = 'dark-vessel' FOR UPDATE")
        ended = cli(*PROMOTE, "--yes", "--dsn", pg_dsn)
    assert (ended.code, ended.out) == (ExitCode.FINDING, "")
    assert "another change of the same rows is under way" in ended.err
    assert cache.inspect(1).invalidations == ()


def test_an_interrupt_while_it_waits_for_another_change_changes_nothing(cli: Cli, pg_dsn: str) -> None:
    """Ctrl-C reaches a statement that waits in PostgreSQL."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT 1 FROM kcg.detection_models WHERE model_id = 'dark-vessel' FOR UPDATE")
        process = cli.start(*PROMOTE, "--yes", "--dsn", pg_dsn, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        eventually(lambda: _blocked(pg_dsn))
        process.send_signal(signal.SIGINT)
        end = ended(process)
        eventually(lambda: not _blocked(pg_dsn))
    assert (end.code, end.out) == (ExitCode.INTERRUPTED, "")
    assert primary(pg_dsn) == ["3.2.0"]


def _blocked(dsn: str) -> bool:
    # On a new connection each time: a transaction sees who is active as of its first look.
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_stat_activity "
            "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        return bool(cursor.fetchall())


def test_a_commit_that_the_rows_do_not_bear_out_is_withdrawn_and_told(
    cache: SharedCache, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that crashed may have given the transaction's id to another one."""
    lost = psycopg2.OperationalError("lost")
    lost.add_note("not known")

    def unanswered(*_arguments: Any, **_options: Any) -> None:
        raise lost

    monkeypatch.setattr(cache, "commit_and_invalidate", unanswered)
    monkeypatch.setattr(outcome, "settled", lambda *_arguments: False)
    options = changing._Options(False, True, None, False, None, None, None, pg_dsn, False)
    wish = Promote("dark-vessel", "3.3.0", "PRIMARY")
    with (
        contextlib.closing(psycopg2.connect(pg_dsn)) as conn,
        pytest.raises(Stop, match="the rows are not as it left them") as caught,
    ):
        changing._committed(cache, options, conn, wish, carry_out(conn, wish))
    assert caught.value.code is ExitCode.FINDING
    assert len(cache.inspect(10).invalidations) == 1


def test_an_interrupt_of_the_wait_says_that_it_is_committed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody shall promote again what is promoted. What else there is to say, the wait says."""

    def interrupted(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(withdrawing, "finished", interrupted)
    nothing: Any = None
    options = changing._Options(False, True, None, False, None, None, None, "", False)
    with pytest.raises(KeyboardInterrupt):
        changing._in_force(nothing, options, nothing)
    assert capsys.readouterr().err == "kcg-cache: the change is committed; there is nothing to repeat\n"


def test_the_receipt_names_who_is_on_the_new_rows(cli: Cli, cache: SharedCache, pg_dsn: str) -> None:
    """Nobody reads here but this test, which is past its lease when it is looked for."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn:
        cache.read(conn)
    document = valid("change", cli.json(*PROMOTE, "--yes", "--wait-for-fleet", "60s", "--dsn", pg_dsn))
    fleet = document["invalidation"]["fleet"]
    assert fleet["complete"]
    assert [reader["pid"] for reader in fleet["silent"]] == [os.getpid()]
    json.dumps(document)
