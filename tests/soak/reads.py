"""What one thread of a worker does: read in every way there is, and hold each read against the board."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2 import extensions

from kcg_cache import SharedCache, Snapshot, api
from kcg_cache.demo import wire
from kcg_cache.system import SYSTEM
from tests.soak.audit import MARKER, Audit
from tests.soak.board import DATABASE_FAULT, ENDED, ENDED_AT, FAULT, PULSE, Board

#: Seconds between two batches of covered reads: a worker takes a part of a processor and leaves the rest to others.
PAUSE = 0.01
#: Seconds between two reads of another kind, and between two reports.
_SPECIAL_AFTER, _SPECIAL_BEFORE = 0.25, 1.2
_REPORT_EVERY = 0.5
#: Met only when nobody lets a held fill go on.
_HELD_FOR = 60.0
#: A reader whose connection failed tries again after so many seconds.
_AFTER_ERROR = 0.02

_INSERT_MARKER = (
    "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
    f" VALUES ('{MARKER}', %s, 'SHADOW', 'ACTIVE', '{{\"v\": 0}}')"
)


@dataclass
class Slow:
    """The reads of one process that took long, in one window of time."""

    slowest: float = 0.0
    #: Longer than half of a redis_timeout.
    count: int = 0
    errors: int = 0


@dataclass
class Process:
    """What the threads of one worker share."""

    name: str
    board: Board
    cache: SharedCache
    dsn: str
    audit: Audit
    seed: int
    #: Covered reads between two pauses.
    batch: int = 200
    #: Plain reads only: for the price list, in which nobody asks for more than he needs.
    plain_only: bool = False
    #: A connection that is kept, as a pool does, or one for each load.
    keeps_connection: bool = False
    reads: int = 0
    #: Those that were forced, of a greatest age, or inside a transaction.
    special: int = 0
    #: Reads that only their own transaction could see, and how many of them showed its uncommitted row.
    exempt: int = 0
    own_writes_seen: int = 0
    slow: Slow = field(default_factory=Slow)
    lock: threading.Lock = field(default_factory=threading.Lock)
    #: Whether the next fill is to be held between its SELECT and its publish, and whether it may go on; set by orders.
    hold: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)
    #: What a test plants: given rows of the look-up, it gives others.
    planted: Callable[[Sequence[Any]], Sequence[Any]] | None = None

    def report(self, event: str = "report") -> None:
        """Tell the counts as of now."""
        wire.say(
            event,
            reads=self.reads,
            special=self.special,
            exempt=self.exempt,
            own_writes_seen=self.own_writes_seen,
            violations=self.audit.violations,
            metrics={name: count for name, count in self.cache.metrics.as_dict().items() if count},
        )

    def renew_locks_after_fork(self) -> None:
        """Take fresh locks: other threads of the parent may have held them."""
        self.lock = threading.Lock()
        self.audit.renew_lock_after_fork()


class Loan:
    """What a thread gives as `conn`: opened when a load needs it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._kept: Any = None
        self._opened_under = 0
        #: Whether to hold its user up, and for how long it was held up.
        self.hold = False
        self.held = 0.0

    def oldest_word(self) -> int:
        """Give the word of the database's faults as of now, or when the connection that is kept was opened.

        What has happened since may have broken it.
        """
        return self._process.board.words[DATABASE_FAULT] if self._kept is None else self._opened_under

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        """Lend a connection; hold its user up after the rows were read, if told to."""
        if self._kept is None or self._kept.closed:
            self._opened_under = self._process.board.words[DATABASE_FAULT]
            self._kept = psycopg2.connect(self._process.dsn)
        keep = False
        try:
            yield self._kept
            keep = self._process.keeps_connection
            if self.hold:
                began, self.hold = SYSTEM.now(), False
                self._process.go_on.clear()
                wire.say("holding")
                self._process.go_on.wait(_HELD_FOR)
                self.held += SYSTEM.now() - began
        finally:
            if not keep:
                self.close()

    def close(self) -> None:
        """Close what is kept."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            kept.close()


class Reader:
    """One thread of a worker."""

    def __init__(self, process: Process, number: int) -> None:
        self._process = process
        self._number = number
        self._audit = process.audit
        self._board = process.board
        self._words = process.board.words
        self._cache = process.cache
        self.loan = Loan(process)
        self._random = random.Random(process.seed * 1000 + number)  # noqa: S311 - a seeded run, no secret
        self._long = process.cache.settings.redis_timeout / 2
        self._watch = Watch(self) if number == 0 else None

    def run(self, stop: Callable[[], bool]) -> None:
        """Read until told to stop."""
        process = self._process
        special_at = SYSTEM.now() + self._random.uniform(0, _SPECIAL_BEFORE)
        while not stop():
            self.attempt(self._covered)
            if self._watch is not None:
                self._watch.look()
            if process.hold and self._number == 0:
                self.loan.hold, process.hold = True, False
                self.attempt(self._forced)
                self.loan.hold = False
            if not process.plain_only and SYSTEM.now() > special_at:
                kinds = (self._forced, self._aged, self._aged, self._uncommitted, self._old_snapshot)
                self.attempt(self._random.choice(kinds))
                special_at = SYSTEM.now() + self._random.uniform(_SPECIAL_AFTER, _SPECIAL_BEFORE)
            time.sleep(PAUSE)

    def attempt(self, read: Callable[[], None]) -> None:
        """Read, and judge an error: one of the database's own while that may fail is none of the cache's."""
        word = self.loan.oldest_word()
        try:
            read()
        except psycopg2.Error as error:
            now = self._words[DATABASE_FAULT]
            if now % 2 == 0 and now == word:
                self._violation(error)
            with self._process.lock:
                self._process.slow.errors += 1
            self.loan.close()
            time.sleep(_AFTER_ERROR)
        except Exception as error:  # noqa: BLE001 - whatever it is: no reader may meet it
            self._violation(error)
            self.loan.close()
            time.sleep(_AFTER_ERROR)

    def first_read(self) -> None:
        """Read plainly, audited."""
        self.read_once()

    def read_once(self) -> Snapshot:
        """Read plainly, audited."""
        floors, newest = self._before()
        snapshot = self._timed(lambda: self._cache.read(self.loan))
        self._judge(snapshot, floors, newest, special=False)
        return snapshot

    # --- the kinds of reads -------------------------------------------------------------------------------------------

    def _covered(self) -> None:
        """Read many times through the module API, each with two looks at memory and one at the clock.

        Rows are the same objects for as long as the copy is the same. What was found of them stays true until there is
        a new floor, or another thread of this process was given something newer: then they are judged anew.
        """
        words, audit, board, loan = self._words, self._audit, self._board, self.loan
        load, now, long = api.load_active_versions, SYSTEM.now, self._long
        planted = self._process.planted
        pulse, newest, floors, judged = -1, audit.newest, board.floors(), None
        began, slowest, count = now(), 0.0, 0
        try:
            for _ in range(self._process.batch):
                if words[PULSE] != pulse or audit.newest is not newest:
                    pulse = words[PULSE]
                    newest, floors, judged = audit.newest, board.floors(), None
                rows: Sequence[Any] = load(loan)
                if planted is not None:
                    rows = planted(rows)
                count += 1
                if rows[0] is not judged:
                    audit.judge(rows, floors, newest, reader=self._name)
                    judged = rows[0]
                took = now() - began
                began += took
                if took > long:
                    self._took(took)
                elif took > slowest:
                    slowest = took
        finally:
            self._took(slowest)
            self._took(now() - began)  # of a read that raised
            with self._process.lock:
                self._process.reads += count

    def _forced(self) -> None:
        committed = self._board.committed()
        floors, newest = self._before()
        snapshot = self._timed(lambda: self._cache.read(self.loan, force=True))
        self._judge(snapshot, floors, newest, committed=committed)

    def _aged(self) -> None:
        age = self._random.choice((0, 0.05, 0.5, 5))
        floors, newest = self._before()
        snapshot = self._timed(lambda: self._cache.read(self.loan, max_age=age))
        self._judge(snapshot, floors, newest)

    def _uncommitted(self) -> None:
        """Read inside a transaction that has written and will be rolled back."""
        with self._transaction() as conn:
            own = SYSTEM.token()
            with conn.cursor() as cursor:
                cursor.execute(_INSERT_MARKER, (own,))
            self._tainted(conn, own)

    def _old_snapshot(self) -> None:
        """Read inside a REPEATABLE READ transaction whose snapshot is from before."""
        with self._transaction(extensions.ISOLATION_LEVEL_REPEATABLE_READ) as conn:
            with conn.cursor() as cursor:
                cursor.execute("SELECT 1")
            time.sleep(self._random.uniform(0, 0.3))
            self._tainted(conn, None)

    def _tainted(self, conn: Any, own: str | None) -> None:
        """Read on a connection inside of a transaction; `own` is the row that this one has written."""
        forced = self._random.random() < 0.5
        floors, newest = self._before()
        snapshot = self._timed(lambda: self._cache.read(conn, force=forced, max_age=None if forced else 0))
        if snapshot.source == "database" and not snapshot.shared:
            # The one exception to the promise: what its own transaction sees. One that sees what is committed now, and
            # its own row beside it, is no older than any other; an old snapshot is. Neither sees others' rows.
            rows = [row for row in snapshot.rows if own is None or row["version"] != own]
            if own is None:
                floors = newest = (0,) * self._board.operators
            self._audit.judge(rows, floors, newest, reader=self._name, binds=False)
            with self._process.lock:
                self._process.reads += 1
                self._process.special += 1
                self._process.exempt += 1
                self._process.own_writes_seen += len(rows) < len(snapshot.rows)
        else:
            self._judge(snapshot, floors, newest)

    @contextlib.contextmanager
    def _transaction(self, level: int | None = None) -> Iterator[Any]:
        conn = psycopg2.connect(self._process.dsn)
        try:
            if level is not None:
                conn.set_isolation_level(level)
            yield conn
            conn.rollback()
        finally:
            conn.close()

    # --- what they share ----------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"{self._process.name}.{self._number}"

    def _before(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._board.floors(), self._audit.newest

    def _judge(
        self,
        snapshot: Snapshot,
        floors: tuple[int, ...],
        newest: tuple[int, ...],
        committed: tuple[int, ...] | None = None,
        *,
        special: bool = True,
    ) -> None:
        rows: Sequence[Any] = snapshot.rows
        if self._process.planted is not None:
            rows = self._process.planted(rows)
        self._audit.judge(rows, floors, newest, reader=self._name, committed=committed)
        with self._process.lock:
            self._process.reads += 1
            self._process.special += special

    def _timed(self, read: Callable[[], Snapshot]) -> Snapshot:
        began, self.loan.held = SYSTEM.now(), 0.0
        try:
            return read()
        finally:
            self._took(SYSTEM.now() - began - self.loan.held)

    def _took(self, seconds: float) -> None:
        with self._process.lock:
            slow = self._process.slow
            slow.slowest = max(slow.slowest, seconds)
            slow.count += seconds > self._long

    def _violation(self, error: BaseException) -> None:
        self._audit.violation("exception", self._name, what=f"{type(error).__name__}: {error}")


class Watch:
    """Sees faults begin and end, and tells what a process met in each; one thread of a process does it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._process = reader._process
        self._words = reader._words
        #: The fault that is on or was last, and whether it is over and shared rows are awaited.
        self._fault = 0
        self._after = False
        self._began = SYSTEM.now()
        self._counts = self._process.cache.metrics.as_dict()
        self._seen_ended = self._words[ENDED]
        self._report_at = 0.0

    def look(self) -> None:
        """Look at the board; cheap when nothing has changed."""
        now = SYSTEM.now()
        if now > self._report_at:
            self._report_at = now + _REPORT_EVERY
            self._process.report()
        fault = self._words[FAULT]
        if fault and fault != self._fault:
            self._close("after" if self._after else "during")
            self._fault, self._after = fault, False
        elif not self._after and self._fault and fault != self._fault and self._words[ENDED] == self._fault:
            self._close("during")
            self._after = True
        if self._words[ENDED] != self._seen_ended:
            self._recover()

    def _recover(self) -> None:
        """Read until rows are the fleet's again, by an answer to a question of after the fault."""
        ended, ended_at = self._words[ENDED], self._words[ENDED_AT] / 1e9

        def read() -> None:
            snapshot = self._reader.read_once()
            if snapshot.shared and snapshot.as_of >= ended_at:
                wire.say("recovered", fault=ended, seconds=SYSTEM.now() - ended_at, source=snapshot.source)
                self._seen_ended = ended
                self._close("after")
                self._fault, self._after = 0, False

        self._reader.attempt(read)

    def _close(self, part: str) -> None:
        """Tell what happened in the window that ends now, and begin the next."""
        process, now = self._process, SYSTEM.now()
        counts = process.cache.metrics.as_dict()
        with process.lock:
            slow, process.slow = process.slow, Slow()
        if self._fault:
            wire.say(
                "window",
                part=part,
                fault=self._fault,
                seconds=now - self._began,
                slowest=slow.slowest,
                slow=slow.count,
                errors=slow.errors,
                counts={name: count - self._counts[name] for name, count in counts.items()},
            )
        self._began, self._counts = now, counts
