"""``kcg-cache watch``: a real process, real servers, its lines, its end, and what service managers are told."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kcg_cache import queries
from kcg_cache.cli import health
from kcg_cache.cli.exits import ExitCode
from kcg_cache.embedded import start_postgres, start_replica
from kcg_cache.keys import Keys
from kcg_cache.system import SYSTEM
from tests import test_cli
from tests.programs import NOBODY
from tests.schemas import valid
from tests.test_cli import ANSI, Cli
from tests.test_fleet import process
from tests.waiting import eventually

pytestmark = pytest.mark.operators

PROCESSES = 8


cli = test_cli.cli


@pytest.fixture
def dsn(pg_dsn: str) -> str:
    """Give a database with the sample data and the triggers."""
    change(pg_dsn, queries.load("sample_data"))
    change(pg_dsn, queries.load("notify"))
    return pg_dsn


def change(dsn: str, statement: str) -> None:
    """Run and commit, as psql does."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(statement)


def promote(dsn: str, number: int = 1) -> None:
    change(dsn, f"UPDATE kcg.detection_model_versions SET params = '{{\"changed\": {number}}}'")


class Watch:
    """A watcher in a process of its own, and the lines that it wrote."""

    def __init__(self, popen: Any, dsn: str) -> None:
        self.popen = popen
        self.dsn = dsn
        self.events: list[dict[str, Any]] = []

    def until(self, name: str) -> dict[str, Any]:
        """Read on until the next event of this name, and give it; each line is held to the schema."""
        while line := self.popen.stdout.readline():
            event = json.loads(line)
            valid("watch", event)
            self.events.append(event)
            if event["event"] == name:
                return dict(event)
        raise AssertionError(f"it ended without {name}: {self.events}, {self.popen.stderr.read()}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; give the exit code and what was on stderr."""
        self.popen.send_signal(number)
        _, err = self.popen.communicate(timeout=60)
        return self.popen.returncode, err.decode()


Start = Callable[..., Watch]


@pytest.fixture
def start(cli: Cli, dsn: str) -> Iterator[Start]:
    """Give a function that starts a watcher; those that still run are ended."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, **environment: str) -> Watch:
            popen = cli.start(
                *("watch", "--interval", "1h", "--dsn", dsn, "--json", *arguments),
                environment=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.callback(popen.communicate)
            stack.callback(popen.kill)
            return Watch(popen, dsn)

        yield begin


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.OK), (signal.SIGINT, ExitCode.INTERRUPTED)], ids=["term", "int"]
)
def test_a_signal_ends_it_in_order(start: Start, cli: Cli, client: Any, number: int, code: int) -> None:
    """It gives the watch back, so that another one takes over at once."""
    watch = start()
    watch.until("nothing_shared")
    key = Keys.of(cli.namespace, "active_versions").watch
    assert client.exists(key)
    assert watch.end(number) == (code, "")
    assert not client.exists(key)


def test_a_table_that_somebody_locks_does_not_keep_it(start: Start, cli: Cli, client: Any, dsn: str) -> None:
    """It hangs up on the statement that waits, and gives the watch back."""
    watch = start("--interval", "0.2s")
    watch.until("nothing_shared")
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        cursor.execute("LOCK TABLE kcg.detection_models IN ACCESS EXCLUSIVE MODE")

        def waits() -> Any:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            (count,) = cursor.fetchone() or (0,)
            return count

        eventually(waits)
        assert watch.end() == (0, "")
    assert not client.exists(Keys.of(cli.namespace, "active_versions").watch)
    assert [event for event in watch.events if event["event"] == "postgres_lost"] == []


@pytest.mark.slow
def test_a_server_that_hangs_does_not_keep_it(start: Start, cli: Cli, client: Any, tmp_path: Path) -> None:
    """Nor could the statement be cancelled there: that is asked of the server, too."""
    with start_postgres() as server:
        for part in ("schema", "sample_data"):
            change(server.dsn, queries.load(part))
        path = tmp_path / "state"
        watch = start("--interval", "0.1s", "--dsn", server.dsn, "--state", str(path))
        watch.until("nothing_shared")
        with contextlib.closing(psycopg2.connect(server.dsn)) as conn, conn.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'kcg-cache-watch'")
            (backend,) = cursor.fetchone() or (0,)
        fields = Path(f"/proc/{backend}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        stopped = [backend, int(fields[1])]  # and the postmaster, which would pass a cancel on
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            # Ten times a second, until it waits for an answer.
            eventually(lambda: path.exists() and time.time() - path.stat().st_mtime > 1.0)
            assert watch.end() == (0, "")
            assert not client.exists(Keys.of(cli.namespace, "active_versions").watch)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)


def test_eight_processes_end_on_the_rows_that_somebody_committed(start: Start, cli: Cli, dsn: str) -> None:
    """Nobody called an invalidate: a trigger told the watcher, whose interval is an hour."""
    given = {"redis": cli.redis_url, "namespace": cli.namespace, "dsn": dsn, "processes": PROCESSES}
    with process("following", given) as readers:
        before = {line["pid"]: line["digest"] for line in (readers.line() for _ in range(PROCESSES))}
        watch = start()
        watch.until("equal")
        promote(dsn)
        new = watch.until("invalidated")["details"]["digest"]
        after = {line["pid"]: line["digest"] for line in (readers.line() for _ in range(PROCESSES))}
        readers.close()
    assert set(before.values()) != {new}
    assert after == dict.fromkeys(before, new)


@pytest.mark.slow
def test_the_one_on_duty_dies_and_the_other_takes_over(start: Start, cli: Cli, dsn: str) -> None:
    """By SIGKILL, and the change is made while nobody is on duty."""
    assert cli("show", "--dsn", dsn).code == ExitCode.OK
    first = start()
    first.until("equal")
    second = start()
    second.until("standing_by")
    first.end(signal.SIGKILL)
    promote(dsn)
    second.until("on_duty")
    assert {"start", "takeover"} <= set(second.until("invalidated")["details"]["causes"])


@pytest.mark.slow
def test_a_standby_is_refused_with_what_to_give_instead(cli: Cli) -> None:
    """As PostgreSQL's failure, and on one line."""
    with start_postgres() as primary, start_replica(primary) as standby:
        for arguments in ([], ["--once"]):
            ended = cli("watch", "--dsn", standby.dsn, *arguments)
            assert (ended.code, ended.out) == (ExitCode.POSTGRES, "")
            assert "is a standby, whose rows may be old: give the primary's address" in ended.err
            assert ended.err.count("\n") == 1


def test_once_looks_once_whoever_watches(start: Start, cli: Cli, dsn: str) -> None:
    """For cron: the exit code tells which server failed."""
    assert cli("show", "--dsn", dsn).code == ExitCode.OK
    start().until("equal")
    change(dsn, "SET session_replication_role = replica; ALTER TABLE kcg.detection_model_versions DISABLE TRIGGER ALL")
    promote(dsn)
    ended = cli("watch", "--once", "--dsn", dsn)
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert " → " in ended.out
    assert "invalidated: the rows are not the shared ones" in ended.out
    assert "nothing is shared" in cli("watch", "--once", "--dsn", dsn).out
    assert cli("watch", "--once", "--dsn", dsn, "--redis", NOBODY).code == ExitCode.REDIS
    assert cli("watch", "--once", "--dsn", "host=/nowhere").code == ExitCode.POSTGRES


def test_a_service_manager_is_told_that_it_is_ready_and_alive(start: Start, tmp_path: Path) -> None:
    """Ready when it is on duty or stands by, alive with every turn, and at the end that it is one."""
    address = str(tmp_path / "notify")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(address)
        manager.settimeout(60)
        watch = start(NOTIFY_SOCKET=address)
        first = manager.recv(4096).decode().split("\n")
        assert first == ["READY=1", "STATUS=on duty, 1 look, 0 invalidates", "WATCHDOG=1"]
        assert manager.recv(4096).decode().split("\n") == first[1:]
        assert watch.end() == (0, "")
        told = first
        while told != ["STOPPING=1"]:
            told = manager.recv(4096).decode().split("\n")
            assert "READY=1" not in told


def test_the_health_check_says_how_the_watcher_is(start: Start, cli: Cli, tmp_path: Path) -> None:
    """By the file that it writes with every turn, and takes away in the end."""
    path = tmp_path / "state"

    def check() -> tuple[int, str]:
        ended = cli("watch", "--healthcheck", "--state", str(path))
        assert ended.err == ""
        return ended.code, ended.out

    assert check() == (1, f"not well: no state file '{path}': no watcher has begun, or it ended in order\n")
    watch = start("--state", str(path))
    watch.until("nothing_shared")
    eventually(path.exists)
    assert check() == (0, f"well: pid {watch.popen.pid}: on duty\n")
    document = json.loads(path.read_text())
    assert (document["state"], document["hears"], document["rounds"]) == ("on_duty", True, 1)
    assert os.listdir(tmp_path) == ["state"]  # noqa: PTH208 - names are enough
    watch.end()
    assert check()[0] == ExitCode.FINDING


def test_a_state_file_that_cannot_be_written_later_does_not_end_it(start: Start, cli: Cli, tmp_path: Path) -> None:
    """A full disk is no reason to leave the rows alone; it is told once, and the health check finds it silent."""
    place = tmp_path / "run"
    place.mkdir()
    watch = start("--interval", "0.1s", "--state", str(place / "state"))
    watch.until("nothing_shared")
    eventually((place / "state").exists)
    place.rename(tmp_path / "away")
    assert b"cannot be written" in watch.popen.stderr.readline()
    assert cli("show", "--dsn", watch.dsn).code == ExitCode.OK
    watch.until("equal")
    assert watch.end() == (0, "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beat": -health.STALE_SECONDS - 1}, " s, it was on duty"),
        ({"beat": 1000.0}, "silent for"),
        ({"state": "redis_lost"}, "pid 7: Redis lost"),
        ({"state": "postgres_lost"}, "pid 7: PostgreSQL lost"),
        ({"pid": None}, "cannot be read"),
    ],
)
def test_a_watcher_that_is_silent_or_lost_is_not_well(cli: Cli, tmp_path: Path, changes: Any, words: str) -> None:
    """Nor is one whose file is from before the host was started anew."""
    document = {"state": "on_duty", "pid": 7, **changes, "beat": SYSTEM.now() + changes.get("beat", 0.0)}
    health.written(tmp_path / "state", document)
    ended = cli("watch", "--healthcheck", "--json", "--state", str(tmp_path / "state"))
    told = json.loads(ended.out)
    valid("watch", told)
    assert (ended.code, told["healthy"]) == (ExitCode.FINDING, False)
    assert words in told["why"]


def test_wrong_use_is_told_before_anything_is_done(cli: Cli, tmp_path: Path) -> None:
    """By its own exit codes."""
    assert cli("watch", "--healthcheck").code == ExitCode.USAGE
    assert cli("watch", "--interval", "soon").code == ExitCode.USAGE
    assert cli("watch", "--interval", "0").code == ExitCode.CONFIGURATION
    (tmp_path / "file").touch()
    ended = cli("watch", "--dsn", "host=/nowhere", "--state", str(tmp_path / "file" / "state"))
    assert ended.code == ExitCode.CONFIGURATION
    assert "cannot be written" in ended.err


def test_its_lines_have_a_time_and_colours_on_a_terminal(cli: Cli, dsn: str) -> None:
    """And none with NO_COLOR."""
    assert cli("show", "--dsn", dsn).code == ExitCode.OK
    for environment in ({}, {"NO_COLOR": "1"}):
        with cli.on_terminal("watch", "--dsn", dsn, columns=120, **environment) as terminal:
            terminal.until("(start)")
            promote(dsn, len(environment) + 2)
            terminal.until("invalidated")
            terminal.process.send_signal(signal.SIGTERM)
            screen = terminal.rest()
            assert terminal.process.wait(60) == 0
        assert bool(ANSI.search(screen)) is not bool(environment)
        lines = ANSI.sub("", screen).splitlines()
        assert all(line[4] == "-" and line[23] == "Z" for line in lines[:3])
        assert cli("show", "--dsn", dsn).code == ExitCode.OK
