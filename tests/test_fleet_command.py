"""``kcg-cache fleet`` and ``kcg-cache invalidate --wait-for-fleet``: real processes that read, on real servers."""

import contextlib
import json
import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import psycopg2
import pytest
import redis
from rich.cells import cell_len

from kcg_cache import ACTIVE_VERSIONS, Settings, SharedCache, queries
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.options import duration
from kcg_cache.embedded import start_valkey
from kcg_cache.keys import Keys
from kcg_cache.settings import variable_of
from tests import test_cli
from tests.schemas import valid
from tests.test_cli import ANSI, Cli
from tests.test_fleet import Process, process
from tests.waiting import eventually

pytestmark = pytest.mark.operators

DIGEST = "d" * 32
SECOND = 1_000_000
#: Seconds that no machine needs, and that no test takes.
LONG = "60s"


cli = test_cli.cli


@pytest.fixture
def given(redis_url: str, namespace: str, pg_dsn: str) -> dict[str, Any]:
    """Give what a worker is told of the servers."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    return {"redis": redis_url, "namespace": namespace, "dsn": pg_dsn, "settings": {"application": "detector"}}


@pytest.fixture
def operator(cli: Cli) -> Iterator[SharedCache]:
    """Give an operator's cache, which is no reader."""
    cache = SharedCache(
        None, ACTIVE_VERSIONS, Settings(redis_url=cli.redis_url, namespace=cli.namespace), present=False
    )
    yield cache
    cache.close()


@pytest.fixture
def plant(cli: Cli, client: Any) -> Callable[..., None]:
    """Give a function that leaves the presence of a process that is not there, last seen in so many seconds.

    From the future, it stays within its lease however long the machine takes.
    """

    def leave(seconds: float, kind: str, *, loaded: float | None = None, reader: str = "0" * 16, **told: Any) -> None:
        now, micros = client.time()
        now = now * SECOND + micros
        at = now + round(seconds * SECOND)
        loaded_at = "" if loaded is None else now + round(loaded * SECOND)
        digest = "" if loaded is None else DIGEST
        said = orjson.dumps({"host": "ghost", "pid": 77, "application": "detector", "version": "0.0.9", **told})
        key = Keys.of(cli.namespace, "active_versions").fleet
        client.hset(key, reader, f"{at}|{kind}|{digest}|{loaded_at}|{at}|".encode() + said)

    return leave


@contextlib.contextmanager
def steady(given: dict[str, Any], number: int) -> Iterator[list[Process]]:
    """Give so many processes that read all the time, and have asked once."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(process("steady", given)) for _ in range(number)]
        for one in processes:
            assert one.line() == {"pid": one.popen.pid}
        yield processes


def pids(readers: list[dict[str, Any]]) -> set[int]:
    return {reader["pid"] for reader in readers}


# --- fleet ------------------------------------------------------------------------------------------------------------


def test_nobody_is_said_to_be_nobody(cli: Cli) -> None:
    """An empty fleet is no failure."""
    document = valid("fleet", cli.json("fleet"))
    assert (document["entry"], document["readers"], document["unreadable"]) == (None, [], 0)
    assert "None that asked" in cli("fleet").out


def test_the_command_line_is_no_reader(cli: Cli, given: dict[str, Any]) -> None:
    """It reads once and is gone."""
    assert cli("show", "--dsn", given["dsn"]).code == 0
    assert cli.json("fleet")["readers"] == []


def test_every_process_is_shown_by_host_forked_ones_too(cli: Cli, given: dict[str, Any]) -> None:
    """Who it is, on which rows, since when, and how much it reads."""
    with process("steady", given | {"forks": 2}) as parent:
        expected = {parent.line()["pid"] for _ in range(3)}
        assert parent.popen.pid in expected

        def shown() -> Any:
            document = valid("fleet", cli.json("fleet"))
            current = [reader for reader in document["readers"] if reader["standing"] == "current"]
            counted = all(reader["counted_seconds"] for reader in current)
            return document if pids(current) == expected and counted else None

        document = eventually(shown)
        # On a terminal, too: the host once, every process, nothing wider than it.
        screen = ANSI.sub("", cli.screen("fleet", columns=80))
    assert document["totals"]["current"] == len(document["readers"]) == 3
    entry = document["entry"]
    for reader in document["readers"]:
        assert (reader["host"], reader["application"]) == (socket.gethostname(), "detector")
        assert (reader["digest"], reader["loaded_at"]) == (entry["digest"], entry["loaded_at"])
        assert reader["since"] < reader["seen"]
        assert reader["counts"]["near"] > 0
        assert reader["settings"]["ttl"] == 300
    assert max(map(cell_len, screen.splitlines())) <= 80
    assert all(str(pid) in screen for pid in expected)
    assert "3 processes on 1 host: " in screen


def test_who_stopped_or_died_is_silent_and_then_forgotten(cli: Cli, given: dict[str, Any], client: Any) -> None:
    """Nobody can tell the two apart, and neither reads without asking first."""
    with steady(given, 3) as (running, stopped, killed):
        stopped.popen.send_signal(signal.SIGSTOP)
        killed.popen.kill()

        def silent() -> Any:
            readers = cli.json("fleet")["readers"]
            standings = {reader["pid"]: reader["standing"] for reader in readers}
            gone = {standings[stopped.popen.pid], standings[killed.popen.pid]} == {"silent"}
            return readers if gone and standings[running.popen.pid] == "current" else None

        readers = eventually(silent)
        assert len(readers) == 3
        assert pids(readers) == {one.popen.pid for one in (running, stopped, killed)}
        # A quarter of an hour later, for one of them.
        key = Keys.of(cli.namespace, "active_versions").fleet
        (field,) = [reader["reader"] for reader in readers if reader["pid"] == killed.popen.pid]
        value = client.hget(key, field)
        before = int(value.partition(b"|")[0]) - 901 * SECOND
        client.hset(key, field, b"%d|" % before + value.partition(b"|")[2])
        assert pids(cli.json("fleet")["readers"]) == {running.popen.pid, stopped.popen.pid}


def test_who_was_given_older_rows_than_are_shared_is_a_finding(
    cli: Cli, given: dict[str, Any], operator: SharedCache, plant: Callable[..., None]
) -> None:
    """It must not be, and whoever watches for it has an exit code."""
    with contextlib.closing(psycopg2.connect(given["dsn"])) as conn:
        operator.read(conn)
    plant(60.0, "SAME", loaded=-100.0)
    ended = cli("fleet", "--json")
    assert ended.code == ExitCode.FINDING
    (reader,) = valid("fleet", json.loads(ended.out))["readers"]
    assert reader["standing"] == "lagging"
    assert ended.err == "kcg-cache: given rows from before the shared ones, which must not be: ghost:77\n"


def test_whatever_stands_in_a_record_is_shown_as_it_is(cli: Cli, plant: Callable[..., None], client: Any) -> None:
    """Korean is aligned, control characters are spelt, junk is counted."""
    plant(60.0, "FILL", host="호스트", application="탐지기", counts={"cut_off": 1, "private": 2, "database": 3})
    plant(60.0, "WAIT", reader="1" * 16, host="\x1b[2Jevil\nhost", application="[bold]x", counted_seconds=1)
    plant(60.0, "FILL", reader="2" * 16, host="private", private_ms=100)
    client.hset(Keys.of(cli.namespace, "active_versions").fleet, "junk", "junk")
    document = valid("fleet", cli.json("fleet"))
    assert document["unreadable"] == 1
    assert document["totals"] | {"loading": 1, "waiting": 1, "private": 1} == document["totals"]
    ended = cli("fleet")
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    assert "\\x1b[2Jevil host" in ended.out
    assert "[bold]x" in ended.out
    assert re.search(r"호스트:77 +was cut off from Redis 1 time, 2 private loads\n", ended.out)
    assert re.search(r"private:77 +rows that it shares with nobody, for ", ended.out)
    assert "1 record that nobody can read" in ended.out
    lines = [line for line in ended.out.splitlines() if " 77 " in line]
    assert len({cell_len(line[: line.index(" 77 ")]) for line in lines}) == 1


@pytest.mark.parametrize("columns", [40, 120])
def test_the_screen_fits_the_terminal_and_is_coloured_only_there(
    cli: Cli, plant: Callable[..., None], columns: int
) -> None:
    """And not with NO_COLOR."""
    for number in range(3):
        plant(0.0, "SAME", loaded=-5.0, reader=f"{number:016x}", pid=number)
    screen = cli.screen("fleet", columns=columns)
    assert ANSI.search(screen)
    assert max(map(cell_len, ANSI.sub("", screen).splitlines())) <= columns
    assert not ANSI.search(cli.screen("fleet", columns=columns, NO_COLOR="1"))


# --- invalidate --wait-for-fleet --------------------------------------------------------------------------------------


def test_the_receipt_names_who_is_on_the_new_rows_and_who_is_silent(cli: Cli, given: dict[str, Any]) -> None:
    """Three run on, one is stopped, one was killed: nobody can read old rows any more."""
    with steady(given, 5) as processes:
        stopped, killed = processes[3].popen, processes[4].popen
        running = {one.popen.pid for one in processes[:3]}
        stopped.send_signal(signal.SIGSTOP)
        killed.kill()
        document = valid("invalidate", cli.json("invalidate", "--reason", "x", "--wait-for-fleet", LONG))
        fleet = document["fleet"]
        assert (document["in_force"], fleet["complete"], fleet["pending"], fleet["lagging"]) == (True, True, [], [])
        assert {stopped.pid, killed.pid} <= pids(fleet["silent"])
        assert pids(fleet["new"]) <= running
        assert pids(fleet["new"]) | pids(fleet["silent"]) == running | {stopped.pid, killed.pid}
        for reader in fleet["new"]:
            assert reader["loaded_at"] > document["when"]

        def all_new() -> bool:
            readers = cli.json("fleet")["readers"]
            fresh = [one for one in readers if one["loaded_at"] and one["loaded_at"] > document["when"]]
            return pids(fresh) == running

        assert eventually(all_new)


def test_who_loads_is_pending_until_it_has_loaded(given: dict[str, Any], operator: SharedCache) -> None:
    """A real process whose load is held; the one beside it waits for it."""
    holding = given | {"hold": True}
    with process("steady", holding) as holder:
        pid = holder.popen.pid
        assert holder.line() == {"pid": pid}
        receipt = operator.invalidate(wait=False)
        assert holder.line() == {"held": True}  # so it has asked since
        with process("reader", given) as other:
            assert other.line() == {"reading": True}
            assert other.line() == {"waiting": True}
            receipt.wait()
            early = operator.wait_for_fleet(receipt, 0.0)
            assert not early.complete
            assert {(one.pid, one.kind) for one in early.pending} == {(pid, "FILL"), (other.popen.pid, "WAIT")}
            holder.tell()
            late = operator.wait_for_fleet(receipt, 60.0)
        assert late.complete
        assert pid in {one.pid for one in late.new}
        assert late.pending == late.lagging == ()


def test_without_the_option_the_receipt_has_no_fleet(cli: Cli, plant: Callable[..., None]) -> None:
    """Nobody is waited for."""
    plant(60.0, "FILL")
    document = valid("invalidate", cli.json("invalidate", "--reason", "x", "--no-wait"))
    assert document["fleet"] is None
    assert valid("invalidate", cli.json("invalidate", "--reason", "x"))["fleet"] is None


def test_who_has_not_taken_it_up_in_time_is_named_and_fails(cli: Cli, plant: Callable[..., None]) -> None:
    """The rows are withdrawn all the same, and the receipt says so."""
    plant(60.0, "FILL", pid=77)
    plant(60.0, "WAIT", reader="1" * 16, pid=78)
    plant(-5.0, "SAME", reader="2" * 16, pid=79, loaded=-100.0)
    plant(60.0, "ROWS", reader="3" * 16, pid=80, loaded=60.0)
    ended = cli("invalidate", "--reason", "x", "--wait-for-fleet", "200ms")
    assert ended.code == ExitCode.FINDING
    assert ended.err == (
        "kcg-cache: 2 processes were not on the new rows after 200 ms: ghost:77 (loads), ghost:78 (waits)\n"
    )
    assert re.search(r"in force +since", ended.out)
    assert re.search(r"on the new rows +1 of 3 processes", ended.out)
    assert re.search(r"ghost +detector +not yet +77, 78", ended.out)
    assert re.search(r"ghost +detector +silent +79", ended.out)
    assert re.search(r"ghost +detector +on the new rows +80", ended.out)
    failed = cli("invalidate", "--reason", "x", "--wait-for-fleet", "0", "--json")
    assert failed.code == ExitCode.FINDING
    fleet = valid("invalidate", json.loads(failed.out))["fleet"]
    assert [len(fleet[name]) for name in ("new", "pending", "silent", "lagging")] == [1, 2, 1, 0]


def test_old_rows_after_the_deletion_are_a_finding_of_their_own(cli: Cli, plant: Callable[..., None]) -> None:
    """It must not be."""
    plant(60.0, "SAME", loaded=-5.0)
    ended = cli("invalidate", "--reason", "x", "--wait-for-fleet", "100ms")
    assert ended.code == ExitCode.FINDING
    assert "1 process was given old rows after the deletion, which must not be: ghost:77" in ended.err


def test_a_terminal_shows_who_is_waited_for(cli: Cli, plant: Callable[..., None]) -> None:
    """On one line, which goes when the last one has taken it up."""
    plant(60.0, "FILL")
    with cli.on_terminal("invalidate", "--reason", "x", "--wait-for-fleet", LONG, columns=90) as terminal:
        terminal.until("waiting until every reader's lease has ended")
        terminal.until("0 of 1 on the new rows; not yet: ghost:77 (loads)")
        plant(60.0, "PUBLISHED", loaded=60.0)
        screen = terminal.rest()
        assert terminal.process.wait() == 0
    assert re.search(r"on the new rows +1 of 1 process", ANSI.sub("", screen))


def test_interrupted_while_it_waits_for_the_fleet_says_that_it_is_in_force(
    cli: Cli, plant: Callable[..., None]
) -> None:
    """Nothing is left to be done but to look."""
    plant(60.0, "FILL")
    with cli.on_terminal("invalidate", "--reason", "x", "--wait-for-fleet", LONG) as terminal:
        terminal.until("not yet: ghost:77")
        terminal.process.send_signal(signal.SIGINT)
        screen = terminal.rest()
        assert terminal.process.wait() == ExitCode.INTERRUPTED
    assert "deleted, and in force since" in screen
    assert "Traceback" not in screen


def test_a_redis_that_dies_while_the_fleet_is_waited_for_fails_and_the_rows_are_withdrawn(cli: Cli) -> None:
    """It is no failure of the invalidate: nobody has to repeat it."""
    namespace = f"test-{secrets.token_hex(4)}"
    with start_valkey() as server:
        key = Keys.of(namespace, "active_versions").fleet
        own = Cli({**cli.environment, variable_of("redis_url"): server.url, variable_of("namespace"): namespace})
        with redis.Redis.from_url(server.url) as client:
            ahead = int(client.time()[0]) + 60
            client.hset(key, "0" * 16, f"{ahead * SECOND}|FILL|||1|{{}}")
        with own.on_terminal("invalidate", "--reason", "x", "--wait-for-fleet", "2s") as terminal:
            terminal.until("not yet:")
            server.kill()
            screen = ANSI.sub("", terminal.rest())
            assert terminal.process.wait() == ExitCode.FINDING
    assert re.search(r"in force +since", screen)
    assert "but who has taken it up cannot be told" in " ".join(screen.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--wait-for-fleet", "soon"], "'soon' is no time span"),
        (["--wait-for-fleet", "-1s"], "no time span"),
        (["--wait-for-fleet", "1s", "--no-wait"], "two different wishes"),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_is_done(
    cli: Cli, client: Any, arguments: list[str], said: str
) -> None:
    """In one line."""
    entry = Keys.of(cli.namespace, "active_versions").entry
    client.hset(entry, "digest", "cafe")
    ended = cli("invalidate", "--reason", "x", *arguments)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert said in ended.err
    assert client.exists(entry)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("500ms", 0.5), ("2m", 120), ("1.5min", 90), ("1h", 3600), ("7", 7), (" 3 s ", 3), ("0", 0)],
)
def test_a_time_span_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    """As people write them."""
    assert duration(text) == seconds
