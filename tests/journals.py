"""A handler of the log, for the length of a block."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

_H = TypeVar("_H", bound=logging.Handler)


@contextmanager
def hearing(handler: _H, caplog: pytest.LogCaptureFixture) -> Iterator[_H]:
    """Give the handler what kcg_cache writes from INFO on."""
    logger = logging.getLogger("kcg_cache")
    with caplog.at_level(logging.INFO, "kcg_cache"):
        logger.addHandler(handler)
        try:
            yield handler
        finally:
            logger.removeHandler(handler)
