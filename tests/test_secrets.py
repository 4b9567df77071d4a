"""Passwords and keys are in no output: of the commands, of the log, of errors and their tracebacks, of any repr.

Every way that a secret comes in (a URL's user part and query, a connection string, the environment, keys and their
files), through what goes well and what fails, in this process; then all that was written is searched.
"""

import contextlib
import dataclasses
import hmac
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from kcg_cache import ConfigurationError, Settings, SharedCache, codec, queries
from kcg_cache.cli import app
from kcg_cache.cli.exits import ExitCode
from kcg_cache.settings import variable_of
from tests.pg_fixtures import PostgresServer
from tests.secret_words import know, leaked

pytestmark = [pytest.mark.operators, pytest.mark.once]

PASSWORD, WRONG, QUERY, SIGNS, OTHER_SIGNS = (
    f"sesame-{word}-4f0c9a71" for word in ("right", "wrong", "query", "signs-with-this", "signs-with-that")
)
SECRETS = (PASSWORD, WRONG, QUERY, SIGNS, OTHER_SIGNS, SIGNS.encode().hex())
USER = "leaky"

OUTPUTS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("status", "--json"),
    ("fleet", "--json"),
    ("log", "--json"),
    ("invalidate", "--no-wait", "--reason", "r"),
    ("doctor", "--json", "--dsn", "DSN"),
    ("show", "--json", "--dsn", "DSN"),
    ("reload", "--dsn", "DSN"),
    ("verify", "--json", "--dsn", "DSN"),
    ("watch", "--once", "--dsn", "DSN"),
    ("promote", "no-model", "v1", "--role", "CHALLENGER", "--yes", "--dsn", "DSN"),
)
Run = Callable[..., "list[ExitCode | int]"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the servers are, without and with the secrets."""

    host: str
    dsn: str

    def url(self, password: str = PASSWORD, more: str = "") -> str:
        return f"redis://{USER}:{password}@{self.host}/0{more}"


@pytest.fixture
def place(client: Any, redis_url: str, postgres_server: PostgresServer) -> Iterator[Place]:
    know(*SECRETS)
    client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
    yield Place(urlsplit(redis_url).netloc.rpartition("@")[2], postgres_server.dsn)
    client.execute_command("ACL", "DELUSER", USER)


@pytest.fixture
def sample(place: Place, pg_dsn: str) -> Place:
    with contextlib.closing(psycopg2.connect(pg_dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    return dataclasses.replace(place, dsn=pg_dsn)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, namespace: str
) -> Run:
    """Give a function that runs commands and searches all that they, the drivers and Python's warnings wrote."""

    def run_all(
        dsn: str, *commands: tuple[str, ...], environment: dict[str, str] | None = None
    ) -> list[ExitCode | int]:
        with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
            patch.setenv(variable_of("namespace"), namespace)
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            codes = [
                app.run([part.replace("DSN", dsn) if part == "DSN" else part for part in (*command, "--debug")])
                for command in commands
            ]
        out, err = capfd.readouterr()
        assert out + err
        assert leaked(out + err + caplog.text) == []
        return codes

    return run_all


def test_what_goes_well_shows_no_secret(run: Run, sample: Place, tmp_path: Path) -> None:
    """Each command, with a password in the URL, keys in environment and file, a password for PostgreSQL."""
    file = tmp_path / "keys"
    file.write_text(f"{OTHER_SIGNS}\n")
    environment = {
        variable_of("redis_url"): sample.url(more="?client_name=probe"),
        variable_of("signing_keys"): f"hex:{SIGNS.encode().hex()},file:{file}",
        "PGPASSWORD": WRONG,
    }
    codes = run(sample.dsn, *OUTPUTS, environment=environment)
    assert set(codes) <= {ExitCode.OK, ExitCode.FINDING}
    assert codes[:3] == [ExitCode.OK] * 3


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("redis://leaky:{wrong}@{host}/0", ExitCode.REDIS),
        ("redis://:{wrong}@{host}/0", ExitCode.REDIS),
        ("redis://{host}/0?password={query}&username=leaky", ExitCode.REDIS),
        ("rediss://leaky:{wrong}@127.0.0.1:1/0?ssl_password={query}", ExitCode.REDIS),
        ("redis://leaky:{wrong}@no-such-host.invalid/0", ExitCode.REDIS),
        ("redis://leaky:{wrong}@127.0.0.1:port/0", ExitCode.CONFIGURATION),
        ("redis://leaky:x/{wrong}@127.0.0.1/0", ExitCode.CONFIGURATION),
        ("http://leaky:{wrong}@127.0.0.1/0", ExitCode.CONFIGURATION),
        ("redis://127.0.0.1:1/0?socket_timeout={query}", ExitCode.CONFIGURATION),
        ("unix://leaky:{wrong}@/no/such/socket?password={query}", ExitCode.CONFIGURATION),  # two passwords
        ("unix://leaky:{wrong}@/no/such/socket", ExitCode.REDIS),
        ("redis+sentinel://leaky:{wrong}@127.0.0.1:1/name?sentinel_password={query}", ExitCode.REDIS),
        ("redis+cluster://leaky:{wrong}@127.0.0.1:1", ExitCode.REDIS),
    ],
)
def test_a_redis_that_fails_shows_no_secret(run: Run, place: Place, url: str, code: ExitCode) -> None:
    """Wrong passwords, no server, no URL; with the traceback that --debug shows."""
    given = url.format(wrong=WRONG, query=QUERY, host=place.host)
    environment = {variable_of("redis_url"): given, variable_of("signing_keys"): SIGNS}
    commands = ("status",), ("status", "--redis", given), ("invalidate", "--no-wait", "--reason", "r", "--json")
    codes = run("", *commands, environment=environment)
    assert codes == [code] * 3


@pytest.mark.parametrize(
    "dsn",
    [
        "WRONG PASSWORD",
        f"postgresql://u:{WRONG}@127.0.0.1:1/d?sslpassword={QUERY}",
        f"postgresql://u:{WRONG}@no-such-host.invalid/d",
        f"postgresql://u:p@{WRONG}@127.0.0.1/d",
        f"postgresql://u:{WRONG}/more@127.0.0.1/d",
        f"postgresql://{WRONG}:12/{WRONG}@127.0.0.1/d",
        f"host=127.0.0.1 port=1 password={WRONG} sslpassword={QUERY}",
        f"host=127.0.0.1 port=1 pasword={WRONG}",
        f"host=127.0.0.1 password='{WRONG}",
        f"password={WRONG} more {QUERY}",
        f"postgres//u:{WRONG}@h/d",
    ],
)
def test_a_postgresql_that_fails_shows_no_secret(run: Run, place: Place, dsn: str) -> None:
    """A wrong password, no server, and strings in which the password stands in a wrong place."""
    given = make_dsn(place.dsn, password=WRONG) if dsn == "WRONG PASSWORD" else dsn
    environment = {variable_of("redis_url"): place.url(), variable_of("signing_keys"): SIGNS}
    commands = [command for command in OUTPUTS if command[0] in ("show", "promote")]
    codes = run(given, *commands, environment=environment)
    assert set(codes) <= {ExitCode.POSTGRES, ExitCode.CONFIGURATION}
    run(given, ("doctor", "--dsn", "DSN"), environment=environment)


@pytest.mark.parametrize(
    "keys", [f"{SIGNS},short", f"hex:{SIGNS}", f"base64:{SIGNS}", f"{SIGNS}" * 9, f"file:/no/{SIGNS[:3]}", "file:KEYS"]
)
def test_a_wrong_key_is_not_shown(run: Run, place: Place, keys: str, tmp_path: Path) -> None:
    """Nor its neighbours, nor a line of its file."""
    file = tmp_path / "keys"
    file.write_text(f"{OTHER_SIGNS}\nhex:{SIGNS}\n")
    given = keys.replace("KEYS", str(file))
    environment = {variable_of("redis_url"): place.url(), variable_of("signing_keys"): given}
    assert run("", ("status",), environment=environment) == [ExitCode.CONFIGURATION]


def test_what_the_library_logs_raises_and_is_shows_no_secret(
    sample: Place, namespace: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as a debugger, a crash reporter or a dump of the settings shows it: with the variables of our functions."""
    shown: list[str] = []
    settings = Settings(
        redis_url=sample.url(), namespace=namespace, signing_keys=(SIGNS.encode(), OTHER_SIGNS.encode()), lease=0
    )
    with caplog.at_level(logging.DEBUG), contextlib.closing(SharedCache(None, settings=settings)) as cache:
        with contextlib.closing(psycopg2.connect(sample.dsn)) as conn:
            cache.read(conn)
            cache._store._client.redis.hset(cache._store.keys.entry, "signature", "")
            assert cache.read(conn).source == "database"
            cache.invalidate(reason="r", wait=False)
            assert cache.metrics["entries_rejected"] == 1
        shown += [repr(cache), repr(settings), repr(cache.fleet()), repr(cache.inspect())]
        shown.append(str(dataclasses.asdict(settings)))
    broken = settings.replace(redis_url=sample.url(WRONG))
    with caplog.at_level(logging.DEBUG), contextlib.closing(SharedCache(None, settings=broken)) as cache:
        with pytest.raises(Exception, match="password") as refused:
            cache.invalidate(wait=False)
        shown.append(_with_variables(refused.value))
    apart = settings.replace(redis_url=f"redis://{USER}@{sample.host}/0", redis_password=WRONG)
    shown += [repr(apart), str(dataclasses.asdict(apart)), f"{vars_of(apart)}"]
    with caplog.at_level(logging.DEBUG), contextlib.closing(SharedCache(None, settings=apart)) as cache:
        with pytest.raises(Exception, match="password") as refused:
            cache.invalidate(wait=False)
        shown.append(_with_variables(refused.value))
    for wrong in ({"redis_url": f"http://u:{WRONG}@h/"}, {"signing_keys": (SIGNS.encode(), b"short")}):
        with pytest.raises(ConfigurationError) as refused:
            Settings(**wrong)
        shown.append("".join(traceback.format_exception(refused.value)))

    def failing(*_: object) -> bool:
        raise LookupError

    monkeypatch.setattr(hmac, "compare_digest", failing)
    with pytest.raises(LookupError) as crashed:
        codec.check_signature(settings.signing_keys, "00", codec.Claim(*"abcdefgh"))
    shown.append(_with_variables(crashed.value))
    assert leaked("\n".join([*shown, caplog.text])) == []


def vars_of(settings: Settings) -> dict[str, object]:
    """Give what a debugger shows of them."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}


def _with_variables(error: BaseException) -> str:
    """Format a traceback with the variables of kcg_cache's functions: what the drivers keep in theirs is theirs."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines: list[str] = []
    seen: traceback.TracebackException | None = told
    while seen is not None:
        lines += [f"{frame.name} {frame.locals}" for frame in seen.stack if "kcg_cache" in frame.filename]
        lines.append(str(seen))
        seen = seen.__cause__
    assert len(lines) > 1
    return "\n".join(lines)


def test_the_search_finds_what_is_there(place: Place) -> None:
    """The passwords of the servers that the tests start, too."""
    password = parse_dsn(place.dsn).get("password", "")
    assert leaked(f"a\nb {PASSWORD}\nc") == [f"b {PASSWORD}"]
    assert leaked(f"host=x password={password}") or not password
