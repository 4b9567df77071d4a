"""The writer, and the operator who invalidates: call, script, reply, wait, return."""

from collections.abc import Iterator

from tests.model import near, scripts
from tests.model.config import COMMIT, DUPLICATE, INVALIDATE, LOSE, Config
from tests.model.promises import withdrawn
from tests.model.reads import spent, with_late
from tests.model.state import (
    CALLED,
    EXECUTED,
    INVALIDATE_AGAIN,
    LAPSED,
    LEASES_RUN,
    NEW,
    OLD,
    RESTING,
    Message,
    State,
    Step,
)


def steps(config: Config, state: State) -> Iterator[Step]:
    """Give what the writer and the operator may do next."""
    committing = spent(state, COMMIT)
    if committing is not None:
        yield "writer", f"commits v{state.committed + 1}", committing._replace(committed=state.committed + 1)
    for what, after in _operator(config, state):
        yield "operator", what, after


def _operator(config: Config, state: State) -> Iterator[tuple[str, State]]:
    mutation = config.mutation
    if state.operator == RESTING:
        calling = spent(state, INVALIDATE)
        if calling is not None:
            called = calling._replace(operator=CALLED, calling=state.committed)
            if mutation == "wait_from_call":
                called = near.mark_leases(called, NEW, OLD)
            yield f"calls invalidate() of all before v{state.committed + 1}", called
    elif state.operator == CALLED:
        done = state._replace(redis=scripts.invalidate(config, state.redis), operator=EXECUTED)
        if config.fence:
            done = withdrawn(done)
        yield "invalidate deletes entry and lock", done
        lost = spent(state, LOSE)
        if lost is not None:
            yield from _unconfirmed(config, lost, "the request is lost")
        twice = spent(done, DUPLICATE)
        if twice is not None:
            yield (
                "invalidate deletes entry and lock; a duplicate is on its way",
                with_late(twice, Message(INVALIDATE_AGAIN)),
            )
            yield "invalidate runs, its reply is lost, it is sent again", twice._replace(operator=CALLED)
    elif state.operator == EXECUTED:
        yield "the reply comes", _answered(config, state)
        lost = spent(state, LOSE)
        if lost is not None:
            yield from _unconfirmed(config, lost, "the reply is lost")
    else:
        returned = state._replace(operator=RESTING, withdrawn=max(state.withdrawn, state.calling), calling=0)
        if mutation != "no_wait":
            returned = near.mark_leases(returned, OLD, LAPSED)
        yield "invalidate() returns", returned


def _answered(config: Config, state: State) -> State:
    """Begin the wait (R7)."""
    state = state._replace(operator=LEASES_RUN)
    if config.mutation != "wait_from_call":
        state = near.mark_leases(state, NEW, OLD)
    if config.operator_in >= 0 and "forget" not in config.without:
        state = near.forget(config, state, config.operator_in)
    return state


def _unconfirmed(config: Config, state: State, what: str) -> Iterator[tuple[str, State]]:
    if config.mutation == "lost_invalidate_succeeds":
        yield f"{what}, and taken for a success", _answered(config, state)
    else:
        raised = near.mark_leases(state, OLD, NEW)  # nothing waits for them any more
        yield f"{what}: invalidate() raises", raised._replace(operator=RESTING, calling=0)
