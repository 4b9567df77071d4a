"""Log lines: one event, one stable name, one line; and once per state where a fault would repeat it."""

import logging
import threading
from typing import Any

_LOGGER = logging.getLogger("kcg_cache")
#: Characters of one value that a line shows: some come from Redis, and may be megabytes.
_SHOWN = 1000


class Log:
    """The log of one cache: every line begins with the event's name and the dataset's."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def event(self, level: int, event: str, message: str, **details: Any) -> None:
        """Write one line, ``event dataset: message key=value``; the same values travel as the record's `extra`."""
        if not _LOGGER.isEnabledFor(level):
            return
        tail = "".join(f" {key}={_on_one_line(value)}" for key, value in details.items())
        extra = {"kcg_event": event, "kcg_dataset": self._dataset, "kcg_details": details}
        _LOGGER.log(level, "%s %s: %s%s", event, self._dataset, _on_one_line(message), tail, extra=extra)

    def once(self, level: int, event: str, about: str, message: str, **details: Any) -> None:
        """Write the line the first time, until `over(event)`: a fault that lasts is said once and counted."""
        with self._lock:
            if (event, about) in self._said:
                return
            self._said.add((event, about))
        self.event(level, event, message, **details)

    def over(self, event: str, about: str = "") -> bool:
        """Let `event` be said again, of whatever begins with `about`; tell whether it had been said."""
        if not self._said:
            return False
        with self._lock:
            said = {key for key in self._said if key[0] == event and key[1].startswith(about)}
            self._said -= said
            return bool(said)

    def renew_lock_after_fork(self) -> None:
        """Take a fresh lock: another thread of the parent may have held it at the fork, and is not here to let go."""
        self._lock = threading.Lock()


def _on_one_line(value: object) -> str:
    # A driver's error has line feeds; what stood in Redis may have anything, such as the look of another line.
    text = str(value)
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN]}…"
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
