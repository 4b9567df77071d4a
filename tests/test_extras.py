"""Without an extra everything imports that does not need it, and what needs one says which."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kcg_cache
from kcg_cache.cli.exits import ExitCode
from tests.matrix import sizes

Bare = Callable[..., "subprocess.CompletedProcess[str]"]

IMPORT_ALL = """
import importlib, pkgutil, kcg_cache
needs_extra = tuple(f"kcg_cache.{name}" for name in ("cli", "demo", "testing", "prometheus", "__main__"))
for module in pkgutil.walk_packages(kcg_cache.__path__, "kcg_cache."):
    if not module.name.startswith(needs_extra):
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Start Python on what `kcg-cache` with some extras installs, and on nothing else, not even servers on the PATH."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*arguments: str, extras: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        if extras not in made:
            made[extras] = _installed(tmp_path_factory.mktemp("bare"), extras)
        environment = {"PATH": "", "PYTHONPATH": str(made[extras]), "HOME": os.devnull, "TMPDIR": str(made[extras])}
        return subprocess.run(
            [sys.executable, "-S", "-B", "-W", "error", *arguments],
            env=environment,
            cwd=made[extras],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def _installed(place: Path, extras: tuple[str, ...]) -> Path:
    """Fill a directory with links to the packages that `kcg-cache` with these extras requires, all the way down."""
    (place / "kcg_cache").symlink_to(Path(kcg_cache.__file__).parent)
    for distribution in sizes.closure(extras).values():
        names = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        for name in names:
            if not (place / name).exists():
                (place / name).symlink_to(Path(str(distribution.locate_file(name))))
    return place


def test_without_any_extra_the_library_imports_and_reads(bare: Bare) -> None:
    """All of it but the command line, the demo, the double for tests and the adapter for Prometheus."""
    done = bare("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert {"kcg_cache.api", "kcg_cache.doctor", "kcg_cache.watcher", "kcg_cache.embedded"} <= {*done.stdout.split()}
    script = (
        "import kcg_cache\n"
        "rows = kcg_cache.Dataset('d', lambda conn: [{'a': 1}], transactional=False)\n"
        "cache = kcg_cache.SharedCache('redis://127.0.0.1:1/0', rows)\n"
        "print(cache.read(None).rows)\n"
    )
    done = bare("-c", script)
    assert done.returncode == 0, done.stderr
    assert "'a': 1" in done.stdout


@pytest.mark.parametrize(("command", "extras"), [("status", ()), ("demo", ("embedded", "testing"))])
def test_every_command_without_the_extra_cli_names_it(bare: Bare, command: str, extras: tuple[str, ...]) -> None:
    """In one line, whatever else is installed."""
    done = bare("-m", "kcg_cache", command, extras=extras)
    assert done.returncode == ExitCode.CONFIGURATION
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'kcg-cache[cli]'" in done.stderr


def test_the_demo_without_the_extra_embedded_names_it(bare: Bare) -> None:
    """Where this machine has no servers of its own either."""
    done = bare("-m", "kcg_cache", "demo", extras=("cli",))
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    assert "pip install 'kcg-cache[embedded]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_needs_no_other_extra(bare: Bare) -> None:
    """The extra `cli` alone shows what is packaged; every command is imported for that."""
    done = bare("-m", "kcg_cache", "sql", "schema", extras=("cli",))
    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE" in done.stdout


def test_the_double_for_tests_names_its_extra_and_needs_no_other(bare: Bare) -> None:
    """kcg_cache.testing without fakeredis, and with nothing but it."""
    done = bare("-c", "import kcg_cache.testing", extras=("cli", "embedded"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("pip install 'kcg-cache[testing]'")
    done = bare("-c", "from kcg_cache import testing; print(testing.fake_redis().ping())", extras=("testing",))
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_the_adapter_for_prometheus_names_its_extra_and_needs_no_other(bare: Bare) -> None:
    """kcg_cache.prometheus without prometheus_client, and with nothing but it."""
    done = bare("-c", "import kcg_cache.prometheus", extras=("cli", "testing"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("pip install 'kcg-cache[prometheus]'")
    script = "import kcg_cache.prometheus as adapter; adapter.export(); print(adapter.multiprocess())"
    done = bare("-c", script, extras=("prometheus",))
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
