"""The command line: real processes against a real Redis and a real PostgreSQL."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name
from rich.cells import cell_len

import kcg_cache
from kcg_cache import Settings, SharedCache, queries
from kcg_cache.cli import app
from kcg_cache.cli.exits import ExitCode
from kcg_cache.keys import Keys
from kcg_cache.settings import variable_of
from tests import forked
from tests.programs import NOBODY, Ended
from tests.programs import ended as finished
from tests.waiting import eventually

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Database:
    """The test's own database, with the sample data."""

    dsn: str
    connect: Callable[[], Connection]


def terminal_of(columns: int) -> tuple[int, int]:
    """Open a terminal so wide; give its two ends, the tests' and the program's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    return ours, theirs


@dataclass(frozen=True)
class Cli:
    """The command line, in an environment of the test's own."""

    environment: Mapping[str, str]

    @property
    def redis_url(self) -> str:
        return self.environment[variable_of("redis_url")]

    @property
    def namespace(self) -> str:
        return self.environment[variable_of("namespace")]

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None, **kwargs: Any) -> Any:
        """Start the program; warnings are errors there too."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "kcg_cache", *arguments],
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            **kwargs,
        )

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        """Run one command with both streams captured, as in a pipeline; in a fork if that is the same (forked.py)."""
        given = {**self.environment, **environment}
        server = forked.server()
        if not server.serves(given):
            return self.started(*arguments, **environment)
        code, out, err = server.run(arguments, given)
        return Ended(code, out.decode(), err.decode())

    def started(self, *arguments: str, **environment: str) -> Ended:
        """Do the same with a Python that is started for it."""
        return finished(self.start(*arguments, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def json(self, *arguments: str) -> Any:
        """Run one command that succeeds, quietly, and give its one document."""
        ended = self(*arguments, "--json")
        assert (ended.code, ended.err) == (0, "")
        return json.loads(ended.out)

    @contextlib.contextmanager
    def on_terminal(self, *arguments: str, columns: int = 100, **environment: str) -> Iterator["Terminal"]:
        """Run one command with both streams on a terminal."""
        ours, theirs = terminal_of(columns)
        with self.start(*arguments, environment=environment, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            try:
                yield Terminal(process, ours)
            finally:
                os.close(ours)
                process.kill()

    @contextlib.contextmanager
    def asked(self, *arguments: str, columns: int = 100, **environment: str) -> Iterator["Terminal"]:
        """Run one command with all three streams on a terminal, its own: it may be typed on, Ctrl-C too."""
        pid, ours = pty.fork()
        if pid == 0:
            os.execve(  # noqa: S606 - in the child of the fork, which has the terminal
                sys.executable,
                [sys.executable, "-W", "error", "-m", "kcg_cache", *arguments],
                {**self.environment, **environment},
            )
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = Forked(pid)
        try:
            yield Terminal(process, ours)
        finally:
            os.close(ours)
            process.kill()

    def screen(self, *arguments: str, columns: int = 100, **environment: str) -> str:
        """Run one command that succeeds on a terminal, and give all that it wrote there."""
        given = {**self.environment, **environment}
        server = forked.server()
        if not server.serves(given):
            with self.on_terminal(*arguments, columns=columns, **environment) as terminal:
                shown = terminal.rest()
                assert terminal.process.wait() == 0, shown
            return shown
        ours, theirs = terminal_of(columns)
        try:
            process = server.start(arguments, given, theirs, theirs)
            os.close(theirs)
            shown = Terminal(process, ours).rest()
            assert process.wait() == 0, shown
        finally:
            os.close(ours)
        return shown


@dataclass
class Forked:
    """A child process by its pid."""

    pid: int
    code: int | None = None

    def wait(self) -> int:
        """Give its exit code."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def kill(self) -> None:
        """End it, if it has not."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


@dataclass
class Terminal:
    """The screen of a process."""

    process: Any
    fd: int
    shown: str = ""

    def until(self, text: str) -> None:
        """Return when the process has written this."""
        while text not in self.shown:
            part = self._read()
            assert part, f"the process ended without {text!r}: {self.shown}"

    def type(self, text: str) -> None:
        """Type on the terminal."""
        os.write(self.fd, text.encode())

    def rest(self) -> str:
        """Give all that the process writes until it ends."""
        while self._read():
            pass
        return self.shown

    def _read(self) -> bool:
        try:
            part = os.read(self.fd, 65536)
        except OSError:  # Linux's way to say that the other side of a terminal is closed
            return False
        self.shown += part.decode(errors="replace").replace("\r\n", "\n")
        return bool(part)


@pytest.fixture
def cli(redis_url: str, namespace: str, tmp_path: Path) -> Cli:
    return Cli(
        {
            **forked.ENVIRONMENT,
            "HOME": str(tmp_path),
            "PGHOST": str(tmp_path),  # a directory without a socket: no server, whatever this machine runs
            variable_of("redis_url"): redis_url,
            variable_of("namespace"): namespace,
        }
    )


@pytest.fixture
def database(pg_dsn: str, pg_connect: Callable[[], Connection]) -> Database:
    with pg_connect() as conn, conn.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    return Database(pg_dsn, pg_connect)


@pytest.fixture
def cache(cli: Cli) -> Iterator[SharedCache]:
    """Give a worker's cache on the same Redis and namespace."""
    cache = SharedCache(settings=Settings(redis_url=cli.redis_url, namespace=cli.namespace))
    yield cache
    cache.close()


@pytest.fixture
def filled(cache: SharedCache, database: Database) -> SharedCache:
    """Give the same with the sample data shared."""
    assert cache.read(database.connect()).shared
    return cache


def one_line(ended: Ended) -> str:
    """Give the one line on stderr of a command that failed: nothing else was said, and stdout is clean."""
    assert ended.out == ""
    assert "Traceback" not in ended.err
    (line,) = ended.err.splitlines()
    assert line.startswith("kcg-cache: ")
    return line


# --- help -------------------------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app.app)
    return dict(group.commands)


def options() -> list[Any]:
    group: Any = typer.main.get_command(app.app)
    return [
        pytest.param(parameter, id=f"{name} {parameter.opts[0]}")
        for name, command in [("kcg-cache", group), *group.commands.items()]
        for parameter in command.params
    ]


def test_the_commands_are_these() -> None:
    """A new command is documented, tested and listed here."""
    assert list(commands()) == [
        "show",
        "status",
        "fleet",
        "verify",
        "log",
        "invalidate",
        "promote",
        "archive",
        "enable",
        "disable",
        "reload",
        "watch",
        "doctor",
        "sql",
        "lua",
        "demo",
    ]


@pytest.mark.parametrize("name", commands())
def test_every_command_is_documented(name: str) -> None:
    """A command says in one sentence what it does, and where the exit codes stand."""
    command = commands()[name]
    assert command.help.partition("\n")[0].endswith(".")
    assert command.epilog == "Exit codes: kcg-cache --help"


@pytest.mark.parametrize("name", commands())
def test_every_command_can_write_json(name: str) -> None:
    """A program may use any command."""
    assert "--json" in [option for parameter in commands()[name].params for option in parameter.opts]


@pytest.mark.parametrize("parameter", options())
def test_every_option_has_help_and_names_its_variable(parameter: Any) -> None:
    """An option that is a setting names the setting's variable, and the others say what they do."""
    assert parameter.help
    for option, setting in {"--redis": "redis_url", "--namespace": "namespace"}.items():
        if option in parameter.opts:
            assert variable_of(setting) in (parameter.envvar or "", *parameter.help.replace(";", "").split())
    if "--dsn" in parameter.opts:
        assert "PGSERVICE" in parameter.help


def test_help_lists_commands_and_every_exit_code(cli: Cli) -> None:
    """The help is on stdout and has the whole table of exit codes."""
    ended = cli("--help", COLUMNS="120")
    assert (ended.code, ended.err) == (0, "")
    for name in commands():
        assert f"│ {name} " in ended.out
    for code in ExitCode:
        assert re.search(rf"^ *{code.value}  {re.escape(code.meaning)} *$", ended.out, re.MULTILINE)


def test_no_command_shows_the_help_as_an_error(cli: Cli) -> None:
    """A script that forgot the command fails, and a person who did reads the help."""
    ended = cli()
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert "invalidate" in ended.err


def test_version_is_the_packages(cli: Cli) -> None:
    """The version is the one that the library says."""
    assert cli("--version") == Ended(0, f"kcg-cache {kcg_cache.__version__}\n", "")


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_reads_the_database_on_a_miss_and_shares_it(cli: Cli, database: Database) -> None:
    """The first needs a connection; the second finds what the first has shared, and needs none."""
    first, second = cli("show", "--dsn", database.dsn), cli("show")
    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    assert "PostgreSQL, read just now" in first.out
    assert "the shared copy in Redis" in second.out
    assert first.out.splitlines()[:-1] == second.out.splitlines()[:-1]


def test_show_names_the_model_on_every_line_of_a_pipe(cli: Cli, filled: SharedCache) -> None:
    """Whoever filters lines finds on each what it is about, in the order of the rows."""
    heading, _rule, *lines = cli("show").out.splitlines()
    cells = [line.split() for line in lines[: lines.index("")]]
    assert heading.split()[:5] == ["model", "role", "version", "id", "params"]
    rows = filled.read(None).rows
    assert [line[:4] for line in cells] == [
        [row["model_id"], row["role"], row["version"], str(row["id"])] for row in rows
    ]


def test_show_json_has_the_rows_and_where_they_are_from(cli: Cli, filled: SharedCache) -> None:
    """The document has the rows as a worker gets them, params included."""
    snapshot = filled.read(None)
    document = cli.json("show")
    assert document["rows"] == list(snapshot.rows)
    facts = document["snapshot"]
    assert facts.pop("age_seconds") > 0
    assert snapshot.loaded_at is not None
    assert facts == {
        "source": "redis",
        "shared": True,
        "stale": False,
        "digest": snapshot.digest,
        "loaded_at": snapshot.loaded_at.isoformat(),
        "rows": len(snapshot.rows),
    }


def test_show_aligns_korean_on_a_terminal(cli: Cli, cache: SharedCache, pg: Connection) -> None:
    """A syllable takes two columns, and the columns after it stand where the others' do."""
    with pg, pg.cursor() as cursor:
        for model, version in ("쌍끌이-조업", "1.0-시험"), ("drift", "2.0"), ("다크베셀", "3"):
            cursor.execute("INSERT INTO kcg.detection_models (model_id, display_name) VALUES (%s, %s)", (model, model))
            cursor.execute(
                "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
                " VALUES (%s, %s, 'PRIMARY', 'ACTIVE', '{\"문턱값\": 1}')",
                (model, version),
            )
    cache.read(pg)
    heading, _rule, *lines = cli.screen("show", NO_COLOR="1").splitlines()
    rows = lines[: lines.index("")]
    assert [row.split()[0] for row in rows] == ["drift", "다크베셀", "쌍끌이-조업"]
    for column, cells in {"role": ["PRIMARY"] * 3, "version": ["2.0", "3", "1.0-시험"]}.items():
        at = cell_len(heading[: heading.index(column)])
        assert [cell_len(row[: row.index(f" {cell} ") + 1]) for row, cell in zip(rows, cells, strict=True)] == [at] * 3
    assert all("문턱값" in row for row in rows)


@pytest.mark.parametrize("columns", [40, 100])
def test_show_fits_the_terminal_and_names_a_model_once(cli: Cli, filled: SharedCache, columns: int) -> None:
    """On a terminal nothing is wider than it, and the versions of a model are a group."""
    screen = cli.screen("show", columns=columns)
    assert ANSI.search(screen)
    lines = ANSI.sub("", screen).splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert sum(line.startswith("dark") for line in lines) == 1


def test_show_params_shows_them_in_full(cli: Cli, filled: SharedCache) -> None:
    """Each version is followed by its params as JSON, as they are."""
    shown = cli("show", "--params").out
    blocks = re.findall(r"^  \w+ (\S+) \(id (\d+)\)\n((?:    .*\n)*)", shown, re.MULTILINE)
    assert [(version, int(number), json.loads(block)) for version, number, block in blocks] == [
        (row["version"], row["id"], row["params"]) for row in filled.read(None).rows
    ]


def test_no_color_means_no_escape_sequence(cli: Cli, filled: SharedCache) -> None:
    """NO_COLOR is respected on a terminal."""
    assert "\x1b" not in cli.screen("show", "--params", NO_COLOR="1")


def test_show_without_redis_shows_the_databases_rows_and_fails(cli: Cli, database: Database) -> None:
    """What a cut-off worker would see is shown, and the exit code says that Redis is the trouble."""
    ended = cli("show", "--redis", NOBODY, "--dsn", database.dsn)
    assert ended.code == ExitCode.REDIS
    assert "shared with nobody" in ended.out
    (line,) = ended.err.splitlines()
    assert "Redis: not reachable" in line


def test_show_without_redis_and_database_names_both(cli: Cli) -> None:
    """Two things failed, so there are two lines; Redis, which was asked first, decides the code."""
    ended = cli("show", "--redis", NOBODY)
    assert (ended.code, ended.out) == (ExitCode.REDIS, "")
    first, second = ended.err.splitlines()
    assert "Redis: not reachable" in first
    assert "PostgreSQL: " in second


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_of_nothing_is_no_failure(cli: Cli) -> None:
    """An empty cache is a state like any other."""
    ended = cli("status")
    assert (ended.code, ended.err) == (0, "")
    assert "There is none: the next reader fills it." in ended.out
    assert "Free." in ended.out


def test_status_json_tells_entry_lock_history_server_and_settings(cli: Cli, filled: SharedCache, client: Any) -> None:
    """The document says who filled what when, who holds the lock, what happened, where, and with which settings."""
    snapshot = filled.read(None)
    filled.invalidate(reason="promoted 다크베셀", wait=False)
    before = cli.json("status")
    assert before["entry"] is None
    (withdrawn,) = before["invalidations"]
    assert (withdrawn["reason"], withdrawn["digest"]) == ("promoted 다크베셀", snapshot.digest)
    keys = Keys.of(cli.namespace, "active_versions")
    client.restore(keys.entry, 60_000, _dump_of_an_entry(client, keys, snapshot.digest))
    client.set(keys.lock, "ab" * 16 + "|1700000000000000|elsewhere|1700000000000000", px=60_000)
    document = cli.json("status")
    entry = document["entry"]
    assert entry["filled_by"].endswith(f":{os.getpid()}")
    assert (entry["digest"], entry["payload_bytes"]) == (snapshot.digest, 7)
    assert entry["load_seconds"] == 0.0125
    assert 0 < entry["fresh_seconds"] <= 60
    assert entry["refused_because"].startswith("another server")
    assert document["lock"]["holder"] == "ab" * 16
    assert not document["lock"]["of_this_server"]
    assert [event["event"] for event in document["events"]] == ["invalidated", "filled"]
    assert document["server"]["role"] == "master"
    assert document["settings"]["namespace"] == {"value": cli.namespace, "from": "environment"}
    assert document["settings"]["ttl"] == {"value": 300.0, "from": "default"}


def _dump_of_an_entry(client: Any, keys: Keys, digest: str) -> Any:
    """Give an entry such as another server's file would bring back, of the fill that the last event tells of."""
    ((_, event),) = [found for found in client.xrevrange(keys.events) if found[1][b"event"] == b"filled"]
    fields = {"digest": digest, "format": "orjson", "loaded_at": event[b"loaded_at"], "load_us": "12500"}
    fields |= {"incarnation": "elsewhere", "source": "1/kcg", "signature": "", "payload": "not any"}
    client.hset("scratch", mapping=fields)
    return client.dump("scratch")


def test_status_on_a_terminal_shows_the_same_to_people(cli: Cli, filled: SharedCache) -> None:
    """All sections are there, nothing is wider than the terminal, and the password is nowhere."""
    digest = filled.read(None).digest
    screen = ANSI.sub("", cli.screen("status", columns=80))
    headings = ["Entry", "Fill lock", "Last events", "Last invalidations", "Server", "Settings in force"]
    assert [line for line in screen.splitlines() if line in headings] == headings
    assert max(map(cell_len, screen.splitlines())) <= 80
    assert digest in screen
    assert f":{os.getpid()}, in " in screen
    password = cli.redis_url.split("@", maxsplit=1)[0].rpartition(":")[2]
    assert password
    assert password not in screen


def test_a_reason_cannot_command_the_terminal(cli: Cli, cache: SharedCache) -> None:
    """What others wrote into the log is shown as text, markup and escape sequences included."""
    cache.invalidate(reason="\x1b[2J[bold]\u202e:smile:", wait=False)
    shown = cli("status").out
    assert "\x1b" not in shown
    assert shown.count(r"\x1b[2J[bold]\u202e:smile:") == 2  # among the events, and among the invalidations


# --- invalidate -------------------------------------------------------------------------------------------------------


def test_invalidate_shows_the_wait_and_then_the_receipt(cli: Cli, filled: SharedCache, client: Any) -> None:
    """A person sees why it takes a second, and then what was withdrawn and that it is in force."""
    digest = filled.read(None).digest
    screen = ANSI.sub("", cli.screen("invalidate", "--reason", "승격 v3"))
    assert "waiting until every reader's lease has ended" in screen
    receipt = screen[screen.index("Withdrawn") :]
    assert "승격 v3" in receipt
    assert digest in receipt
    assert re.search(r"in force +since \d{4}-", receipt)
    assert not client.exists(Keys.of(cli.namespace, "active_versions").entry)


def test_invalidate_without_a_terminal_writes_one_document_and_no_progress(cli: Cli) -> None:
    """When it returns it is in force, and a pipeline reads the receipt."""
    receipt = cli.json("invalidate", "--reason", "x")
    assert receipt["in_force"]
    assert not receipt["existed"]
    assert (receipt["dataset"], receipt["reason"]) == ("active_versions", "x")


def test_invalidate_no_wait_says_from_when(cli: Cli, client: Any) -> None:
    """Of another dataset only the name is needed, and without the wait the receipt says when it is in force."""
    entry = Keys.of(cli.namespace, "correlation").entry
    client.hset(entry, "digest", "cafe")
    receipt = cli.json("invalidate", "--reason", "x", "--dataset", "correlation", "--no-wait")
    assert (receipt["existed"], receipt["digest"], receipt["in_force"]) == (True, "cafe", False)
    assert datetime.fromisoformat(receipt["in_force_at"]) > datetime.fromisoformat(receipt["when"])
    assert not client.exists(entry)


def test_interrupted_while_it_waits_says_that_it_is_deleted(cli: Cli) -> None:
    """Ctrl-C in the second of waiting ends with 130 and says from when the deletion is in force."""
    with cli.on_terminal("invalidate", "--reason", "x") as terminal:
        terminal.until("waiting until")
        terminal.process.send_signal(signal.SIGINT)
        screen = terminal.rest()
        assert terminal.process.wait() == ExitCode.INTERRUPTED
    assert "deleted, but in force only from" in screen
    assert "Traceback" not in screen


# --- reload -----------------------------------------------------------------------------------------------------------


def test_reload_refreshes_the_shared_copy(cli: Cli, filled: SharedCache, database: Database) -> None:
    """What a transaction changed is shared at once, with the digests before and after."""
    before = filled.read(None)
    with database.connect() as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE kcg.detection_models SET is_enabled = false WHERE model_id = 'dark-vessel'")
    document = cli.json("reload", "--dsn", database.dsn)
    assert (document["before"], document["changed"]) == (before.digest, True)
    assert document["snapshot"]["digest"] == filled.inspect(1).entry["digest"] != before.digest
    assert document["snapshot"]["rows"] == len(before.rows) - 3


def test_reload_that_cannot_share_fails(cli: Cli, database: Database) -> None:
    """With the off switch on, the rows are read for nobody: that is an answer, and not the one that was asked for."""
    ended = cli("reload", "--dsn", database.dsn, KCG_CACHE_MODE="bypass")
    assert ended.code == ExitCode.FINDING
    assert re.search(r"shared +no\n", ended.out)
    assert ended.err == "kcg-cache: the rows were read, but not shared: KCG_CACHE_MODE is bypass\n"


def test_interrupted_in_a_hanging_query_gives_the_fill_lock_back(cli: Cli, database: Database, client: Any) -> None:
    """Ctrl-C reaches a statement that waits in PostgreSQL, and the fleet need not wait for the lock to expire."""
    blocker, observer = database.connect(), database.connect()
    observer.autocommit = True
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE kcg.detection_models IN ACCESS EXCLUSIVE MODE")

    def waits() -> bool:
        with observer.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'kcg-cache' AND wait_event_type = 'Lock'"
            )
            (found,) = cursor.fetchall()
        return bool(found[0])

    keys = Keys.of(cli.namespace, "active_versions")
    with cli.start("show", "--dsn", database.dsn, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        eventually(waits)
        assert client.exists(keys.lock)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", b"")
    assert not client.exists(keys.lock)


# --- sql --------------------------------------------------------------------------------------------------------------


def test_sql_lists_the_files_with_their_first_sentence(cli: Cli) -> None:
    """Every packaged file is listed with what it says of itself."""
    listed = {entry["name"]: entry["about"] for entry in cli.json("sql")}
    assert tuple(listed) == queries.names()
    assert listed["active_versions"].startswith("The ACTIVE versions of every enabled model")


def test_sql_prints_a_file_verbatim(cli: Cli) -> None:
    """What goes to psql is the file, byte for byte."""
    ended = cli("sql", "sample_data")
    assert (ended.code, ended.out, ended.err) == (0, queries.load("sample_data"), "")


# --- demo -------------------------------------------------------------------------------------------------------------


def test_demo_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The options reach the demo, its answer is the exit code, and the fleet's own Redis is never played on."""
    asked: dict[str, Any] = {}

    def run(**options: Any) -> int:
        asked.update(options)
        return 1

    monkeypatch.setattr("kcg_cache.demo.run", run)
    monkeypatch.setenv(variable_of("redis_url"), "redis://the-real-one")
    assert app.run(["demo", "--workers", "3", "--seconds", "2.5", "--plain", "--json"]) == 1
    assert asked == {"workers": 3, "seconds": 2.5, "as_json": True, "plain": True, "redis": None, "dsn": None}


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["status"], ["invalidate", "--reason", "x"], ["reload"]], ids=lambda it: it[0])
def test_redis_down_is_one_line(cli: Cli, command: list[str]) -> None:
    """A Redis that nobody serves is said in one line, which names it without its password."""
    ended = cli(*command, "--redis", NOBODY)
    assert ended.code == ExitCode.REDIS
    line = one_line(ended)
    assert "Redis: not reachable" in line
    assert "[redis://:***@127.0.0.1:1/0]" in line


@pytest.mark.parametrize("command", [["status"], ["invalidate", "--reason", "x"]], ids=lambda it: it[0])
def test_a_wrong_password_is_one_line(cli: Cli, command: list[str]) -> None:
    """A Redis that refuses is told from one that is down, and neither password is shown."""
    right = cli.redis_url.split("@", maxsplit=1)[0].rpartition(":")[2]
    ended = cli(*command, KCG_CACHE_REDIS_URL=cli.redis_url.replace(right, "hush-hush"))
    assert ended.code == ExitCode.REDIS
    line = one_line(ended)
    assert "the user's password or rights do not suffice" in line
    assert "hush-hush" not in line


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (["status"], {"KCG_CACHE_TTL": "soon"}, ExitCode.CONFIGURATION, "KCG_CACHE_TTL (ttl) is 'soon'"),
        (["status"], {"KCG_CACHE_TLL": "3"}, ExitCode.CONFIGURATION, "KCG_CACHE_TLL is no setting"),
        (["invalidate", "--reason", "x", "--dataset", "a b"], {}, ExitCode.CONFIGURATION, "dataset 'a b'"),
        (["show", "--dsn", "password=hush hush"], {}, ExitCode.CONFIGURATION, "the connection string is none"),
        (["show"], {}, ExitCode.POSTGRES, "(without --dsn, libpq's environment decides"),
        (["show", "--dsn", "host=127.0.0.1 port=1"], {}, ExitCode.POSTGRES, 'connection to server at "127.0.0.1"'),
        (["invalidate"], {}, ExitCode.USAGE, "'--reason'"),
        (["invalidate", "--reason", " "], {}, ExitCode.USAGE, "say why"),
        (["sql", "scheme"], {}, ExitCode.USAGE, "'scheme' is none of active_versions, "),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else None,
)
def test_a_failure_is_one_line_with_its_code(
    cli: Cli, arguments: list[str], environment: dict[str, str], code: ExitCode, said: str
) -> None:
    """What is wrong is said in one line, the exit code says whose it is, and stdout stays clean."""
    ended = cli(*arguments, **environment)
    assert ended.code == code
    line = one_line(ended)
    assert said in line
    assert "hush" not in line


def test_debug_shows_where_it_came_from(cli: Cli) -> None:
    """With --debug the traceback comes first, and the same line and code in the end."""
    ended = cli("status", "--debug", "--redis", NOBODY)
    assert ended.code == ExitCode.REDIS
    assert ended.err.startswith("Traceback")
    assert ended.err.splitlines()[-1].startswith("kcg-cache: Redis: not reachable")


def test_every_cause_is_a_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A defect of ours is told with its chain of causes, one line each, and without a traceback."""

    def broken(*_: object) -> None:
        raise RuntimeError("two\nlines") from KeyError("deep\x1b[31m")

    monkeypatch.setattr("kcg_cache.queries.names", broken)
    assert app.run(["sql"]) == ExitCode.INTERNAL
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "kcg-cache: internal error: RuntimeError: two lines",
        r"kcg-cache:   because of KeyError: 'deep\x1b[31m'",
        "kcg-cache: `kcg-cache --debug …` shows where; please report it",
    ]


@pytest.mark.parametrize("arguments", [["sql", "schema"], ["sql"], ["lua", "read"], ["--help"]], ids=" ".join)
def test_a_reader_that_went_away_is_no_traceback(cli: Cli, arguments: list[str]) -> None:
    """`kcg-cache … | head` ends as other programs do."""
    reader, writer = os.pipe()
    os.close(reader)
    with cli.start(*arguments, stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        _, err = process.communicate()
    assert (process.returncode, err) == (ExitCode.CLOSED_PIPE, b"")


def test_a_full_disk_is_said(cli: Cli) -> None:
    """A result that could not be written is no success."""
    with Path("/dev/full").open("wb") as full, cli.start("sql", stdout=full, stderr=subprocess.PIPE) as process:
        _, err = process.communicate()
    assert process.returncode == ExitCode.OUTPUT
    assert err == b"kcg-cache: stdout cannot be written: No space left on device\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(cli: Cli, missing: str) -> None:
    """The library imports without typer and rich, and the command line says which extra brings them."""
    program = f"""
import sys
sys.modules[{missing!r}] = None
import kcg_cache, kcg_cache.cli.caches, kcg_cache.cli.journal
from kcg_cache.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], env=cli.environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (ExitCode.CONFIGURATION, b"")
    assert ended.stderr.decode() == (
        f"kcg-cache: the command line needs {missing}, which is not installed: pip install 'kcg-cache[cli]'\n"
    )
