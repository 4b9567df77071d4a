"""One worker of the fleet: ``python -m kcg_cache.demo.worker``, told what to do on standard input.

A "reader" looks up as fast as it can, as an executor does that reads parameters within its cycle; a "scheduler" looks
up once per cycle. Both hold every look-up against the board.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kcg_cache import Settings, SharedCache, configure, load_active_versions, postgres
from kcg_cache.demo import wire
from kcg_cache.demo.audit import Audit, planted
from kcg_cache.demo.board import FLOOR, Board
from kcg_cache.system import SYSTEM

#: Seconds between two reports, and between two look-ups of a scheduler.
REPORT_EVERY = 0.2
CYCLE = 0.5
#: The oldest rows, in seconds, that a scheduler accepts. The operator changes something far more often, so that it
#: costs no load of its own.
MAX_AGE = 10.0
#: Look-ups between two glances at the clock.
_BATCH = 2000
#: A reader takes all of a processor that others leave it, and no more: servers and operator come first.
_NICENESS = 10


class Loan:
    """What a worker gives as `conn`: its connection, for the cache to take when it has to load. Counts how often."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.taken = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        """Lend the connection."""
        self.taken += 1
        yield self._connection


class Worker:
    """The look-ups of one process, and what it tells of them."""

    def __init__(self, told: dict[str, Any], cache: SharedCache, loan: Loan, board: Board) -> None:
        self._cache = cache
        self._loan = loan
        self._words = board.words
        self._reads = 0
        self.audit = Audit(board.words, SYSTEM.now)
        max_age = MAX_AGE if told["kind"] == "scheduler" else None
        self._look_up: Callable[[], Sequence[Any]] = lambda: load_active_versions(loan, max_age=max_age)
        if told["plant_stale_read"]:
            self._look_up = planted(self._look_up, board.words)

    def look_up(self) -> None:
        """Look up once."""
        floor = self._words[FLOOR]
        rows = self._look_up()
        self._reads += 1
        self._judge(floor, rows)

    def look_up_as_fast_as_possible(self, stop: threading.Event) -> None:
        """Look up until told to stop, and report from time to time."""
        while not stop.is_set():
            report_at = SYSTEM.now() + REPORT_EVERY
            while SYSTEM.now() < report_at and not stop.is_set():
                self._look_up_many(_BATCH)
            self.report()

    def look_up_once_per_cycle(self, stop: threading.Event) -> None:
        """Look up at the start of each cycle, until told to stop."""
        while not stop.wait(CYCLE):
            self.look_up()
            self.report()

    def report(self, event: str = "report") -> None:
        """Tell all counts as of now, and what one more look-up says of its rows."""
        floor = self._words[FLOOR]
        snapshot = self._cache.read(self._loan)
        self._reads += 1
        self._judge(floor, snapshot.rows)
        counts = self._cache.metrics.as_dict()
        audit = self.audit
        wire.say(
            event,
            at=SYSTEM.now(),
            reads=self._reads,
            near=counts["reads_near"],
            redis=counts["reads_redis"] + counts["lease_renewals"],
            database=counts["reads_database"],
            loads=self._loan.taken,
            scripts=counts["scripts_read"],
            store_errors=counts["store_errors"],
            private_loads=counts["private_loads"],
            generation=audit.newest,
            stale=audit.stale,
            backward=audit.backward,
            uncommitted=audit.uncommitted,
            torn=audit.torn,
            examples=audit.examples,
            rows=len(snapshot.rows),
            digest=snapshot.digest,
            age=snapshot.age,
            source=snapshot.source,
        )

    def _look_up_many(self, count: int) -> None:
        """Look up so many times, each with two reads of memory and no system call of ours.

        Rows cannot be changed and are the same objects for as long as the copy is the same, so that what `judge` found
        of them stays true; against the floor each look-up is held anew.
        """
        words, look_up = self._words, self._look_up
        judged: Any = None
        for _ in range(count):
            floor = words[FLOOR]
            rows = look_up()
            row = rows[0]
            if row is not judged or row["params"]["generation"] < floor:
                self._judge(floor, rows)
                judged = row
        self._reads += count

    def _judge(self, floor: int, rows: Sequence[Any]) -> None:
        """Hold rows against the board; tell of a generation that was not seen before."""
        before = self.audit.newest
        self.audit.judge(floor, rows)
        newest = self.audit.newest
        if newest > before:
            wire.say(
                "seen",
                generation=newest,
                at=self.audit.first_seen[newest],
                primaries={row["model_id"]: row["version"] for row in rows if row["role"] == "PRIMARY"},
            )


def settings_of(told: dict[str, Any]) -> Settings:
    """Give the settings that all processes of a demo share, whatever the environment says.

    Defaults, but for the deadline of one call: many processes at full speed on few processors may keep even a healthy
    Redis waiting for its turn.
    """
    return Settings(redis_url=told["redis"], namespace=told["namespace"], redis_timeout=2.0)


def main() -> int:
    """Do as told until told to stop."""
    orders = wire.Orders()
    told = orders.must()
    stop = orders.until_told()
    board = Board(told["board"], writable=False)
    cache = configure(settings=settings_of(told))
    with postgres.connect(told["dsn"]) as connection:
        worker = Worker(told, cache, Loan(connection), board)
        worker.look_up()
        worker.report("ready")
        if told["kind"] == "reader":
            os.nice(_NICENESS)
            worker.look_up_as_fast_as_possible(stop)
        else:
            worker.look_up_once_per_cycle(stop)
        worker.report("final")
    cache.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
