"""What a candidate is: one way to read the rows, set up as its own documentation recommends."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.database import Database


@dataclass(frozen=True, slots=True)
class Place:
    """Where a candidate caches, and where it loads from."""

    redis_url: str
    database: Database
    #: The first part of every key, where the library has such a thing.
    namespace: str
    #: Seconds that cached rows are fresh.
    ttl: float = 300.0
    #: The longest that one Redis call may take, in seconds, where the library lets one say so.
    timeout: float = 0.5
    #: Seconds that a load takes longer than its query.
    load_delay: float = 0.0

    def load(self) -> list[dict[str, Any]]:
        """Load the rows from PostgreSQL."""
        return self.database.load(self.load_delay)


class Candidate(ABC):
    """One way to read the rows. Made, used and closed in one process.

    What a library raises comes out as it is; what it swallows stays swallowed.
    """

    #: What the tables call it.
    name: ClassVar[str]
    #: The distributions whose versions matter.
    distributions: ClassVar[tuple[str, ...]] = ()
    #: One sentence on what it promises, in its own documentation's sense: a fast stale answer is not the same work.
    promise: ClassVar[str]
    #: Whether a read may be answered without Redis being asked.
    near: ClassVar[bool]
    #: Whether what it caches is shared by processes.
    shared: ClassVar[bool] = True
    ours: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def read(self) -> Sequence[Mapping[str, Any]]:
        """Give the rows: cached ones, or loaded and then cached."""

    @abstractmethod
    def invalidate(self) -> None:
        """Withdraw the cached rows, as an operator does after a commit; return when the library says that it did."""

    def time_reads(self, count: int) -> float:
        """Read so many times; give the seconds that it took."""
        read = self.read
        began = time.perf_counter()
        for _ in range(count):
            read()
        return time.perf_counter() - began

    def close(self) -> None:  # noqa: B027 - some open nothing
        """Close what was opened."""
