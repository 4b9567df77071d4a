"""Find the Pythons of this machine that the package supports."""

import itertools
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]

_PROBE = """
import importlib.util, sys
if sys.implementation.name != "cpython" or getattr(sys, "_is_gil_enabled", lambda: True)() is False:
    sys.exit(3)
has_pip = all(importlib.util.find_spec(name) for name in ("ensurepip", "venv"))
print(*sys.version_info[:3], has_pip, sys.version_info.releaselevel, sys.executable, sep="\\n")
"""


@dataclass(frozen=True)
class Python:
    """One interpreter: its release (major, minor, micro), its path, whether it can make environments with pip."""

    release: tuple[int, int, int]
    path: str
    has_pip: bool

    @property
    def minor(self) -> str:
        """Give what a classifier calls it, as in ``3.13``."""
        return "{}.{}".format(*self.release)

    @property
    def version(self) -> str:
        """Give the whole release, as in ``3.13.0``."""
        return "{}.{}.{}".format(*self.release)


def supported() -> list[str]:
    """Give the versions that pyproject.toml claims, oldest first."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: "
    versions = [one.removeprefix(prefix) for one in project["classifiers"] if one.startswith(prefix)]
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])


def found(named: Iterable[str] = ()) -> list[Python]:
    """Give the newest release of each supported version, oldest first: those that are `named`, on PATH, and pyenv's.

    A path that is named and cannot be used raises ValueError; of two that are the same release the first is taken.
    """
    best: dict[str, Python] = {}
    versions = supported()
    for path in named:
        python = probe(path)
        if python is None or python.minor not in versions:
            raise ValueError(f"{path} is no CPython of {versions[0]} to {versions[-1]} that runs here")
        best.setdefault(python.minor, python)
    chosen = set(best)
    for path in itertools.chain(_on_path(versions), _of_pyenv(versions)):
        python = probe(path)
        if python is None or python.minor not in versions or python.minor in chosen:
            continue
        if python.minor not in best or python.release > best[python.minor].release:
            best[python.minor] = python
    return [best[version] for version in versions if version in best]


def probe(path: str) -> Python | None:
    """Start the interpreter at `path`; None if it is none, no CPython, a pre-release or one without the GIL."""
    try:
        done = subprocess.run([path, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != 6 or lines[4] != "final":
        return None
    major, minor, micro = map(int, lines[:3])
    return Python((major, minor, micro), lines[5], has_pip=lines[3] == "True")


def _on_path(versions: Iterable[str]) -> Iterable[str]:
    names = ["python3", *(f"python{version}" for version in versions)]
    return (path for name in names if (path := shutil.which(name)))


def _of_pyenv(versions: Iterable[str]) -> Iterable[str]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    return (str(path) for version in versions for path in sorted(root.glob(f"{version}.*/bin/python")))
