"""`docs/other-languages.md`, run as it stands: `invalidate.lua` and `kcg.notify_change` without our library."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

from kcg_cache import Settings, SharedCache, keys, lua, queries
from kcg_cache.embedded import EmbeddedValkey, start_valkey
from kcg_cache.keys import Keys
from kcg_cache.settings import INVALIDATE_WAIT
from tests.doubles import Source
from tests.programs import SOURCE
from tests.test_notify import Ear

pytestmark = [pytest.mark.checkout, pytest.mark.operators]

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "other-languages.md").read_text(encoding="utf-8")
BLOCKS = [(language, text) for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
#: The namespace and the dataset that the page's examples name.
KEYS = Keys.of("kcg", "active_versions")
REASON = "승격: drift v3"

# The contract, word for word. It is public: copies of the script are in other people's repositories, and whoever has to
# change a line here needs a script with another name.
CONTRACT_KEYS = ("entry", "lock", "events", "invalidations", "guard")
CONTRACT_ARGV = ("who", "host", "reason", "events_cap", "events_ttl_ms", "invalidations_cap")
CONTRACT_REPLY = ("time", "existed", "digest", "fill_cancelled", "logged")


def block(language: str, having: str) -> str:
    """Give the one code block of the page in that language that has that text."""
    found: list[str] = [text for kind, text in BLOCKS if kind == language and having in text]
    assert len(found) == 1
    return found[0]


SHELL = block("bash", "redis-cli")
SOCKET = block("python", "import socket")


def table(before: str) -> list[list[str]]:
    """Give the cells of the first table after a text, without its head."""
    lines = PAGE.partition(before)[2].partition("\n|")[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def environment(directory: Path, url: str) -> dict[str, str]:
    """Give what the page's programs find: the server, and on the path a kcg-cache; of our library nothing else."""
    binaries = directory / "bin"
    binaries.mkdir(exist_ok=True)
    command = binaries / "kcg-cache"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {sys.executable} -m kcg_cache "$@"\n')
    command.chmod(0o755)
    password, host, port = re.fullmatch(r"redis://:(\w+)@([\d.]+):(\d+)/0", url).groups()  # type: ignore[union-attr]
    return {
        "PATH": f"{binaries}:{os.environ.get('PATH', '')}",
        "LANG": "C.UTF-8",
        "USER": "deploy",
        "REDIS_HOST": host,
        "REDIS_PORT": port,
        "REDISCLI_AUTH": password,
    }


def run(directory: Path, url: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the page to its end, beside a copy of the script."""
    (directory / "invalidate.lua").write_text(lua.load("invalidate").text, encoding="utf-8")
    return subprocess.run(
        command, cwd=directory, env=environment(directory, url), capture_output=True, text=True, check=False
    )


def by_shell(directory: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run the page's redis-cli, word for word."""
    for needed in ("redis-cli", "bash", "timeout"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed} on this machine")
    return run(directory, url, "bash", "-c", SHELL)


def by_socket(directory: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run the page's program that has only a socket; -I -S: no package of ours or of anybody's is there."""
    return run(directory, url, sys.executable, "-I", "-S", "-X", "utf8", "-c", SOCKET)


def by_java(having: str) -> Callable[[Path, str], subprocess.CompletedProcess[str]]:
    """Run the page's Java program that has that text, where the client's jars are given."""

    def program(directory: Path, url: str) -> subprocess.CompletedProcess[str]:
        jars = os.environ.get("KCG_TEST_CLASSPATH")
        if not jars or shutil.which("java") is None:
            pytest.skip("needs a JDK of 11 or later, and in KCG_TEST_CLASSPATH the jars of Jedis and Lettuce")
        text = block("java", having)
        source = directory / f"{having}.java"
        source.write_text(text, encoding="utf-8")
        return run(directory, url, "java", "-Dfile.encoding=UTF-8", "-cp", jars, str(source))

    return program


Program = Callable[[Path, str], subprocess.CompletedProcess[str]]
EVERY = pytest.mark.parametrize(
    "program",
    [by_shell, by_socket, by_java("InvalidateWithJedis"), by_java("InvalidateWithLettuce")],
    ids=["redis-cli", "socket", "Jedis", "Lettuce"],
)


# What the page says, held against the code.


def test_the_contract_of_invalidate_lua_is_what_it_always_was() -> None:
    """Other people have copies of the script, and callers that were built from this."""
    script = lua.load("invalidate")
    assert (script.keys, script.args, script.replies) == (CONTRACT_KEYS, CONTRACT_ARGV, CONTRACT_REPLY)


def test_the_page_shows_the_script_s_own_head() -> None:
    """Word for word, so that whoever has the script has the contract."""
    head = block("lua", "KEYS")
    assert lua.load("invalidate").text.startswith(head)
    assert "-- REPLY  " in head


def test_the_script_stands_alone() -> None:
    """What is sent is the file: no part of the library's own is put before it."""
    assert lua.load("invalidate").text == lua.path("invalidate").read_text(encoding="utf-8")


def test_the_page_s_keys_are_the_library_s() -> None:
    """In the script's order, with the default namespace and the dataset of the active versions."""
    listed = [cells[:2] for cells in table("**KEYS**")]
    assert Settings().namespace == "kcg"
    assert listed == [[str(n), getattr(KEYS, name)] for n, name in enumerate(CONTRACT_KEYS, start=1)]


def test_the_page_s_arguments_are_the_script_s_with_the_library_s_numbers() -> None:
    """Names in order; the numbers are those that the library itself sends."""
    listed = table("**ARGV**")
    assert [cells[:2] for cells in listed] == [[str(n), name] for n, name in enumerate(CONTRACT_ARGV, start=1)]
    numbers = [str(number) for number in (keys.EVENTS_KEPT, keys.EVENTS_TTL_MS, keys.INVALIDATIONS_KEPT)]
    assert [cells[2] for cells in listed[3:]] == numbers
    assert " ".join(numbers) in SHELL
    for language, having in (("java", "jedis.eval"), ("java", "lettuce"), ("python", "socket")):
        assert ", ".join(f'"{number}"' for number in numbers) in block(language, having)


def test_the_page_s_reply_is_the_script_s() -> None:
    """Names in order."""
    listed = [cells[:2] for cells in table("**REPLY**")]
    assert listed == [[str(n), name] for n, name in enumerate(CONTRACT_REPLY, start=1)]


def test_every_example_waits_as_long_as_the_library_does() -> None:
    """PROTOCOL R7."""
    assert f"{INVALIDATE_WAIT:g}" == "1.02"
    assert PAGE.count("1.02 s") == 2
    assert "\nsleep 1.02\n" in SHELL
    assert "received + 1.02 - time.monotonic()" in SOCKET
    for client in ("InvalidateWithJedis", "InvalidateWithLettuce"):
        assert "received < 1_020_000_000L" in block("java", client)


@pytest.mark.parametrize(("kind", "having"), [("java", "InvalidateWithJedis"), ("java", "InvalidateWithLettuce")])
def test_the_java_examples_name_the_keys_in_the_script_s_order(kind: str, having: str) -> None:
    """These are not run where no jars are."""
    text = block(kind, having)
    assert '"{kcg:active_versions}:"' in text
    assert tuple(re.findall(r'tag \+ "(\w+)"', text)) == CONTRACT_KEYS


def test_the_page_has_no_block_that_nobody_runs() -> None:
    """A new one is added to a test here."""
    assert [language for language, _ in BLOCKS] == ["lua", "bash", "java", "java", "python", "sql", "java"]


# What it does.


@EVERY
def test_after_it_every_reader_loads_anew(program: Program, tmp_path: Path, redis_url: str, client: Any) -> None:
    """Those that have a copy in the process, and new ones; the log has who and why, and a fill that ran is stopped."""
    source = Source()
    settings = Settings(redis_url=redis_url, namespace="kcg")
    readers = [SharedCache(None, source.dataset("active_versions"), settings) for _ in range(3)]
    try:
        assert [reader.read(None).rows[0]["version"] for reader in readers[:2]] == [1, 1]
        source.version = 2  # committed
        digest = client.hget(KEYS.entry, "digest").decode()
        client.set(KEYS.lock, "somebody's")
        ended = program(tmp_path, redis_url)
        assert (ended.returncode, ended.stderr) == (0, "")
        # At once: what it said holds for whoever begins to read now.
        assert [reader.read(None).rows[0]["version"] for reader in readers] == [2, 2, 2]
        assert source.loads == 2
    finally:
        for reader in readers:
            reader.close()
    ((_, logged),) = client.xrange(KEYS.invalidations)
    told = {name.decode(): value.decode() for name, value in logged.items()}
    assert (told["reason"], told["digest"], told["existed"], told["fill_cancelled"]) == (REASON, digest, "1", "1")
    assert client.pttl(KEYS.events) > 0
    # The whole reply is on the screen, and then that it is in force.
    said = re.sub(r"\W+", " ", ended.stdout)
    assert f"{told['time']} " in said
    assert digest in said
    assert "in force" in said


@EVERY
def test_nothing_there_is_no_error_and_twice_does_no_harm(
    program: Program, tmp_path: Path, redis_url: str, client: Any
) -> None:
    """An invalidate too many is a line in the log."""
    for _ in range(2):
        ended = program(tmp_path, redis_url)
        assert (ended.returncode, ended.stderr) == (0, "")
    assert [line[b"existed"] for _, line in client.xrange(KEYS.invalidations)] == [b"0", b"0"]


@EVERY
@pytest.mark.parametrize("fault", ["down", "a replica", "a wrong password"])
def test_what_is_not_confirmed_is_no_success(
    program: Program, tmp_path: Path, fault: str, valkey_server: EmbeddedValkey
) -> None:
    """It ends with an error, and says neither that it is done nor in force (PROTOCOL R9)."""
    url = valkey_server.url
    if fault == "down":
        url = re.sub(r":\d+/0", ":1/0", url)
        ended = program(tmp_path, url)
    elif fault == "a wrong password":
        ended = program(tmp_path, re.sub(r"://:\w+@", "://:wrong@", url))
    else:
        with start_valkey() as replica:
            with redis.Redis.from_url(replica.url) as client:
                client.replicaof("127.0.0.1", "1")
            ended = program(tmp_path, replica.url)
        assert "READONLY" in ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "in force" not in ended.stdout


def test_the_rights_that_the_page_names_suffice(tmp_path: Path, redis_url: str, client: Any) -> None:
    """A user who has those and nothing else is confirmed, and has it logged."""
    (rights,) = re.findall(r"no others: `(.*?)`", PAGE)
    client.acl_setuser("narrow", enabled=True, passwords=["+narrow"], reset=True)
    client.execute_command("ACL", "SETUSER", "narrow", *rights.split())
    try:
        text = SOCKET.replace('ask("AUTH", ', 'ask("AUTH", "narrow", ')
        ended = run(
            tmp_path, re.sub(r"://:\w+@", "://:narrow@", redis_url), sys.executable, "-I", "-X", "utf8", "-c", text
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "'logged': '1'" in ended.stdout
    finally:
        client.acl_deluser("narrow")


# The other door.


def test_the_page_s_transaction_tells_its_reason_when_it_commits(
    pg: Connection, pg_connect: Callable[[], Connection]
) -> None:
    """Word for word, on a database with the triggers; the payload is what the page says."""
    with pg.cursor() as cursor:
        cursor.execute(queries.load("notify"))
        cursor.execute("INSERT INTO kcg.detection_models VALUES ('drift', 'x')")
        pg.commit()
        ear = Ear(pg_connect(), pg_connect())
        pg.autocommit = True  # the block has its own BEGIN and COMMIT
        cursor.execute(block("sql", "kcg.notify_change"))
    assert ear.reasons() == ["UPDATE kcg.detection_model_versions", REASON]


def test_the_page_s_java_calls_the_function_as_it_is(pg: Connection) -> None:
    """One argument, a text."""
    assert 'prepareStatement("SELECT kcg.notify_change(?)")' in block("java", "PreparedStatement")
    assert REASON in block("java", "PreparedStatement")
    with pg.cursor() as cursor:
        cursor.execute(queries.load("notify"))
        cursor.execute("PREPARE p AS SELECT kcg.notify_change($1); EXECUTE p('x')")
