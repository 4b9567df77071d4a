"""What a process keeps: its near copy, its debt, and which of its threads' requests are too old to replace it (R6, R8).

Each function is one method of `kcg_cache.near.Near`, which holds a lock: one step.
"""

from tests.model.config import Config
from tests.model.state import (
    NO_DEBT,
    PAST_DEBT,
    THIS_DEBT,
    Copy,
    Debt,
    Process,
    State,
    Thread,
)


def with_process(state: State, place: int, process: Process) -> State:
    """Replace one process."""
    processes = state.processes
    return state._replace(processes=(*processes[:place], process, *processes[place + 1 :]))


def with_thread(state: State, place: int, thread: Thread) -> State:
    """Replace one thread."""
    threads = state.threads
    return state._replace(threads=(*threads[:place], thread, *threads[place + 1 :]))


def _arrived(thread: Thread) -> Thread:
    """Note that a copy has arrived, or was dropped, since the requests of this thread's read."""
    if not thread.place:
        return thread
    fallback, load = thread.fallback, thread.load
    return thread._replace(
        late=1,
        fallback=None if fallback is None else fallback._replace(late=1),
        load=None if load is None else load._replace(late=1),
    )


def _past_debt(thread: Thread) -> Thread:
    if THIS_DEBT in (thread.debt, thread.floor_debt):
        return thread._replace(
            debt=PAST_DEBT if thread.debt else NO_DEBT, floor_debt=PAST_DEBT if thread.floor_debt else NO_DEBT
        )
    return thread


def _update(config: Config, state: State, place: int, process: Process, *, arrival: bool, debt: bool) -> State:
    """Replace a process; `arrival`: `arrived_at` is now; `debt`: the debt is another, or gone."""
    if arrival or debt:
        threads = []
        for home, thread in zip(config.homes, state.threads, strict=True):
            changed = thread
            if home == place:
                if arrival:
                    changed = _arrived(changed)
                if debt:
                    changed = _past_debt(changed)
            threads.append(changed)
        state = state._replace(threads=tuple(threads))
    return with_process(state, place, process)


def keep(
    config: Config, state: State, place: int, copy: Copy, late: int, *, meets: int, replaces: tuple[int, int] = (0, 0)
) -> State:
    """`Near.keep`: replace the near copy, or drop it if the reply's request was sent before that arrived."""
    process = state.processes[place]
    present = process.copy
    arrival = True
    if (
        present is not None
        and present.loaded_at
        and present[1:3] == copy[1:3]
        and "same_entry_shortcut" not in config.without
    ):
        arrival = False
        if copy.lease > present.lease:
            process = process._replace(copy=copy)
    elif (
        not late
        or (
            "replaces" not in config.without
            and replaces[0]
            and present is not None
            and (present.loaded_at, present.incarnation) == replaces
        )
        or config.mutation == "older_reply_replaces"
    ):
        process = process._replace(copy=copy)
    else:
        return drop(config, state, place)
    met = meets == THIS_DEBT
    if met:
        process = process._replace(debt=None)
    return _update(config, state, place, process, arrival=arrival, debt=met)


def keep_private(config: Config, state: State, place: int, copy: Copy, late: int) -> State:
    """`Near.keep_private`: keep rows of a private load, and owe a floor."""
    process = state.processes[place]
    debt = process.debt if config.mutation == "no_floor_after_private_rows" else Debt()
    process = process._replace(copy=None if late else copy, debt=debt)
    return _update(config, state, place, process, arrival=True, debt=debt is not None)


def drop(config: Config, state: State, place: int) -> State:
    """`Near.drop`: keep nothing, and owe a floor."""
    process = state.processes[place]
    debt = process.debt if config.mutation == "no_floor_after_private_rows" else Debt()
    return _update(config, state, place, process._replace(copy=None, debt=debt), arrival=True, debt=debt is not None)


def forget(config: Config, state: State, place: int) -> State:
    """`Near.forget`: keep nothing, after one's own invalidate."""
    return _update(config, state, place, state.processes[place]._replace(copy=None), arrival=True, debt=False)


def resolve(state: State, place: int, debt: int, floor: int, incarnation: int) -> State:
    """`Near.resolve`: keep the floor that a script resolved for the debt."""
    process = state.processes[place]
    owed = process.debt
    if debt == THIS_DEBT and owed is not None and (not owed.floor or owed.incarnation != incarnation):
        return with_process(state, place, process._replace(debt=Debt(floor, incarnation)))
    return state


# --- leases ---------------------------------------------------------------------------------------------------------


def mark_leases(state: State, before: int, after: int) -> State:
    """Change the mark of every base in the fleet (see `state`)."""

    def marked_copy(copy: Copy) -> Copy:
        return copy._replace(lease=after) if copy.lease == before else copy

    processes = tuple(
        process if process.copy is None else process._replace(copy=marked_copy(process.copy))
        for process in state.processes
    )
    threads = []
    for thread in state.threads:
        changed = thread
        if thread.place:
            if thread.mark == before:
                changed = changed._replace(mark=after)
            if thread.load is not None and thread.load.mark == before:
                changed = changed._replace(load=thread.load._replace(mark=after))
            if thread.fallback is not None and thread.fallback.copy.lease == before:
                changed = changed._replace(fallback=thread.fallback._replace(copy=marked_copy(thread.fallback.copy)))
        threads.append(changed)
    return state._replace(processes=processes, threads=tuple(threads))
