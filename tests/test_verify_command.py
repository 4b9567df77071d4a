"""``kcg-cache verify``: the real command line against real servers, with every way in which they can differ."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.cells import cell_len

from kcg_cache import ACTIVE_VERSIONS, Dataset, Settings, SharedCache
from kcg_cache.cli.exits import ExitCode
from kcg_cache.embedded import start_valkey
from kcg_cache.keys import Keys
from kcg_cache.settings import variable_of
from kcg_cache.verification import LOOKS, PAUSE, Verification
from tests import test_cli
from tests.doubles import TickedSystem
from tests.programs import NOBODY, Ended
from tests.schemas import valid
from tests.test_cli import ANSI, Cli, Database
from tests.waiting import eventually

pytestmark = pytest.mark.operators

cli = test_cli.cli
database = test_cli.database
cache = test_cli.cache
filled = test_cli.filled

_KEY = "k" * 16
_LOCK = "ab" * 16


@pytest.fixture
def verify(cli: Cli, database: Database) -> Callable[..., Ended]:
    """Give the command on the test's database."""

    def run(*arguments: str, **environment: str) -> Ended:
        return cli("verify", "--dsn", database.dsn, *arguments, **environment)

    return run


def found(ended: Ended, code: ExitCode, outcome: str) -> Any:
    """Give the document of a run that ended so."""
    assert ended.code == code, ended
    document = valid("verify", json.loads(ended.out))
    assert (document["outcome"], document["agrees"]) == (outcome, code is ExitCode.OK)
    if code is ExitCode.OK:
        assert ended.err == ""
    else:
        (line,) = ended.err.splitlines()
        assert line.startswith("kcg-cache: ")
    return document


def change(database: Database, *statements: str) -> None:
    """Commit statements."""
    with database.connect() as conn, conn.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def entry(cli: Cli) -> str:
    return Keys.of(cli.namespace, "active_versions").entry


@pytest.fixture
def unseen(cli: Cli, database: Database) -> Iterator[SharedCache]:
    """Share the sample data, by somebody who is not seen in the fleet."""
    cache = SharedCache(settings=Settings(redis_url=cli.redis_url, namespace=cli.namespace), present=False)
    assert cache.read(database.connect()).shared
    yield cache
    cache.close()


# --- no difference ----------------------------------------------------------------------------------------------------


def test_nothing_shared_is_no_fault_and_stays_so(verify: Callable[..., Ended], cli: Cli, client: Any) -> None:
    """Nobody can read other rows; and verify fills nothing, logs nothing and leaves no presence."""
    document = found(verify("--json"), ExitCode.OK, "nothing shared")
    assert (document["entry"], document["absence"]) == (None, "missing")
    assert "Nothing is shared now" in verify().out
    assert client.keys("*") == []


def test_the_same_rows_are_the_same_everywhere(
    verify: Callable[..., Ended], filled: SharedCache, database: Database
) -> None:
    """Digest, number of rows, and the reader that has them; one look is enough."""
    digest = filled.read(None).digest
    document = found(verify("--json"), ExitCode.OK, "same")
    assert document["database"]["digest"] == document["entry"]["digest"] == digest
    assert document["database"]["rows"] == document["entry"]["rows"] == len(filled.read(None).rows)
    assert (document["looks"], document["differences"], document["absence"]) == (1, [], None)
    readers = document["readers"]["same"] + document["readers"]["silent"]
    assert [reader["pid"] for reader in readers] == [os.getpid()]
    shown = verify().out
    assert "The same everywhere" in shown
    assert shown.count(digest) == 2


def test_an_entry_from_before_the_last_commit_is_the_same_when_it_says_the_same(
    verify: Callable[..., Ended], filled: SharedCache, database: Database
) -> None:
    """Contents count, not times: what no reader reads may change, and what is changed back is not changed."""
    change(
        database,
        "UPDATE kcg.detection_models SET display_name = display_name || '!'",
        "UPDATE kcg.detection_model_versions SET updated_at = now() + interval '1 hour'",
    )
    found(verify("--json"), ExitCode.OK, "same")


def test_params_that_were_mended_are_mended_here_too(
    verify: Callable[..., Ended], cache: SharedCache, database: Database
) -> None:
    """A row whose params are no object is shared as {}: the same, and told."""
    change(
        database,
        "UPDATE kcg.detection_model_versions SET params = '[1]'"
        " WHERE id = (SELECT min(id) FROM kcg.detection_model_versions WHERE status = 'ACTIVE')",
    )
    assert cache.read(database.connect()).shared
    document = found(verify("--json"), ExitCode.OK, "same")
    (mended,) = document["database"]["mended"]
    assert "became {}" in mended
    assert verify("--quiet") == Ended(0, "", "")
    assert "became {}" in verify().out


@pytest.mark.parametrize(
    ("fields", "absence"),
    [
        ({"incarnation": "elsewhere/elsewhere"}, "incarnation"),
        ({"loaded_at": "1700000000000000"}, "expired"),
    ],
    ids=["another server's", "past its TTL"],
)
def test_an_entry_that_is_over_counts_as_none(
    verify: Callable[..., Ended], filled: SharedCache, client: Any, entry: str, fields: dict[str, str], absence: str
) -> None:
    """A restart and the TTL empty the cache: whoever reads next fills it, whatever it says."""
    client.hset(entry, mapping={"digest": "0" * 32, **fields} if absence == "incarnation" else fields)
    document = found(verify("--json"), ExitCode.OK, "nothing shared")
    assert document["absence"] == absence
    assert document["entry"] is not None
    assert "the next reader fills it anew" in verify().out


def test_quiet_says_nothing_when_nothing_differs(verify: Callable[..., Ended], filled: SharedCache) -> None:
    """Cron mails what a job writes."""
    assert verify("--quiet") == verify("-q", "--json") == Ended(0, "", "")


# --- differences ------------------------------------------------------------------------------------------------------

_DARK_VESSEL = "model_id = 'dark-vessel' AND status = 'ACTIVE' AND role = 'PRIMARY'"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            f"UPDATE kcg.detection_model_versions SET params = params || '{{\"min_score\": 0.7}}' WHERE {_DARK_VESSEL}",
            ("changed", "dark-vessel 3.2.0", [{"path": "params.min_score", "old": 0.65, "new": 0.7}]),
        ),
        (
            f"UPDATE kcg.detection_model_versions SET params = params || '{{\"문턱값\": 1}}' WHERE {_DARK_VESSEL}",
            ("changed", "dark-vessel 3.2.0", [{"path": "params.문턱값", "new": 1}]),
        ),
        (
            f"UPDATE kcg.detection_model_versions SET params = params - 'label' WHERE {_DARK_VESSEL}",
            ("changed", "dark-vessel 3.2.0", [{"path": "params.label", "old": "다크베셀 의심"}]),
        ),
        (
            f"UPDATE kcg.detection_model_versions SET role = 'SHADOW' WHERE {_DARK_VESSEL}",
            ("changed", "dark-vessel 3.2.0", [{"path": "role", "old": "PRIMARY", "new": "SHADOW"}]),
        ),
        (
            f"UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE {_DARK_VESSEL}",
            ("removed", "dark-vessel 3.2.0", []),
        ),
        (
            (
                "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
                " VALUES ('dark-vessel', '9.9', 'SHADOW', 'ACTIVE', '{}')"
            ),
            ("added", "dark-vessel 9.9", []),
        ),
    ],
    ids=["param", "param added", "param removed", "role", "version removed", "version added"],
)
def test_a_difference_is_told_row_by_row(
    verify: Callable[..., Ended],
    filled: SharedCache,
    database: Database,
    statement: str,
    expected: tuple[str, str, list[Any]],
) -> None:
    """Which version, which parameter, the shared value and the database's: it is found twice before it is told."""
    change(database, statement)
    document = found(verify("--json"), ExitCode.FINDING, "different")
    (told,) = document["differences"]
    assert (told["kind"], told["row"], told["fields"]) == expected
    assert (document["looks"], document["settled"], document["reordered"]) == (2, True, False)
    assert (told["before"] is None, told["after"] is None) == {
        "changed": (True, True),
        "removed": (False, True),
        "added": (True, False),
    }[expected[0]]


def test_a_difference_is_shown_to_people(verify: Callable[..., Ended], filled: SharedCache, database: Database) -> None:
    """The screen names version and parameter, and stderr what to do; --quiet does not keep it back."""
    change(
        database,
        f"UPDATE kcg.detection_model_versions SET params = params || '{{\"min_score\": 0.7}}' WHERE {_DARK_VESSEL}",
    )
    ended = verify("--quiet")
    assert ended.code == ExitCode.FINDING
    assert "Different: the shared rows are not the database's" in ended.out
    assert re.search(r"~ dark-vessel 3\.2\.0.*\n +params\.min_score +0\.65 +→ +0\.7\n", ended.out)
    assert ended.err == (
        "kcg-cache: the shared rows are not the database's: if the database is right, "
        "`kcg-cache invalidate --reason …`\n"
    )


def test_another_order_of_the_same_rows_is_a_difference(
    verify: Callable[..., Ended], cli: Cli, database: Database
) -> None:
    """Readers get them in the order of the query; no row differs, and that is what is told."""
    backwards = Dataset(
        "active_versions",
        lambda conn: list(reversed(list(ACTIVE_VERSIONS.load(conn)))),
        decode_row=ACTIVE_VERSIONS.decode_row,
        row_type=ACTIVE_VERSIONS.row_type,
    )
    other = SharedCache(cli.redis_url, backwards, Settings(namespace=cli.namespace))
    assert other.read(database.connect()).shared
    other.close()
    document = found(verify("--json"), ExitCode.FINDING, "different")
    assert (document["differences"], document["reordered"]) == ([], True)
    assert "stand in another order" in verify().out


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"payload": "garbage"}, "digest"),
        ({"digest": "\x1b[2J"}, "digest"),
        ({"format": "pickle"}, "format"),
        ({"loaded_at": "soon"}, "malformed"),
        ({"payload": ""}, "malformed"),
    ],
    ids=["payload", "digest", "format", "time", "empty"],
)
def test_an_entry_that_no_reader_takes_is_a_finding(
    verify: Callable[..., Ended], filled: SharedCache, client: Any, entry: str, fields: dict[str, str], reason: str
) -> None:
    """Somebody else wrote to it: readers are right all the same, and it is to be known."""
    if reason == "digest" and "payload" in fields:
        fields = fields | {"format": "orjson"}
    client.hset(entry, mapping=fields)
    document = found(verify("--json"), ExitCode.FINDING, "refused")
    assert document["entry"]["refused"]["reason"] == reason
    ended = verify()
    assert "No reader takes the entry" in ended.out
    assert "\x1b" not in ended.out + ended.err


def test_a_foreign_key_in_the_entrys_place_is_a_finding(verify: Callable[..., Ended], client: Any, entry: str) -> None:
    """Something that is no entry at all."""
    client.set(entry, "not ours")
    document = found(verify("--json"), ExitCode.FINDING, "refused")
    assert document["entry"]["refused"]["reason"] == "malformed"


def test_an_unsigned_entry_where_entries_are_signed_is_a_finding(
    verify: Callable[..., Ended], filled: SharedCache
) -> None:
    """Readers with a signing key do not take it; without one they do."""
    ended = verify("--json", **{variable_of("signing_keys"): _KEY})
    document = found(ended, ExitCode.FINDING, "refused")
    assert document["entry"]["refused"]["reason"] == "signature"
    found(verify("--json"), ExitCode.OK, "same")


def test_a_signed_entry_is_the_same(verify: Callable[..., Ended], cli: Cli, database: Database) -> None:
    """With the key of its writer it is believed."""
    settings = Settings.from_env({variable_of("signing_keys"): _KEY}, namespace=cli.namespace)
    writer = SharedCache(cli.redis_url, settings=settings)
    assert writer.read(database.connect()).shared
    writer.close()
    found(verify("--json", **{variable_of("signing_keys"): _KEY}), ExitCode.OK, "same")


def test_readers_of_rows_that_differ_are_named(
    verify: Callable[..., Ended], filled: SharedCache, database: Database
) -> None:
    """A change that nobody invalidated: who reads on with the old rows is told by name."""
    change(database, f"UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE {_DARK_VESSEL}")
    with _reading(filled, database):
        document = found(verify("--json"), ExitCode.FINDING, "different")
        shown = verify().out
    assert [reader["pid"] for reader in document["readers"]["as_entry"]] == [os.getpid()]
    assert re.search(rf"1 +on the shared rows, which differ: .*:{os.getpid()} ", shown)


@contextlib.contextmanager
def _reading(cache: SharedCache, database: Database) -> Iterator[None]:
    """Let a worker read all the time."""
    conn = database.connect()
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(0.01):
            cache.read(conn)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# --- what is under way ------------------------------------------------------------------------------------------------


class Staged(TickedSystem):
    """A host on which something is done whenever somebody sleeps."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        super().__init__()
        self.acts = list(acts)

    def sleep(self, seconds: float) -> None:
        """Do the next thing, and let the time pass at once."""
        super().sleep(seconds)
        if self.acts:
            self.acts.pop(0)()


def _verified(cli: Cli, database: Database, system: Staged) -> Verification:
    cache = SharedCache(cli.redis_url, settings=Settings(namespace=cli.namespace), present=False, system=system)
    try:
        return cache.verify(database.connect())
    finally:
        cache.close()


_ARCHIVE = f"UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE {_DARK_VESSEL}"


def test_a_change_whose_invalidate_follows_is_no_difference(cli: Cli, unseen: SharedCache, database: Database) -> None:
    """Between commit and invalidate the rows differ; by the next look that is over."""
    change(database, _ARCHIVE)
    system = Staged(lambda: unseen.invalidate(reason="promoted", wait=False))
    result = _verified(cli, database, system)
    assert (result.outcome, result.absence) == ("nothing shared", "missing")
    assert (result.looks, system.slept) == (2, [PAUSE])


def test_a_refresh_in_between_is_no_difference(cli: Cli, unseen: SharedCache, database: Database) -> None:
    """The entry that is there at the next look says what the database does."""
    change(database, _ARCHIVE)
    system = Staged(lambda: unseen.read(database.connect(), force=True))
    result = _verified(cli, database, system)
    assert (result.outcome, result.looks, system.slept) == ("same", 2, [PAUSE])


def test_while_a_fill_runs_it_looks_until_the_end(
    cli: Cli, unseen: SharedCache, database: Database, client: Any
) -> None:
    """What is under way may mend it: it is told only after the last look, and that it may not be final."""
    change(database, _ARCHIVE)
    state = unseen.inspect(1)
    lock = f"{_LOCK}|{state.at}|{state.incarnation}|{state.at}"
    client.set(Keys.of(cli.namespace, "active_versions").lock, lock, px=60_000)
    result = _verified(cli, database, Staged())
    assert (result.outcome, result.looks, result.settled, result.filling) == ("different", LOOKS, False, True)


def test_a_lock_of_before_a_restart_is_no_fill(cli: Cli, unseen: SharedCache, database: Database, client: Any) -> None:
    """It counts for nobody, and holds nothing up here either."""
    change(database, _ARCHIVE)
    client.set(Keys.of(cli.namespace, "active_versions").lock, f"{_LOCK}|1|elsewhere/elsewhere|1", px=60_000)
    result = _verified(cli, database, Staged())
    assert (result.outcome, result.looks, result.settled, result.filling) == ("different", 2, True, False)


def test_a_difference_that_changes_is_looked_at_again(cli: Cli, unseen: SharedCache, database: Database) -> None:
    """It is told when it was found twice, and not while the database goes on changing."""
    insert = (
        "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
        " VALUES ('dark-vessel', '{}', 'SHADOW', 'ACTIVE', '{{}}')"
    )
    change(database, insert.format(0))
    system = Staged(lambda: change(database, insert.format(1)), lambda: change(database, insert.format(2)))
    result = _verified(cli, database, system)
    assert (result.outcome, result.looks) == ("different", 4)


# --- the fleet --------------------------------------------------------------------------------------------------------


def _told_of(client: Any, cli: Cli, cache: SharedCache, *, loaded: int) -> None:
    """Leave the presence of a reader on other rows, that were loaded so many µs after the shared ones."""
    state = cache.inspect(1)
    seen = state.at + 60_000_000  # it is not silent while this test runs
    record = f"{seen}|SAME|{'d' * 32}|{int(state.entry['loaded_at']) + loaded}|{state.at}|" + json.dumps(
        {"host": "worker-7", "pid": 4711, "application": "detector", "version": "0", "lease": 1.0}
    )
    client.hset(Keys.of(cli.namespace, "active_versions").fleet, "0" * 16, record)


def test_a_reader_that_stays_on_other_rows_is_a_finding(
    verify: Callable[..., Ended], cli: Cli, unseen: SharedCache, client: Any
) -> None:
    """The shared rows are right, and it goes on with others for longer than any lease: that must not be."""
    _told_of(client, cli, unseen, loaded=1)
    document = found(verify("--json"), ExitCode.FINDING, "readers differ")
    assert [reader["host"] for reader in document["readers"]["behind"]] == ["worker-7"]
    ended = verify()
    assert "there are readers on others" in ended.out
    assert "these readers stay on other rows: worker-7:4711 (detector) on dddddddddddd" in ended.err


@pytest.mark.parametrize(("loaded", "looks"), [(1, 4), (-1, 2)], ids=["within a lease, perhaps", "given old rows"])
def test_a_reader_is_given_its_lease_unless_it_was_given_old_rows(
    cli: Cli, unseen: SharedCache, database: Database, client: Any, loaded: int, looks: int
) -> None:
    """It may not have asked since the entry came, and follows then: only what outlasts a lease is a fault."""
    _told_of(client, cli, unseen, loaded=loaded)
    result = _verified(cli, database, Staged())
    assert (result.outcome, result.looks) == ("readers differ", looks)


def test_a_reader_that_follows_is_no_finding(cli: Cli, unseen: SharedCache, database: Database, client: Any) -> None:
    """By the next look it has the database's rows, or is silent."""
    _told_of(client, cli, unseen, loaded=1)
    fleet = Keys.of(cli.namespace, "active_versions").fleet
    result = _verified(cli, database, Staged(lambda: client.delete(fleet)))
    assert (result.outcome, result.looks) == ("same", 2)


def test_presences_that_nobody_can_read_are_counted(
    verify: Callable[..., Ended], cli: Cli, unseen: SharedCache, client: Any
) -> None:
    """Garbage in the fleet's hash breaks nothing."""
    client.hset(Keys.of(cli.namespace, "active_versions").fleet, mapping={"x": "y", b"\xff": b"\xff"})
    assert found(verify("--json"), ExitCode.OK, "same")["readers"]["unreadable"] == 2
    assert "told what nobody can read" in verify().out


# --- servers that fail ------------------------------------------------------------------------------------------------


def test_redis_down_is_3_and_postgres_down_is_4(cli: Cli, database: Database) -> None:
    """One line says which; where both are down it is Redis, which was asked first."""
    gone = "host=127.0.0.1 port=1"
    for arguments, code, said in (
        (("--redis", NOBODY, "--dsn", database.dsn), ExitCode.REDIS, "Redis: not reachable"),
        (("--dsn", gone), ExitCode.POSTGRES, "PostgreSQL: "),
        (("--redis", NOBODY, "--dsn", gone), ExitCode.REDIS, "Redis: not reachable"),
    ):
        for more in ((), ("--quiet",), ("--json",)):
            ended = cli("verify", *arguments, *more)
            assert ended.code == code
            assert said in test_cli.one_line(ended)


def test_wrong_usage_is_said(cli: Cli) -> None:
    """A span that is none."""
    ended = cli("verify", "--watch", "often")
    assert ended.code == ExitCode.USAGE
    assert "'often' is no time span" in test_cli.one_line(ended)


def test_interrupted_in_a_hanging_query_ends_at_once(cli: Cli, database: Database) -> None:
    """Ctrl-C reaches a statement that waits in PostgreSQL."""
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
            (row,) = cursor.fetchall()
        return bool(row[0])

    with cli.start("verify", "--dsn", database.dsn, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        eventually(waits)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", b"")


# --- on a terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [50, 100])
def test_a_terminal_shows_it_no_wider_than_it_is(
    cli: Cli, filled: SharedCache, database: Database, columns: int
) -> None:
    """Progress while it looks, and then the result in its width; Korean values too."""
    change(
        database,
        f'UPDATE kcg.detection_model_versions SET params = params || \'{{"label": "다크베셀 의심 선박"}}\''
        f" WHERE {_DARK_VESSEL}",
    )
    with cli.on_terminal("verify", "--dsn", database.dsn, columns=columns) as terminal:
        screen = ANSI.sub("", terminal.rest())
        assert terminal.process.wait() == ExitCode.FINDING
    assert "reading the database and Redis" in screen
    assert f"not the same yet: look 2 of {LOOKS}" in screen
    result = screen[screen.index("Different: ") :]
    # The last line is stderr's, which the terminal breaks by itself.
    lines = result[: result.index("kcg-cache: ")].splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert "선박" in result


def test_no_colour_where_it_is_not_wanted(cli: Cli, filled: SharedCache, database: Database) -> None:
    """NO_COLOR and pipes get text; --quiet shows no progress either."""
    assert "\x1b" not in cli("verify", "--dsn", database.dsn).out
    assert cli.screen("verify", "--dsn", database.dsn, "--quiet") == ""


# --- --watch ----------------------------------------------------------------------------------------------------------


def test_watch_gives_a_document_for_each_round(cli: Cli, filled: SharedCache, database: Database) -> None:
    """Same, then different after a change, then nothing shared after the invalidate; until Ctrl-C."""
    arguments = ("verify", "--dsn", database.dsn, "--watch", "10ms", "--json")
    with cli.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        def until(outcome: str) -> Any:
            while (document := valid("verify", json.loads(process.stdout.readline())))["outcome"] != outcome:
                assert document["outcome"] in ("same", "different")
            return document

        assert until("same")["differences"] == []
        change(database, _ARCHIVE)
        assert [told["row"] for told in until("different")["differences"]] == ["dark-vessel 3.2.0"]
        filled.invalidate(reason="archived", wait=False)
        until("nothing shared")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (ExitCode.INTERRUPTED, "")


def test_watch_writes_a_line_for_each_round(cli: Cli, filled: SharedCache, database: Database) -> None:
    """In a pipe each has its time, what was found, and whether readers are there."""
    arguments = ("verify", "--dsn", database.dsn, "--watch", "10ms")
    with cli.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(2):
            line = process.stdout.readline()
            assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  same            database [0-9a-f]{12}, 18 rows; ", line)
        process.stdout.close()
        # The next line has no reader.
        process.wait(60)
        assert process.stderr.read() == ""
    assert process.returncode == ExitCode.CLOSED_PIPE


def test_watch_ends_when_its_reader_has_gone(cli: Cli, filled: SharedCache, database: Database) -> None:
    """Also between two rounds that are far apart."""
    arguments = ("verify", "--dsn", database.dsn, "--watch", "10h")
    with cli.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "same" in process.stdout.readline()
        process.stdout.close()
        process.wait(60)
        assert process.stderr.read() == ""
    assert process.returncode == ExitCode.CLOSED_PIPE


def test_watch_quietly_shows_only_what_differs(cli: Cli, filled: SharedCache, database: Database) -> None:
    """The first line is of the round that found a difference."""
    arguments = ("verify", "--dsn", database.dsn, "--watch", "10ms", "--quiet", "--json")
    with cli.start(*arguments, stdout=subprocess.PIPE, text=True) as process:
        change(database, _ARCHIVE)
        assert json.loads(process.stdout.readline())["outcome"] == "different"
        process.send_signal(signal.SIGINT)
        process.communicate()


def test_watch_outlives_a_restart_of_redis(cli: Cli, database: Database, namespace: str) -> None:
    """A round in which a server fails is a line with its exit code, and the next round asks again."""
    with start_valkey() as server:
        there = Cli({**cli.environment, variable_of("redis_url"): server.url})
        arguments = ("verify", "--dsn", database.dsn, "--watch", "10ms", "--json")
        with there.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

            def until(outcome: str) -> Any:
                while (document := valid("verify", json.loads(process.stdout.readline())))["outcome"] != outcome:
                    pass
                return document

            until("nothing shared")
            server.kill()
            failed = until("failed")
            assert failed["exit_code"] == ExitCode.REDIS
            assert failed["error"].startswith("Redis: ")
            server.restart()
            until("nothing shared")
            process.send_signal(signal.SIGINT)
            process.communicate()


def test_watch_on_a_terminal_writes_over_a_line_that_stays_the_same(
    cli: Cli, filled: SharedCache, database: Database
) -> None:
    """Rounds are counted in place; what changes begins a line of its own, and Ctrl-C leaves the cursor below."""
    arguments = ("verify", "--dsn", database.dsn, "--watch", "10ms")
    with cli.on_terminal(*arguments, columns=200, NO_COLOR="1") as terminal:
        terminal.until("(round 3)")
        change(database, _ARCHIVE)
        terminal.until("dark-vessel 3.2.0")
        terminal.process.send_signal(signal.SIGINT)
        screen = terminal.rest()
        assert terminal.process.wait() == ExitCode.INTERRUPTED
    assert "\x1b" not in screen
    assert screen.endswith("\n")
    lines = screen.splitlines()
    assert all(cell_len(part) < 200 for line in lines for part in line.split("\r"))
