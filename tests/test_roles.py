"""Least privilege on real servers: each role does its whole job, and nothing else.

The users of Redis are made from the lines that ``kcg-cache acl`` prints, with the default user off; the roles of
PostgreSQL by sql/roles.sql. The commands run in this process.
"""

import contextlib
import io
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
import redis
from psycopg2.extensions import make_dsn

from kcg_cache import ACTIVE_VERSIONS, Dataset, Settings, SharedCache, queries
from kcg_cache.cli import app
from kcg_cache.cli.exits import ExitCode
from kcg_cache.embedded import EmbeddedValkey, start_valkey
from kcg_cache.errors import InvalidateError, StoreRefused
from kcg_cache.keys import Keys
from kcg_cache.listening import Stop
from kcg_cache.rights import ROLES, command_rules, granted, key_rules
from kcg_cache.settings import variable_of
from kcg_cache.watcher import Event, Watcher
from tests.doubles import Source
from tests.pg_fixtures import PostgresServer
from tests.schemas import valid
from tests.servers import numbers
from tests.waiting import eventually

pytestmark = pytest.mark.operators

PASSWORD = "correct horse battery staple"  # noqa: S105 - of a server that lives for this module

#: What a server says where a script runs what its user may not, from 7.2 on and before.
REFUSED_IN_SCRIPT = "ACL failure|The user executing the script"


class Ran(NamedTuple):
    """How a command in this process ended."""

    code: int
    out: str
    err: str


def run(*arguments: str) -> Ran:
    """Run one command here, with both streams captured."""
    raw, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(raw, "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = int(app.run(arguments))
    return Ran(code, raw.getvalue().decode(), err.getvalue())


def for_version(version: str) -> tuple[str, ...]:
    """Give what `kcg-cache acl` is to be told of a server of this version."""
    return () if numbers(version) >= (7, 2) else ("--server", "7.0")


class Server(NamedTuple):
    """A server whose default user is off, and whose users are the four roles, named ``NAMESPACE-ROLE``."""

    valkey: EmbeddedValkey
    admin: Any
    namespace: str

    def url(self, role: str) -> str:
        """Give the address for a role."""
        password = PASSWORD.replace(" ", "%20")
        return f"redis://{self.namespace}-{role}:{password}@{self.valkey.host}:{self.valkey.port}/0"

    def client(self, role: str) -> Any:
        """Give a plain client of a role's."""
        return redis.Redis.from_url(self.url(role), protocol=2)

    def cache(self, role: str, dataset: Dataset = ACTIVE_VERSIONS, **settings: Any) -> SharedCache:
        """Give a cache of a role's."""
        given = Settings(redis_url=self.url(role), namespace=self.namespace, **settings)
        return SharedCache(None, dataset, given)

    def refusals(self) -> list[tuple[str, str]]:
        """Give what the server has refused since the last time, as its ACL LOG has it."""
        found = [(entry["context"], entry["object"]) for entry in self.admin.acl_log()]
        self.admin.acl_log_reset()
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    namespace = f"test-{secrets.token_hex(4)}"
    file = tmp_path_factory.mktemp("secret") / "password"
    file.write_text(f"{PASSWORD}\n", encoding="utf-8")
    with start_valkey() as valkey, redis.Redis.from_url(valkey.url) as first:
        first.execute_command("ACL", "SETUSER", "admin", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        options = {"host": valkey.host, "port": valkey.port, "decode_responses": True}
        with redis.Redis(username="admin", password=PASSWORD, **options) as admin:  # type: ignore[arg-type] # of any kind
            for role in ROLES:
                given = ("--namespace", namespace, "--password-file", str(file))
                printed = run("acl", role, *given, *for_version(valkey.version))
                assert (printed.code, printed.err) == (0, "")
                admin.execute_command(*printed.out.split())
            admin.execute_command("ACL", "SETUSER", "default", "off")
            yield Server(valkey, admin, namespace)
            admin.execute_command("ACL", "SETUSER", "default", "on")


@pytest.fixture
def server(served: Server) -> Server:
    """Give the server, empty."""
    served.admin.flushall()
    served.refusals()
    return served


@pytest.fixture
def become(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a function that makes the commands run as a role's user."""

    def become(role: str) -> None:
        monkeypatch.setenv(variable_of("redis_url"), server.url(role))
        monkeypatch.setenv(variable_of("namespace"), server.namespace)

    return become


def keys_of(server: Server, dataset: Dataset = ACTIVE_VERSIONS) -> Keys:
    return Keys.of(server.namespace, dataset.name)


def contents(server: Server) -> dict[str, Any]:
    """Give every key with its value, which is compared and not looked at."""
    options: Any = {"host": server.valkey.host, "port": server.valkey.port, "username": "admin", "password": PASSWORD}
    found: dict[str, Any] = {}
    with redis.Redis(**options) as raw:
        for key in raw.scan_iter():
            kind = raw.type(key)
            whole = {b"hash": raw.hgetall, b"string": raw.get, b"stream": raw.xrange}[kind]
            found[repr(key)] = whole(key), raw.ttl(key) == -1
    return found


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pg_logins(postgres_server: PostgresServer) -> Iterator[dict[str, str]]:
    """Give a login's name for each role; they are members of nothing yet. The roles of roles.sql go with them."""
    logins = {role: f"kcg_test_{role}_{secrets.token_hex(4)}" for role in ROLES}
    with contextlib.closing(psycopg2.connect(postgres_server.dsn)) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        cursor.execute("SELECT rolname FROM pg_roles")
        before = {name for (name,) in cursor.fetchall()}
        for name in logins.values():
            cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        yield logins
        for name in [*logins.values(), *(f"kcg_{role}" for role in ROLES if f"kcg_{role}" not in before)]:
            cursor.execute(f"DROP ROLE IF EXISTS {name}")


@pytest.fixture
def dsns(pg_dsn: str, pg_logins: dict[str, str]) -> dict[str, str]:
    """Give each role's address of a database with the sample data, on which roles.sql was run, twice."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
        for _ in range(2):
            cursor.execute(queries.load("roles"))
        for role, login in pg_logins.items():
            cursor.execute(f"GRANT kcg_{role} TO {login}")
    return {role: make_dsn(pg_dsn, user=login, password=PASSWORD) for role, login in pg_logins.items()}


# --- a worker ---------------------------------------------------------------------------------------------------------


def test_a_worker_does_its_whole_job(server: Server) -> None:
    """Miss, fill, share, force, renew, fail, wait, a payload that is fetched by itself; the server refuses nothing."""
    source = Source()
    keys = keys_of(server, source.dataset())
    with contextlib.ExitStack() as stack:

        def worker(dataset: Dataset) -> SharedCache:
            return stack.enter_context(contextlib.closing(server.cache("worker", dataset, lease=0.0)))

        one, other = worker(source.dataset()), worker(source.dataset())
        assert (one.read(None).source, other.read(None).source) == ("database", "redis")
        assert other.read(None, force=True).source == "database"

        source.after_read = fail_once(source)
        with pytest.raises(LookupError):
            one.read(None, force=True)
        assert other.read(None).shared

        loading, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            loading.set()
            assert go_on.wait(60)

        source.after_read = hold
        server.admin.delete(keys.entry)
        filling = threading.Thread(target=lambda: one.read(None))
        filling.start()
        assert loading.wait(60)
        left = [server.admin.pttl(keys.lock)]

        def renewed() -> bool:
            left.append(server.admin.pttl(keys.lock))
            return bool(left[-1] > left[-2])  # a life that grows

        eventually(renewed, seconds=60)
        waited = waits(server)
        waiting = threading.Thread(target=lambda: other.read(None))
        waiting.start()
        eventually(lambda: waits(server) > waited, seconds=60)
        go_on.set()
        filling.join(60)
        waiting.join(60)
        assert source.loads == 4

        large = Dataset("large", lambda _conn: [{"text": os.urandom(100_000).hex()}], transactional=False)
        one, other = worker(large), worker(large)
        assert (one.read(None).source, other.read(None).source) == ("database", "redis")
    assert server.refusals() == []
    assert server.admin.hlen(keys.fleet) == 2


def waits(server: Server) -> int:
    """Tell how many XREAD the server has run."""
    return int(server.admin.info("commandstats").get("cmdstat_xread", {}).get("calls", 0))


def fail_once(source: Source) -> Callable[[], None]:
    """Give a callback with which the next load fails, and no other."""

    def fail() -> None:
        source.after_read = lambda: None
        raise LookupError("the database's own error")

    return fail


def test_a_worker_cannot_write_the_log_nor_take_the_watch(server: Server) -> None:
    """It may write what it fills; who withdrew what is not its to say."""
    keys = keys_of(server)
    with server.client("worker") as worker:
        for command in (
            ("XADD", keys.invalidations, "*", "who", "x"),
            ("DEL", keys.invalidations),
            ("XREVRANGE", keys.invalidations, "+", "-"),
            ("SET", keys.watch, "x"),
            ("GET", keys.watch),
            ("HGETALL", keys.fleet),
            ("SET", "{other:active_versions}:lock", "x"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("KEYS", "*"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                worker.execute_command(*command)
        # What it may do with the entry it may also do without our scripts: Redis knows commands and keys.
        assert worker.eval("return redis.call('HSET', KEYS[1], 'digest', 'forged')", 1, keys.entry) == 1
    with contextlib.closing(server.cache("worker")) as cache:
        with pytest.raises(InvalidateError) as refused:
            cache.invalidate(reason="no")
        assert "permissions" in str(refused.value)
        assert "kcg-cache acl" in str(refused.value)


# --- an operator ------------------------------------------------------------------------------------------------------


def test_an_operator_does_its_whole_job(
    server: Server, become: Callable[[str], None], dsns: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It promotes, withdraws, waits for the fleet, and looks; the server refuses nothing."""
    with contextlib.closing(server.cache("worker")) as worker:
        with contextlib.closing(psycopg2.connect(dsns["worker"])) as conn:
            assert worker.read(conn).shared
        become("operator")
        monkeypatch.setenv("PGOPTIONS", "-c client_min_messages=warning")
        changed = run("disable", "dark-vessel", "--force", "--yes", "--dsn", dsns["operator"], "--json")
        assert changed.code == ExitCode.OK, changed
        stop = threading.Event()

        def go_on_reading() -> None:
            with contextlib.closing(psycopg2.connect(dsns["worker"])) as conn:
                while not stop.is_set():
                    worker.read(conn)

        reading = threading.Thread(target=go_on_reading)
        reading.start()
        withdrawn = run("invalidate", "--reason", "a test", "--wait-for-fleet", "60s", "--json")
        stop.set()
        reading.join(60)
    assert withdrawn.code == ExitCode.OK, withdrawn
    assert json.loads(withdrawn.out)["fleet"]["complete"] is True
    for command in ("status", "fleet", "log"):
        assert run(command, "--json").code == ExitCode.OK
    with contextlib.closing(psycopg2.connect(dsns["operator"])) as conn, conn.cursor() as cursor:
        cursor.execute("UPDATE kcg.detection_models SET is_enabled = true WHERE model_id = 'dark-vessel'")
        with contextlib.closing(server.cache("operator")) as cache:
            assert cache.commit_and_invalidate(conn, reason="and back").in_force
    assert server.refusals() == []


def test_an_operator_withdraws_and_cannot_forge(server: Server) -> None:
    """It may delete an entry, and not write one, by a script or without; nor may it grant itself the watch."""
    keys = keys_of(server)
    with server.client("operator") as operator:
        for command in (("HSET", keys.entry, "digest", "x"), ("SET", keys.lock, "x"), ("SET", keys.watch, "x")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                operator.execute_command(*command)
            with pytest.raises(redis.exceptions.ResponseError, match=REFUSED_IN_SCRIPT):
                operator.eval("return redis.call(unpack(ARGV))", 0, *command)
        assert operator.execute_command("DEL", keys.entry) == 0


# --- a watcher --------------------------------------------------------------------------------------------------------


def test_a_watcher_does_its_whole_job(server: Server, become: Callable[[str], None], dsns: dict[str, str]) -> None:
    """It takes the watch, hears, compares, withdraws and gives the watch back; the server refuses nothing."""
    with (
        contextlib.closing(server.cache("worker")) as worker,
        contextlib.closing(psycopg2.connect(dsns["worker"])) as conn,
    ):
        worker.read(conn)
    events: list[Event] = []
    stop = Stop()
    with contextlib.closing(server.cache("watcher")) as cache:
        watcher = Watcher(
            cache,
            lambda: contextlib.closing(psycopg2.connect(dsns["watcher"])),
            interval=3600.0,
            stop=stop,
            on_event=events.append,
        )
        watching = threading.Thread(target=watcher.run)
        watching.start()
        eventually(lambda: any(event.name == "equal" for event in list(events)), seconds=60)
        with contextlib.closing(psycopg2.connect(dsns["operator"])) as conn, conn, conn.cursor() as cursor:
            cursor.execute("UPDATE kcg.detection_models SET is_enabled = NOT is_enabled")
            cursor.execute("NOTIFY kcg_changes, '{}'")
        eventually(lambda: any(event.name == "invalidated" for event in list(events)), seconds=60)
        stop.set()
        watching.join(60)
    stop.close()
    become("watcher")
    assert run("watch", "--once", "--dsn", dsns["watcher"]).code == ExitCode.OK
    assert server.refusals() == []
    assert not server.admin.exists(keys_of(server).watch)
    with server.client("watcher") as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.hset(keys_of(server).entry, "digest", "x")


# --- a viewer ---------------------------------------------------------------------------------------------------------


def test_a_viewer_sees_all_and_changes_nothing(
    server: Server, become: Callable[[str], None], dsns: dict[str, str]
) -> None:
    """Its commands leave every key as it is, and the server refuses nothing."""
    with (
        contextlib.closing(server.cache("worker")) as worker,
        contextlib.closing(psycopg2.connect(dsns["worker"])) as conn,
    ):
        rows = worker.read(conn).rows
    with contextlib.closing(server.cache("operator", Dataset("other", lambda _: [], transactional=False))) as cache:
        cache.invalidate(reason="for the log", wait=False)
    before = contents(server)
    become("viewer")
    document = json.loads(run("status", "--json").out)
    assert document["entry"]["digest"]
    assert json.loads(run("fleet", "--json").out)["readers"]
    assert "for the log" in run("log", "--dataset", "other", "--json").out
    shown = run("show", "--read-only", "--json")
    assert valid("show", json.loads(shown.out))["rows"] == json.loads(json.dumps(rows))
    assert json.loads(run("verify", "--dsn", dsns["viewer"], "--json").out)["outcome"] == "same"
    with contextlib.closing(server.cache("viewer")) as cache:
        # As `log --follow` does, which has no end.
        history = cache.history()
        assert history.past().happenings
        assert list(next(history.follow())) == []
    assert server.refusals() == []
    assert contents(server) == before


def test_whatever_else_a_viewer_tries_is_refused(server: Server) -> None:
    """Every command that a worker, an operator or a watcher sends and it does not, and every script that writes."""
    keys = keys_of(server)
    with contextlib.closing(server.cache("worker", Source().dataset())) as worker:
        worker.read(None)
    before = contents(server)
    mine = set(granted("viewer", keys))
    tried = [command for role in ROLES for command in granted(role, keys) if command not in mine]
    with server.client("viewer") as viewer:
        for command in tried:
            if command[0].lower() in ("hmget", "exists", "hstrlen", "xread", "hget", "pttl", "get", "xrevrange"):
                continue  # they only read
            with pytest.raises(redis.exceptions.NoPermissionError):
                viewer.execute_command(*command)
        for command in (("DEL", keys.entry), ("SET", keys.lock, "x"), ("XADD", keys.events, "*", "a", "b")):
            with pytest.raises(redis.exceptions.ResponseError, match=REFUSED_IN_SCRIPT):
                viewer.execute_command("EVAL_RO", "return redis.call(unpack(ARGV))", 0, *command)
        with pytest.raises(redis.exceptions.ResponseError, match="key"):
            viewer.execute_command("EVAL_RO", "return redis.call('GET', ARGV[1])", 0, "{other:x}:lock")
    assert contents(server) == before


# --- what is said of a refusal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "arguments", "needs", "lacking"),
    [
        ("viewer", ("invalidate", "--reason", "no"), "operator", "EVALSHA invalidate.lua"),
        ("viewer", ("reload",), "worker", "EVALSHA read.lua"),
        ("worker", ("invalidate", "--reason", "no"), "operator", "XADD invalidations"),
        ("worker", ("fleet",), "viewer", "HGETALL fleet"),
        ("worker", ("log",), "viewer", "XREVRANGE invalidations"),
        ("operator", ("reload",), "worker", "HSET entry"),
        ("operator", ("watch", "--once"), None, ""),
    ],
)
def test_a_refusal_names_the_right_and_what_grants_it(
    become: Callable[[str], None],
    dsns: dict[str, str],
    role: str,
    arguments: tuple[str, ...],
    needs: str | None,
    lacking: str,
) -> None:
    """One look of a watcher is an operator's, too; for the rest there is a line that says what to run."""
    become(role)
    dsn = ("--dsn", dsns["viewer"]) if arguments[0] in ("reload", "watch") else ()
    ended = run(*arguments, *dsn)
    if needs is None:
        assert ended.code == ExitCode.OK
        return
    assert ended.code == ExitCode.REDIS
    assert lacking in ended.err
    assert f"`kcg-cache acl {needs}`" in ended.err


def test_a_worker_of_a_service_is_told_what_to_run(server: Server) -> None:
    """By the error's own text, for that is what a service logs."""
    settings = Settings(namespace=server.namespace)
    cache = SharedCache(server.url("viewer"), Source().dataset(), settings, present=False)
    with contextlib.closing(cache), pytest.raises(StoreRefused) as refused:
        cache.check_invalidates()
    assert "'del' command" in str(refused.value)
    assert "`kcg-cache acl` prints what each role's user needs" in str(refused.value)
    assert cache.lacking("viewer") == ()
    assert "DEL guard" in cache.lacking("operator")


# --- what acl prints --------------------------------------------------------------------------------------------------


def test_the_lines_may_be_run_again(server: Server, tmp_path: Path) -> None:
    """With a password or without: the users are the same afterwards, and lose what they were given beside."""
    before = server.admin.acl_list()
    server.admin.execute_command("ACL", "SETUSER", f"{server.namespace}-viewer", "+set", "~*", "&*", "(+get ~x)")
    for line in run("acl", "--namespace", server.namespace, *for_version(server.valkey.version)).out.splitlines():
        server.admin.execute_command(*line.split())
    assert server.admin.acl_list() == before


def test_a_line_of_an_acl_file_is_the_same_user(server: Server) -> None:
    """Off without a password; a server reads its words as it reads those of SETUSER."""
    ended = run("acl", "viewer", "--aclfile", "--user", "filed", *for_version(server.valkey.version))
    assert "these users are off" in ended.err
    word, name, *rules = ended.out.split()
    assert (word, name) == ("user", "filed")
    server.admin.execute_command("ACL", "SETUSER", name, *rules)
    (line,) = [line for line in server.admin.acl_list() if line.startswith("user filed ")]
    server.admin.acl_deluser(name)
    assert line.split()[2] == "off"
    hashed = run("acl", "viewer", "--aclfile", "--password-sha256", "0" * 64)
    assert (hashed.err, "reset on #" + "0" * 64 in hashed.out) == ("", True)


def test_acl_is_as_its_schema_says() -> None:
    """For some datasets only, and for a server that knows less."""
    ended = run(
        "acl", "worker", "watcher", "--dataset", "a", "--dataset", "b", "--server", "7.0", "--cluster", "--json"
    )
    document = valid("acl", json.loads(ended.out))
    assert (document["datasets"], ended.err) == (["a", "b"], "")
    worker, watcher = document["users"]
    assert set(worker["keys"]) == {
        f"%RW~{{kcg:{dataset}}}:{key}" for dataset in "ab" for key in ("entry", "lock", "events", "guard", "fleet")
    }
    assert "%RW~{kcg:a}:watch" in watcher["keys"]
    assert "%R~{kcg:a}:fleet" in watcher["keys"]
    assert "+client|setinfo" not in worker["commands"]
    assert {"+cluster|slots", "+command", "+asking"} <= set(worker["commands"])
    assert "+select" not in worker["commands"]
    assert "+select" in json.loads(run("acl", "worker", "--select", "--json").out)["users"][0]["commands"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("chief",), "'chief' is none of worker, operator, watcher, viewer"),
        (("--server", "6.2"), "'6.2' is none of 7.0, 7.2"),
        (("--password-sha256", "0" * 64), "one password is for one role"),
        (("worker", "--password-sha256", "secret"), "64 digits"),
        (("worker", "--password-file", "/nowhere"), "cannot be read"),
        (("worker", "--password-file", os.devnull), "is empty"),
        (("--user", "one"), "{role} in it"),
        (("worker", "--user", "two words"), "letters, digits"),
    ],
)
def test_what_acl_does_not_take(arguments: tuple[str, ...], words: str) -> None:
    """It says what it takes, and prints no line."""
    ended = run("acl", *arguments)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert words in ended.err


def test_a_role_only_reads_what_it_does_not_write() -> None:
    """A viewer's keys are all %R~, and nobody has a command of an administrator's."""
    keys = Keys.patterns_of("kcg")
    assert {rule.partition("~")[0] for rule in key_rules("viewer", keys)} == {"%R"}
    for role in ROLES:
        rules = {*command_rules(role, cluster=True, select=True)}
        assert not rules & {"+@all", "+config", "+acl", "+flushall", "+script", "+keys", "+client", "+unlink"}
    assert not {*command_rules("viewer")} & {"+eval", "+evalsha", "+set", "+del", "+hset", "+xadd", "+pexpire"}


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

SELECT = "SELECT count(*) FROM kcg.detection_model_versions"
PARAMS = "UPDATE kcg.detection_model_versions SET params = '{}'"
STATUS = "UPDATE kcg.detection_model_versions SET status = 'ARCHIVED', updated_at = now()"
SWITCH = "UPDATE kcg.detection_models SET is_enabled = false"
OTHERS = (
    PARAMS,
    "UPDATE kcg.detection_models SET display_name = ''",
    "DELETE FROM kcg.detection_model_versions",
    "TRUNCATE kcg.correlation_param_models",
    "INSERT INTO kcg.detection_models (model_id, display_name) VALUES ('x', 'x')",
    "CREATE TABLE kcg.mine ()",
    "ALTER TABLE kcg.detection_models ADD COLUMN mine int",
)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_of_postgresql_may_what_it_needs_and_no_more(dsns: dict[str, str], role: str) -> None:
    """All read and listen; an operator writes the columns that promote and its like write."""
    with contextlib.closing(psycopg2.connect(dsns[role])) as conn, conn.cursor() as cursor:
        conn.autocommit = True
        for statement in (SELECT, "LISTEN kcg_changes", queries.load("active_versions"), queries.load("dependencies")):
            cursor.execute(statement)
        cursor.execute(queries.load("snapshot_check"))
        for statement in OTHERS if role == "operator" else (*OTHERS, STATUS, SWITCH):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
        if role == "operator":
            cursor.execute(STATUS)
            cursor.execute(SWITCH)


def test_running_roles_again_takes_back_what_was_granted_beside(pg_dsn: str, dsns: dict[str, str]) -> None:
    """A worker that somebody once let write is one that reads again."""
    with contextlib.closing(psycopg2.connect(pg_dsn)) as owner, owner, owner.cursor() as cursor:
        cursor.execute("GRANT ALL ON ALL TABLES IN SCHEMA kcg TO kcg_worker; GRANT CREATE ON SCHEMA kcg TO kcg_worker")
        cursor.execute(queries.load("roles"))
    worker = contextlib.closing(psycopg2.connect(dsns["worker"]))
    with worker as conn, conn.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(STATUS)


def test_a_refusal_of_postgresql_names_the_table_and_what_grants_it(
    become: Callable[[str], None], dsns: dict[str, str], pg_dsn: str
) -> None:
    """In a change, and in a load."""
    become("operator")
    ended = run("archive", "dark-vessel", "1", "--yes", "--dsn", dsns["viewer"])
    assert ended.code == ExitCode.POSTGRES
    assert "permission denied for table detection_models" in ended.err
    assert "`kcg-cache sql roles`" in ended.err
    with contextlib.closing(psycopg2.connect(pg_dsn)) as owner, owner, owner.cursor() as cursor:
        cursor.execute("REVOKE SELECT ON kcg.detection_model_versions FROM kcg_worker")
    become("worker")
    ended = run("reload", "--dsn", dsns["worker"])
    assert ended.code == ExitCode.POSTGRES
    assert "permission denied for table detection_model_versions" in ended.err
    assert "`kcg-cache sql roles`" in ended.err
