"""Wait in tests for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_STEP_SECONDS = 0.01


def eventually(condition: Callable[[], Result], *, seconds: float = 30.0) -> Result:
    """Return the first truthy value of the condition; fail when there is none for so long.

    The seconds are no part of what is tested: they only end a test that has failed.
    """
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"not within {seconds:.0f} seconds: {condition}"
        time.sleep(_STEP_SECONDS)
