"""What an exporter builds on: what all caches of this process counted, and a word when there is something new.

A monitoring system that asks calls `collect`. One that has to be told (or that keeps what several processes counted in
files) puts a `Listener` in `listen`. `kcg_cache.prometheus` does either.
"""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from kcg_cache.metrics import Collected, Levels, Metrics, Of, Totals, collected

Failed = Callable[[Exception], None]


class Listener(Protocol):
    """Told from the thread that counted, off the covered path, and never two times at once for one event.

    What it raises is counted as `exporter_errors` and logged; the read goes on.
    """

    def counted(self, of: Of) -> None:
        """Note that a dataset's counts have changed: once for each read that was not covered, and each invalidate."""

    def observed(self, of: Of, name: str, value: float, values: tuple[str, ...]) -> None:
        """Note a value of one of `metrics.HISTOGRAMS`, and the values of its labels."""


_lock = threading.Lock()
_alive: "weakref.WeakSet[Metrics]" = weakref.WeakSet()
#: What caches that are gone have counted: a counter never goes back.
_retired: dict[Of, Totals] = {}
#: The same, not yet added up: a cache may go in the middle of anything, also of what the lock is held for.
_gone: deque[tuple[Of, Totals]] = deque()
_listeners: list[Listener] = []


class ExportedMetrics(Metrics):
    """The counts of one cache, which this process's exporters see, also when the cache is gone.

    `failed` is called with what a listener raised.
    """

    def __init__(self, namespace: str, dataset: str, levels: Callable[[], Levels], failed: Failed) -> None:
        super().__init__(namespace, dataset, levels)
        self._failed = failed
        with _lock:
            _add_up_gone()
            _alive.add(self)

    def __del__(self, gone: Callable[[tuple[Of, Totals]], None] = _gone.append) -> None:
        # Without a lock: this may be in the middle of what this very thread holds it for.
        gone((self.of, self.totals()))

    def observe(self, name: str, value: float, *values: str) -> None:
        """Put a value into one of `HISTOGRAMS`, and tell the listeners of it."""
        super().observe(name, value, *values)
        for listener in _listeners:
            try:
                listener.observed(self.of, name, value, values)
            except Exception as error:  # noqa: BLE001 - an exporter may raise anything, and a read goes on
                self._on_failure(error)

    def tell(self) -> None:
        """Tell the listeners that something was counted."""
        for listener in _listeners:
            try:
                listener.counted(self.of)
            except Exception as error:  # noqa: BLE001 - as above
                self._on_failure(error)

    def _on_failure(self, error: Exception) -> None:
        self.add("exporter_errors")
        self._failed(error)


def listen(listener: Listener) -> None:
    """Have `listener` told from now on, for as long as this process lives, and in its forks."""
    with _lock:
        _listeners.append(listener)


def forget(listener: Listener) -> None:
    """Tell it no more. Raises `ValueError` for one that is not told."""
    with _lock:
        _listeners.remove(listener)


def datasets() -> list[Of]:
    """Give every dataset that this process has a cache of, or had."""
    with _lock:
        _add_up_gone()
        return list(dict.fromkeys([*_retired, *(metrics.of for metrics in _alive)]))


def totals(of: Of, *, observed: bool = True) -> tuple[Totals, Levels]:
    """Give what the caches of one dataset counted, those that are gone too, and the gauges of those that are not.

    Without `observed` there are no distributions.
    """
    with _lock:
        _add_up_gone()
        parts = [_retired[of].copy(observed=observed)] if of in _retired else []
        alive = [metrics for metrics in _alive if metrics.of == of]
    parts += [metrics.totals(observed=observed) for metrics in alive]
    sums = parts[0] if parts else Totals()
    for part in parts[1:]:
        sums.add(part)
    levels: dict[str, float] = {}
    for metrics in alive:
        for name, level in metrics.levels().items():
            levels[name] = max(level, levels.get(name, level))
    return sums, levels


def collect() -> list[Collected]:
    """Give every family with the samples of all datasets that this process reads; of several caches of one, the sum."""
    return collected({of: totals(of) for of in datasets()})


def _add_up_gone() -> None:
    """Add up what is gone; under the lock."""
    while _gone:
        of, last = _gone.popleft()
        _retired.setdefault(of, Totals()).add(last)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it at the fork
    _lock = threading.Lock()
    # What the parent's caches counted the parent tells.
    _retired.clear()
    _gone.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
