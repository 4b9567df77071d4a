"""One event, one line, whatever it has to tell."""

import io
import logging
from collections.abc import Iterator

import pytest

from kcg_cache.events import SILENT_FOR, SUPPRESSED
from kcg_cache.log import LINES, REMEMBERED, WINDOW, Log
from tests.doubles import TickedSystem
from tests.journals import hearing


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("a\nERROR forged numbers: line", r"a\nERROR forged numbers: line"),
        ("a\r\u2028\x1b[2J\x00b", r"a\r\u2028\x1b[2J\x00b"),
        ("\udcff\udcfe", r"\udcff\udcfe"),
        ("한국어 ünd '\"\\", "한국어 ünd '\"\\"),
        ("x" * 5000, "x" * 1000 + "…"),
        (ValueError("relation is not there\nLINE 1: SELECT"), r"relation is not there\nLINE 1: SELECT"),
    ],
)
def test_a_line_stays_one_line(caplog: pytest.LogCaptureFixture, told: object, shown: str) -> None:
    """A driver's error has several, and what stood in Redis may be anything; the record's extra has it as it was."""
    with caplog.at_level(logging.INFO, "kcg_cache"):
        Log("numbers").event("lock_lost", str(told), source=told)
    (record,) = caplog.records
    assert record.getMessage() == f"lock_lost numbers: {shown} source={shown}"
    assert record.kcg_details == {"source": told}  # type: ignore[attr-defined]


def test_what_was_no_utf_8_can_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A handler of a UTF-8 stream refuses lone surrogates, and the line would be lost."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    handler = logging.StreamHandler(stream)
    errors: list[logging.LogRecord] = []
    handler.handleError = errors.append  # type: ignore[method-assign,assignment]
    with hearing(handler, caplog):
        Log("numbers").event("oversized", "", source=b"\xff".decode(errors="surrogateescape"))
    assert not errors
    stream.seek(0)
    assert stream.read() == "oversized numbers:  source=\\udcff\n"


class Lines(logging.Handler):
    """The lines of kcg_cache, as event and number left out before it."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []
        #: For how many seconds there is to be none after each.
        self.silent: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.told.append((record.kcg_event, record.kcg_details.get(SUPPRESSED, 0)))  # type: ignore[attr-defined]
        self.silent.append(record.kcg_details.get(SILENT_FOR, 0))  # type: ignore[attr-defined]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """Give what is written from INFO on."""
    with hearing(Lines(), caplog) as lines:
        yield lines


def test_a_fault_that_is_told_of_again_and_again_fills_no_disk(lines: Lines) -> None:
    """So many lines a minute, of each event; the next one says how many were left out."""
    system = TickedSystem()
    log = Log("numbers", system.now)
    for _ in range(1000):
        log.event("bad_params", "a row")
    log.event("load_failed", "another event")
    assert lines.told == [("bad_params", 0)] * LINES + [("load_failed", 0)]
    system.tick(WINDOW)
    log.event("bad_params", "a row")
    log.event("bad_params", "a row")
    assert [line for line, number in enumerate(lines.silent) if number] == [LINES - 1]
    assert lines.silent[LINES - 1] == WINDOW
    assert lines.told[-2:] == [("bad_params", 1000 - LINES), ("bad_params", 0)]


def test_what_an_operator_does_is_written_each_time(lines: Lines) -> None:
    """It is how one knows afterwards who withdrew what."""
    log = Log("numbers", TickedSystem().now)
    for _ in range(3 * LINES):
        log.event("invalidated", "entry and fill lock deleted")
        log.event("invalidate_failed", "not confirmed")
    assert len(lines.told) == 6 * LINES


def test_a_flapping_fault_ends_in_a_line_that_is_true(lines: Lines) -> None:
    """It fails and works every second: where its failing was left out, so is its end; and a lasting one is said."""
    system = TickedSystem()
    log = Log("numbers", system.now)

    def fails() -> None:
        log.once("redis_failed", "read: timeout", "read: private")

    def works() -> None:
        log.over("redis_failed", "read")
        log.event("redis_back", "Redis answers again")

    for _ in range(30):
        fails()
        works()
        system.tick(1)
    assert lines.told == [("redis_failed", 0), ("redis_back", 0)] * LINES
    while system.now() < 1000 + WINDOW:
        fails()  # at every try: it lasts now, and was not said
        system.tick(1)
    fails()
    fails()
    assert lines.told[2 * LINES :] == [("redis_failed", 50)]
    works()
    assert lines.told[-1] == ("redis_back", 0)


def test_an_end_is_not_told_of_what_was_never_told(lines: Lines) -> None:
    """Nobody would know what it is about."""
    assert not Log("numbers").event("redis_back", "Redis answers again")
    assert lines.told == []


def test_states_that_are_another_each_time_take_no_more_and_more_memory(lines: Lines) -> None:
    """Some are made of what stood in Redis: the oldest is forgotten, and may be said again."""
    system = TickedSystem()
    log = Log("numbers", system.now)
    for number in range(3 * REMEMBERED):
        log.once("foreign_source", str(number), "another database")
        system.tick(WINDOW)
    assert len(log._said) == REMEMBERED
    log.once("foreign_source", str(3 * REMEMBERED - 1), "another database")
    assert len(lines.told) == 3 * REMEMBERED
    log.once("foreign_source", "0", "another database")
    assert len(lines.told) == 3 * REMEMBERED + 1
