"""What every read is held against. Pure: no I/O but the board, which is memory.

    newest version whose invalidate returned before the read began
        <=  version read  <=  newest version that may have been committed before the read ended

and: no read of a process is older than one of the same process that had returned before it began; no forced read is
older than what was committed before it began; nothing uncommitted is read by anybody but its writer.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from tests.soak.board import FAULT, Board

#: The models of the operators sort before the one of the uncommitted rows, so rows are looked up by their place.
MARKER = "soak-uncommitted"

#: What can be wrong, and what it is called.
KINDS = {
    "stale": "older than what an invalidate had withdrawn before the read began (Promise 1)",
    "forced_old": "a forced read that is older than what was committed before it began (Promise 2)",
    "backward": "older than what this process had been given before the read began (Promise 4)",
    "future": "newer than anything that may have been committed (Promise 6)",
    "uncommitted": "rows of a transaction that never committed, read by somebody else (Promise 6)",
    "rows": "rows that are not those of the table",
    "exception": "an error that no reader may meet",
}
#: How many findings a process tells in full; all are counted.
MOST_TOLD = 20


def model_of(operator: int) -> str:
    """Name the model whose version an operator moves."""
    return f"soak-{operator:02}"


class Audit:
    """The findings of one process; its threads share it."""

    def __init__(
        self, board: Board, tell: Callable[[dict[str, Any]], None], now: Callable[[], float], most_told: int = MOST_TOLD
    ) -> None:
        self._board = board
        self._tell = tell
        self._now = now
        self._most_told = most_told
        self._lock = threading.Lock()
        #: The newest versions that any read of this process has returned. Replaced as a whole, so that a reader
        #: notices by one look that there is something newer.
        self.newest: tuple[int, ...] = (0,) * board.operators
        self.violations = 0

    def judge(
        self,
        rows: Sequence[Any],
        floors: tuple[int, ...],
        newest: tuple[int, ...],
        *,
        reader: str,
        committed: tuple[int, ...] | None = None,
        binds: bool = True,
    ) -> None:
        """Hold the rows of one read against what was on the board, and read by this process, before it began.

        `committed` is for forced reads. `binds`: whether later reads of this process may not be older.
        """
        ceilings = self._board.ceilings()  # after the read ended
        count = self._board.operators
        try:
            versions = tuple([int(row["params"]["v"]) for row in rows[:count]])
            models = [row["model_id"] for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            self.violation("rows", reader, what=repr(error))
            return
        expected = [model_of(operator) for operator in range(count)]
        if models != expected:
            kind = "uncommitted" if MARKER in models else "rows"
            self.violation(kind, reader, what=str([model for model in models if model not in expected][:3]))
            if models[:count] != expected:
                return
        bounds = [("stale", floors), ("backward", newest), ("forced_old", committed)]
        for operator, version in enumerate(versions):
            for kind, bound in bounds:
                if bound is not None and version < bound[operator]:
                    self.violation(kind, reader, model=expected[operator], version=version, bound=bound[operator])
            if version > ceilings[operator]:
                self.violation("future", reader, model=expected[operator], version=version, bound=ceilings[operator])
        if binds:
            # What cannot be is no bound for what comes after it.
            self._returned(tuple(map(min, versions, ceilings)))

    def violation(self, kind: str, reader: str, **details: Any) -> None:
        """Count a finding, and tell it."""
        with self._lock:
            self.violations += 1
            told = self.violations
        if told <= self._most_told:
            self._tell(
                {"kind": kind, "reader": reader, "at": self._now(), "fault": self._board.words[FAULT], **details}
            )

    def renew_lock_after_fork(self) -> None:
        """Take a fresh lock: another thread of the parent may have held it at the fork."""
        self._lock = threading.Lock()

    def _returned(self, versions: tuple[int, ...]) -> None:
        with self._lock:
            newest = tuple(map(max, versions, self.newest))
            if newest != self.newest:
                self.newest = newest
