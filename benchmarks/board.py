"""The board: a few numbers in memory that an operator writes and every reader sees, without a system call per look."""

import multiprocessing
from typing import Any

#: How many caches may be audited side by side.
SPOTS = 128
_SINGLE = 3


class Board:
    """Which generation is committed, and which was withdrawn: aligned 64-bit words, so nobody sees half of a number.

    A reader notes `withdrawn` before it reads: rows of an older generation than that are stale.
    """

    def __init__(self) -> None:
        self._words: Any = multiprocessing.get_context("forkserver").RawArray("Q", _SINGLE + SPOTS)

    @property
    def withdrawn(self) -> int:
        """The newest generation whose invalidate has returned: whoever begins to read now may get nothing older."""
        return int(self._words[0])

    @withdrawn.setter
    def withdrawn(self, generation: int) -> None:
        self._words[0] = generation

    @property
    def committed(self) -> int:
        """The newest generation that the database has."""
        return int(self._words[1])

    @committed.setter
    def committed(self, generation: int) -> None:
        self._words[1] = generation

    @property
    def stop(self) -> bool:
        """Whether those who read until they are told to stop are to stop."""
        return bool(self._words[2])

    @stop.setter
    def stop(self, stop: bool) -> None:
        self._words[2] = int(stop)

    @property
    def spots(self) -> memoryview:
        """What `withdrawn` is for one cache, for each of many: words to look at, without a call per look."""
        return memoryview(self._words).cast("B").cast("Q")[_SINGLE:]

    def clear(self) -> None:
        """Begin anew, at generation 0."""
        for word in range(_SINGLE + SPOTS):
            self._words[word] = 0
