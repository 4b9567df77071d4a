"""The near copy of a process, its read lease, and what this process has promised itself. Pure: the clock is injected.

A covered read takes one attribute (`Near.copy`) and compares one time. Everything else happens under one lock, and
never together with I/O.
"""

from dataclasses import dataclass
from typing import NamedTuple

from kcg_cache.answers import Floor
from kcg_cache.snapshot import Snapshot
from kcg_cache.system import System


@dataclass(frozen=True, slots=True, eq=False)
class NearCopy:
    """Decoded rows and until when they may be used without asking (PROTOCOL R6)."""

    #: What covered reads return.
    snapshot: Snapshot
    #: The payload's format, whose meaning (`codec.meaning`) counts: the same bytes would mean other values in another.
    format: str
    #: On the process's clock: when the request that confirmed it was sent, plus the lease.
    valid_until: float
    #: Which shared entry it is; None for rows that this process loaded for itself.
    identity: str | None


@dataclass(slots=True, eq=False)
class Debt:
    """PROTOCOL R8: after private rows the process's next rows must be loaded after them.

    `floor` is what the first script resolved as *now*; it is kept until a reply meets it.
    """

    floor: Floor | None = None


class Start(NamedTuple):
    """What held when a request was about to be sent, all of one moment."""

    sent_at: float
    copy: NearCopy | None
    debt: Debt | None


class Near:
    """The near copy of one dataset in one process."""

    def __init__(self, system: System) -> None:
        self._now = system.now
        self._new_lock = system.lock
        self._lock = self._new_lock()
        #: Read without the lock: one attribute, replaced as a whole.
        self.copy: NearCopy | None = None
        self._debt: Debt | None = None
        # When the last copy arrived or was dropped. A reply to a request sent before it may be older than what a
        # reader has already been given, so it must not become the near copy (R6, Promise 4).
        self._arrived_at = float("-inf")

    @property
    def debt(self) -> Debt | None:
        """What this process owes itself, if anything."""
        return self._debt

    def start(self) -> Start:
        """Note the moment before a request is sent.

        Time, copy and debt are taken together: were the debt read after the time and another thread's private rows
        arrived in between, this request would be sent without their floor and its reply still be kept.
        """
        with self._lock:
            return Start(self._now(), self.copy, self._debt)

    def keep(self, copy: NearCopy, sent_at: float, *, meets: Debt | None, replaces: str | None = None) -> bool:
        """Make `copy` the near copy if its request was sent after the present one arrived; else drop the present one.

        `meets` is the debt that the request took into account. `replaces` names an entry that `copy` is known to
        follow (a refresh-ahead's fallback), whenever that arrived. Tells whether it was kept.
        """
        with self._lock:
            present = self.copy
            if present is not None and present.identity is not None and present.identity == copy.identity:
                # The very same entry: whichever reply came first, nobody has been given anything newer in between.
                if copy.valid_until > present.valid_until:
                    self.copy = copy
            elif sent_at > self._arrived_at or (
                replaces is not None and present is not None and present.identity == replaces
            ):
                self.copy = copy
                self._arrived_at = self._now()
            else:
                # The reply may be older than the present copy, or newer: its caller gets it, so the present one may
                # be older than what a reader has been given. Neither is kept.
                self._drop_locked()
                return False
            if meets is not None and meets is self._debt:
                self._debt = None
            return True

    def keep_private(self, copy: NearCopy, first_statement_at: float) -> None:
        """Keep rows that this process loaded for itself, for their lease, and owe a floor (PROTOCOL R6, R8)."""
        with self._lock:
            # The debt first: a process that is forked in the middle of this by another thread would else go on with
            # the private rows and without their floor.
            self._debt = Debt()
            if first_statement_at > self._arrived_at:
                self.copy = copy
            else:
                self.copy = None
            self._arrived_at = self._now()

    def drop(self) -> None:
        """Give the near copy up and owe a floor: a reader was given rows that are not kept (PROTOCOL R4)."""
        with self._lock:
            self._drop_locked()

    def forget(self) -> None:
        """Give the near copy up without owing: it was withdrawn, and no reader was given anything newer."""
        with self._lock:
            self.copy = None
            self._arrived_at = self._now()

    def resolve(self, debt: Debt, floor: Floor) -> None:
        """Keep the floor that a script resolved for a debt: the first one, or the one of a new incarnation."""
        with self._lock:
            if debt.floor is None or debt.floor.incarnation != floor.incarnation:
                debt.floor = floor

    def renew_lock_after_fork(self) -> None:
        """Take a fresh lock. The copy stays valid in the child: it is only time (PROTOCOL R12)."""
        self._lock = self._new_lock()

    def _drop_locked(self) -> None:
        self._debt = Debt()  # first, as in `keep_private`
        self.copy = None
        self._arrived_at = self._now()
