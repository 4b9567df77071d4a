"""States that differ only in how much time has passed are one state.

Scripts compare times and add a microsecond; nothing else of a time matters. So every gap of a tick or more is made the
smallest one that keeps the order and what is off the grid, and the clock is put where it was at the start. Gaps below
a tick (the ``+ 1``s) stay as they are. A clock that was stepped far back stays far behind what it showed before, until
it is stepped forward; one that was stepped back a little catches up.
"""

from itertools import pairwise

from tests.model.state import CLOCK_AT_START, FAR, TICK, Answer, Copy, Entry, Lock, Redis, State, Thread


def _of_thread(thread: Thread, found: set[int]) -> None:
    found.add(thread.floor)
    found.add(thread.replaces[0])
    for lock in (thread.grant, None if thread.answer is None else thread.answer.lock):
        if lock is not None:
            found.update((lock.grant, lock.unique))
    if thread.answer is not None:
        found.add(thread.answer.floor)
        if thread.answer.entry is not None:
            found.add(thread.answer.entry.loaded_at)
    if thread.fallback is not None:
        found.add(thread.fallback.copy.loaded_at)


def _of(state: State) -> set[int]:
    redis = state.redis
    found = {redis.clock}
    for entry, lock in ((redis.entry, redis.lock), redis.saved):
        if entry is not None:
            found.add(entry.loaded_at)
        if lock is not None:
            found.update((lock.grant, lock.unique))
    for process in state.processes:
        if process.copy is not None:
            found.add(process.copy.loaded_at)
        if process.debt is not None:
            found.add(process.debt.floor)
    for thread in state.threads:
        if thread.place:
            _of_thread(thread, found)
    for message in state.late:
        found.add(message.floor)
        if message.lock is not None:
            found.update((message.lock.grant, message.lock.unique))
    found.discard(0)
    return found


def compressed(state: State) -> State:
    """Give the state with its times as close together as their order allows."""
    old = sorted(_of(state))
    new = [0]
    clock = state.redis.clock
    for before, after in pairwise(old):
        gap = after - before
        if gap >= 2 * TICK:
            least = TICK if before != clock else gap // TICK * TICK if gap < FAR // 2 else FAR
            gap = least + gap % TICK
        new.append(new[-1] + gap)
    shift = CLOCK_AT_START + clock % TICK - new[old.index(clock)]
    moved = {before: after + shift for before, after in zip(old, new, strict=True)}
    if all(before == after for before, after in moved.items()):
        return state
    moved[0] = 0
    return _moved(state, moved)


def _moved(state: State, to: dict[int, int]) -> State:
    def of_entry(entry: Entry | None) -> Entry | None:
        return None if entry is None else entry._replace(loaded_at=to[entry.loaded_at])

    def of_lock(lock: Lock | None) -> Lock | None:
        return None if lock is None else lock._replace(grant=to[lock.grant], unique=to[lock.unique])

    def of_copy(copy: Copy | None) -> Copy | None:
        return None if copy is None else copy._replace(loaded_at=to[copy.loaded_at])

    def of_answer(answer: Answer | None) -> Answer | None:
        if answer is None:
            return None
        return answer._replace(entry=of_entry(answer.entry), lock=of_lock(answer.lock), floor=to[answer.floor])

    def of_thread(thread: Thread) -> Thread:
        if not thread.place:
            return thread
        fallback = thread.fallback
        return thread._replace(
            floor=to[thread.floor],
            replaces=(to[thread.replaces[0]], thread.replaces[1]),
            grant=of_lock(thread.grant),
            answer=of_answer(thread.answer),
            fallback=None
            if fallback is None
            else fallback._replace(copy=fallback.copy._replace(loaded_at=to[fallback.copy.loaded_at])),
        )

    redis = state.redis
    return state._replace(
        redis=Redis(
            of_entry(redis.entry),
            of_lock(redis.lock),
            redis.incarnation,
            to[redis.clock],
            redis.events,
            (of_entry(redis.saved[0]), of_lock(redis.saved[1])),
        ),
        processes=tuple(
            process._replace(
                copy=of_copy(process.copy),
                debt=None if process.debt is None else process.debt._replace(floor=to[process.debt.floor]),
            )
            for process in state.processes
        ),
        threads=tuple(map(of_thread, state.threads)),
        late=tuple(message._replace(floor=to[message.floor], lock=of_lock(message.lock)) for message in state.late),
    )
