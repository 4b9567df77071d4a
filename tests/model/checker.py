"""Explore every state that can be reached, breadth first, so that a counterexample is a shortest one."""

import gc
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from tests.model import faults, others, reads
from tests.model.config import Config
from tests.model.promises import checked, finished
from tests.model.state import Process, Redis, State, Step, Thread
from tests.model.times import compressed


class Result(NamedTuple):
    """What an exploration found."""

    config: Config
    states: int
    seconds: float
    #: What was broken, '' for nothing; and the steps to it.
    broken: str
    trace: tuple[Step, ...]
    #: False if it was cut off by `most_states`.
    complete: bool


def initial(config: Config) -> State:
    """Give the state in which everything begins: version 1 committed, Redis empty."""
    return State(
        redis=Redis(),
        processes=tuple(Process() for _ in config.workers),
        threads=tuple(Thread(left=reads_) for threads in config.workers for reads_ in threads),
        budget=config.budget,
    )


def steps(config: Config, state: State) -> Iterator[Step]:
    """Give every step that is possible in a state; none once all reads have ended, for nobody looks any more."""
    if finished(state):
        return
    redis, left = state.redis, state.threads
    for who, what, after in chain(reads.steps(config, state), others.steps(config, state), faults.steps(config, state)):
        # Only these change what times there are.
        same = after.redis == redis and after.threads is left
        yield who, what, after if same else compressed(after)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking through millions of tuples, which hold no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def explore(config: Config, *, most_states: int | None = None) -> Result:
    """Explore until something is broken, or everything has been seen."""
    with _uncollected():
        return _explore(config, most_states)


def _explore(config: Config, most_states: int | None) -> Result:
    began = time.monotonic()
    first = initial(config)
    came_from: dict[State, State | None] = {first: None}
    frontier = deque([first])
    while frontier:
        state = frontier.popleft()
        for _, _, after in steps(config, state):
            if after in came_from:
                continue
            came_from[after] = state
            broken = checked(config, after)
            if broken:
                trace = _trace(config, came_from, after)
                return Result(config, len(came_from), time.monotonic() - began, broken, trace, complete=True)
            frontier.append(after)
        if most_states is not None and len(came_from) > most_states:
            return Result(config, len(came_from), time.monotonic() - began, "", (), complete=False)
    return Result(config, len(came_from), time.monotonic() - began, "", (), complete=True)


def _trace(config: Config, came_from: dict[State, State | None], last: State) -> tuple[Step, ...]:
    trace: list[Step] = []
    state = last
    while (before := came_from[state]) is not None:
        trace.append(next(step for step in steps(config, before) if step[2] == state))
        state = before
    return tuple(reversed(trace))


# --- liveness -------------------------------------------------------------------------------------------------------


def _unhindered(config: Config, state: State) -> Iterator[State]:
    """Give the states after steps that are no faults: the readers', and the end of a lock that nobody holds."""
    for _, _, after in reads.steps(config, state):
        if after.budget == state.budget:
            yield compressed(after)
    lock = state.redis.lock
    if lock is not None and not any(
        lock in (thread.grant, None if thread.answer is None else thread.answer.lock) for thread in state.threads
    ):
        yield compressed(state._replace(redis=state.redis._replace(lock=None)))


def ways_out(config: Config) -> list[State]:
    """Give the states from which not every read can end without another fault: there must be none (Promise 3)."""
    with _uncollected():
        return _ways_out(config)


def _ways_out(config: Config) -> list[State]:
    first = initial(config)
    seen = {first}
    frontier = [first]
    before: dict[State, list[State]] = {}
    while frontier:
        state = frontier.pop()
        unhindered = set(_unhindered(config, state))
        for after in unhindered:
            before.setdefault(after, []).append(state)
        for after in unhindered.union(after for _, _, after in steps(config, state)):
            if after not in seen:
                seen.add(after)
                frontier.append(after)
    frontier = [state for state in seen if finished(state)]
    out = set(frontier)
    while frontier:
        for state in before.get(frontier.pop(), ()):
            if state not in out:
                out.add(state)
                frontier.append(state)
    return [state for state in seen if state not in out]
