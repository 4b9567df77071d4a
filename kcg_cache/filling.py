"""Holding the fill lock: renew it while the rows are loaded, then publish or release (PROTOCOL R3, R11).

The lock is the fence, not a mutex: losing it costs a rejected publish and nothing else, so nothing here needs to be
noticed in time.
"""

import threading
from types import TracebackType
from typing import Self

from kcg_cache.answers import Grant, Published, Report
from kcg_cache.codec import Payload
from kcg_cache.errors import StoreError
from kcg_cache.log import Log
from kcg_cache.metrics import Metrics
from kcg_cache.outage import NO_ANSWER, Operation
from kcg_cache.store import Store
from kcg_cache.system import System


class FillLock:
    """One granted fill lock. Within the ``with`` block it is renewed; leaving the block stops that.

    Leaving while it is held, by an exception, releases it, so that the next waiter loads at once and not after
    `lock_ttl`.
    """

    def __init__(
        self,
        store: Store,
        grant: Grant,
        *,
        lock_ttl: float,
        by: str,
        system: System,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._store = store
        self._grant = grant
        self._interval = lock_ttl / 3  # two renewals may be lost before the lock is
        self._by = by
        self._system = system
        self._metrics = metrics
        self._log = log
        self._done = threading.Event()
        self._held = True

    def __enter__(self) -> Self:
        try:
            self._system.start(self._renew, "kcg_cache-renew")
        except RuntimeError as error:  # a limit of threads, or the interpreter's end: the lock lives for lock_ttl only
            self._metrics.add("renew_errors")
            self._log.once("renew_failed", "thread", "the fill lock is not renewed", error=error)
        except BaseException:
            # An interrupt while start() waits: nobody leaves a block that was not entered, and the lock would be
            # renewed for as long as this process lives.
            self._metrics.add("fills_failed")
            self.release("interrupted")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._held:
            self._metrics.add("fills_failed")
            self.release("failed")
        self._done.set()

    def publish(
        self, payload: Payload, *, load_us: int, source: str, signature: str, report: Report | None = None
    ) -> Published | None:
        """Store the rows and give the lock up; None when the lock was no longer held. Raises `StoreError`."""
        self._done.set()
        try:
            published = self._store.publish(
                self._grant, payload, load_us=load_us, source=source, signature=signature, by=self._by, report=report
            )
        except StoreError as error:
            # Not answered, or not taken. Where Redis answers, others need not wait for the lock to expire; where it
            # does not, a second call would cost a second deadline (R8).
            if error.symptom not in NO_ANSWER:
                self.release("failed")
            self._held = False
            raise
        self._held = False
        return published

    def release(self, reason: str) -> None:
        """Give the lock back and wake the waiters. A Redis that does not answer lets it expire by itself."""
        self._done.set()
        self._held = False
        try:
            self._store.release(self._grant, reason, by=self._by)
        except StoreError as error:
            self._metrics.add("release_errors")
            self._metrics.add("store_errors", Operation.RELEASE.value, error.symptom)
            self._log.event("release_failed", "the fill lock expires by itself", error=error)

    def _renew(self) -> None:
        # `_done` may be set between the wait and the renewal: then the lock is gone or about to be, and `renew`, which
        # never creates one, finds it lost. That is no event.
        while not self._system.wait(self._done, self._interval):
            try:
                held = self._store.renew(self._grant)
            except StoreError as error:
                self._metrics.add("renew_errors")
                self._metrics.add("store_errors", Operation.RENEW.value, error.symptom)
                self._log.once("renew_failed", "", "a renewal was not answered", error=error)
                continue
            self._log.over("renew_failed")
            if not held:
                if not self._done.is_set():
                    self._metrics.add("locks_lost")
                    self._log.event("lock_lost", "an invalidate, an expiry or a restart took the fill lock")
                return
