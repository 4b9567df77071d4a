"""The board: two numbers in memory that the operator writes and every reader sees, without a system call per look.

It is an anonymous file (memfd) that the processes inherit: it has no name, so nothing of it can be left behind.
"""

import mmap
import os
from typing import Self

#: The newest generation whose invalidate has returned. A look-up that begins now may read nothing older.
FLOOR = 0
#: The newest generation whose commit has begun. A look-up that ends now can have read nothing newer.
BEGUN = 1

_WORDS = 2
_WORD_BYTES = 8


class Board:
    """The board, in the process that made it or in one that inherited its descriptor."""

    def __init__(self, descriptor: int, *, writable: bool) -> None:
        self.descriptor = descriptor
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._memory = mmap.mmap(descriptor, _WORDS * _WORD_BYTES, access=access)
        #: Aligned words of 64 bits, each read and written by one machine instruction: nobody sees half of a number.
        #: A processor that lets a reader see a new floor late makes the audit milder by nanoseconds, never wrong.
        self.words = memoryview(self._memory).cast("Q")

    @classmethod
    def make(cls) -> Self:
        """Make a board on which everything is at generation 0."""
        descriptor = os.memfd_create("kcg_cache demo board")
        try:
            os.truncate(descriptor, _WORDS * _WORD_BYTES)
            return cls(descriptor, writable=True)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Let go of the memory."""
        self.words.release()
        self._memory.close()
        os.close(self.descriptor)
