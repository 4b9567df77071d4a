"""What the tests put in place of the host and of a slow database: a clock that is ticked, a source that is counted."""

import threading
from collections.abc import Callable
from typing import Any

from kcg_cache import Dataset
from kcg_cache.system import System


class TickedSystem(System):
    """A host whose time passes only when a test ticks it, or when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self.tokens: list[str] = []
        self.now = self._now

    def _now(self) -> float:
        return self.time

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds

    def sleep(self, seconds: float) -> None:
        """Pass the time at once, and remember it."""
        self.slept.append(seconds)
        self.time += seconds

    def token(self) -> str:
        """Give a random token, and remember it."""
        self.tokens.append(super().token())
        return self.tokens[-1]


class EagerSystem(System):
    """The real host, on which what should be done every second is done at once."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait a hundredth of the time."""
        return event.wait(seconds / 100)


class Source:
    """A database of one number, that counts its loads and calls back in the middle of one."""

    def __init__(self) -> None:
        self.version = 1
        self.loads = 0
        #: Called between the moment that the rows are read and the moment that the loader returns them.
        self.after_read: Callable[[], None] = lambda: None
        #: Called before the rows are read.
        self.before_read: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def load(self, _conn: object) -> list[dict[str, Any]]:
        """Read the one row."""
        with self._lock:
            self.loads += 1
        self.before_read()
        rows = [{"version": self.version, "nested": {"list": [1, {"x": "가"}]}}]
        self.after_read()
        return rows

    def dataset(self, name: str = "numbers") -> Dataset:
        """Declare it as a dataset that needs no connection."""
        return Dataset(name, self.load, transactional=False)


def once(action: Callable[[], object]) -> Callable[[], None]:
    """Give a callback that does `action` the first time only."""
    pending = [action]

    def run() -> None:
        if pending:
            pending.pop()()

    return run


def fail() -> None:
    """Fail as a database does; a callback for `Source`."""
    raise LookupError("the database's own error")


def version_of(snapshot: Any) -> int:
    """Give the number that a snapshot of `Source` shows."""
    return int(snapshot.rows[0]["version"])
