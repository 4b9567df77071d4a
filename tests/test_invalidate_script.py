"""The operator's script: real processes against a real Redis, and an exit code that can be trusted."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kcg_cache.cli.exits import ExitCode
from kcg_cache.keys import Keys
from tests.programs import NOBODY, SOURCE, Ended
from tests.programs import ended as finished
from tests.waiting import eventually

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "invalidate_cache.py"

pytestmark = pytest.mark.checkout


@dataclass(frozen=True)
class Script:
    """The script, in an environment of the test's own and from a directory of its own."""

    environment: Mapping[str, str]
    directory: Path
    #: What the interpreter is told to run.
    program: tuple[str, ...] = (str(SCRIPT),)

    def start(self, *arguments: str, **environment: str) -> Any:
        """Start it; warnings are errors there too."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", *self.program, *arguments],
            env={**self.environment, **environment},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        """Run it to its end."""
        return finished(self.start(*arguments, **environment))


@pytest.fixture
def script(redis_url: str, namespace: str, tmp_path: Path) -> Script:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        # The package that is tested, for the case that the script does not lie in a checkout.
        "PYTHONPATH": SOURCE,
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "KCG_CACHE_REDIS_URL": redis_url,
        "KCG_CACHE_NAMESPACE": namespace,
    }
    return Script(environment, tmp_path)


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys.of(namespace, "active_versions")


def one_line(ended: Ended) -> str:
    """Give the one line on stderr of a run that failed: nothing else was said, and stdout is clean."""
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("kcg-cache: ")
    assert "hush-hush" not in line
    return line


def test_it_withdraws_and_returns_when_it_is_in_force(script: Script, keys: Keys, client: Any) -> None:
    """The entry is gone, the log has who and why, and the receipt says that it is in force."""
    client.hset(keys.entry, "digest", "cafe")
    ended = script("--reason", "승격 v3", "--json")
    receipt = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert (receipt["existed"], receipt["digest"], receipt["in_force"]) == (True, "cafe", True)
    assert not client.exists(keys.entry)
    ((_, logged),) = client.xrange(keys.invalidations)
    assert logged[b"reason"].decode() == "승격 v3"


def test_it_needs_no_extra_and_no_wait_returns_at_once(script: Script, client: Any) -> None:
    """Without typer and rich it does the same, for any dataset, and one line tells what it did."""
    without = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(("typer", "click", "rich")))
sys.argv[0] = {str(SCRIPT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    arguments = ("--reason", "x", "--dataset", "correlation", "--no-wait")
    ended = replace(script, program=("-c", without))(*arguments)
    assert (ended.code, ended.err) == (0, "")
    (line,) = ended.out.splitlines()
    assert line.startswith("correlation: withdrew nothing, there was no entry; in force from ")
    assert client.xlen(Keys.of(script.environment["KCG_CACHE_NAMESPACE"], "correlation").invalidations) == 1


def test_redis_down_fails_after_all_attempts(script: Script) -> None:
    """Nobody confirmed, so it does not exit with 0, and one line says what and how often."""
    ended = script("--reason", "x", "--redis", NOBODY, "--retries", "2", "--retry-delay", "0")
    assert ended.code == ExitCode.REDIS
    line = one_line(ended)
    assert "is not confirmed" in line
    assert "(3 attempts) [redis://:***@127.0.0.1:1/0]" in line


def test_a_wrong_password_is_not_retried(script: Script, redis_url: str) -> None:
    """What only an operator can mend is told at once."""
    right = redis_url.split("@", maxsplit=1)[0].rpartition(":")[2]
    ended = script("--reason", "x", "--redis", redis_url.replace(right, "hush-hush"))
    assert ended.code == ExitCode.REDIS
    assert "rights do not suffice" in (line := one_line(ended))
    assert "(1 attempt)" in line


def test_it_repeats_until_redis_confirms(script: Script, redis_url: str, keys: Keys, client: Any) -> None:
    """A Redis that comes back between two attempts confirms the second, and that is a success."""
    client.hset(keys.entry, "digest", "cafe")
    with unreliable(redis_url, refusals=3) as url:
        ended = script("--reason", "x", "--redis", url, "--retry-delay", "0", "--no-wait")
    assert (ended.code, ended.err) == (0, "")
    assert not client.exists(keys.entry)


@contextlib.contextmanager
def unreliable(url: str, refusals: int) -> Iterator[str]:
    """Give the URL of a door to a server that is shut in the face of the first callers."""
    parts = urlsplit(url)
    assert parts.port is not None
    there = (parts.hostname or "", parts.port)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(60)  # ends a test that has failed

        def serve() -> None:
            for _ in range(refusals):
                door.accept()[0].close()
            visitor, _ = door.accept()
            with visitor, socket.create_connection(there) as server:
                back = threading.Thread(target=relay, args=(server, visitor))
                back.start()
                relay(visitor, server)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield url.replace(f":{parts.port}/", f":{door.getsockname()[1]}/")
        thread.join()


def relay(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, and then its end."""
    while part := source.recv(65536):
        target.sendall(part)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_interrupted_it_does_not_claim_success(script: Script, keys: Keys, client: Any) -> None:
    """Ctrl-C in the second of waiting is no success, and leaves one line and no traceback."""
    with script.start("--reason", "x") as process:
        eventually(lambda: client.xlen(keys.invalidations))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert one_line(Ended(process.returncode, out.decode(), err.decode())).startswith("kcg-cache: interrupted: ")


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        ([], {}, ExitCode.USAGE, "--reason"),
        (["--reason", " "], {}, ExitCode.USAGE, "say why"),
        (["--reason", "x", "--retries", "-1"], {}, ExitCode.USAGE, "'-1' is no number of 0 or more"),
        (["--reason", "x", "--dataset", "a b"], {}, ExitCode.CONFIGURATION, "dataset 'a b'"),
        (["--reason", "x"], {"KCG_CACHE_TTL": "soon"}, ExitCode.CONFIGURATION, "KCG_CACHE_TTL (ttl) is 'soon'"),
    ],
)
def test_wrong_use_is_one_line_with_its_code(
    script: Script, arguments: list[str], environment: dict[str, str], code: ExitCode, said: str
) -> None:
    """What is wrong is said in one line, and the exit code is the one of the table."""
    ended = script(*arguments, **environment)
    assert ended.code == code
    assert said in one_line(ended)


def test_its_help_has_the_table_of_exit_codes(script: Script) -> None:
    """A pipeline's author finds every code, and the variables of the settings."""
    ended = script("--help")
    assert (ended.code, ended.err) == (0, "")
    for code in ExitCode:
        assert f"{code.value:>3}  {code.meaning}\n" in ended.out
    assert "KCG_CACHE_REDIS_URL" in ended.out
    assert "KCG_CACHE_NAMESPACE" in ended.out


def test_without_the_library_it_says_so(script: Script) -> None:
    """Copied to where no kcg_cache is, it says in one line what to install."""
    copied = shutil.copy(SCRIPT, script.directory / "invalidate_cache.py")
    ended = replace(script, program=("-I", "-S", str(copied)))("--reason", "x")
    assert ended.code == ExitCode.CONFIGURATION
    assert "No module named 'kcg_cache': pip install kcg-cache" in one_line(ended)
