"""What goes wrong in Redis, in a process and on the way, each as often as its budget allows."""

from collections.abc import Iterator

from tests.model import scripts
from tests.model.config import (
    AGE,
    CLOCK,
    CRASH,
    CUT,
    EVICT,
    FAILOVER,
    FLUSH,
    LOCK_ENDS,
    RESTART,
    SAVE,
    Config,
)
from tests.model.near import with_process
from tests.model.promises import ended, published
from tests.model.reads import run_read, spent
from tests.model.state import (
    ENDING,
    FAR,
    FRESH,
    IDLE,
    PUBLISH_AGAIN,
    READ_AGAIN,
    RELEASE_AGAIN,
    RENEW_AGAIN,
    STALE,
    TICK,
    Entry,
    Message,
    Process,
    Redis,
    State,
    Step,
)

_OF_REDIS = (LOCK_ENDS, EVICT, FLUSH, AGE, SAVE, RESTART, FAILOVER, CLOCK)


def steps(config: Config, state: State) -> Iterator[Step]:
    """Give what may go wrong next."""
    for what, after in _late_messages(config, state):
        yield "network", what, after
    if any(state.budget[place] for place in _OF_REDIS):
        for place, what, redis in _redis(config, state.redis):
            less = spent(state, place)
            if less is not None:
                yield "redis", what, less._replace(redis=redis)
    yield from _workers(config, state)


def _late_messages(config: Config, state: State) -> Iterator[tuple[str, State]]:
    for place, message in enumerate(state.late):
        if place and message == state.late[place - 1]:
            continue
        after = state._replace(late=(*state.late[:place], *state.late[place + 1 :]))
        yield _run_late(config, after, message)


def _run_late(config: Config, state: State, message: Message) -> tuple[str, State]:
    if message.what == READ_AGAIN:
        state, answer = run_read(config, state, message)
        granted = f", the lock is granted at {answer.lock.grant}" if answer.lock is not None else ""
        return f"a late duplicate of read runs{granted}", state
    lock = message.lock
    if message.what == PUBLISH_AGAIN:
        assert lock is not None
        redis, done = scripts.publish(config, state.redis, message.version, lock)
        state = state._replace(redis=redis)
        if done:
            state = published(state, -1, message.overlapped)
        said = "PUBLISHED" if done else "REJECTED"
        return f"a late duplicate of publish v{message.version} runs → {said}", state
    if message.what == RENEW_AGAIN:
        assert lock is not None
        return "a late renewal runs", state._replace(redis=scripts.renew(config, state.redis, lock))
    if message.what == RELEASE_AGAIN:
        assert lock is not None
        return "a late duplicate of release runs", state._replace(redis=scripts.release(config, state.redis, lock))
    return "a late duplicate of invalidate runs", state._replace(redis=scripts.invalidate(config, state.redis))


def _redis(config: Config, redis: Redis) -> Iterator[tuple[int, str, Redis]]:
    entry, lock = redis.entry, redis.lock
    if lock is not None:
        yield LOCK_ENDS, "the lock's life ends", redis._replace(lock=None)
        yield EVICT, "evicts the lock", redis._replace(lock=None)
    if entry is not None:
        yield EVICT, "evicts the entry", redis._replace(entry=None)
        yield AGE, "the entry gets older", redis._replace(entry=_aged(config, entry))
        yield FLUSH, "FLUSHALL", redis._replace(entry=None, lock=None)
    saved = redis.saved
    if (entry, lock) != saved:
        yield SAVE, "the other server, or the RDB file, now has what this one has", redis._replace(saved=(entry, lock))
    run_id, replid = divmod(redis.incarnation, 8)
    yield (
        RESTART,
        "restarts from its RDB file: another run_id",
        redis._replace(entry=saved[0], lock=saved[1], incarnation=(run_id + 2) * 8 + replid),
    )
    yield (
        FAILOVER,
        "the other server takes over: its own run_id, a new master_replid",
        redis._replace(entry=saved[0], lock=saved[1], saved=(entry, lock), incarnation=(run_id ^ 1) * 8 + replid + 1),
    )
    for what, by in (("steps far back", -FAR), ("steps back a little", -TICK), ("steps forward", 2 * FAR)):
        yield CLOCK, f"the clock {what}", step_clock(redis, by)


def step_clock(redis: Redis, by: int) -> Redis:
    """Step the clock, off the grid of what it has shown so far (see `state`)."""
    off = redis.clock % TICK
    off = TICK // 2 if not off else off // 2
    return redis._replace(clock=redis.clock // TICK * TICK + by + off)


def _aged(config: Config, entry: Entry) -> Entry | None:
    if entry.age == FRESH and config.refresh_ahead:
        return entry._replace(age=ENDING)
    if entry.age != STALE and config.stale_if_error:
        return entry._replace(age=STALE)
    return None


def _workers(config: Config, state: State) -> Iterator[Step]:
    homes = config.homes
    for place, process in enumerate(state.processes):
        crashed = spent(state, CRASH)
        threads = [thread for thread, home in enumerate(homes) if home == place]
        if crashed is not None and any(state.threads[thread].place != IDLE for thread in threads):
            for thread in threads:
                crashed = ended(config, crashed, thread)
            yield (
                f"w{place + 1}",
                "dies and starts anew",
                with_process(crashed, place, Process(cut_off=process.cut_off)),
            )
        if process.cut_off:
            yield f"w{place + 1}", "reaches Redis again", with_process(state, place, process._replace(cut_off=0))
        else:
            cut = spent(state, CUT)
            if cut is not None:
                yield f"w{place + 1}", "is cut off from Redis", with_process(cut, place, process._replace(cut_off=1))
