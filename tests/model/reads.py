"""The way of one read, step by step, as `kcg_cache.cache.SharedCache` goes it; the failures of its requests beside.

Which steps are one, and why nothing is lost by it:

- In a process of one thread, beginning a read, sending its script and running the script are one step (unless
  `Config.split`). Until the script runs nobody sees the difference, and a read that begins later is promised more and
  gets a longer lease. A request that is delayed until its sender gave up is a duplicate of a lost one.
- A reply that changes nothing which another thread sees (FILL without a refresh, WAIT) is received together with the
  next step, since it may be received just before it. In a process of several threads WAIT is a step of its own.
- Sending a publish and running it are one step, and its lease is marked then: later than the real base, so longer.
- A lease lapses when someone looks: a covered read may be answered near, or find that the lease has lapsed.
"""

from collections.abc import Iterator

from tests.model import near, scripts
from tests.model.config import DUPLICATE, LOAD_FAILS, LOSE, OVERSIZED, RENEW, TIMEOUT, Config
from tests.model.near import with_process, with_thread
from tests.model.promises import begun, ended, forced, published, returned
from tests.model.state import (
    ASKED,
    ASKING,
    BLOCKED,
    FILL,
    FILLING,
    FORCED,
    IDLE,
    LAPSED,
    LOADED,
    LOADING,
    NEW,
    NO_DEBT,
    PAST_DEBT,
    PLAIN,
    PUBLISH_AGAIN,
    PUBLISHED,
    QUEUED,
    READ_AGAIN,
    RELEASE_AGAIN,
    RENEW_AGAIN,
    ROWS,
    STALE,
    TAINT,
    TAINTED_FORCED,
    TAINTED_PLAIN,
    THIS_DEBT,
    UNREAD,
    WAIT,
    WAITING,
    Answer,
    Copy,
    Entry,
    Fallback,
    Load,
    Lock,
    Message,
    State,
    Step,
    Thread,
    in_order,
)

_CHOICES = {"x": (PLAIN, FORCED)}
_IS = {PLAIN: "read", FORCED: "forced read", TAINTED_PLAIN: "tainted read", TAINTED_FORCED: "tainted forced read"}


def spent(state: State, place: int) -> State | None:
    """Take one from a budget; None if there is none left."""
    budget = state.budget
    if not budget[place]:
        return None
    return state._replace(budget=(*budget[:place], budget[place] - 1, *budget[place + 1 :]))


def with_late(state: State, message: Message) -> State:
    """Leave a duplicate on its way."""
    return state._replace(late=in_order((*state.late, message)))


def steps(config: Config, state: State) -> Iterator[Step]:
    """Give what the threads may do next."""
    homes = config.homes
    for place, thread in enumerate(state.threads):
        who = f"w{homes[place] + 1}" + (f".t{place + 1}" if len(config.workers[homes[place]]) > 1 else "")
        handler = _HANDLERS[thread.place]
        for what, after in handler(config, state, place, thread):
            yield who, what, after


_Steps = Iterator[tuple[str, State]]


def _single(config: Config, place: int) -> bool:
    home = config.homes[place]
    return len(config.workers[home]) == 1 and config.operator_in != home and not config.split


# --- beginning ------------------------------------------------------------------------------------------------------


def _idle(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    if not thread.left:
        return
    home = config.homes[place]
    process = state.processes[home]
    for kind in _CHOICES.get(thread.left[0], thread.left[0]):
        new = begun(config, state, place, kind)
        copy = process.copy
        lapsed = process
        if not forced(kind) and copy is not None:
            if copy.lease:
                yield (
                    f"{_IS[kind]}: answers v{copy.version} from its near copy",
                    returned(config, with_thread(state, place, new), place, copy.version),
                )
            lapsed = process._replace(copy=copy._replace(lease=LAPSED))
        if _single(config, place):
            asking = with_process(with_thread(state, place, new._replace(token=_token(state, place))), home, lapsed)
            yield from _ask(config, asking, place, f"{_IS[kind]}: ")
        elif forced(kind):
            asking = with_thread(state, place, new._replace(token=_token(state, place)))
            yield from _ask(config, asking, place, f"{_IS[kind]}: ")
        else:
            queued = new._replace(place=QUEUED)
            yield f"{_IS[kind]}: begins", with_process(with_thread(state, place, queued), home, lapsed)


def _token(state: State, place: int) -> int:
    """Draw a token: it differs from every other one that is still to be found anywhere."""
    used = {message.token for message in state.late} | {m.lock.token for m in state.late if m.lock is not None}
    used |= {lock.token for lock in (state.redis.lock, state.redis.saved[1]) if lock is not None}
    token = place * 16 + 1
    while token in used or token == state.threads[place].token:
        token += 1
    return token


def _queued(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    home = config.homes[place]
    process = state.processes[home]
    late = spent(state, TIMEOUT)
    if late is not None:
        yield from _load_privately(config, late, place, "has queued for wait_timeout: ")
    if process.slow:
        return
    copy = process.copy
    if copy is not None and copy.lease:
        yield (
            f"was queued, and answers v{copy.version} from the near copy",
            returned(config, state, place, copy.version),
        )
        process = process._replace(copy=copy._replace(lease=LAPSED))
    handover = process.handover
    if handover is not None and "handover" not in config.without:
        if handover[1] & 1 << place:
            yield f"was queued, and takes the private v{handover[0]}", returned(config, state, place, handover[0])
            return
        process = process._replace(handover=None)
    process = process._replace(slow=place + 1)
    new = thread._replace(token=_token(state, place))
    yield from _ask(config, with_process(with_thread(state, place, new), home, process), place, "is next; ")


# --- asking ---------------------------------------------------------------------------------------------------------


def _ask(config: Config, state: State, place: int, what: str) -> _Steps:
    """Note the start and send `read`."""
    home = config.homes[place]
    process, thread = state.processes[home], state.threads[place]
    if process.cut_off:
        yield from _load_privately(config, state, place, f"{what}cut off: ")
        return
    owed = process.debt
    debt = NO_DEBT if owed is None else THIS_DEBT
    floor, incarnation = thread.floor, thread.floor_incarnation
    # A forced read keeps the floor of its first script, whatever its process comes to owe meanwhile.
    keeps = forced(thread.kind) and thread.floor != 0
    if not keeps and (debt != thread.floor_debt or thread.floor_debt == PAST_DEBT):
        floor = incarnation = 0
        if owed is not None and not forced(thread.kind) and "debt_floor_taken_over" not in config.without:
            floor, incarnation = owed.floor, owed.incarnation
    thread = thread._replace(
        place=ASKING,
        floor=floor,
        floor_incarnation=incarnation,
        floor_debt=thread.floor_debt if keeps else debt,
        debt=debt,
        late=0,
        mark=NEW,
        answer=None,
    )
    state = with_thread(state, place, thread)
    if not _single(config, place):
        yield f"{what}asks Redis", state
        return
    yield from _asking(config, state, place, thread, what)


def _question(thread: Thread) -> Message:
    now = forced(thread.kind) or thread.debt in {THIS_DEBT, PAST_DEBT}
    return Message(READ_AGAIN, thread.token, thread.floor, thread.floor_incarnation, int(now))


def run_read(config: Config, state: State, question: Message) -> tuple[State, Answer]:
    """Run `read.lua`."""
    redis, answer = scripts.read(config, state.redis, question)
    return state._replace(redis=redis), answer


def _asking(config: Config, state: State, place: int, thread: Thread, what: str = "") -> _Steps:
    """Run the script, or lose its request, or send it twice."""
    question = _question(thread)
    after, answer = run_read(config, state, question)
    asked = thread._replace(place=ASKED, answer=answer)
    if config.most_loads:
        after = after._replace(asked=after.asked | 1 << place)
    said = f"{what}read → {_told(answer)}"
    if answer.kind == WAIT and not config.events and _single(config, place):
        asked = _waiting(config, asked, answer)
    answered = with_thread(after, place, asked)
    yield said, answered

    fewer = spent(state, LOSE)
    if fewer is not None:
        yield from _load_privately(config, fewer, place, f"{what}read is lost: ")
    twice = spent(answered, DUPLICATE)
    if twice is not None:
        yield f"{said}; a duplicate is on its way", with_late(twice, question)
        # The connection broke after the script had run: it is sent again at once, with the same token and start.
        again = spent(after, DUPLICATE)
        if again is not None:
            yield f"{said}, a reply that is lost; it is sent again", with_thread(again, place, thread)
        fewer = spent(state, LOSE)
        fewer = None if fewer is None else spent(fewer, DUPLICATE)
        if fewer is not None:
            yield from _load_privately(config, with_late(fewer, question), place, f"{what}read is delayed: ")


def _told(answer: Answer) -> str:
    if answer.kind == ROWS and answer.entry is not None:
        return f"ROWS v{answer.entry.version}"
    offered = "" if answer.entry is None else f", fallback v{answer.entry.version}"
    if answer.kind == FILL and answer.lock is not None:
        return f"FILL at {answer.lock.grant}{offered}"
    return f"WAIT{offered}"


def _waiting(config: Config, thread: Thread, answer: Answer) -> Thread:
    """Take a WAIT: keep its floor and its fallback."""
    return _floored(_offered(config, thread, answer), answer)._replace(place=WAITING, answer=None)


def _floored(thread: Thread, answer: Answer) -> Thread:
    """Take the floor that a script has used, and the debt that it was resolved under."""
    kept = forced(thread.kind) and thread.floor == answer.floor
    return thread._replace(
        floor=answer.floor,
        floor_incarnation=answer.incarnation if answer.floor else 0,
        floor_debt=thread.floor_debt if kept else thread.debt,
    )


def _offered(config: Config, thread: Thread, answer: Answer) -> Thread:
    entry = answer.entry
    if answer.kind == ROWS:
        return thread
    if entry is None:  # the latest answer alone counts: what it no longer offers was withdrawn, or filled anew
        return thread._replace(fallback=None)
    return thread._replace(fallback=Fallback(_copy_of(config, thread, entry), thread.late))


def _copy_of(config: Config, thread: Thread, entry: Entry) -> Copy:
    mark = NEW if config.mutation == "lease_from_reply" else thread.mark
    return Copy(entry.version, entry.loaded_at, entry.incarnation, mark)


def _asked(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    """Receive the answer, or lose it."""
    answer = thread.answer
    assert answer is not None
    home = config.homes[place]
    fewer = spent(state, LOSE)
    if fewer is not None:
        yield from _load_privately(config, fewer, place, "the reply is lost: ")
    covers = _floored(thread, answer).floor_debt == thread.debt
    if covers:
        state = near.resolve(state, home, thread.debt, answer.floor, answer.incarnation)
    if answer.kind == ROWS:
        assert answer.entry is not None
        copy = _copy_of(config, thread, answer.entry)
        if covers or thread.debt == NO_DEBT:
            state = near.keep(config, state, home, copy, thread.late, meets=thread.debt)
        else:
            state = near.drop(config, state, home)
        yield f"gets and returns v{copy.version}", _handed_on(config, state, place, copy.version)
    elif answer.kind == WAIT:
        if config.events:
            # From the id that WAIT gave, never from what is the newest when XREAD is sent (R11).
            after = state.redis.events if config.mutation == "xread_from_dollar" else answer.last_event
            waiting = _waiting(config, thread, answer)._replace(place=BLOCKED, ahead=after)
            yield f"blocks on the events after {after}", with_thread(state, place, waiting)
        else:
            yield "waits", with_thread(state, place, _waiting(config, thread, answer))
    else:
        yield from _granted(config, state, place, thread, answer)


def _granted(config: Config, state: State, place: int, thread: Thread, answer: Answer) -> _Steps:
    home = config.homes[place]
    entry, lock = answer.entry, answer.lock
    thread = _floored(_offered(config, thread, answer), answer)._replace(
        place=FILLING,
        answer=None,
        grant=lock,
        overlapped=0,
        replaces=(0, 0) if entry is None else (entry.loaded_at, entry.incarnation),
    )
    if entry is not None and entry.age != STALE and thread.fallback is not None:
        state = with_thread(state, place, thread._replace(ahead=1))
        state = near.keep(config, state, home, thread.fallback.copy, thread.late, meets=thread.debt)
        yield "refreshes ahead: goes on with the rows that there are", _permit_given_back(config, state, place)
    else:
        yield from _first_statement(config, with_thread(state, place, thread), place, "")


def _permit_given_back(config: Config, state: State, place: int) -> State:
    home = config.homes[place]
    process = state.processes[home]
    return with_process(state, home, process._replace(slow=0)) if process.slow == place + 1 else state


def _wait(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    """Ask again, woken or not; or stop waiting."""
    for what, after in _ask(config, state, place, "asks again; "):
        if after.threads[place].place != WAITING or after.redis != state.redis or after.late != state.late:
            yield what, after
    late = spent(state, TIMEOUT)
    if late is not None:
        if thread.given_up is not None:
            yield "has waited for wait_timeout", _given_up(config, late, place, thread.given_up)
        else:
            yield from _load_privately(config, late, place, "has waited for wait_timeout: ")


def _blocked(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    """Be woken by an event after the one that it knows."""
    if state.redis.events > thread.ahead:
        yield "is woken", with_thread(state, place, thread._replace(place=WAITING, ahead=0))


# --- loading --------------------------------------------------------------------------------------------------------


def _load_privately(config: Config, state: State, place: int, what: str) -> _Steps:
    thread = state.threads[place]._replace(answer=None, grant=None, ahead=0)
    yield from _first_statement(config, with_thread(state, place, thread), place, what)


def _filling(config: Config, state: State, place: int, _thread: Thread) -> _Steps:
    yield from _first_statement(config, state, place, "")


def _first_statement(config: Config, state: State, place: int, what: str) -> _Steps:
    """Ask whose transaction this is; then read the rows, or give lock and permit back first (R13)."""
    thread, home = state.threads[place], config.homes[place]
    queued = 0
    for other, (its_home, one) in enumerate(zip(config.homes, state.threads, strict=True)):
        if its_home == home and one.place == QUEUED and other != place:
            queued |= 1 << other
    state = state._replace(loads=state.loads + 1) if config.most_loads else state
    load = Load(UNREAD, 0, NEW, queued)
    is_tainted = thread.kind in (TAINTED_PLAIN, TAINTED_FORCED)
    mutation = config.mutation
    if not is_tainted or mutation == ("private_skips_taint_check" if thread.grant is None else "publishes_tainted"):
        kind = "loads privately" if thread.grant is None else "begins its load"
        yield f"{what}{kind}", with_thread(state, place, thread._replace(place=LOADING, load=load))
        return
    for told, freed in _released(config, state, thread.grant):
        after = _permit_given_back(config, freed, place)
        if thread.ahead:
            yield f"{what}tainted{told}", _fallen_back(config, after, place)
            continue
        if mutation == "keeps_tainted":
            after = near.keep_private(config, after, home, Copy(TAINT, 0, 0, NEW), 0)
        if mutation == "hands_tainted_on" and queued:
            after = with_process(after, home, after.processes[home]._replace(handover=(TAINT, queued)))
        yield f"{what}tainted{told}: returns what it sees", returned(config, after, place, TAINT, own_tainted=True)


def _released(config: Config, state: State, lock: Lock | None) -> _Steps:
    """Give the lock back: at once, or the message is lost, or it also comes late."""
    if lock is None:
        yield "", state
        return
    after = state._replace(redis=scripts.release(config, state.redis, lock))
    yield ", releases", after
    lost = spent(state, LOSE)
    if lost is not None:
        yield ", release is lost", lost
    twice = spent(after, DUPLICATE)
    if twice is not None:
        yield ", releases, twice", with_late(twice, Message(RELEASE_AGAIN, lock=lock))


def _loading(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    """Read the rows, or fail to."""
    load = thread.load
    assert load is not None
    version = TAINT if thread.kind in (TAINTED_PLAIN, TAINTED_FORCED) else state.committed
    if not config.most_loads or state.asked == (1 << len(state.threads)) - 1:
        loaded = thread._replace(place=LOADED, load=load._replace(version=version))
        yield f"reads v{version} from PostgreSQL", with_thread(state, place, loaded)
    failed = spent(state, LOAD_FAILS)
    if failed is not None:
        for told, freed in _released(config, failed, thread.grant):
            if thread.fallback is not None:
                yield f"the load fails{told}: returns the fallback", _fallen_back(config, freed, place)
            else:
                yield f"the load fails{told}: raises", ended(config, freed, place)
    if thread.grant is not None:
        renewing = spent(state, RENEW)
        if renewing is not None:
            redis = scripts.renew(config, state.redis, thread.grant)
            yield "renews", renewing._replace(redis=redis)
            yield "a renewal is on its way", with_late(renewing, Message(RENEW_AGAIN, lock=thread.grant))


def _loaded(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    """Publish, or return rows that are nobody else's."""
    load, grant = thread.load, thread.grant
    assert load is not None
    if grant is None:
        yield f"keeps v{load.version} for a lease and returns it", _kept_privately(config, state, place)
        return
    redis, done = scripts.publish(config, state.redis, load.version, grant)
    after = state._replace(redis=redis)
    if done:
        after = published(after, place, thread.overlapped)
    answered = after.threads[place]._replace(place=PUBLISHED, mark=NEW, debt=thread.debt, ahead=int(done))
    said = f"publish v{load.version} → {'PUBLISHED' if done else 'REJECTED'}"
    yield said, with_thread(after, place, answered)
    fewer = spent(state, LOSE)
    if fewer is not None:
        yield f"publish v{load.version} is lost: keeps it privately", _kept_privately(config, fewer, place)
    twice = spent(after, DUPLICATE)
    if twice is not None:
        message = Message(PUBLISH_AGAIN, version=load.version, lock=grant, overlapped=thread.overlapped)
        yield f"{said}; a duplicate is on its way", with_late(with_thread(twice, place, answered), message)
        yield f"{said}, a reply that is lost; it is sent again", twice
        if fewer is not None:
            late = spent(fewer, DUPLICATE)
            assert late is not None
            yield (
                f"publish v{load.version} is delayed: keeps it privately",
                with_late(_kept_privately(config, late, place), message),
            )
    large = spent(state, OVERSIZED)
    if large is not None:
        for told, freed in _released(config, large, grant):
            yield f"v{load.version} is oversized{told}: keeps it privately", _kept_privately(config, freed, place)


def _published(config: Config, state: State, place: int, thread: Thread) -> _Steps:
    """Receive the answer to publish, or lose it."""
    load, grant, home = thread.load, thread.grant, config.homes[place]
    assert load is not None
    assert grant is not None
    version = load.version
    fewer = spent(state, LOSE)
    if fewer is not None:
        yield f"the reply is lost: keeps v{version} privately", _kept_privately(config, fewer, place)
    if thread.ahead:  # PUBLISHED
        copy = Copy(version, grant.grant, grant.incarnation, thread.mark)
        kept = near.keep(config, state, home, copy, thread.late, meets=thread.debt, replaces=thread.replaces)
        yield f"has published, returns v{version}", _handed_on(config, kept, place, version)
        return
    if config.mutation == "rejected_filler_keeps":
        kept = near.keep(config, state, home, Copy(version, 0, 0, thread.mark), thread.late, meets=thread.debt)
        yield f"is rejected, keeps and returns v{version}", returned(config, kept, place, version)
        return
    given_up = version, load.queued
    if thread.rejections + 1 >= config.tries:
        yield f"is rejected, gives up, returns v{version}", _given_up(config, state, place, given_up)
        return
    again = thread._replace(
        place=ASKING,
        token=_token(state, place),
        rejections=thread.rejections + 1,
        given_up=given_up,
        grant=None,
        load=None,
        ahead=0,
        overlapped=0,
        replaces=(0, 0),
    )
    yield from _ask(config, with_thread(state, place, again), place, "is rejected, starts over; ")


# --- rows that are nobody else's ------------------------------------------------------------------------------------


def _kept_privately(config: Config, state: State, place: int) -> State:
    home, thread = config.homes[place], state.threads[place]
    load = thread.load
    assert load is not None
    state = near.keep_private(config, state, home, Copy(load.version, 0, 0, load.mark), load.late)
    return returned(config, _handover(state, home, load.version, load.queued), place, load.version)


def _given_up(config: Config, state: State, place: int, rows: tuple[int, int]) -> State:
    home = config.homes[place]
    if config.mutation != "giving_up_keeps_near_copy":
        state = near.drop(config, state, home)
    return returned(config, _handover(state, home, *rows), place, rows[0])


def _fallen_back(config: Config, state: State, place: int) -> State:
    home, fallback = config.homes[place], state.threads[place].fallback
    assert fallback is not None
    copy = fallback.copy
    if config.mutation == "fallback_lease_from_failure":
        copy = copy._replace(lease=NEW)
    state = near.keep(config, state, home, copy, fallback.late, meets=NO_DEBT)
    return returned(config, state, place, copy.version)


def _handover(state: State, home: int, version: int, queued: int) -> State:
    """Leave private rows to those who were queueing before they were read (R12)."""
    return with_process(state, home, state.processes[home]._replace(handover=(version, queued) if queued else None))


def _handed_on(config: Config, state: State, place: int, version: int) -> State:
    """Return the shared rows; only a mutation gives them to whoever is queueing now."""
    home = config.homes[place]
    if config.mutation == "plain_joins_running_fill" and state.processes[home].slow == place + 1:
        queued = 0
        for other, thread in enumerate(state.threads):
            if config.homes[other] == home and thread.place == QUEUED:
                queued |= 1 << other
        state = _handover(state, home, version, queued)
    return returned(config, state, place, version)


_HANDLERS = {
    IDLE: _idle,
    QUEUED: _queued,
    ASKING: _asking,
    ASKED: _asked,
    WAITING: _wait,
    BLOCKED: _blocked,
    FILLING: _filling,
    LOADING: _loading,
    LOADED: _loaded,
    PUBLISHED: _published,
}
