"""What a state of the model is: hashable tuples of small integers, replaced and never changed.

Times of the Redis server are integers on its clock. TICK separates two moments, so that ``+ 1`` (one microsecond, in
the scripts) is less than any real passing of time. A stepped clock is moved off the grid (`faults.step_clock`): it
never shows a microsecond again by chance, while what the scripts compute to be equal stays equal.

Local time is not counted at all. What matters of a lease is only which of two things came first: the moment that it
counts from (its *base*), or the moment that an invalidate's wait counts from. If the base came first, the lease has
lapsed when the invalidate returns (LEASE_MAX < LEASE_MAX × 1.02, and clocks run within 1 %). If it came later, nothing
is assumed: the lease may lapse at any moment, or never. So every base carries one of three marks: NEW, OLD once an
invalidate that is still waiting has begun its wait after it, LAPSED when that invalidate has returned. This covers
every behaviour of real time, and some more, since a lease may be longer here than any real one.
The order of two moments within one process (`sent_at > arrived_at`) is kept as a flag: has a copy arrived since?
"""

from collections.abc import Iterable
from typing import NamedTuple

# Lease marks.
LAPSED, OLD, NEW = 0, 1, 2

#: Where a thread is in its read.
IDLE, QUEUED, ASKING, ASKED, WAITING, BLOCKED, FILLING, LOADING, LOADED, PUBLISHED = range(10)
PLACES = ("idle", "queued", "asking", "asked", "waiting", "blocked", "filling", "loading", "loaded", "published")

#: Kinds of reads, as in `Config.workers`; a capital is a caller whose transaction is tainted; ``x`` is either of p, f.
PLAIN, FORCED, TAINTED_PLAIN, TAINTED_FORCED, EITHER = "pfPFx"

# What `read` answers.
ROWS, FILL, WAIT = 1, 2, 3

#: How old an entry is.
FRESH, ENDING, STALE = 0, 1, 2

#: The version of rows from a tainted transaction: false for everyone else.
TAINT = 99
#: No rows have been read yet: real versions begin at 1.
UNREAD = 0

TICK = 64
#: How far a clock steps.
FAR = 100 * TICK
CLOCK_AT_START = 1000 * TICK

# The debt that a request took into account: none, the one that the process still has, or one that it had.
NO_DEBT, THIS_DEBT, PAST_DEBT = 0, 1, 2


class Entry(NamedTuple):
    """The shared rows."""

    version: int
    loaded_at: int
    incarnation: int
    age: int = FRESH


class Lock(NamedTuple):
    """The value of the fill lock; its life is not counted, it may end at any moment (`faults`)."""

    token: int
    grant: int
    incarnation: int
    #: A further part that tells two grants apart; 0 where the variant ``unique_grants`` is off.
    unique: int = 0


class Redis(NamedTuple):
    """The server that serves the fleet, and what another one, or its last RDB file, holds (`saved`)."""

    entry: Entry | None = None
    lock: Lock | None = None
    #: run_id * 8 + master_replid.
    incarnation: int = 0
    clock: int = CLOCK_AT_START
    #: The id of the last event, counted only where a configuration looks at the stream.
    events: int = 0
    saved: tuple[Entry | None, Lock | None] = (None, None)


class Answer(NamedTuple):
    """What `read` answered; `entry` is the rows (ROWS) or the fallback (FILL, WAIT)."""

    kind: int
    entry: Entry | None
    lock: Lock | None
    floor: int
    incarnation: int
    last_event: int = 0


class Copy(NamedTuple):
    """A near copy; `loaded_at` and incarnation are its identity, 0 for rows of a private load."""

    version: int
    loaded_at: int
    incarnation: int
    lease: int


class Fallback(NamedTuple):
    """Rows that Redis offered in case the load fails, and whether a copy has arrived since its read was sent."""

    copy: Copy
    late: int


class Load(NamedTuple):
    """A database read: its rows, has a copy arrived since its first statement, that moment's mark, who queued then."""

    version: int
    late: int
    mark: int
    queued: int


class Debt(NamedTuple):
    """What a process owes itself after private rows: a floor, 0 until a script has resolved it."""

    floor: int = 0
    incarnation: int = 0


class Process(NamedTuple):
    """One worker process."""

    copy: Copy | None = None
    debt: Debt | None = None
    #: Private rows, and the threads (bits) that were queueing before their first statement.
    handover: tuple[int, int] | None = None
    #: The thread on the slow path, + 1.
    slow: int = 0
    #: The newest version that a read of this process has returned.
    newest: int = 0
    cut_off: int = 0


class Thread(NamedTuple):
    """One thread and its read under way."""

    #: The reads that it still has to begin.
    left: str
    place: int = IDLE
    kind: str = ""
    #: The version that this read must at least return, and the promise that says so.
    need: int = 0
    promise: int = 0
    token: int = 0
    floor: int = 0
    floor_incarnation: int = 0
    floor_debt: int = NO_DEBT
    # What `near.start` noted before the last request: the debt, whether a copy arrived since, the moment's mark.
    debt: int = NO_DEBT
    late: int = 0
    mark: int = LAPSED
    answer: Answer | None = None
    fallback: Fallback | None = None
    replaces: tuple[int, int] = (0, 0)
    ahead: int = 0
    rejections: int = 0
    given_up: tuple[int, int] | None = None
    grant: Lock | None = None
    load: Load | None = None
    #: Bits: another fill was published, an invalidate ran, while this fill ran (`promises`).
    overlapped: int = 0


# Where the operator is, and its messages' places.
RESTING, CALLED, EXECUTED, LEASES_RUN = 0, 1, 2, 3

# Late messages: what they ask for.
READ_AGAIN, PUBLISH_AGAIN, RENEW_AGAIN, RELEASE_AGAIN, INVALIDATE_AGAIN = 1, 2, 3, 4, 5


class Message(NamedTuple):
    """A duplicate that is still on its way; nobody waits for its reply."""

    what: int
    token: int = 0
    floor: int = 0
    floor_incarnation: int = 0
    now: int = 0
    version: int = 0
    lock: Lock | None = None
    overlapped: int = 0


def in_order(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Give late messages in one order: which of them is run next is free anyway."""
    return tuple(sorted(messages, key=lambda message: (*message[:6], message.lock or (), message.overlapped)))


class State(NamedTuple):
    """Everything."""

    redis: Redis
    processes: tuple[Process, ...]
    threads: tuple[Thread, ...]
    budget: tuple[int, ...]
    #: The newest version that PostgreSQL has committed.
    committed: int = 1
    #: The newest version that was committed before an invalidate which has returned.
    withdrawn: int = 0
    operator: int = RESTING
    #: What had been committed when the running invalidate was called.
    calling: int = 0
    late: tuple[Message, ...] = ()
    #: Database loads so far, where a configuration bounds them.
    loads: int = 0
    #: The threads (bits) that have sent a first script, where a configuration bounds the loads.
    asked: int = 0
    #: Which promise has been broken, and how.
    broken: str = ""


#: One step: who, what, and the state after it.
Step = tuple[str, str, State]
