"""What each Lua script does to the server, and what it answers. Each is atomic (R1)."""

from tests.model.config import Config
from tests.model.state import ENDING, FILL, FRESH, ROWS, STALE, TICK, WAIT, Answer, Entry, Lock, Message, Redis


def _same_incarnation(config: Config, one: int, other: int) -> bool:
    if config.mutation == "incarnation_is_run_id":
        return one // 8 == other // 8
    if config.mutation == "incarnation_is_replid":
        return one % 8 == other % 8
    return one == other


def _of_this_incarnation(config: Config, redis: Redis) -> tuple[Entry | None, Lock | None]:
    """Give the entry and the lock, if they count."""
    entry, lock = redis.entry, redis.lock
    if (
        entry is not None
        and not _same_incarnation(config, entry.incarnation, redis.incarnation)
        and config.mutation != "entry_incarnation_unchecked"
    ):
        entry = None
    if lock is not None and not _same_incarnation(config, lock.incarnation, redis.incarnation):
        lock = None
    return entry, lock


def _now(config: Config, time: int, entry: Entry | None, lock: Lock | None) -> int:
    """Give *now*, which is past the entry and the running fill, wherever the clock has stepped."""
    if config.mutation == "now_is_the_clock":
        return time
    return max(time, 0 if entry is None else entry.loaded_at + 1, 0 if lock is None else lock.grant + 1)


def read(config: Config, redis: Redis, question: Message) -> tuple[Redis, Answer]:
    """Run `read.lua`; the question's floor is the resolved one, 0 for none."""
    entry, lock = _of_this_incarnation(config, redis)
    time = redis.clock + TICK
    now = _now(config, time, entry, lock)
    floor, resolves = question.floor, False
    if not floor or question.floor_incarnation != redis.incarnation:
        resolves = bool(question.now)
        floor = now if resolves else 0
        if resolves and lock is not None and config.mutation == "forced_joins_older_fill":
            floor = lock.grant
    if entry is not None and entry.loaded_at < floor:
        entry = None
    fresh = entry is not None and entry.age != STALE
    ending = config.refresh_ahead and entry is not None and entry.age == ENDING and not question.now
    fallback = None if question.now else entry
    stepped = redis._replace(clock=time) if resolves else redis
    if lock is not None and lock.token == question.token:
        # The original grant: a request that was sent twice does not wait for itself.
        return stepped, Answer(FILL, fallback, lock, floor, redis.incarnation)
    if fresh and not (ending and lock is None):
        return stepped, Answer(ROWS, entry, None, floor, redis.incarnation)
    if lock is not None:
        return stepped, Answer(WAIT, fallback, None, floor, redis.incarnation, redis.events)
    granted = Lock(question.token, max(now, floor), redis.incarnation, time if config.unique_grants else 0)
    return redis._replace(lock=granted, clock=time), Answer(FILL, fallback, granted, floor, redis.incarnation)


def _holds(redis: Redis, expected: Lock) -> bool:
    # The lock's value is compared as a whole, and its incarnation is the server's (R3).
    return redis.lock == expected and expected.incarnation == redis.incarnation


def publish(config: Config, redis: Redis, version: int, expected: Lock) -> tuple[Redis, bool]:
    """Run `publish.lua`; tell whether it stored the rows."""
    lock, mutation = redis.lock, config.mutation
    if lock is None:
        return redis, False
    incarnation = expected.incarnation
    if mutation == "publish_without_token":
        held = lock[1:3] == expected[1:3] and incarnation == redis.incarnation
    elif mutation == "publish_without_grant":
        held = lock.token == expected.token and lock.incarnation == incarnation == redis.incarnation
    elif mutation == "publish_without_incarnation":
        held = lock[:2] == expected[:2]
        incarnation = redis.incarnation
    elif mutation in {"incarnation_is_run_id", "incarnation_is_replid"}:
        held = lock == expected and _same_incarnation(config, incarnation, redis.incarnation)
    else:
        held = _holds(redis, expected)
    if not held:
        return redis, False
    loaded_at = expected.grant
    if mutation == "loaded_at_from_publish":
        loaded_at = max(redis.clock + TICK, expected.grant)
        redis = redis._replace(clock=redis.clock + TICK)
    return told(config, redis._replace(entry=Entry(version, loaded_at, incarnation, FRESH), lock=None)), True


def renew(config: Config, redis: Redis, expected: Lock) -> Redis:
    """Run `renew.lua`: a lock that is held lives longer, which is not counted here; no lock is ever created."""
    if config.mutation == "renew_creates" and redis.lock is None:
        return redis._replace(lock=expected)
    return redis


def release(config: Config, redis: Redis, expected: Lock) -> Redis:
    """Run `release.lua`."""
    return told(config, redis._replace(lock=None)) if _holds(redis, expected) else redis


def invalidate(config: Config, redis: Redis) -> Redis:
    """Run `invalidate.lua`."""
    if config.mutation == "invalidate_keeps_lock":
        return told(config, redis._replace(entry=None))
    return told(config, redis._replace(entry=None, lock=None))


def told(config: Config, redis: Redis) -> Redis:
    """Write an event, where a configuration looks at them."""
    return redis._replace(events=redis.events + 1) if config.events else redis
