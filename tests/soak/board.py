"""The board: numbers in shared memory that promoters and nemesis write and every reader sees without a system call.

An anonymous file (memfd): it has no name, so nothing of it can be left behind. Every word has one writer (`PULSE` has
many, see there) and is read and written by one machine instruction, so that nobody sees half of a number.
"""

import mmap
import os
from typing import Self

#: A number that changes after every new floor, and never comes back. One look at it replaces one look at each floor:
#: a promoter writes its floor first, so whoever has seen a pulse and then read the floors has every floor before it.
PULSE = 0
#: Odd while the database may fail: then, and only then, may a reader meet an error of its connection.
DATABASE_FAULT = 1
#: The number of the fault that is on, 0 for none.
FAULT = 2
#: The number of the last fault that has ended, and when, in ns on the host's clock (`System.now`).
ENDED, ENDED_AT = 3, 4
_FIRST = 8

#: The words of one operator, from `Board.place(operator)` on.
#: No version above it can have been read: written before the commit is sent, for a commit whose reply is lost may have
#: happened.
CEILING = 0
#: The newest version whose commit has returned: no forced read that begins now may read an older one.
COMMITTED = 1
#: The newest version whose invalidate has returned: no read that begins now may read an older one.
FLOOR = 2
_WORDS_EACH = 4
_WORD_BYTES = 8


class Board:
    """The board, in the process that made it or in one that was given its descriptor."""

    def __init__(self, descriptor: int, operators: int, *, writable: bool) -> None:
        self.descriptor = descriptor
        self.operators = operators
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._memory = mmap.mmap(descriptor, _size(operators), access=access)
        self.words = memoryview(self._memory).cast("Q")
        self._floors = [self.place(operator) + FLOOR for operator in range(operators)]
        self._ceilings = [self.place(operator) + CEILING for operator in range(operators)]
        self._committed = [self.place(operator) + COMMITTED for operator in range(operators)]

    @classmethod
    def make(cls, operators: int) -> Self:
        """Make a board on which everything is 0."""
        descriptor = os.memfd_create("kcg_cache soak board")
        try:
            os.truncate(descriptor, _size(operators))
            return cls(descriptor, operators, writable=True)
        except BaseException:
            os.close(descriptor)
            raise

    @staticmethod
    def place(operator: int) -> int:
        """Give the first word of an operator."""
        return _FIRST + operator * _WORDS_EACH

    def floors(self) -> tuple[int, ...]:
        """Give every operator's floor."""
        words = self.words
        return tuple([words[place] for place in self._floors])

    def ceilings(self) -> tuple[int, ...]:
        """Give every operator's ceiling."""
        words = self.words
        return tuple([words[place] for place in self._ceilings])

    def committed(self) -> tuple[int, ...]:
        """Give the newest version of every operator whose commit has returned."""
        words = self.words
        return tuple([words[place] for place in self._committed])

    def close(self) -> None:
        """Let go of the memory."""
        self.words.release()
        self._memory.close()
        os.close(self.descriptor)


def _size(operators: int) -> int:
    return Board.place(operators) * _WORD_BYTES
