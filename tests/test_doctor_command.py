"""``kcg-cache doctor`` against real servers: what can go wrong on them is made to."""

import dataclasses
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name
from psycopg2.extensions import make_dsn, parse_dsn
from rich.cells import cell_len

from kcg_cache import Settings, SharedCache, queries
from kcg_cache.cli.exits import ExitCode
from kcg_cache.doctor import CHECKS
from kcg_cache.doctor.rights import CODES
from kcg_cache.embedded import EmbeddedPostgres, EmbeddedValkey, start_replica, start_valkey
from kcg_cache.keys import Keys
from kcg_cache.rights import ROLES, command_rules, key_rules
from kcg_cache.settings import variable_of
from kcg_cache.version import __version__
from tests import forked
from tests.pg_fixtures import PostgresServer
from tests.pooling import PGBOUNCER, pgbouncer
from tests.programs import NOBODY, Ended
from tests.schemas import valid
from tests.servers import numbers
from tests.test_cli import ANSI, Cli
from tests.waiting import eventually

pytestmark = pytest.mark.operators

#: What a server of one's own has always: memory without a limit, no trigger.
USUAL_NOTES = {"KCG-R06", "KCG-P11"}
#: What a test changes of the server, as it was.
BEFORE = {
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "timeout": "0",
    "tcp-keepalive": "300",
    "min-replicas-to-write": "0",
    "min-replicas-max-lag": "10",
    "save": "",
}


@dataclasses.dataclass(frozen=True)
class Told:
    """What one run said, by code."""

    code: int
    document: Any
    findings: Mapping[str, Any]

    def severity(self, code: str, *words: str) -> str:
        """Give a finding's severity; it says what it saw in these words, and what mends what is wrong."""
        finding = self.findings[code]
        assert all(word in finding["seen"] for word in words), finding
        assert finding["mend"] or finding["severity"] in ("ok", "note")
        return str(finding["severity"])

    def wrong(self) -> dict[str, str]:
        """Give the code of every warning and error."""
        return {
            code: finding["severity"]
            for code, finding in self.findings.items()
            if finding["severity"] in ("warning", "error")
        }


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """Give a Redis whose settings the tests here may change."""
    with start_valkey() as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedValkey) -> Iterator[Any]:
    """Give a client of it, emptied; its settings are set back."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client
        for name, value in BEFORE.items():
            client.config_set(name, value)


@pytest.fixture
def cli(server: EmbeddedValkey, admin: Any, tmp_path: Path) -> Cli:
    return Cli(
        {
            **forked.ENVIRONMENT,
            "HOME": str(tmp_path),
            "PGHOST": str(tmp_path),  # a directory without a socket: no server, whatever this machine runs
            variable_of("redis_url"): server.url,
            variable_of("namespace"): f"test-{secrets.token_hex(4)}",
            # A busy machine's pings must not be a finding.
            variable_of("redis_timeout"): "30",
        }
    )


@pytest.fixture
def dsn(pg_dsn: str, pg: Connection) -> str:
    """Give the address of the test's own database, with the sample data."""
    with pg, pg.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    return pg_dsn


@pytest.fixture
def cache(cli: Cli) -> Iterator[SharedCache]:
    """Give a worker's cache."""
    cache = SharedCache(settings=Settings(redis_url=cli.redis_url, namespace=cli.namespace))
    yield cache
    cache.close()


def run(conn: Connection, statement: str) -> None:
    with conn, conn.cursor() as cursor:
        cursor.execute(statement)


def told(ended: Ended) -> Told:
    """Read the one document of a run: quiet otherwise, and with the exit code that it names."""
    assert ended.err == "", ended.err
    document = json.loads(ended.out)
    assert document["exit_code"] == ended.code
    codes = [finding["code"] for finding in document["findings"]]
    assert codes == [code for code in CHECKS if code in codes]
    return Told(ended.code, document, {finding["code"]: finding for finding in document["findings"]})


def ask(cli: Cli, *arguments: str, **environment: str) -> Told:
    return told(cli("doctor", "--json", *arguments, **environment))


def ask_redis(cli: Cli, *arguments: str, **environment: str) -> Told:
    return ask(cli, "--only", "redis", *arguments, **environment)


# --- as it should be --------------------------------------------------------------------------------------------------


def test_a_healthy_place_is_ok_and_every_check_is_told_of(
    cli: Cli, dsn: str, cache: SharedCache, pg: Connection
) -> None:
    """Exit code 0, every code once, and no more notes than a server of one's own has."""
    assert cache.read(pg).shared
    found = ask(cli, "--dsn", dsn)
    assert found.wrong() == {}
    assert found.code == ExitCode.OK
    assert list(found.findings) == list(CHECKS)
    notes = {code for code, finding in found.findings.items() if finding["severity"] == "note"}
    assert notes == USUAL_NOTES
    assert sum(found.document["counts"].values()) == len(CHECKS)
    assert found.document["worst"] == "note"


@pytest.mark.checkout
@pytest.mark.parametrize("arguments", [[], ["--only", "redis"], ["--only", "postgres"]])
def test_the_document_is_as_its_schema_says(cli: Cli, dsn: str, arguments: list[str]) -> None:
    """Whoever reads it by program relies on it."""
    found = ask(cli, "--dsn", dsn, *arguments)
    valid("doctor", found.document)
    valid("doctor", ask(cli, "--dsn", "host=127.0.0.1 port=1", KCG_CACHE_REDIS_URL=NOBODY).document)


def test_it_changes_nothing(cli: Cli, dsn: str, admin: Any, cache: SharedCache, pg: Connection) -> None:
    """No key is written or renewed, on the server of production."""
    cache.read(pg)
    keys = Keys.of(cli.namespace, "active_versions")

    def there() -> list[Any]:
        return [admin.keys(), admin.hgetall(keys.entry), admin.xrange(keys.events), admin.xrange(keys.invalidations)]

    before = there()
    lives = admin.pttl(keys.entry)
    assert ask(cli, "--dsn", dsn).code == ExitCode.OK
    assert there() == before
    assert admin.pttl(keys.entry) <= lives


# --- servers that do not answer ---------------------------------------------------------------------------------------


def test_without_postgresql_the_rest_is_checked(cli: Cli) -> None:
    """Its own exit code, and Redis's findings all the same."""
    found = ask(cli, "--dsn", "host=127.0.0.1 port=1")
    assert found.code == ExitCode.POSTGRES
    assert found.severity("KCG-P01", "Connection refused") == "error"
    assert found.severity("KCG-P07", "not checked") == "note"
    assert found.severity("KCG-A01") == "ok"


def test_without_redis_the_rest_is_checked(cli: Cli, dsn: str) -> None:
    """Its own exit code, PostgreSQL's findings all the same, and no password."""
    ended = cli("doctor", "--json", "--dsn", dsn, KCG_CACHE_REDIS_URL=NOBODY)
    found = told(ended)
    assert found.code == ExitCode.REDIS
    assert found.severity("KCG-R01", "not reachable") == "error"
    assert found.severity("KCG-R05", "not checked") == found.severity("KCG-E01", "not checked") == "note"
    assert found.severity("KCG-P07") == found.severity("KCG-D02") == "ok"
    assert "hush" not in ended.out


def test_without_both_redis_is_told_first(cli: Cli) -> None:
    """The exit code is Redis's, and both are told of."""
    found = ask(cli, "--dsn", "host=127.0.0.1 port=1", KCG_CACHE_REDIS_URL=NOBODY)
    assert found.code == ExitCode.REDIS
    assert found.wrong() == {"KCG-R01": "error", "KCG-P01": "error"}


def test_a_server_that_is_left_out_is_not_missed(cli: Cli, dsn: str) -> None:
    """Nothing is said of it."""
    found = ask_redis(cli)
    assert found.code == ExitCode.OK
    assert not [code for code in found.findings if code[4] in "PD"]
    found = ask(cli, "--only", "postgres", "--dsn", dsn, KCG_CACHE_REDIS_URL=NOBODY)
    assert found.code == ExitCode.OK
    assert not [code for code in found.findings if code[4] in "RAEF"]


def test_a_wrong_password_is_a_redis_that_refused(cli: Cli, server: EmbeddedValkey) -> None:
    """It is told as such, and the password is not."""
    url = server.url.replace(server.password, "hush-hush")
    ended = cli("doctor", "--only", "redis", "--json", KCG_CACHE_REDIS_URL=url)
    assert told(ended).code == ExitCode.REDIS
    assert told(ended).severity("KCG-R01", "password") == "error"
    assert "hush" not in ended.out


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code", "severity", "words"),
    [
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "KCG-R05", "warning", "allkeys-lru"),
        ({"maxmemory": "100mb", "maxmemory-policy": "volatile-lru"}, "KCG-R05", "note", "volatile-lru"),
        ({"maxmemory": "1mb"}, "KCG-R06", "warning", "0 B free"),
        ({"timeout": "3"}, "KCG-R09", "warning", "timeout is 3 s"),
        ({"timeout": "300"}, "KCG-R09", "note", "timeout is 300 s"),
        ({"tcp-keepalive": "0"}, "KCG-R10", "warning", "tcp-keepalive is 0"),
        ({"min-replicas-to-write": "1"}, "KCG-R08", "error", "NOREPLICAS"),
        ({"save": "3600 1"}, "KCG-R07", "note", "RDB (save 3600 1)"),
    ],
)
def test_a_setting_of_the_server_is_found(
    cli: Cli, admin: Any, settings: dict[str, str], code: str, severity: str, words: str
) -> None:
    """One is as it should not be: it is the finding, and decides the exit code."""
    for name, value in settings.items():
        admin.config_set(name, value)
    found = ask_redis(cli)
    assert found.severity(code, words) == severity
    assert found.wrong() == ({} if severity == "note" else {code: severity})
    assert found.code == (ExitCode.OK if severity == "note" else ExitCode.FINDING)


def test_a_server_that_evicts_and_is_full_is_an_error(cli: Cli, admin: Any) -> None:
    """There every read costs three database loads."""
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] * 9 // 10)
    assert ask_redis(cli).wrong() == {"KCG-R05": "warning", "KCG-R06": "error"}


def test_replicas_without_a_least_number_of_them_are_found(cli: Cli, server: EmbeddedValkey, admin: Any) -> None:
    """A master that is cut off would go on answering; with the number set, it is the lag that counts."""
    options = ("--replicaof", f"{server.host} {server.port}", "--masterauth", server.password)
    with start_valkey(options=options) as replica:
        eventually(lambda: admin.info("replication")["connected_slaves"] == 1)
        found = ask_redis(cli)
        assert found.severity("KCG-R08", "1 replica, min-replicas-to-write 0") == "warning"
        assert found.wrong() == {"KCG-R08": "warning"}

        admin.config_set("min-replicas-to-write", "1")
        eventually(lambda: admin.info("replication").get("min_slaves_good_slaves") == 1)
        assert ask_redis(cli).severity("KCG-R08", "down-after-milliseconds") == "note"
        assert ask_redis(cli, "--failover", "30").severity("KCG-R08", "below") == "ok"
        assert ask_redis(cli, "--failover", "5").severity("KCG-R08", "not 2 s below") == "warning"

        found = ask_redis(cli, KCG_CACHE_REDIS_URL=replica.url)
        assert found.severity("KCG-R04", f"a replica of {server.host}:{server.port}") == "error"
        assert found.code == ExitCode.FINDING


# --- rights in Redis --------------------------------------------------------------------------------------------------


@pytest.fixture
def user(server: EmbeddedValkey, admin: Any) -> Iterator[Callable[..., str]]:
    """Give a function that makes a user of Redis with these rights, and gives its URL."""
    made: list[str] = []

    def make(*rights: str) -> str:
        name = f"user-{secrets.token_hex(4)}"
        made.append(name)
        admin.execute_command("ACL", "SETUSER", name, "on", ">hush", *rights)
        return f"redis://{name}:hush@{server.host}:{server.port}/0"

    yield make
    for name in made:
        admin.execute_command("ACL", "DELUSER", name)


ALL_KEYS = "~*"


@pytest.mark.parametrize("role", ROLES)
def test_the_rights_that_acl_prints_suffice(
    server: EmbeddedValkey,
    cli: Cli,
    user: Callable[..., str],
    role: str,
    cache: SharedCache,
    pg: Connection,
    dsn: str,
) -> None:
    """Without being an admin: CONFIG is not needed, and then not checked."""
    cache.read(pg)
    modern = numbers(server.version) >= (7, 2)
    rules = [*key_rules(role, Keys.of(cli.namespace, "active_versions")), *command_rules(role, modern=modern)]
    found = ask_redis(cli, "--for", role, KCG_CACHE_REDIS_URL=user(*rules))
    assert found.wrong() == {}
    assert found.severity(CODES[role]) == "ok"
    for code in ("KCG-R09", "KCG-R10"):
        assert found.severity(code, "not checked", "CONFIG") == "note"


@pytest.mark.parametrize(
    ("without", "codes", "words"),
    [
        ("-hset", {"KCG-A01"}, "HSET entry"),
        ("-xread", {"KCG-A01", "KCG-A03", "KCG-A05"}, "XREAD events"),
        ("-xadd", {"KCG-A01", "KCG-A02", "KCG-A05"}, "XADD events"),
        ("-hget", {"KCG-A01", "KCG-A02", "KCG-A03", "KCG-A05"}, "HGET entry"),
        ("-eval", {"KCG-A01", "KCG-A02", "KCG-A05"}, "EVAL"),
        ("-eval_ro", {"KCG-A03", "KCG-A05"}, "EVAL_RO"),
    ],
)
def test_a_right_that_a_role_lacks_is_found(
    cli: Cli, user: Callable[..., str], without: str, codes: set[str], words: str
) -> None:
    """In each role whose work needs it, by name."""
    # With the right to ask, that is told even where scripts may not be run.
    found = ask_redis(cli, KCG_CACHE_REDIS_URL=user(ALL_KEYS, "+@all", without))
    assert set(found.wrong()) - {"KCG-A04"} == codes
    for code in codes:
        assert found.severity(code, words) == "error"
        assert f"+{without[1:]}" in found.findings[code]["mend"]
    assert found.code == ExitCode.FINDING


def test_a_worker_that_cannot_be_seen_is_found(cli: Cli, user: Callable[..., str]) -> None:
    """It works, and leaves no presence in the fleet."""
    found = ask_redis(cli, KCG_CACHE_REDIS_URL=user(ALL_KEYS, "+@all", "-hrandfield"))
    assert found.wrong() == {"KCG-A04": "warning"}
    assert found.severity("KCG-A04", "HRANDFIELD fleet") == "warning"


def test_keys_that_are_not_the_users_are_found(cli: Cli, user: Callable[..., str]) -> None:
    """All commands, of another namespace."""
    found = ask_redis(cli, KCG_CACHE_REDIS_URL=user("~{other:*", "+@all"))
    assert set(found.wrong()) == {"KCG-A01", "KCG-A02", "KCG-A03", "KCG-A04", "KCG-A05"}
    assert "~{" + cli.namespace + ":active_versions}:*" in found.findings["KCG-A01"]["mend"]


def test_a_viewer_need_not_have_the_rights_of_others(cli: Cli, user: Callable[..., str]) -> None:
    """With --for its own suffice, and the others are told of."""
    url = user("%R~*", "+@read", "+eval_ro", "+evalsha_ro", "+info", "+time", "+ping")
    found = ask_redis(cli, "--for", "viewer", KCG_CACHE_REDIS_URL=url)
    assert found.code == ExitCode.OK
    assert (found.severity("KCG-A03"), found.severity("KCG-A01", "need not")) == ("ok", "note")
    found = ask_redis(cli, "--for", "viewer", "--for", "operator", KCG_CACHE_REDIS_URL=url)
    assert found.wrong() == {"KCG-A02": "error"}


def test_a_user_who_may_ask_nothing_crashes_nothing(cli: Cli, user: Callable[..., str]) -> None:
    """Every check says that it was not made, but that no script may be run is known."""
    found = ask_redis(cli, KCG_CACHE_REDIS_URL=user())
    assert found.wrong() == dict.fromkeys(["KCG-A01", "KCG-A02", "KCG-A03", "KCG-A05"], "error")
    assert found.severity("KCG-A01", "EVALSHA read.lua, ", "and what else is not told") == "error"
    for code, finding in found.findings.items():
        if code[4] in "RE" and code != "KCG-R01":
            assert finding["seen"].startswith("not checked: "), finding


# --- the entry and this host's settings -------------------------------------------------------------------------------

KEY = "k" * 16


@pytest.mark.parametrize(
    ("environment", "code", "severity", "words"),
    [
        ({"KCG_CACHE_SIGNING_KEYS": KEY}, "KCG-E03", "error", "not signed"),
        ({"KCG_CACHE_MAX_PAYLOAD": "5000"}, "KCG-E02", "error", "more than max_payload"),
        ({"KCG_CACHE_MAX_PAYLOAD": "7000"}, "KCG-E02", "warning", "of 7 kB"),
        ({"KCG_CACHE_MODE": "bypass"}, "KCG-C04", "warning", "bypass"),
        ({"KCG_CACHE_LEASE": "0"}, "KCG-C05", "note", "lease is 0"),
        ({"KCG_CACHE_TTL": "172800"}, "KCG-C03", "note", "2 d"),
    ],
)
def test_settings_that_do_not_fit_the_entry_are_found(
    cli: Cli,
    cache: SharedCache,
    pg: Connection,
    dsn: str,
    environment: dict[str, str],
    code: str,
    severity: str,
    words: str,
) -> None:
    """The fleet's entry, and an environment of this host's that is another."""
    seen_by_none = SharedCache(settings=cache.settings, present=False)
    seen_by_none.read(pg)
    seen_by_none.close()
    found = ask_redis(cli, **environment)
    assert found.severity(code, words) == severity
    assert found.wrong() == ({} if severity == "note" else {code: severity})


def test_an_entry_that_nobody_can_read_is_found(
    cli: Cli, cache: SharedCache, pg: Connection, dsn: str, admin: Any
) -> None:
    """Each reader finds out by itself, and loads: the doctor does so too."""
    cache.read(pg)
    admin.hset(Keys.of(cli.namespace, "active_versions").entry, "payload", b"\x28\xb5\x2f\xfd nonsense")
    assert ask_redis(cli).severity("KCG-E01", "no zstd frame") == "error"


@pytest.mark.parametrize("field", ["digest", "format", "loaded_at", "load_us", "incarnation", "source", "signature"])
def test_what_others_wrote_into_the_entry_commands_no_terminal_and_breaks_no_line(
    cli: Cli, cache: SharedCache, pg: Connection, dsn: str, admin: Any, field: str
) -> None:
    """Whatever stands in a field: the finding is one line, and the program goes on."""
    cache.read(pg)
    admin.hset(Keys.of(cli.namespace, "active_versions").entry, field, b"\x1b[2J\n\xff/[bold]\xe2\x80\xae")
    found = ask_redis(cli)
    assert all("\n" not in finding["seen"] for finding in found.findings.values())
    ended = cli("doctor", "--only", "redis")
    assert (ended.code, ended.err) == (found.code, "")
    assert "\x1b" not in ended.out
    assert "\u202e" not in ended.out


def test_a_namespace_that_another_database_filled_is_found(
    cli: Cli, cache: SharedCache, pg: Connection, dsn: str, postgres_server: PostgresServer
) -> None:
    """Two environments share it, or it was moved: this host's own database tells."""
    cache.read(pg)
    assert ask(cli, "--dsn", dsn).severity("KCG-E04", "this host's too") == "ok"
    found = ask(cli, "--dsn", postgres_server.dsn)
    assert found.severity("KCG-E04", f"/{parse_dsn(dsn)['dbname']}", "/postgres") == "error"
    assert found.findings["KCG-P07"]["severity"] == "error"


# --- the fleet --------------------------------------------------------------------------------------------------------


def test_a_fleet_whose_settings_differ_is_found(cli: Cli, cache: SharedCache, pg: Connection, dsn: str) -> None:
    """With how many have which; a fleet of one mind is held against this host."""
    assert ask_redis(cli).severity("KCG-F01", "not checked", "no process has read") == "note"
    cache.read(pg)
    found = ask_redis(cli)
    assert found.severity("KCG-F01", "1 process and this host") == "ok"
    assert found.severity("KCG-F02") == found.severity("KCG-F03", "1 process: 1 ") == "ok"
    found = ask_redis(cli, KCG_CACHE_TTL="60")
    assert found.severity("KCG-F01", "ttl is 300 in the fleet, 60 here") == "warning"
    assert found.wrong() == {"KCG-F01": "warning"}
    other = SharedCache(settings=cache.settings.replace(ttl=60, lease=0.5))
    other.read(pg)
    other.close()
    assert ask_redis(cli).severity("KCG-F01", "lease is 0.5 (1), 1 (1); ttl is 300 (1), 60 (1)") == "warning"


def test_processes_that_lag_or_are_of_another_version_are_found(
    cli: Cli, cache: SharedCache, pg: Connection, dsn: str, admin: Any
) -> None:
    """As they told of themselves: one of a newer library, and one that was given older rows than the entry's."""
    cache.read(pg)
    key = Keys.of(cli.namespace, "active_versions").fleet
    (record,) = admin.hvals(key)
    seen, _, digest, loaded_at, since, presence = record.split(b"|", 5)
    # Their clock is that of the server; in a minute nobody's lease is over.
    soon = str(int(seen) + 60_000_000).encode()
    newer = presence.replace(b'"version":"0', b'"version":"90')
    assert newer != presence
    admin.hset(key, "a" * 16, b"|".join([soon, b"SAME", digest, loaded_at, since, newer]))
    before = str(int(loaded_at) - 1).encode()
    admin.hset(key, "b" * 16, b"|".join([soon, b"SAME", b"0" * 32, before, since, presence]))
    found = ask_redis(cli)
    assert found.wrong() == {"KCG-F02": "warning", "KCG-F03": "warning"}
    assert found.severity("KCG-F02", f"mixed: {__version__} (2), 90") == "warning"
    assert found.severity("KCG-F03", "1 lagging", f"{os.getpid()} on ") == "warning"


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def ask_postgres(cli: Cli, dsn: str) -> Told:
    return ask(cli, "--only", "postgres", "--dsn", dsn)


@pytest.fixture
def role(pg: Connection, pg_dsn: str, postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """Give the name of a role that may connect and no more, and its address of the test's database."""
    name = f'"kcg-login-{secrets.token_hex(6)}"'  # one that has to be quoted
    password = secrets.token_hex(8)
    run(pg, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    yield name, make_dsn(pg_dsn, user=name.strip('"'), password=password)
    run(pg, f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_role_without_rights_is_found(cli: Cli, dsn: str, pg: Connection, role: tuple[str, str]) -> None:
    """First the schema, then the tables; what cannot be read is not checked; and what is told to grant suffices."""
    name, address = role
    found = ask_postgres(cli, address)
    assert found.severity("KCG-P08", f"role {name} may not use schema kcg") == "error"
    assert found.severity("KCG-D02", "not checked", "permission denied") == "note"
    run(pg, f"GRANT USAGE ON SCHEMA kcg TO {name}")
    found = ask_postgres(cli, address)
    assert found.severity("KCG-P08", "may not read detection_model_dependencies, detection_model_versions") == "error"
    assert found.wrong() == {"KCG-P08": "error"}
    run(pg, found.findings["KCG-P08"]["mend"])
    assert ask_postgres(cli, address).wrong() == {}


def test_a_role_that_may_not_ask_which_cluster_it_is_is_noted(
    cli: Cli, dsn: str, pg: Connection, role: tuple[str, str]
) -> None:
    """The source is then a name alone."""
    name, address = role
    run(pg, f"GRANT USAGE ON SCHEMA kcg TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA kcg TO {name}")
    run(pg, "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC")
    found = ask_postgres(cli, address)
    assert found.severity("KCG-P12", name) == "note"
    assert found.document["database"].startswith("unknown/")
    assert found.code == ExitCode.OK


@pytest.mark.parametrize(
    ("statement", "wrong", "code", "words"),
    [
        ("DROP SCHEMA kcg CASCADE", {"KCG-P07": "error", "KCG-P09": "warning"}, "KCG-P07", "no schema kcg"),
        (
            "DROP TABLE kcg.detection_model_dependencies",
            {"KCG-P07": "error"},
            "KCG-P07",
            "no table detection_model_dependencies",
        ),
        (
            "ALTER TABLE kcg.detection_model_versions DROP COLUMN params",
            {"KCG-P07": "error"},
            "KCG-P07",
            "no column detection_model_versions.params",
        ),
        (
            (
                "ALTER TABLE kcg.detection_models ALTER is_enabled DROP DEFAULT,"
                " ALTER is_enabled TYPE int USING is_enabled::int"
            ),
            {"KCG-P07": "error"},
            "KCG-P07",
            "is_enabled is integer, not boolean",
        ),
        (
            "DROP INDEX kcg.detection_model_versions_one_active_primary",
            {"KCG-P09": "warning"},
            "KCG-P09",
            "no unique index",
        ),
        (
            (
                "DROP INDEX kcg.detection_model_versions_one_active_primary;"
                " UPDATE kcg.detection_model_versions SET role = 'PRIMARY' WHERE model_id = 'dark-vessel'"
            ),
            {"KCG-P09": "warning", "KCG-D02": "error"},
            "KCG-D02",
            "several ACTIVE PRIMARY versions: dark-vessel",
        ),
        (
            "UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE model_id = 'drift'",
            {"KCG-D02": "warning"},
            "KCG-D02",
            "no ACTIVE PRIMARY version: drift",
        ),
        (
            "UPDATE kcg.detection_models SET is_enabled = false WHERE model_id = 'dark-vessel'",
            {"KCG-D03": "warning"},
            "KCG-D03",
            "needs dark-vessel",
        ),
        (
            (
                "INSERT INTO kcg.detection_model_dependencies VALUES"
                " ('drift', 'loitering', 'x'), ('loitering', 'drift', 'x')"
            ),
            {"KCG-D04": "error"},
            "KCG-D04",
            "drift → loitering → drift",
        ),
        (
            "UPDATE kcg.detection_model_versions SET params = '[1]' WHERE model_id = 'drift'",
            {"KCG-D01": "warning"},
            "KCG-D01",
            "became {}: JSON, but list and no object",
        ),
    ],
)
def test_what_is_wrong_with_tables_and_rows_is_found(
    cli: Cli, dsn: str, pg: Connection, statement: str, wrong: dict[str, str], code: str, words: str
) -> None:
    """One statement breaks it, and nothing else is blamed."""
    run(pg, statement)
    found = ask_postgres(cli, dsn)
    assert found.wrong() == wrong
    assert found.severity(code, words) == wrong[code]
    assert found.code == ExitCode.FINDING


def test_an_isolation_above_read_committed_is_found(cli: Cli, dsn: str, pg: Connection) -> None:
    """Rows of an open transaction are then shared with nobody (R13)."""
    with pg, pg.cursor() as cursor:
        statement = "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'"
        cursor.execute(sql.SQL(statement).format(sql.Identifier(pg.info.dbname)))
    assert ask_postgres(cli, dsn).wrong() == {"KCG-P06": "warning"}


NOTIFY = """
CREATE FUNCTION kcg.notify_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('kcg_changes', TG_TABLE_NAME);
    RETURN NULL;
END $$;
"""
TABLES = ("detection_models", "detection_model_versions", "detection_model_dependencies")


def test_triggers_are_found_and_those_that_sleep_too(cli: Cli, dsn: str, pg: Connection) -> None:
    """None is a note, half of them a warning: somebody relies on them."""
    assert ask_postgres(cli, dsn).severity("KCG-P11", "none is installed") == "note"
    run(pg, NOTIFY)
    for table in TABLES:
        events = "INSERT OR UPDATE OR DELETE OR TRUNCATE"
        run(
            pg,
            f"CREATE TRIGGER kcg_notify AFTER {events} ON kcg.{table} EXECUTE FUNCTION kcg.notify_changed();"
            f" ALTER TABLE kcg.{table} ENABLE ALWAYS TRIGGER kcg_notify",
        )
    assert ask_postgres(cli, dsn).severity("KCG-P11", "3 triggers on 3 tables") == "ok"
    run(pg, "ALTER TABLE kcg.detection_models DISABLE TRIGGER kcg_notify")
    found = ask_postgres(cli, dsn)
    assert found.severity("KCG-P11", "detection_models: nothing tells", "kcg_notify is disabled") == "warning"
    assert found.code == ExitCode.FINDING


@pytest.mark.slow
def test_a_standby_is_found(cli: Cli, dsn: str, postgres_server: PostgresServer) -> None:
    """Rows that it gives are shared with nobody."""
    if not isinstance(postgres_server, EmbeddedPostgres):
        pytest.skip("a server that somebody else started is not replicated")
    with start_replica(postgres_server) as replica:
        found = ask_postgres(cli, replica.dsn)
    assert found.severity("KCG-P04", "standby") == "error"


@pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer on this machine")
@pytest.mark.parametrize(
    ("mode", "severity", "words"),
    [("transaction", "note", "pool_mode=transaction"), ("session", "ok", "a pooler is in between")],
)
def test_a_pooler_is_told_and_how_it_pools(cli: Cli, dsn: str, mode: str, severity: str, words: str) -> None:
    """By transactions it lends one server process to several clients at once."""
    # Not pytest's own directory, which is its user's alone.
    with tempfile.TemporaryDirectory(prefix="kcg-pgbouncer-") as place, pgbouncer(dsn, mode, Path(place)) as address:
        found = ask_postgres(cli, address)
    assert found.severity("KCG-P05", words) == severity
    assert found.code == ExitCode.OK
    assert ask_postgres(cli, dsn).severity("KCG-P05", "no pooler") == "ok"


# --- the screen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 120])
def test_the_screen_fits_the_terminal_and_is_coloured(cli: Cli, dsn: str, admin: Any, columns: int) -> None:
    """Each area has its heading, each problem why it matters and what mends it."""
    admin.config_set("tcp-keepalive", "0")
    with cli.on_terminal("doctor", "--dsn", dsn, columns=columns) as terminal:
        screen = terminal.rest()
        assert terminal.process.wait() == ExitCode.FINDING
    assert ANSI.search(screen)
    result = screen[screen.rindex("active_versions in namespace") :]
    lines = ANSI.sub("", result).splitlines()
    assert max(map(cell_len, lines)) <= columns
    areas = [check.area for code, check in CHECKS.items() if code != "KCG-E"]
    assert [line for line in lines if line in areas] == list(dict.fromkeys(areas))
    assert "→ CONFIG SET tcp-keepalive 300" in ANSI.sub("", result)
    assert re.search(r"0 errors, 1 warning, \d+ notes, \d+ ok", lines[-1] if columns > 60 else " ".join(lines[-2:]))


def test_no_color_means_none(cli: Cli, dsn: str) -> None:
    """NO_COLOR is respected on a terminal; what shows progress there moves the cursor and no more."""
    screen = cli.screen("doctor", "--dsn", dsn, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*m", screen[screen.rindex("active_versions in namespace") :])


def test_a_person_sees_what_a_slow_server_is_asked(cli: Cli, server: EmbeddedValkey) -> None:
    """A server that hangs is measured, and not given up at redis_timeout; the screen is clean after it."""
    server.pause()
    try:
        with cli.on_terminal("doctor", "--only", "redis") as terminal:
            terminal.until("asking Redis")
            server.resume()
            screen = terminal.rest()
            assert terminal.process.wait() == ExitCode.OK
    finally:
        server.resume()
    assert "asking" not in screen[screen.rindex("active_versions in namespace") :]


def test_problems_alone_and_the_worst_first(cli: Cli, admin: Any) -> None:
    """An error stands before a warning, and a warning before a note."""
    admin.config_set("tcp-keepalive", "0")
    admin.config_set("min-replicas-to-write", "1")
    ended = cli("doctor", "--only", "redis", "--problems", "--worst-first")
    assert (ended.code, ended.err) == (ExitCode.FINDING, "")
    shown = [line.split()[0] for line in ended.out.splitlines() if "KCG-" in line]
    assert shown == sorted(shown, key=["error", "warning", "note"].index)
    assert shown[:2] == ["error", "warning"]


def test_what_was_not_checked_for_one_reason_is_one_line(cli: Cli) -> None:
    """Nobody reads seventeen times that PostgreSQL did not answer."""
    ended = cli("doctor", "--dsn", "host=127.0.0.1 port=1")
    assert ended.code == ExitCode.POSTGRES
    assert ended.out.count("PostgreSQL did not answer") == 2
    assert "KCG-P02 to P13" in ended.out


@pytest.mark.parametrize("arguments", [["--only", "mysql"], ["--for", "manager"], ["--failover", "-1"]])
def test_wrong_words_are_wrong_usage(cli: Cli, arguments: list[str]) -> None:
    """Nothing is asked."""
    ended = cli("doctor", *arguments)
    assert (ended.code, ended.out) == (ExitCode.USAGE, "")
    assert "--help" in ended.err
