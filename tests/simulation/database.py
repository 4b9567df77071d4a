"""A PostgreSQL in virtual time: one row whose version only grows, and connections as DB-API has them.

The real `postgres` module asks these connections what it asks psycopg2's: whose transaction it is, and the rows.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2 import extensions

from kcg_cache import Dataset, postgres, queries
from tests.simulation.world import Process, World

_ROWS = "SELECT version, load, dirty, more"
#: A row of so many characters is about what a simulated cache shares.
_SHARED = 500
#: What a standby may lag behind, in commits.
_LAG = 3


@dataclass
class Load:
    """One statement that read the rows."""

    began: float
    executed: float
    version: int
    #: Of a snapshot that was taken before, of a standby, or of a transaction with writes.
    tainted: bool


@dataclass
class Database:
    """What is committed, and how well the server does."""

    world: World
    #: Whether rows name the load that read them: then every load has another digest.
    stamped: bool
    #: Whether some versions are larger than what is shared, and some hold an integer that orjson does not write.
    odd_rows: bool = False
    version: int = 1
    #: Seconds that a statement takes, at least and at most.
    slowness: tuple[float, float] = (0.0005, 0.05)
    down: bool = False
    #: How often a statement fails.
    failing: float = 0.0
    #: Every read of the rows, by its number.
    loads: list[Load] = field(default_factory=list)
    errors: int = 0
    longest: float = 0.0

    def commit(self) -> int:
        """Commit the next version; give it."""
        self.version += 1
        self.world.note(lambda: f"version {self.version} is committed")
        return self.version

    @property
    def oversized(self) -> bool:
        """Whether the present version is larger than what is shared."""
        return self.odd_rows and len(str(_more(self.version))) > _SHARED

    def fail(self) -> None:
        """Raise what a lost connection raises."""
        self.errors += 1
        raise psycopg2.OperationalError("server closed the connection unexpectedly")


class Connection:
    """A connection of one process. `kind`: plain, autocommit, old snapshot, uncommitted writes, standby."""

    def __init__(self, database: Database, process: Process, kind: str = "plain") -> None:
        self.database = database
        self.process = process
        self.kind = kind
        #: The version that this transaction's snapshot holds, and whether one is open.
        self.snapshot: int | None = None
        self.open = False
        self.dirty = 0
        if kind == "old snapshot":
            self.open, self.snapshot = True, database.version
        elif kind == "uncommitted writes":
            self.open, self.dirty = True, database.world.random.randrange(1, 1 << 30)
        elif kind == "standby":
            self.snapshot = max(1, database.version - database.world.random.randrange(_LAG))

    @property
    def tainted(self) -> bool:
        """Whether its rows may reach nobody else."""
        return self.kind not in ("plain", "autocommit")

    def cursor(self) -> "Cursor":
        return Cursor(self)

    def get_transaction_status(self) -> int:
        return extensions.TRANSACTION_STATUS_INTRANS if self.open else extensions.TRANSACTION_STATUS_IDLE

    def rollback(self) -> None:
        self.process.check()
        self.open = False

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement: on its way, at work, and its answer on the way back."""
        database, world = self.database, self.database.world
        self.process.check()
        if self.kind != "autocommit":
            self.open = True
        began = world.now
        world.door()
        if database.down or world.chance(database.failing):
            database.fail()
        world.sleep(world.between(*database.slowness) / 2)
        if database.down:
            database.fail()
        answer = self._answer(sql, began)
        world.sleep(world.between(*database.slowness) / 2)
        database.longest = max(database.longest, world.now - began)
        if database.down or world.chance(database.failing / 2):
            database.fail()
        return answer

    def _answer(self, sql: str, began: float) -> list[dict[str, Any]]:
        database = self.database
        if sql == queries.load("snapshot_check"):
            return [
                {
                    "isolation": "repeatable read" if self.kind == "old snapshot" else "read committed",
                    "has_xid": self.kind == "uncommitted writes",
                    "in_recovery": self.kind == "standby",
                    "system_identifier": "7",
                    "database": "simulated",
                    "alone": self.kind == "autocommit",
                }
            ]
        assert sql == _ROWS, sql
        version = database.version if self.snapshot is None else self.snapshot
        database.loads.append(Load(began, database.world.now, version, self.tainted))
        number = len(database.loads) - 1
        database.world.note(lambda: f"load {number} reads version {version} ({self.kind})")
        row = {"version": version, "load": number if database.stamped else -1, "dirty": self.dirty}
        return [row | {"more": _more(version) if database.odd_rows else None}]


def _more(version: int) -> Any:
    """Give what else is in the row: now and then too much, or a number of more than 64 bits."""
    return {0: "x" * _SHARED * 2, 1: 2**70}.get(version % 4)


class Cursor:
    """What `postgres.fetch` needs of a cursor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[dict[str, Any]] = []
        self.description: list[tuple[str]] = []

    def execute(self, sql: str, _values: Any = None) -> None:
        self._rows = self._connection.run(sql)
        self.description = [(name,) for name in self._rows[0]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self._rows]

    def close(self) -> None:
        pass


def lending(database: Database, process: Process) -> Any:
    """Give a callable as `read` takes it: a fresh connection for each load."""

    @contextlib.contextmanager
    def connect() -> Iterator[Connection]:
        process.check()
        database.world.door()
        if database.down:
            database.fail()
        yield Connection(database, process, "autocommit" if database.world.chance(0.3) else "plain")

    return connect


DATASET = Dataset("simulated", lambda conn: postgres.fetch(conn, _ROWS))
