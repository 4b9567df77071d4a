"""What a reader holds each of its look-ups against. Pure: no I/O but the board, which is memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kcg_cache.demo.board import BEGUN, FLOOR

#: How many findings are told in full; all are counted.
_TOLD = 5


def generation_of(row: Any) -> int:
    """Give the number that the operator writes into every ACTIVE row, in the transaction of the change itself."""
    return int(row["params"]["generation"])


@dataclass(slots=True)
class Audit:
    """The findings of one reader: of the inequality in the package's docstring, and what follows from it.

    The caller takes the floor from the board before its look-up begins; `judge` is called after it ended.
    """

    words: Sequence[int]
    now: Callable[[], float]
    #: The newest generation that this reader was given, and from when.
    newest: int = 0
    first_seen: dict[int, float] = field(default_factory=dict)
    #: Older than what an invalidate had withdrawn before the look-up began (Promise 1).
    stale: int = 0
    #: Older than what this reader had been given before (Promise 4).
    backward: int = 0
    #: Newer than anything whose commit had begun: uncommitted (Promise 6).
    uncommitted: int = 0
    #: Rows of more than one generation in one answer: no snapshot of the database.
    torn: int = 0
    examples: list[str] = field(default_factory=list)

    def judge(self, floor: int, rows: Sequence[Any]) -> None:
        """Count what is wrong with rows that a look-up returned, and note when a generation was first seen."""
        begun = self.words[BEGUN]
        generation = generation_of(rows[0])
        if generation < floor:
            self.stale += 1
            self._tell(f"generation {generation} was read when {floor} was in force")
        if generation < self.newest:
            self.backward += 1
            self._tell(f"generation {generation} was read after {self.newest}")
        if generation > begun:
            self.uncommitted += 1
            self._tell(f"generation {generation} was read when {begun} was the newest whose commit had begun")
        if any(generation_of(row) != generation for row in rows):
            self.torn += 1
            self._tell(f"rows of the generations {sorted(map(generation_of, rows))} were read together")
        if generation > self.newest:
            self.newest = generation
            self.first_seen[generation] = self.now()

    def _tell(self, finding: str) -> None:
        if len(self.examples) < _TOLD:
            self.examples.append(finding)


def planted(look_up: Callable[[], Sequence[Any]], words: Sequence[int]) -> Callable[[], Sequence[Any]]:
    """Give a look-up that once returns rows from before an invalidate: what the audit must find."""
    old: list[Sequence[Any]] = []
    floor_before = 0
    done = False

    def look_up_once_stale() -> Sequence[Any]:
        nonlocal floor_before, done
        # Of the look-up before this one: the invalidate that wrote this one's floor may have returned in the middle of
        # it, and then old rows are no fault.
        if old and not done and generation_of(old[0][0]) < floor_before:
            done = True
            return old[0]
        floor_before = words[FLOOR]
        rows = look_up()
        if not old:
            old.append(rows)
        return rows

    return look_up_once_stale
