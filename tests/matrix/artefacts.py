"""Build the sdist and the wheels, and lay out what a suite needs that is to run without the source tree."""

import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.matrix.pythons import PROJECT

#: What the tests read beside the installed package.
BESIDE = ("tests", "benchmarks", "docs", "pyproject.toml")


@dataclass(frozen=True)
class Artefact:
    """A wheel, and the directory with tests that came with it: the checkout's, or the sdist's own."""

    name: str
    wheel: Path
    tests: Path


def build(work: Path) -> list[Artefact]:
    """Build the checkout's wheel and sdist below `work`, and the sdist's wheel from nothing but the sdist."""
    wheel = _build("--wheel", PROJECT, work / "wheel")
    archive = _build("--sdist", PROJECT, work / "archive")
    unpacked = unpack(archive, work / "unpacked")
    return [Artefact("wheel", wheel, PROJECT), Artefact("sdist", _build("--wheel", unpacked, work / "sdist"), unpacked)]


def unpack(archive: Path, into: Path) -> Path:
    """Unpack an sdist and give the one directory that is in it."""
    with tarfile.open(archive) as members:
        members.extractall(into, filter="data")
    (root,) = into.iterdir()
    return root


def lay_out(artefact: Artefact, elsewhere: Path) -> None:
    """Copy the tests, and what they read, to a place in which there is no package."""
    elsewhere.mkdir(parents=True)
    for name in BESIDE:
        source = artefact.tests / name
        if source.is_dir():
            shutil.copytree(source, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, elsewhere / name)


def _build(kind: str, source: Path, into: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "build", kind, "--no-isolation", "--outdir", into, source],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{source} could not be built:\n{done.stdout}")
    (built,) = into.iterdir()
    return built
