"""scripts/_environment makes one whole environment, whatever comes in between, and says in one line what it cannot."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.waiting import eventually

pytestmark = pytest.mark.checkout

PROJECT = Path(__file__).parent.parent

# A uv that needs no network. It waits in the middle of its work if there is a gate, and fails if it is told to.
FAKE_UV = """#!/bin/sh
echo "$1" >>"$FAKE/log"
if [ "$1" = venv ]; then
  for made; do :; done
  mkdir -p "$made/bin"
  printf '#!/bin/sh\\nexec "%s" "$@"\\n' "$PYTHON" >"$made/bin/python"
  printf '#!%s/bin/python\\n' "$made" >"$made/bin/tool"
  touch "$made/pyvenv.cfg"
  chmod +x "$made/bin/python" "$made/bin/tool"
else
  if [ -p "$FAKE/gate" ]; then cat "$FAKE/gate"; fi
  if [ -e "$FAKE/fails" ]; then exit 2; fi
fi
"""
ENSURE = 'set -euo pipefail; . "$0/scripts/_environment"; ensure_environment "$1" "$2"; echo done'


class Checkout:
    """A place with a lock file, where an environment is to be made."""

    def __init__(self, root: Path, fake: Path) -> None:
        self.root = root
        self.fake = fake
        self.directory = root / ".venv"
        self.lock = root / "some.lock"
        self.lock.write_text("# nothing\n")
        (fake / "uv").write_text(FAKE_UV)
        (fake / "uv").chmod(0o755)
        self.environment: Mapping[str, str] = {
            "PATH": f"{fake}:{os.defpath}",
            "FAKE": str(fake),
            "PYTHON": sys.executable,
        }

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        """Begin to make the environment."""
        return subprocess.Popen(
            ["bash", "-c", ENSURE, PROJECT, self.directory, self.lock],
            env={**self.environment, **variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def ensure(self, **variables: str) -> tuple[int, str]:
        """Make the environment; give the exit status and what was said on stderr."""
        process = self.start(**variables)
        out, errors = process.communicate()
        assert (out == "done\n") == (process.returncode == 0)
        return process.returncode, errors

    def gate(self) -> Path:
        """Let the fake uv wait in the middle, until something is written here."""
        gate = self.fake / "gate"
        os.mkfifo(gate)
        return gate

    def installs(self) -> int:
        """Give how often it came so far as to install."""
        log = self.fake / "log"
        return log.read_text().split().count("pip") if log.exists() else 0

    def names(self) -> set[str]:
        """Give what lies in the place."""
        return {path.name for path in self.root.iterdir()} - {self.lock.name}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root, fake = tmp_path / "with blank", tmp_path / "fake"
    root.mkdir()
    fake.mkdir()
    return Checkout(root, fake)


@pytest.fixture
def place_for_all() -> Iterator[Path]:
    """Give a directory that every user may enter, which pytest's own are not."""
    place = Path(tempfile.mkdtemp(prefix="kd"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_an_environment_is_made_once_and_anew_for_another_lock(checkout: Checkout) -> None:
    """What is there for this lock stays, without a word; for another lock, or another place, it is made anew."""
    status, said = checkout.ensure()
    assert status == 0
    assert said.count("\n") == 1
    assert checkout.names() == {".venv"}
    assert (checkout.directory / "bin" / "tool").read_text() == f"#!{checkout.directory}/bin/python\n"
    assert checkout.ensure() == (0, "")
    assert checkout.installs() == 1
    checkout.lock.write_text("# nothing else\n")
    (checkout.directory / "old").touch()
    assert checkout.ensure()[0] == 0
    assert checkout.installs() == 2
    assert not (checkout.directory / "old").exists()
    assert checkout.names() == {".venv"}
    checkout.directory = checkout.directory.rename(checkout.root / "moved")
    assert checkout.ensure()[0] == 0
    assert checkout.installs() == 3


def test_two_at_once_make_one_environment(checkout: Checkout) -> None:
    """The second waits for the first, and finds it made."""
    gate = checkout.gate()
    both = checkout.start(), checkout.start()
    for process in both:
        assert process.stderr is not None
        assert "making the environment" in process.stderr.readline()
    gate.write_text("")  # opens when one of them has come to the gate
    gate.unlink()
    for process in both:
        assert process.communicate()[0] == "done\n"
    assert checkout.installs() == 1
    assert checkout.names() == {".venv"}


def test_an_interrupted_making_leaves_nothing(checkout: Checkout) -> None:
    """Ctrl-C in the middle of an install exits 130, and what was begun is gone."""
    gate = checkout.gate()
    process = checkout.start()

    def opened() -> int | None:
        """Open the gate once somebody waits at it: a signal before that might miss who is only about to be started."""
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody yet
            return None

    writer = eventually(opened)
    assert writer is not None
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    os.close(writer)
    assert process.returncode == 130
    assert checkout.names() == set()


def test_the_rest_of_a_killed_making_is_no_part_of_the_next(checkout: Checkout) -> None:
    """What a SIGKILL leaves lies beside the place, is ignored by git, and goes with the next making."""
    gate = checkout.gate()
    process = checkout.start()
    eventually(checkout.installs)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert checkout.names() == {".venv.making"}
    assert (checkout.root / ".venv.making" / ".gitignore").read_text() == "*\n"
    gate.unlink()
    assert checkout.ensure()[0] == 0
    assert checkout.names() == {".venv"}


def test_an_install_that_fails_leaves_the_environment_that_was(checkout: Checkout) -> None:
    """The old one stays until the new one is complete, and the failure is told in a line."""
    assert checkout.ensure()[0] == 0
    checkout.lock.write_text("# nothing else\n")
    (checkout.fake / "fails").touch()
    status, said = checkout.ensure()
    assert status == 1
    assert "could not be installed" in said
    assert (checkout.directory / "bin" / "tool").exists()
    assert checkout.names() == {".venv"}


def test_somebody_elses_directory_is_left_alone(checkout: Checkout) -> None:
    """A .venv that has no stamp of this script may be the work of a developer."""
    checkout.directory.mkdir()
    status, said = checkout.ensure()
    assert status == 1
    assert said.count("\n") == 1
    assert "was not made by this script" in said


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("false", "$PYTHON is false, which is no CPython of 3.11 or newer that runs here"),
        ("#!/bin/sh\nexit 3", "no CPython of 3.11 or newer"),
        ("#!/bin/sh\nexit 4", "has no ensurepip: install its venv package"),
    ],
)
def test_a_python_that_does_not_do_is_one_line(checkout: Checkout, python: str, told: str) -> None:
    """One that is not there, too old, or without pip is told with what to install."""
    if python.startswith("#!"):
        program = checkout.fake / "python"
        program.write_text(python)
        program.chmod(0o755)
        python = str(program)
    status, said = checkout.ensure(PYTHON=python)
    assert status == 1
    assert said.count("\n") == 1
    assert told in said
    assert checkout.names() == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_checkout_of_another_user_is_one_line(place_for_all: Path) -> None:
    """Who may not write beside the lock is told so before anything is begun."""
    place = place_for_all
    (place / "some.lock").write_text("# nothing\n")
    (place / "python").write_text(f"#!/bin/sh\necho {place}/python\necho stamp\n")
    (place / "python").chmod(0o755)
    shutil.copy(PROJECT / "scripts" / "_environment", place / "_environment")
    ended = subprocess.run(
        ["bash", "-c", '. "$0/_environment"; ensure_environment "$0/.venv" "$0/some.lock"', place],
        env={"PATH": os.defpath, "PYTHON": f"{place}/python"},
        user=65534,
        group=65534,
        extra_groups=[],
        text=True,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "may not write to" in ended.stderr


@pytest.mark.slow
def test_without_uv_pip_makes_the_environment(checkout: Checkout) -> None:
    """Python's own venv and pip do as well as uv."""
    status, said = checkout.ensure(PATH=os.defpath)
    assert status == 0
    assert said.count("\n") == 1
    assert checkout.names() == {".venv"}
    (pip,) = subprocess.run(
        [checkout.directory / "bin" / "pip", "--version"], text=True, capture_output=True, check=True
    ).stdout.splitlines()
    assert str(checkout.directory) in pip


def test_scripts_demo_runs_from_anywhere_and_keeps_its_bytecode_to_itself(checkout: Checkout) -> None:
    """The script finds its checkout through a link, and leaves nothing there but the environment."""
    project = checkout.root / "project"
    for name in ("scripts", "requirements", "kcg_cache"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = set(project.rglob("*"))
    link = checkout.root / "demo"
    link.symlink_to(project / "scripts" / "demo")
    elsewhere = checkout.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "redis.py").write_text("raise SystemExit('a stranger was imported')\n")
    ended = subprocess.run(
        [link, "--help"], cwd=elsewhere, env=checkout.environment, text=True, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: demo ")
    environment = project / ".venv"
    assert {path for path in set(project.rglob("*")) - before if not path.is_relative_to(environment)} == set()
    assert list((environment / "pycache").rglob("kcg_cache/demo/*.pyc"))
