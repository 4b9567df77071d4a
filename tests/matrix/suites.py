"""Run the suite on an artefact that is installed, in one environment, and count what came out."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET  # of a file that pytest has just written
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.matrix.artefacts import Artefact, lay_out
from tests.matrix.pythons import PROJECT, Python

#: The sets of dependencies, and the locks that pin them.
LOCKS = {"newest": "requirements/dev.lock", "oldest": "requirements/oldest.lock"}

#: The short form, in little time: what touches each dependency, and what Python changed between 3.11 and 3.14 (forks,
#: threads, parsers).
SMOKE = (
    "tests/test_public.py",
    "tests/test_extras.py",
    "tests/test_codec.py",
    "tests/test_compression.py",
    "tests/test_postgres.py",
    "tests/test_store.py",
    "tests/test_contract.py",
    "tests/test_fetching.py",
    "tests/test_rows.py",
    "tests/test_schemas.py",
)


@dataclass(frozen=True)
class Outcome:
    """What one suite came to: tests by outcome, and seconds."""

    passed: int
    failed: int
    skipped: int
    seconds: int

    @property
    def good(self) -> bool:
        """Tell whether something ran, and nothing failed."""
        return self.passed > 0 and self.failed == 0

    def as_dict(self) -> dict[str, int]:
        """Give it for JSON."""
        return asdict(self)


def environment(python: Python, dependencies: str) -> Path:
    """See to the environment of one Python and one set of dependencies (scripts/_environment makes it) and give it."""
    directory = PROJECT / ".venv-matrix" / f"{python.minor}-{dependencies}"
    directory.parent.mkdir(exist_ok=True)
    (directory.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    subprocess.run(
        [
            "bash",
            "-c",
            'set -euo pipefail; . scripts/_environment; ensure_environment "$1" "$2"',
            "matrix",
            directory,
            LOCKS[dependencies],
        ],
        cwd=PROJECT,
        env={**os.environ, "PYTHON": python.path},
        check=True,
    )
    return directory


def run(artefact: Artefact, home: Path, work: Path, arguments: list[str]) -> Outcome:
    """Install the artefact into the environment `home`, and test it from an empty directory; `arguments` go to pytest.

    What pytest says goes to stderr. Raises RuntimeError if not the installed package is what would be tested.
    """
    install(home, artefact.wheel)
    elsewhere = work / "elsewhere"
    lay_out(artefact, elsewhere)
    python = home / "bin" / "python"
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    where = subprocess.run(
        [python, "-c", "import kcg_cache; print(kcg_cache.__file__)"],
        cwd=elsewhere,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(where).is_relative_to(home):
        raise RuntimeError(f"{where} would be tested, which is not in {home}")
    report = work / "report.xml"
    (work / "tmp").mkdir()  # pytest makes the last part of its --basetemp only
    options: list[str | Path] = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        work / "tmp" / "pytest",
        f"--junitxml={report}",
    ]
    subprocess.run(
        [python, "-m", "pytest", *options, "-m", "not checkout", *arguments],
        cwd=elsewhere,
        env=variables,
        stdout=sys.stderr,
        check=False,
    )
    return count(report)


def install(home: Path, wheel: Path) -> None:
    """Put the wheel into the environment and nothing else: what it requires must be there, or this fails."""
    python = home / "bin" / "python"
    if uv := shutil.which("uv"):
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--no-deps", "--no-index", "--reinstall", "--python", python, wheel],
            check=True,
        )
        subprocess.run([uv, "pip", "check", "--quiet", "--python", python], check=True)
        return
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        subprocess.run([python, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL, check=True)
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel], check=True)
    subprocess.run([*pip, "check"], stdout=subprocess.DEVNULL, check=True)


def count(report: Path) -> Outcome:
    """Read what pytest wrote as JUnit's XML; without one, of a run that broke off, it is one failure."""
    if not report.exists():
        return Outcome(0, 1, 0, 0)
    (suite,) = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - pytest has just written it
    number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    passed = number["tests"] - failed - number["skipped"]
    return Outcome(passed, failed, number["skipped"], round(float(suite.get("time", "0"))))


def versions(home: Path) -> dict[str, str]:
    """Give the versions that an environment has of what pyproject.toml names itself."""
    code = "import json; from tests.matrix import sizes; print(json.dumps(sizes.direct()))"
    done = subprocess.run(
        [home / "bin" / "python", "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded: dict[str, str] = json.loads(done.stdout)
    return loaded
