"""The demo in plain lines, for a log or a terminal that is none; and in silence, for ``--json``."""

import sys
from types import TracebackType
from typing import Protocol, Self

from kcg_cache.demo.tally import ChangeTally, Tally

#: Seconds between two lines of counts.
_EVERY = 2.0


class View(Protocol):
    """What shows a demo while it runs. A context manager, so that the terminal is as it was afterwards."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, line: str) -> None:
        """Show one thing that happens before the play begins."""

    def show(self, tally: Tally, now: float) -> None:
        """Show how it stands."""


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """Show nothing."""

    def show(self, tally: Tally, now: float) -> None:
        """Show nothing."""


class PlainLines(Silence):
    """Writes a line for each thing that happens, and one with the counts from time to time."""

    def __init__(self) -> None:
        self._committed = 0
        self._returned = 0
        self._next = 0.0

    def say(self, line: str) -> None:
        """Write the line."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def show(self, tally: Tally, now: float) -> None:
        """Write what is new."""
        for change in tally.changes[self._committed :]:
            self._say_at(change.committed_at - tally.began, change, f"committed: {change.what}")
        self._committed = len(tally.changes)
        for change in tally.changes[self._returned :]:
            if change.returned_at is None:
                break
            self._say_at(change.returned_at - tally.began, change, f"in force: {reach_of(tally, change)}")
            self._returned += 1
        if tally.began and now >= self._next:
            self._next = now + _EVERY
            self.say(f"{now - tally.began:6.2f} s  {counts_of(tally)}")

    def _say_at(self, seconds: float, change: ChangeTally, what: str) -> None:
        self.say(f"{seconds:6.2f} s  generation {change.generation} {what}")


def reach_of(tally: Tally, change: ChangeTally) -> str:
    """Tell how far a change has come among the readers, who look up all the time."""
    took = tally.took(change, "reader")
    if took is not None:
        return f"last reader after {took:.2f} s"
    readers = [worker for worker in tally.workers.values() if worker.kind == "reader"]
    there = sum(change.generation in worker.seen_at for worker in readers)
    return f"{there} of {len(readers)} readers"


def counts_of(tally: Tally) -> str:
    """Tell the counts that matter, in one line."""
    return (
        f"look-ups {tally.total('reads'):,}, database loads {tally.total('loads')} (allowed {tally.loads_allowed}), "
        f"stale reads {tally.total('stale')}, backward {tally.total('backward')}"
    )
