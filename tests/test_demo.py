"""The demo shows the truth, finds what is planted, and leaves nothing behind, however it ends."""

import fcntl
import json
import os
import pty
import re
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name
from psycopg2.extensions import make_dsn

import kcg_cache.demo
from kcg_cache import ConfigurationError, postgres, queries
from kcg_cache.demo import changes
from kcg_cache.demo.__main__ import main
from kcg_cache.demo.audit import Audit, generation_of, planted
from kcg_cache.demo.board import BEGUN, FLOOR
from kcg_cache.demo.tally import Tally, WorkerTally
from kcg_cache.embedded import guard
from tests.pg_fixtures import PostgresServer
from tests.waiting import eventually

PROJECT = Path(__file__).parent.parent
DEMO = [sys.executable, "-m", "kcg_cache.demo"]
OURS = re.compile(r"kcg_cache_demo_[0-9a-f]{12}")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not made
#: What libfaketime leaves there of a server that was killed: those of a soak, which may run beside these tests.
NEVER_OURS = "faketime_"

# Makes the terminal that a program is started on the one that sends it Ctrl-C.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


# --- a demo under test -----------------------------------------------------------------------------------------------


class Traces:
    """Knows what the programs of one test may leave: by a variable that all of them inherit, and their own places."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._mark = f"KCG_DEMO_TEST={secrets.token_hex(8)}"
        self._shared_before = shared_memory()
        # Servers inherit no variable: they are known by what they descend from.
        self._seen: set[int] = set()

    @property
    def environment(self) -> dict[str, str]:
        """What a program under test is to be started with."""
        name, _, value = self._mark.partition("=")
        return os.environ | {name: value, "TMPDIR": str(self.place), "TERM": "xterm-256color"}

    def look(self, pid: int) -> None:
        """Remember what runs below a process now."""
        self._seen |= {pid, *guard._descendants(pid)}

    def none(self) -> bool:
        """Say whether nothing is left: no process, no file."""
        return not any(map(running, self._seen)) and not self.processes() and not list(self.place.iterdir())

    def none_at_all(self) -> bool:
        """Say whether no shared memory is left either; a stranger's comes and goes."""
        return self.none() and not shared_memory() - self._shared_before

    def processes(self) -> list[int]:
        """Give the processes that inherited the variable and still run."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and self._mark.encode() in environment_of(entry) and running(int(entry.name))
        ]


def shared_memory() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir() if NEVER_OURS not in path.name}


def environment_of(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.fixture
def traces() -> Iterator[Traces]:
    """Give a place for temporary files, and see that nothing is left of a test when it is over."""
    # Not tmp_path: its name is too long for a Unix socket, and nobody but its owner may enter it.
    place = Path(tempfile.mkdtemp(prefix="kd"))
    place.chmod(0o755)
    traces = Traces(place)
    yield traces
    try:
        eventually(traces.none_at_all)
    finally:
        for pid in traces.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(place)


def run(traces: Traces, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a demo to its end."""
    return subprocess.run(
        [*DEMO, *arguments], cwd=PROJECT, env=traces.environment, text=True, capture_output=True, check=False
    )


def until_committed(traces: Traces, *arguments: str) -> "subprocess.Popen[str]":
    """Start a demo that would run for long; give it when its operator has committed something."""
    process = subprocess.Popen(
        [*DEMO, "--plain", "--seconds", "600", "--workers", "3", *arguments],
        cwd=PROJECT,
        env=traces.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    while "committed" not in (line := process.stdout.readline()):
        said.append(line)
        assert line, (said, process.communicate()[1])
    traces.look(process.pid)
    return process


def worker_among(pids: list[int]) -> int:
    """Give one of them that is a worker."""
    return next(pid for pid in pids if b"kcg_cache.demo.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


class Terminal:
    """A demo on a terminal of its own."""

    def __init__(self, traces: Traces, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_A_TERMINAL, *DEMO, *arguments],
            cwd=PROJECT,
            env=traces.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def read_until(self, text: str) -> str:
        """Give what is shown until this is."""
        shown = b""
        while text.encode() not in shown:
            chunk = self._read()
            assert chunk, shown.decode(errors="replace")
            shown += chunk
        return shown.decode(errors="replace")

    def read_to_end(self) -> str:
        """Give what is shown until nobody has the terminal open."""
        shown = b""
        while chunk := self._read():
            shown += chunk
        return shown.decode(errors="replace")

    @staticmethod
    def cursor_is_shown(shown: str) -> bool:
        """Say whether the cursor was hidden, and is shown again."""
        return -1 < shown.rfind("\x1b[?25l") < shown.rfind("\x1b[?25h")

    def _read(self) -> bytes:
        try:
            return os.read(self.ours, 65536)
        except OSError:  # how a terminal says that its other end is closed
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


class Given:
    """Servers that the demo is given, and what is in them."""

    def __init__(self, redis_url: str, dsn: str) -> None:
        self.arguments = ("--redis", redis_url, "--dsn", dsn)
        self._redis_url = redis_url
        self._dsn = dsn

    def databases(self) -> set[str]:
        """Give the names of the demos' databases."""
        with postgres.connect(self._dsn) as connection:
            return {
                row["datname"]
                for row in postgres.fetch(connection, "SELECT datname FROM pg_database")
                if OURS.fullmatch(row["datname"])
            }

    def key_names(self) -> set[str]:
        """Give the names of all keys."""
        with redis.Redis.from_url(self._redis_url, decode_responses=True) as client:
            return set(client.scan_iter())


@pytest.fixture
def given(redis_url: str, postgres_server: PostgresServer) -> Given:
    """Give an empty Redis, but for a key of somebody else's, and a PostgreSQL."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("{kcg_cache_demo_other:active_versions}:entry", "somebody else's")
    return Given(redis_url, postgres_server.dsn)


# --- what it tells ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_promise_holds_and_the_numbers_agree(traces: Traces) -> None:
    """A short run exits 0, and its JSON document says for each worker and each change what the sums say."""
    ended = run(traces, "--seconds", "4", "--workers", "3", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    facts = json.loads(ended.stdout)
    assert facts["ok"]
    assert facts["broken"] == facts["notes"] == []
    assert set(facts["violations"].values()) == {0}
    assert [worker["kind"] for worker in facts["workers"]] == ["reader", "reader", "scheduler"]
    for name in ("reads", "loads"):
        assert sum(worker[name] for worker in facts["workers"]) == facts[{"loads": "database_loads"}.get(name, name)]
    for worker in facts["workers"]:
        assert worker["reads"] == worker["near"] + worker["redis"] + worker["database"]
        assert worker["generation"] == facts["changes"][-1]["generation"]
    assert 1 <= facts["database_loads"] <= facts["database_loads_allowed"] == 1 + len(facts["changes"])
    assert facts["reads_database"] == facts["database_loads"]
    assert [change["generation"] for change in facts["changes"]] == [2, 3]
    assert all(change["invalidate_s"] >= 1.02 for change in facts["changes"])
    assert all(change["commit_to_last_reader_s"] > 0 for change in facts["changes"])
    # No less would be a demonstration of a cache.
    assert facts["reads"] > 1000 * facts["read_scripts"] > 0


def test_the_audit_finds_a_planted_stale_read(traces: Traces, given: Given) -> None:
    """One list from before an invalidate, handed out once among all the look-ups, breaks the promise and the exit."""
    ended = run(traces, "--seconds", "3", "--workers", "2", "--json", "--plant-stale-read", *given.arguments)
    assert ended.returncode == 1
    facts = json.loads(ended.stdout)
    assert facts["violations"] == {"stale": 1, "backward": 1, "uncommitted": 0, "torn": 0}
    assert "worker-01: 1 stale reads" in facts["broken"]
    assert "worker-01: generation 1 was read when 2 was in force" in facts["broken"]


def test_a_worker_that_is_killed_is_a_broken_promise(traces: Traces, given: Given) -> None:
    """When a worker dies the demo ends at once, says which one, and exits 1."""
    process = until_committed(traces, *given.arguments)
    os.kill(worker_among(traces.processes()), signal.SIGKILL)
    out, errors = process.communicate()
    assert (process.returncode, errors) == (1, "")
    assert re.search(r"^BROKEN: worker-0[12] ended with status -9$|^BROKEN: scheduler-01 ended", out, re.MULTILINE)


@pytest.mark.slow
def test_a_terminal_shows_a_live_table(traces: Traces) -> None:
    """On a terminal, one line per worker is drawn over and over, and the summary stands below in the end."""
    with Terminal(traces, "--seconds", "3", "--workers", "3") as terminal:
        shown = terminal.read_to_end()
        assert terminal.process.wait() == 0
    assert shown.count("worker-01") > 2
    assert shown.count("scheduler-01") > 2
    assert "promote dark-vessel 3.3.0 to PRIMARY" in shown
    assert "Every promise held." in shown
    assert "Traceback" not in shown
    assert terminal.cursor_is_shown(shown)


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_nothing_and_the_terminal_as_it_was(traces: Traces) -> None:
    """Ctrl-C on the terminal, in the middle of the live table, exits 130 with the cursor shown."""
    with Terminal(traces, "--seconds", "600", "--workers", "3") as terminal:
        before = termios.tcgetattr(terminal.ours)
        shown = terminal.read_until("invalidating")
        traces.look(terminal.process.pid)
        os.write(terminal.ours, b"\x03")
        shown += terminal.read_to_end()
        assert terminal.process.wait() == 130
        assert termios.tcgetattr(terminal.ours) == before
    assert "Traceback" not in shown
    assert terminal.cursor_is_shown(shown)
    assert traces.none()


def test_sigterm_ends_it_in_order(traces: Traces) -> None:
    """When it is asked to end, everything has ended before it has."""
    process = until_committed(traces)
    process.terminate()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (143, "")
    assert traces.none()


def test_sigkill_leaves_nothing(traces: Traces) -> None:
    """Servers and workers notice that the demo was killed, and go."""
    process = until_committed(traces)
    process.kill()
    process.communicate()
    eventually(traces.none)


# --- on servers of one's own -----------------------------------------------------------------------------------------


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give a function that runs a command line which ends with this status, and gives its one line on stderr."""

    def refuse(status: int, *arguments: str) -> str:
        assert main(arguments) == status
        out, errors = capsys.readouterr()
        assert (out, errors.count("\n")) == ("", 1)
        return errors

    return refuse


@pytest.mark.slow
def test_on_given_servers_a_killed_run_is_cleaned_up_by_the_next_and_a_living_one_is_left_alone(
    traces: Traces, given: Given
) -> None:
    """The next run removes the database and the keys of a killed run, not those of one that plays, and its own."""
    others = given.key_names()
    killed = until_committed(traces, *given.arguments)
    (left,) = given.databases()
    killed.kill()
    killed.communicate()
    eventually(lambda: not traces.processes())
    assert given.databases() == {left}
    assert any(left in key for key in given.key_names())

    playing = until_committed(traces, *given.arguments)
    (plays,) = given.databases()
    assert plays != left
    assert not any(left in key for key in given.key_names())

    ended = run(traces, "--seconds", "3", "--workers", "2", "--plain", *given.arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "removed" not in ended.stdout
    assert given.databases() == {plays}

    playing.send_signal(signal.SIGINT)
    _, errors = playing.communicate()
    assert (playing.returncode, errors) == (130, "kcg_cache.demo: interrupted\n")
    assert given.databases() == set()
    assert given.key_names() == others


def test_a_user_who_may_not_create_databases_is_told_so(
    refused: Callable[..., str], given: Given, postgres_server: PostgresServer, pg_role: str
) -> None:
    """Without the right to create databases nothing is done, and one line says what is missing."""
    dsn = make_dsn(postgres_server.dsn, options=f"-c role={pg_role}")
    assert "may not create databases" in refused(5, "--redis", given.arguments[1], "--dsn", dsn)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--redis", "redis://127.0.0.1:1"), 2, "give redis and dsn both"),
        (("--dsn", "host=127.0.0.1"), 2, "give redis and dsn both"),
        (("--seconds", "nan"), 2, "seconds is nan"),
        (("--workers", "0"), 2, "workers is 0"),
        (("--redis", "redis://127.0.0.1:1", "--dsn", "host=127.0.0.1 port=1"), 4, "port 1 failed"),
        (("--redis", "redis://127.0.0.1:1", "--dsn", "no dsn"), 5, "connection string"),
    ],
)
def test_what_cannot_be_played_is_one_line(
    refused: Callable[..., str], arguments: tuple[str, ...], status: int, told: str
) -> None:
    """Wrong arguments and servers that are not there cost one line on stderr and an exit code of their kind."""
    assert told in refused(status, *arguments)


def test_a_redis_that_is_not_there_costs_no_database(refused: Callable[..., str], given: Given) -> None:
    """The database that was made for a play that cannot begin is removed."""
    assert "Connection refused" in refused(3, "--redis", "redis://127.0.0.1:1", *given.arguments[2:])
    assert given.databases() == set()


def test_run_is_told_what_it_cannot_play() -> None:
    """From within Python the same comes as an error of this library."""
    with pytest.raises(ConfigurationError, match="give redis and dsn both"):
        kcg_cache.demo.run(redis="redis://127.0.0.1:1")


# --- its parts -------------------------------------------------------------------------------------------------------


def rows(*generations: int) -> list[dict[str, Any]]:
    return [{"params": {"generation": generation}} for generation in generations]


@pytest.mark.parametrize(
    ("floor", "begun", "read", "found"),
    [
        (1, 1, (1, 1), set()),
        (2, 3, (2, 2), set()),
        (2, 3, (3, 3), set()),
        (3, 3, (2, 2), {"stale"}),
        (1, 2, (3, 3), {"uncommitted"}),
        (1, 3, (2, 3), {"torn"}),
        (1, 3, (1, 1), {"backward"}),
    ],
)
def test_the_audit_holds_a_read_against_both_sides(
    floor: int, begun: int, read: tuple[int, ...], found: set[str]
) -> None:
    """Older than the floor, newer than any commit, mixed, or older than before: each has a name of its own."""
    audit = Audit({FLOOR: floor, BEGUN: begun}, lambda: 0.0)  # type: ignore[arg-type]
    if "backward" in found:
        audit.judge(floor, rows(2))
    audit.judge(floor, rows(*read))
    assert {name for name in ("stale", "uncommitted", "torn", "backward") if getattr(audit, name)} == found
    assert bool(audit.examples) == bool(found)


def test_what_is_planted_is_older_than_a_floor_that_was_in_force_before_the_look_up() -> None:
    """Old rows come once, and not while the invalidate that withdraws them may still be returning."""
    board = {FLOOR: 1}
    newest = 1
    look_up = planted(lambda: rows(newest), board)  # type: ignore[arg-type]
    assert generation_of(look_up()[0]) == 1
    board[FLOOR] = newest = 2
    assert [generation_of(look_up()[0]) for _ in range(3)] == [2, 1, 2]


def test_the_changes_can_be_played_round_and_round(pg: Connection) -> None:
    """Each change finds its rows as the one before it left them, and the last one leaves them as the first one did."""
    for script in ("schema", "sample_data"):
        postgres.execute(pg, queries.load(script))
    everything = "SELECT model_id, version, role, status, params FROM kcg.detection_model_versions ORDER BY id"
    before = postgres.fetch(pg, everything)
    for _ in range(2):
        for change in changes.CHANGES:
            for step in change.steps:
                assert postgres.execute(pg, step.sql, *step.values) == 1, change.what
            (primary,) = postgres.fetch(
                pg,
                "SELECT version FROM kcg.detection_model_versions "
                f"WHERE model_id = '{change.model}' AND role = 'PRIMARY' AND status = 'ACTIVE'",
            )
            assert primary["version"] == change.version
        assert postgres.fetch(pg, everything) == before
    postgres.execute(pg, changes.STAMP, 7)
    stamped = postgres.fetch(pg, queries.load("active_versions"))
    assert {json.loads(row["params"])["generation"] for row in stamped} == {7}


def test_more_loads_than_changes_are_a_broken_promise() -> None:
    """One load at the start and one per change are allowed, and not one more."""
    tally = Tally({"w": WorkerTally("w", "reader", 1)})
    change = {"what": "x", "model": "m", "promotes": False, "commit_sent_at": 1.0, "committed_at": 1.1}
    tally.hear_operator({"event": "committed", "generation": 2, **change})
    worker = tally.workers["w"]
    worker.hear({"event": "report", "at": 1.0, "reads": 10, "loads": 2})
    assert tally.broken() == []
    worker.hear({"event": "report", "at": 2.0, "reads": 20, "loads": 3})
    assert tally.broken() == ["3 database loads; allowed are 2"]


def test_a_change_has_reached_all_when_the_last_one_saw_it_or_a_newer_one() -> None:
    """Who slept through a generation has come past it when it saw the next."""
    tally = Tally({name: WorkerTally(name, "reader", 1) for name in ("a", "b")})
    for generation in (2, 3):
        change = {"what": "x", "model": "m", "promotes": False, "committed_at": 0.0}
        tally.hear_operator({"event": "committed", "generation": generation, "commit_sent_at": generation, **change})
    tally.workers["a"].hear({"event": "seen", "generation": 2, "at": 2.5, "primaries": {}})
    assert tally.took(tally.changes[0], "reader") is None
    assert tally.behind() == ["a", "b"]
    tally.workers["b"].hear({"event": "seen", "generation": 3, "at": 4.0, "primaries": {}})
    assert tally.took(tally.changes[0], "reader") == 2.0
    assert tally.took(tally.changes[1], "reader") is None
    assert tally.behind() == ["a"]
