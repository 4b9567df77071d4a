"""What the service had: every process its own copy for five minutes, behind a lock."""

import threading
import time
from typing import Any, ClassVar

from benchmarks.candidates.base import Candidate, Place


class InProcess(Candidate):
    """A TTL cache in the process. It gives each caller a list of its own, as `load_active_versions` does."""

    name: ClassVar = "in-process TTL cache with a lock"
    promise: ClassVar = "Rows are at most TTL old; an invalidate reaches the process that calls it, and no other."
    near: ClassVar = True
    shared: ClassVar = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._lock = threading.Lock()
        self._rows: list[dict[str, Any]] | None = None
        self._until = 0.0

    def read(self) -> list[dict[str, Any]]:
        with self._lock:
            if self._rows is None or time.monotonic() >= self._until:
                self._rows = self.place.load()
                self._until = time.monotonic() + self.place.ttl
            return list(self._rows)

    def invalidate(self) -> None:
        with self._lock:
            self._rows = None
