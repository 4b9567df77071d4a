"""A command line that was forked is as one that was started."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kcg_cache import SharedCache
from kcg_cache.cli.exits import ExitCode
from kcg_cache.settings import variable_of
from tests import forked, test_cli
from tests.programs import NOBODY
from tests.test_cli import Cli
from tests.waiting import eventually

pytestmark = [pytest.mark.operators, pytest.mark.once]

cli, cache = test_cli.cli, test_cli.cache


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["reload", "--redis", NOBODY], {}),
        (["archive", "dark-vessel", "3.2.0", "--yes"], {}),
        (["enable", "dark-vessel"], {"PGHOST": "/nowhere"}),
        (["disable", "dark-vessel", "--json", "--dry-run"], {"PGHOST": "127.0.0.1", "PGPORT": "1"}),
        (["lua", "read", "--colour"], {}),
        (["demo", "--workers", "0"], {}),
        (["sql", "--help"], {"COLUMNS": "61"}),
        (["status"], {"KCG_CACHE_TTL": "쌍끌이"}),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else None,
)
def test_both_end_and_say_the_same(cli: Cli, arguments: list[str], environment: dict[str, str]) -> None:
    """The exit code, and every byte of both streams; the commands that no other test starts are among these."""
    assert forked.server().serves({**cli.environment, **environment})
    assert cli(*arguments, **environment) == cli.started(*arguments, **environment)


@pytest.mark.parametrize("name", ["LANG", "PYTHONWARNINGS", "TERM", "FORCE_COLOR", "TZ"])
def test_what_is_read_at_the_start_is_not_forked(cli: Cli, name: str) -> None:
    """The forking process has read it already."""
    assert not forked.server().serves({**cli.environment, name: "another"})
    assert not forked.server().serves({key: it for key, it in cli.environment.items() if key != "LANG"})


def test_no_variable_of_another_call_is_left(cli: Cli) -> None:
    """Each call has the environment that it was given, and nothing else."""
    assert cli("status", KCG_CACHE_TTL="soon").code == ExitCode.CONFIGURATION
    assert cli("status").code == ExitCode.OK
    without = {name: value for name, value in cli.environment.items() if name != variable_of("namespace")}
    default = Cli(without).json("status")
    assert default["namespace"] != cli.json("status")["namespace"] == cli.namespace


@contextmanager
def following(cli: Cli) -> Iterator[tuple[forked.Forked, int]]:
    """Have a call that does not end by itself, when it has written a line; give it, and its process's id."""
    server = forked.server()
    out, out_of_it = os.pipe()
    before = _children(server.pid)
    call = server.start(["log", "--follow"], cli.environment, out_of_it, out_of_it)
    os.close(out_of_it)
    (pid,) = eventually(lambda: _children(server.pid) - before)
    try:
        assert os.read(out, 1)
        yield call, pid
        while os.read(out, 65536):
            pass
    finally:
        os.close(out)


def _children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGKILL, -9), (signal.SIGTERM, -15)]
)
def test_a_signal_does_to_it_what_it_does_to_any(
    cli: Cli, cache: SharedCache, number: signal.Signals, code: int
) -> None:
    """The forking process ignores Ctrl-C, and its forks do not; whoever is killed has the signal's number."""
    cache.invalidate(reason="to have something in the log")
    with following(cli) as (call, pid):
        os.kill(pid, number)
    assert call.wait() == code
    assert cli("--version").code == ExitCode.OK


def test_many_at_once_end_each_with_its_own_code(cli: Cli) -> None:
    """Whoever asks from several threads is served at the same time, not in turn."""
    server = forked.server()
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - for its descriptor
        calls = [
            server.start(arguments, cli.environment, nowhere.fileno(), nowhere.fileno())
            for arguments in (["status"], ["invalidate"], ["reload", "--redis", NOBODY], ["--version"])
        ]
    assert [call.wait() for call in reversed(calls)] == [0, ExitCode.REDIS, ExitCode.USAGE, 0]
