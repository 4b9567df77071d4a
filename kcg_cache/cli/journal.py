"""Log lines and warnings of the library → lines on stderr, or kept for the command that says them better."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from kcg_cache.cli.failures import one_line
from kcg_cache.cli.streams import say
from kcg_cache.errors import StoreError


class Journal(logging.Handler):
    """Takes what the library logs while one program runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        #: How Redis failed behind a read that was answered all the same (PROTOCOL R8).
        self.redis_failures: list[StoreError] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Say the record on stderr, as one line, unless the command says it."""
        event, error = getattr(record, "kcg_event", ""), getattr(record, "kcg_details", {}).get("error")
        if event == "invalidate_failed":
            return  # it raises, too
        if event == "redis_failed" and isinstance(error, StoreError):
            self.redis_failures.append(error)
            return
        say(f"{record.levelname.lower()}: {one_line(record.getMessage())}")


@contextlib.contextmanager
def kept() -> Iterator[Journal]:
    """Give the journal of this program; it takes the library's log and Python's warnings in the meantime."""
    journal = Journal()
    logger = logging.getLogger("kcg_cache")
    logger.addHandler(journal)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield journal
        finally:
            logger.removeHandler(journal)


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 - the signature is Python's
    filename: str,  # noqa: ARG001 - as above
    lineno: int,  # noqa: ARG001 - as above
    file: TextIO | None = None,  # noqa: ARG001 - as above
    line: Any = None,  # noqa: ARG001 - as above
) -> None:
    say(f"warning: {one_line(str(message))}")
