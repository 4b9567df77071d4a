"""One event, one line, whatever it has to tell."""

import io
import logging

import pytest

from kcg_cache.log import Log


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
        Log("numbers").event(logging.INFO, "happened", str(told), source=told)
    (record,) = caplog.records
    assert record.getMessage() == f"happened numbers: {shown} source={shown}"
    assert record.kcg_details == {"source": told}  # type: ignore[attr-defined]


def test_what_was_no_utf_8_can_be_written() -> None:
    """A handler of a UTF-8 stream refuses lone surrogates, and the line would be lost."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    handler = logging.StreamHandler(stream)
    errors: list[logging.LogRecord] = []
    handler.handleError = errors.append  # type: ignore[method-assign,assignment]
    logger = logging.getLogger("kcg_cache")
    logger.addHandler(handler)
    try:
        Log("numbers").event(logging.ERROR, "happened", "", source=b"\xff".decode(errors="surrogateescape"))
    finally:
        logger.removeHandler(handler)
    assert not errors
    stream.seek(0)
    assert stream.read() == "happened numbers:  source=\\udcff\n"
