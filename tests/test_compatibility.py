"""The frame of scripts/compatibility, and that docs/servers.md shows what was recorded."""

import sys

import pytest

from tests.compatibility import __main__ as command
from tests.compatibility import page, programs, runs

pytestmark = pytest.mark.checkout

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_passes" />
<testcase classname="tests.test_a" name="test_skipped"><skipped message="not here (since Redis 7.2)"/></testcase>
<testcase classname="tests.test_b" name="test_fails[x]"><failure message="assert 1 == 2&#10; more"/></testcase>
<testcase classname="tests.test_b" name="test_breaks"><error message="no | server"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read() -> None:
    """What passed, what was skipped for which reason, and the first line of what failed."""
    passed, skipped, failed = runs.read(REPORT)
    assert (passed, skipped) == (1, {"not here (since Redis 7.2)": 1})
    assert failed == {"test_b::test_breaks": "no | server", "test_b::test_fails[x]": "assert 1 == 2"}


def test_the_page_shows_what_was_recorded() -> None:
    """It is made of the record again, and is the same; what was recorded held."""
    recorded = page.recorded()
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_table(text, recorded) == text
    assert not [server for server in recorded["servers"] if server["failed"]]
    assert {(server["server"], server["too_old"]) for server in recorded["servers"]} >= {
        ("Redis", False),
        ("Redis", True),
        ("Valkey", False),
        ("PostgreSQL", False),
    }


def test_a_server_that_does_not_hold_is_shown_with_the_reasons() -> None:
    """A bar in a message breaks no table, for it stands in none."""
    passed, skipped, failed = runs.read(REPORT)
    failing = runs.Result(
        kind="redis",
        server="Redis",
        version="7.0.15",
        origin="this system",
        commands=True,
        versions={"Python": "3.11.7", "redis-py": "8.1.0"},
        too_old=False,
        passed=passed,
        skipped=skipped,
        failed=failed,
    )
    shown = page.table({"servers": [failing.as_dict()]})
    assert "| Redis 7.0.15 | this system | Python 3.11.7, redis-py 8.1.0 | yes | 1 | 1 | 2 | does not hold |" in shown
    assert "- Redis 7.0.15: not here (since Redis 7.2) (1 skipped)" in shown
    assert "- Redis 7.0.15: `test_b::test_fails[x]` failed: assert 1 == 2" in shown


def test_every_server_of_this_machine_is_found_once(capsys: pytest.CaptureFixture[str]) -> None:
    """At least the extra's two; each has its version and may be chosen by it."""
    found = programs.found()
    assert len({(one.server, one.version) for one in found}) == len(found)
    assert {one.kind for one in found if one.origin == "the extra `embedded`"} == {"redis", "postgres"}
    for one in found:
        assert command.main(["--list", "--only", f"{one.server.lower()}-{one.version}"]) == 0
        assert capsys.readouterr().out.startswith(f"{one.server} {one.version} ")


def test_a_program_that_is_no_server_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, with what it said."""
    with pytest.raises(SystemExit) as ended:
        command.main(["--redis", sys.executable, "--list"])
    assert ended.value.code == 2
    assert "does not tell its version" in capsys.readouterr().err


def test_the_tests_of_a_server_run_on_it(capfd: pytest.CaptureFixture[str]) -> None:
    """One test, on the real backend alone and not on fakeredis."""
    arguments = ["--only", f"valkey-{extra().version}", "--", "tests/test_scripts.py", "-k", "a_resolved_floor_is_kept"]
    assert command.main(arguments) == 0
    assert "| 1 | 0 | 0 | holds |" in capfd.readouterr().out


def extra() -> programs.Program:
    """Give the extra's server."""
    return next(one for one in programs.found() if one.kind == "redis" and one.origin == "the extra `embedded`")
