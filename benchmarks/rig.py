"""Both servers, on a core of their own, and what every benchmark is given."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.board import Board
from benchmarks.crew import Member, crew
from benchmarks.database import Database, make_database
from benchmarks.rows import SIZES
from kcg_cache.embedded import EmbeddedPostgres, EmbeddedValkey, start_postgres, start_valkey

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done: all of it, or the least that goes through every line (`smoke`)."""

    smoke: bool = False

    def of(self, full: _T, smoke: _T) -> _T:
        """Give what fits."""
        return smoke if self.smoke else full


@dataclass(slots=True)
class Rig:
    """The servers and the cores. A benchmark that breaks a server starts one of its own."""

    valkey: EmbeddedValkey
    postgres: EmbeddedPostgres
    #: Where the servers run, and where everybody else does; the same where the machine has but one core.
    server_cores: tuple[int, ...]
    client_cores: tuple[int, ...]
    board: Board = field(default_factory=Board)
    _databases: dict[str, Database] = field(default_factory=dict)

    def database(self, size: str) -> Database:
        """Give the database that holds the rows of a size; made at first use."""
        if size not in self._databases:
            self._databases[size] = make_database(self.postgres.dsn, f"bench_{size.lower()}", SIZES[size])
        return self._databases[size]

    def namespace(self) -> str:
        """Give the first part of keys that nobody else uses."""
        return f"bench-{secrets.token_hex(4)}"

    @contextlib.contextmanager
    def crew(self, count: int, *, everywhere: bool = False) -> Iterator[list[Member]]:
        """Give so many processes on the clients' cores, until the block ends; `everywhere` on the servers' too.

        A fleet's processes have cores on many hosts: where all work at once, none is kept from one for the servers.
        """
        cores = {*self.client_cores, *self.server_cores} if everywhere else self.client_cores
        with crew(count, self.board, sorted(cores)) as members:
            yield members

    def pin_server(self, pid: int) -> None:
        """Put a server that a benchmark started for itself on the servers' core, with all that it has started."""
        pin(pid, self.server_cores)


def pin(pid: int, cores: Sequence[int]) -> None:
    """Put a process, all its threads and its children on these cores; what it starts later is there too."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)
            for child in (thread / "children").read_text().split():
                pin(int(child), cores)


@contextlib.contextmanager
def raised() -> Iterator[Rig]:
    """Start both servers for the length of the block, on the first core; the clients get the last one."""
    cores = sorted(os.sched_getaffinity(0))
    servers, clients = (cores[0],), (cores[-1],)
    with start_valkey() as valkey, start_postgres() as postgres:
        pin(valkey.pid, servers)
        pin(postgres.pid, servers)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, clients)
        rig = Rig(valkey, postgres, servers, clients)
        try:
            yield rig
        finally:
            os.sched_setaffinity(0, before)
            for database in rig._databases.values():  # noqa: SLF001 - the same module
                database.close()
