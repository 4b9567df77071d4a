"""scripts/matrix finds the Pythons, counts honestly, and the page says what it recorded."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.matrix import pythons, report, sizes, suites
from tests.matrix.__main__ import main
from tests.matrix.suites import Outcome

pytestmark = [pytest.mark.checkout, pytest.mark.once]

PROBED = """#!/bin/sh
printf '%s\\n' {lines}
"""


def _fake(place: Path, name: str, *lines: object) -> str:
    """Make a program that answers the probe as a Python of another release would."""
    program = place / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(PROBED.format(lines=" ".join(map(str, [*lines, program]))), encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_the_newest_release_of_each_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PATH and of pyenv; no pre-release, no version that is not claimed; what is named goes before both."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    _fake(tmp_path, "bin/python3", 3, 11, 2, True, "final")
    _fake(tmp_path, "bin/python3.14", 3, 14, 0, True, "candidate")
    _fake(tmp_path, "pyenv/versions/3.11.9/bin/python", 3, 11, 9, True, "final")
    newest = _fake(tmp_path, "pyenv/versions/3.13.0/bin/python", 3, 13, 0, False, "final")
    _fake(tmp_path, "pyenv/versions/3.10.1/bin/python", 3, 10, 1, True, "final")
    found = pythons.found()
    assert [(python.minor, python.version) for python in found] == [("3.11", "3.11.9"), ("3.13", "3.13.0")]
    assert found[-1] == pythons.Python((3, 13, 0), newest, has_pip=False)
    named = _fake(tmp_path, "named", 3, 11, 0, True, "final")
    assert [python.path for python in pythons.found([named])] == [named, newest]


def test_the_newest_python_for_ci_can_make_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without pip is passed over where there is no uv."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    able = _fake(tmp_path, "bin/python3", 3, 12, 1, True, "final")
    newest = _fake(tmp_path, "bin/python3.13", 3, 13, 1, False, "final")
    assert main(["--newest-python"]) == 0
    assert capsys.readouterr().out == f"{able}\n"
    _fake(tmp_path, "bin/uv")
    assert main(["--newest-python"]) == 0
    assert capsys.readouterr().out == f"{newest}\n"


def test_a_python_that_is_named_must_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else it is an error in a line, and nothing runs."""
    assert main(["--python", str(tmp_path / "none"), "--newest-python"]) == 2
    assert "is no CPython of 3.11 to 3.14 that runs here" in capsys.readouterr().err
    assert pythons.probe(sys.executable) is not None


@pytest.mark.parametrize(
    ("attributes", "outcome", "good"),
    [
        ('tests="7" failures="0" errors="0" skipped="2" time="1.6"', Outcome(5, 0, 2, 2), True),
        ('tests="7" failures="1" errors="2" skipped="0" time="1"', Outcome(4, 3, 0, 1), False),
        ('tests="0" failures="0" errors="0" skipped="0" time="0"', Outcome(0, 0, 0, 0), False),
    ],
)
def test_outcomes_are_counted(tmp_path: Path, attributes: str, outcome: Outcome, good: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A suite in which nothing ran is no good one."""
    path = tmp_path / "report.xml"
    path.write_text(f"<testsuites><testsuite {attributes}/></testsuites>", encoding="utf-8")
    assert suites.count(path) == outcome
    assert outcome.good is good


def test_a_run_that_broke_off_failed(tmp_path: Path) -> None:
    """It left no report."""
    assert not suites.count(tmp_path / "report.xml").good


def _cell(python: str, artefact: str = "wheel", dependencies: str = "newest", passed: int = 1) -> report.Cell:
    outcome = Outcome(passed, 0, 0, 1)
    return report.cell(python, artefact, dependencies, suite="smoke", date="2026-11-25", outcome=outcome)


def test_new_cells_take_the_place_of_old_ones() -> None:
    """Of the same version of Python, whatever its release; in the order of the page."""
    old = [_cell("3.13.0"), _cell("3.11.7", "sdist"), _cell("3.11.7")]
    merged = report.merged(old, [_cell("3.13.1", passed=9)])
    assert [(one["python"], one["artefact"], one["passed"]) for one in merged] == [
        ("3.11.7", "wheel", 1),
        ("3.11.7", "sdist", 1),
        ("3.13.1", "wheel", 9),
    ]


def test_what_was_not_run_and_what_failed_is_said() -> None:
    """A row for every supported Python."""
    drawn = report.matrix([{**_cell("3.13.0"), "failed": 2}]).splitlines()
    assert len(drawn) == 2 + len(pythons.supported())
    assert drawn[2] == "| 3.11 | not run | not run | not run | not run |"
    assert drawn[4].startswith("| 3.13.0 | smoke: 1 passed, **2 failed**, 0 skipped | not run |")


def test_the_page_says_what_was_recorded() -> None:
    """docs/packaging.md's tables are docs/compatibility/python.json, drawn."""
    text = report.PAGE.read_text(encoding="utf-8")
    for name, table in report.tables(report.load()).items():
        assert report.replaced(text, name, table) == text, f"scripts/matrix --record writes {name}"


def test_nothing_that_failed_is_recorded_as_supported() -> None:
    """Every cell that the page shows passed, and every minimum version was met by one."""
    known: dict[str, Any] = report.load()
    for one in known["cells"]:
        assert one["failed"] == 0
        assert one["passed"] > 0
    assert {("3.11", "oldest"), ("3.13", "newest")} <= {
        (one["python"].rpartition(".")[0], one["dependencies"]) for one in known["cells"]
    }


def test_the_recorded_packages_of_each_extra_are_those_of_the_lock() -> None:
    """By name; the bytes are those of the day of the record. Run scripts/matrix --sizes --record when this fails."""
    recorded = report.load()["sizes"]
    measured = sizes.measured()
    assert list(recorded) == list(measured)
    if sys.version_info[:2] == (3, 11):  # that the record is of
        assert {name: one["packages"] for name, one in recorded.items()} == {
            name: one["packages"] for name, one in measured.items()
        }
    assert json.loads(report.DATA.read_text(encoding="utf-8"))["sizes"] == recorded
