"""A candidate of an asyncio library: the loop that it lives in is its own."""

import asyncio
import threading
import time
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, ClassVar

from benchmarks.candidates.base import Candidate, Place


class Looping(Candidate):
    """Reads are awaited in one event loop. Timed reads are awaited within one run of it: no start-up is timed."""

    #: Whether the loop also runs between reads, in a thread: for a library that hears of invalidations in a task.
    background: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        if self.background:
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        self._run(self.open())

    @abstractmethod
    async def open(self) -> None:
        """Set the library up, within the loop."""

    @abstractmethod
    async def fetch(self) -> Any:
        """Do what `read` is for."""

    @abstractmethod
    async def withdraw(self) -> None:
        """Do what `invalidate` is for."""

    @abstractmethod
    async def shut(self) -> None:
        """Do what `close` is for."""

    async def load(self) -> Any:
        """Load in a thread, as whatever blocks is to be called from a loop: others are served meanwhile."""
        return await asyncio.to_thread(self.place.load)

    def read(self) -> Any:
        return self._run(self.fetch())

    def time_reads(self, count: int) -> float:
        seconds: float = self._run(self._timed(count))
        return seconds

    def invalidate(self) -> None:
        self._run(self.withdraw())

    def close(self) -> None:
        self._run(self.shut())
        self._run(self._loop.shutdown_default_executor())
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    async def _timed(self, count: int) -> float:
        fetch = self.fetch
        began = time.perf_counter()
        for _ in range(count):
            await fetch()
        return time.perf_counter() - began

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._thread is not None:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        return self._loop.run_until_complete(work)
