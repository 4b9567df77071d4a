"""Run the tests of one server, and read what came out."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg2
import redis

from tests.compatibility.programs import Program

ROOT = Path(__file__).parents[2]
#: Seconds after which a run hangs.
_PATIENCE = 7200


class RunError(Exception):
    """The tests of a server could not be run at all; the text says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the tests said of one server."""

    kind: str
    server: str
    version: str
    origin: str
    #: Whether the tests of the operators' commands were run too.
    commands: bool
    #: Python and the drivers that it was run with.
    versions: dict[str, str]
    #: Whether the doctor calls it too old: then `passed` counts the tests of what is to happen on such a server.
    too_old: bool
    passed: int
    #: How many were skipped for which reason.
    skipped: dict[str, int]
    #: The first line of each failure, by test.
    failed: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Give it for JSON."""
        return asdict(self)


def versions() -> dict[str, str]:
    """Give the versions of Python and of the drivers."""
    libpq = psycopg2.extensions.libpq_version()
    return {
        "Python": platform.python_version(),
        "redis-py": redis.__version__,
        "psycopg2": importlib.metadata.version("psycopg2-binary"),
        "libpq": f"{libpq // 10000}.{libpq % 10000}",
    }


def run(program: Program, arguments: list[str], *, commands: bool = False) -> Result:
    """Run the tests of a server; raise `RunError`.

    `commands`: those of the operators' commands too. `arguments`: pytest's, that narrow them.
    """
    kind = f"old {program.kind}" if program.too_old else program.kind
    with tempfile.TemporaryDirectory(prefix="kcg-compatibility-") as temporary:
        # PostgreSQL runs as nobody, and has to come through.
        Path(temporary).chmod(0o755)
        report = Path(temporary) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "tests.compatibility.selection",
        ]
        # `--real=…`: as two words a kind of two words would be taken for a file by a plugin that reads them first.
        command += [f"--real={kind}", f"--junitxml={report}", "--basetemp", f"{temporary}/pytest"]
        command += [*(["--commands"] if commands else []), *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(program),
            stdin=subprocess.DEVNULL,
            # What pytest says is how far it is, and later the whole of each failure; the table alone goes to stdout.
            stdout=sys.stderr,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode not in (0, 1) or not report.exists():
            raise RunError(f"{program.server} {program.version}: pytest ended with {done.returncode}, as it says above")
        passed, skipped, failed = read(report.read_text(encoding="utf-8"))
    return Result(
        kind=program.kind,
        server=program.server,
        version=program.version,
        origin=program.origin,
        commands=commands,
        versions=versions(),
        too_old=program.too_old,
        passed=passed,
        skipped=skipped,
        failed=failed,
    )


def _environment(program: Program) -> dict[str, str]:
    """Give the tests this server, and the extra's for the other kind."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KCG_")}
    return kept | {program.variable: str(program.path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def read(report: str) -> tuple[int, dict[str, int], dict[str, str]]:
    """Read a JUnit report: how many passed, how many were skipped for which reason, and what failed."""
    passed, skipped, failed = 0, Counter[str](), {}
    for case in ET.fromstring(report).iter("testcase"):  # noqa: S314 - our own pytest's
        name = f"{(case.get('classname') or '').rpartition('.')[2]}::{case.get('name')}"
        outcome = next((part for part in case if part.tag in ("skipped", "failure", "error")), None)
        if outcome is None:
            passed += 1
        elif outcome.tag == "skipped":
            skipped[_line(outcome.get("message"))] += 1
        else:
            failed[name] = _line(outcome.get("message"))
    return passed, dict(sorted(skipped.items())), dict(sorted(failed.items()))


def _line(text: str | None) -> str:
    """Give the first line of a message, without what differs from run to run."""
    line = (text or "").strip().splitlines()[0] if (text or "").strip() else ""
    return re.sub(r"\s+", " ", line)[:200]
