"""What a process of the crew does with one candidate: open it, read, time reads, invalidate; its loads are counted."""

import importlib.metadata
from collections.abc import Callable
from typing import Any, TypeVar

from benchmarks.candidates import Candidate, Place
from benchmarks.crew import Local
from benchmarks.database import Database

_T = TypeVar("_T")


class CountingDatabase(Database):
    """A database that counts the loads of its process: who loads asks for the connection once, in whatever way."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.loads = 0

    @property
    def connection(self) -> Any:
        self.loads += 1
        return super().connection


def open_candidate(local: Local, kind: type[Candidate], place: Place) -> None:
    """Set a candidate up in this process."""
    local.things["candidate"] = kind(place)


def read_rows(local: Local) -> list[dict[str, Any]]:
    """Read once, and give the rows as plain ones, which any of them can be compared with."""
    return [plain(row) for row in _candidate(local).read()]


def read_often(local: Local, count: int) -> None:
    """Read so many times."""
    _candidate(local).time_reads(count)


def time_reads(local: Local, count: int) -> float:
    """Give the seconds that so many reads took."""
    return _candidate(local).time_reads(count)


def invalidate(local: Local) -> None:
    """Withdraw the rows, as an operator."""
    _candidate(local).invalidate()


def loads_of(local: Local) -> int:
    """Tell how often this process has loaded."""
    database = _candidate(local).place.database
    assert isinstance(database, CountingDatabase)
    return database.loads


def close_candidate(local: Local) -> None:
    """Close the candidate, and this process's connection to the database."""
    candidate = _candidate(local)
    candidate.close()
    candidate.place.database.close()
    del local.things["candidate"]


def plain(value: Any) -> Any:
    """Give a value in lists and dicts, whatever kind of mapping and sequence it came in."""
    if hasattr(value, "items"):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def versions(kind: type[Candidate]) -> str:
    """Name the distributions that a candidate stands on, with their versions."""
    return ", ".join(f"{name} {_version(name)}" for name in kind.distributions)


def named(kind: type[Candidate], work: Callable[[], _T]) -> _T:
    """Do something for a candidate; what it raises says for which."""
    try:
        return work()
    except Exception as error:
        error.add_note(f"candidate: {kind.name}")
        raise


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of this checkout"


def _candidate(local: Local) -> Candidate:
    candidate = local.things["candidate"]
    assert isinstance(candidate, Candidate)
    return candidate
