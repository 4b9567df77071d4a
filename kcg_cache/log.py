"""Log lines: one event, one stable name, one line; once per state where a fault would repeat it, and never a flood."""

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from kcg_cache.events import EVENTS, SILENT_FOR, SUPPRESSED
from kcg_cache.system import SYSTEM

_LOGGER = logging.getLogger("kcg_cache")
#: Characters of one value that a line shows: some come from Redis, and may be megabytes.
_SHOWN = 1000
#: Lines of one event that a cache writes in `WINDOW` seconds; the next one says how many were left out.
LINES = 10
WINDOW = 60.0
#: How many states are remembered as said: some are made of what stood in Redis, which may be another each time.
REMEMBERED = 100


class _Window:
    """How many lines of one event were written and left out since when."""

    __slots__ = ("began", "left_out", "written")

    def __init__(self, began: float) -> None:
        self.began = began
        self.written = 0
        self.left_out = 0


class Log:
    """The log of one cache: every line begins with the event's name and the dataset's.

    Each event is one of `EVENTS`, which has its level.
    """

    def __init__(self, dataset: str, now: Callable[[], float] = SYSTEM.now) -> None:
        self._dataset = dataset
        self._now = now
        # In the order in which they were said; the values mean nothing.
        self._said: dict[tuple[str, str], None] = {}
        self._windows: dict[str, _Window] = {}
        # Events that were written and whose end was not.
        self._lasting: set[str] = set()
        self._lock = threading.Lock()

    def event(self, event: str, message: str, **details: Any) -> bool:
        """Write one line, ``event dataset: message key=value``; the same values travel as the record's `extra`.

        Tells False for a line that was left out, because there were too many of the event.
        """
        declared = EVENTS[event]
        with self._lock:
            if declared.ends:
                if declared.ends not in self._lasting:
                    return False
                self._lasting.discard(declared.ends)
            if declared.limited:
                more = self._passed(event)
                if more is None:
                    return False
                details |= more
            self._lasting.add(event)
        if _LOGGER.isEnabledFor(declared.level):
            tail = "".join(f" {key}={_on_one_line(value)}" for key, value in details.items())
            extra = {"kcg_event": event, "kcg_dataset": self._dataset, "kcg_details": details}
            _LOGGER.log(declared.level, "%s %s: %s%s", event, self._dataset, _on_one_line(message), tail, extra=extra)
        return True

    def once(self, event: str, about: str, message: str, **details: Any) -> None:
        """Write the line the first time, until `over(event)`: a fault that lasts is said once and counted."""
        key = event, about
        if key in self._said or not self.event(event, message, **details):
            return  # what was left out is not said: it is tried again, and is written when there is room
        with self._lock:
            self._said[key] = None
            if len(self._said) > REMEMBERED:
                del self._said[next(iter(self._said))]

    def over(self, event: str, about: str = "") -> bool:
        """Let `event` be said again, of whatever begins with `about`; tell whether it had been said."""
        if not self._said:
            return False
        with self._lock:
            said = [key for key in self._said if key[0] == event and key[1].startswith(about)]
            for key in said:
                del self._said[key]
            return bool(said)

    def renew_lock_after_fork(self) -> None:
        """Take a fresh lock: another thread of the parent may have held it at the fork, and is not here to let go."""
        self._lock = threading.Lock()

    def _passed(self, event: str) -> dict[str, int] | None:
        """Give what a line tells of those that are left out; None to leave this one out, too. Under the lock."""
        now = self._now()
        window = self._windows.get(event)
        more = {}
        if window is None or now >= window.began + WINDOW:
            if window is not None and window.left_out:
                more[SUPPRESSED] = window.left_out
            window = self._windows[event] = _Window(now)
        if window.written >= LINES:
            window.left_out += 1
            return None
        window.written += 1
        if window.written == LINES:
            more[SILENT_FOR] = math.ceil(window.began + WINDOW - now)
        return more


def _on_one_line(value: object) -> str:
    # A driver's error has line feeds; what stood in Redis may have anything, such as the look of another line.
    text = str(value)
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
