"""docs/metrics.md and docs/logging.md say what the code does, and the list of events is complete."""

import ast
import io
import json
import logging
import re
from collections import defaultdict
from pathlib import Path

import pytest
from pythonjsonlogger.json import JsonFormatter

import kcg_cache
from kcg_cache.events import EVENTS
from kcg_cache.log import LINES, REMEMBERED, WINDOW, Log
from tests import pages
from tests.journals import hearing

pytestmark = [pytest.mark.checkout, pytest.mark.once]

DOCS = Path(__file__).parent.parent / "docs"
CODE = Path(kcg_cache.__file__).parent


def rows(page: str) -> list[str]:
    """Give the rows of a page's tables whose first cell is code."""
    return [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| `")]


def test_the_page_on_metrics_has_every_metric_and_no_other() -> None:
    """With its kind, labels and meaning; `python -m tests.pages` prints what has to be there."""
    assert rows("metrics.md") == [*pages.metrics(), *pages.counters()]


def test_the_page_on_logging_has_every_event_and_no_other() -> None:
    """With its level, details and meaning; the first rows are those of the record's attributes."""
    attributes = [row for row in rows("logging.md") if row.startswith("| `kcg_")]
    assert [row.split("`")[1] for row in attributes] == ["kcg_event", "kcg_dataset", "kcg_details"]
    assert [row for row in rows("logging.md") if row not in attributes] == pages.events()


def test_the_page_on_logging_has_the_limits_that_hold() -> None:
    """In words."""
    page = " ".join((DOCS / "logging.md").read_text(encoding="utf-8").split())
    assert (LINES, WINDOW, REMEMBERED) == (10, 60, 100)
    assert "writes ten lines of one event a minute" in page
    assert "a hundred states of a cache" in page


def logged() -> dict[str, set[str]]:
    """Give the events that the code logs, with the names of their details."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("event", "once")
                and ast.unparse(node.func.value) in ("self._log", "log")
            ):
                name = node.args[0]
                assert isinstance(name, ast.Constant), (
                    f"{file}:{node.lineno}: an event's name is written where it is used"
                )
                found[str(name.value)] |= {str(keyword.arg) for keyword in node.keywords}
    return found


def test_every_event_that_is_logged_is_in_the_list_and_no_other() -> None:
    """With all its details, which are kept from version to version."""
    assert logged() == {name: set(event.details) for name, event in EVENTS.items()}


def test_nothing_logs_past_the_list() -> None:
    """Not by a logger of its own."""
    direct = re.compile(r"getLogger|logging\.(debug|info|warning|error|exception|critical)\(")
    users = {
        str(file.relative_to(CODE)) for file in CODE.rglob("*.py") if direct.search(file.read_text(encoding="utf-8"))
    }
    assert users == {"log.py", "cli/journal.py"}


def test_an_event_that_ends_another_ends_one_that_there_is() -> None:
    """Else it would never be written."""
    assert {event.ends for event in EVENTS.values()} - {""} <= set(EVENTS)


def test_the_formatter_that_the_page_shows_gives_one_object_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the details are."""
    page = (DOCS / "logging.md").read_text(encoding="utf-8")
    (form,) = re.findall(r'^        ("%.*"),$', page, re.MULTILINE)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(ast.literal_eval(form), json_default=str))
    with hearing(handler, caplog):
        Log("numbers").event("load_failed", "a line\nand another", error=ValueError("no\nrelation"), rows=b"\xff")
    (line,) = stream.getvalue().splitlines()
    shown = json.loads(line)
    assert (shown["kcg_event"], shown["kcg_dataset"]) == ("load_failed", "numbers")
    assert shown["kcg_details"]["error"] == "no\nrelation"
    (example,) = re.findall(r"```json\n(.*)\n```", page)
    assert set(json.loads(example)) == set(shown)
