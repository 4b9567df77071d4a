"""What must hold: checked at every read's return, at every publish, and in every state."""

from tests.model.config import Config
from tests.model.near import with_process
from tests.model.state import (
    BLOCKED,
    FORCED,
    IDLE,
    PUBLISHED,
    TAINT,
    TAINTED_FORCED,
    Message,
    Process,
    State,
    Thread,
    in_order,
)

WHAT = {
    1: "Promise 1: an invalidate that returned before this read began withdrew the rows that it got",
    2: "Promise 2: the forced read got rows from before its call",
    3: "Promise 3: two overlapping fills were both published",
    4: "Promise 4: an earlier read of the same process returned a newer version",
    5: "R3, the fence: a fill that began before an invalidate ran was published after it",
    6: "Promise 6: rows of a tainted transaction are shared or kept",
}


#: What `Thread.overlapped` notes.
OVERLAPPED, WITHDRAWN = 1, 2


def forced(kind: str) -> bool:
    """Tell whether it is a forced read."""
    return kind in (FORCED, TAINTED_FORCED)


def begun(config: Config, state: State, place: int, kind: str) -> Thread:
    """Begin a read: note the oldest version that it may return.

    The writer may commit between any two steps, so "rows read before the call began" shows as an older version in one
    of the behaviours that are explored.
    """
    need, promise = state.withdrawn, 1
    newest = state.processes[config.homes[place]].newest
    if newest > need:
        need, promise = newest, 4
    if forced(kind) and state.committed > need:
        need, promise = state.committed, 2
    thread = state.threads[place]
    return thread._replace(left=thread.left[1:], kind=kind, need=need, promise=promise)


def returned(config: Config, state: State, place: int, version: int, *, own_tainted: bool = False) -> State:
    """End a read with rows: check what was promised to it; the thread is idle again.

    `own_tainted`: it is the caller's own transaction that saw these rows, the one exception to Promises 1, 2 and 4.
    """
    thread = state.threads[place]
    broken = state.broken
    home = config.homes[place]
    process = state.processes[home]
    if not own_tainted:
        if version < thread.need:
            broken = WHAT[thread.promise]
        process = process._replace(newest=max(process.newest, version))
    if broken:
        state = state._replace(broken=broken)
    return ended(config, with_process(state, home, process), place)


def ended(config: Config, state: State, place: int) -> State:
    """Make the thread idle: the slow path is free, and no rows from before now are for its next read (R12)."""
    home = config.homes[place]
    process = state.processes[home]
    bit = 1 << place
    slow = 0 if process.slow == place + 1 else process.slow
    handover = process.handover
    if handover is not None and handover[1] & bit:
        handover = (handover[0], handover[1] & ~bit) if handover[1] & ~bit else None
    if slow != process.slow or handover != process.handover:
        state = with_process(state, home, process._replace(slow=slow, handover=handover))
    threads = []
    for other, thread in enumerate(state.threads):
        changed = thread
        if other == place:
            changed = Thread(left=thread.left)
        elif config.homes[other] == home and thread.place:
            if thread.load is not None and thread.load.queued & bit:
                changed = changed._replace(load=thread.load._replace(queued=thread.load.queued & ~bit))
            if thread.given_up is not None and thread.given_up[1] & bit:
                changed = changed._replace(given_up=(thread.given_up[0], thread.given_up[1] & ~bit))
        threads.append(changed)
    return state._replace(threads=tuple(threads))


def published(state: State, place: int, overlapped: int) -> State:
    """Note that a fill was published: every other that runs now overlaps it (Promise 3). `place` -1: a duplicate."""
    if overlapped:
        state = state._replace(broken=WHAT[5 if overlapped & WITHDRAWN else 3])
    threads = tuple(
        thread._replace(overlapped=thread.overlapped | OVERLAPPED)
        if thread.grant is not None and other != place and thread.place != PUBLISHED
        else thread
        for other, thread in enumerate(state.threads)
    )
    return state._replace(threads=threads, late=_noted(state.late, OVERLAPPED))


def withdrawn(state: State) -> State:
    """Note that an invalidate has run: no fill that runs now may be published (R3)."""
    threads = tuple(
        thread._replace(overlapped=thread.overlapped | WITHDRAWN)
        if thread.grant is not None and thread.place != PUBLISHED
        else thread
        for thread in state.threads
    )
    return state._replace(threads=threads, late=_noted(state.late, WITHDRAWN))


def _noted(late: tuple[Message, ...], what: int) -> tuple[Message, ...]:
    return in_order(m._replace(overlapped=m.overlapped | what) if m.version else m for m in late) if late else late


def tainted(state: State) -> bool:
    """Tell whether rows of a tainted transaction are anywhere where another reader finds them (Promise 6)."""
    entry = state.redis.entry
    return (entry is not None and entry.version == TAINT) or any(map(_keeps_taint, state.processes))


def _keeps_taint(process: Process) -> bool:
    copy, handover = process.copy, process.handover
    return (copy is not None and copy.version == TAINT) or (handover is not None and handover[0] == TAINT)


def checked(config: Config, state: State) -> str:
    """Check what must hold in every state; give what does not, or ''."""
    if state.broken:
        return state.broken
    if tainted(state):
        return WHAT[6]
    if config.events and state.redis.lock is None and any(_sleeps_on(state, thread) for thread in state.threads):
        return "Promise 3: a waiter sleeps although the fill that it waits for has ended, with an event"
    if config.most_loads and state.loads > config.most_loads:
        return f"Promises 2 and 3: more than {config.most_loads} database loads"
    return ""


def _sleeps_on(state: State, thread: Thread) -> bool:
    # `ahead` is the event after which it waits. Configurations that look at events let no lock end without one.
    return thread.place == BLOCKED and state.redis.events <= thread.ahead


def finished(state: State) -> bool:
    """Tell whether every read has ended: nothing that matters can happen any more."""
    return all(thread.place == IDLE and not thread.left for thread in state.threads)
