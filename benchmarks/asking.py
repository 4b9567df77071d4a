"""Goal 2: a read without a lease, which is one script, beside a PING on the very same connection."""

import functools
import time
from typing import Any

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.candidates import Place
from benchmarks.candidates.kcg import settings_of
from benchmarks.crew import Local
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration, spread, times
from benchmarks.rig import Effort, Rig
from benchmarks.timing import interleaved
from kcg_cache import ACTIVE_VERSIONS, SharedCache
from kcg_cache.answers import Question
from kcg_cache.store import Store
from kcg_cache.system import SYSTEM

NAME = "asking"
TITLE = "a read with lease=0, one script, beside a PING on the same connection"

#: What is timed, in the order of the table.
_PING, _SCRIPT, _READ, _GET = "PING", "the script alone, through the store", "read, lease=0", "GET + orjson.loads"


def run(rig: Rig, effort: Effort) -> Result:
    """Time all four in one process, over one connection, at S, M and L."""
    result = Result(NAME, TITLE)
    rows: list[tuple[str, ...]] = []
    bars: list[Bar] = []
    worst = dict.fromkeys((_SCRIPT, _READ), 0.0)
    with rig.crew(1) as (member,):
        for size in effort.of(("S", "M", "L"), ("S",)):
            place = Place(rig.valkey.url, rig.database(size), rig.namespace())
            member.call(_set_up, place)
            kinds = [_PING, _SCRIPT, _READ, _GET]
            measured = interleaved(
                {kind: functools.partial(member.call, _time, kind) for kind in kinds},
                rounds=effort.of(31, 2),
                seconds=effort.of(0.15, 0.002),
            )
            for kind, found in measured.items():
                ratio = found.ratios(measured[_PING])
                rows.append(
                    (
                        size,
                        kind,
                        duration(found.median),
                        spread(found.low, found.high),
                        times(ratio.median),
                        spread(ratio.low, ratio.high, times),
                    )
                )
                if kind in worst:
                    worst[kind] = max(worst[kind], ratio.median)
                bars.append(
                    Bar(f"{size}: {kind}", found.median * 1e6, found.low * 1e6, found.high * 1e6, kind == _READ)
                )
            result.figures[size] = {kind: list(found.seconds) for kind, found in measured.items()}
    result.tables.append(Table("", ("rows", "what", "median", "quartiles", "ratio to PING", "quartiles"), tuple(rows)))
    result.pictures.append(Chart("asking", "One question to Redis on the same connection", "µs", tuple(bars)))
    result.goals += [
        Goal(
            2, what, f"≤ {most:g} × a PING on the same connection", f"{times(worst[kind])} at most", worst[kind] <= most
        )
        for kind, what, most in (
            (_SCRIPT, "`lease=0`: its one script", 1.5),
            (_READ, "`lease=0`: a read, with whatever else it records", 2.0),
        )
    ]
    result.notes.append(
        "The script alone is what `Store.read` does: arguments, one EVALSHA, the answer understood. A read is that, "
        "with the queue of one thread a process, the near copy, the snapshot, the breaker and the counters around it. "
        "The worst of the three sizes counts, though the answer is the same for all: SAME, without rows."
    )
    return result


def _set_up(local: Local, place: Place) -> None:
    # One connection for all of it: on another one the server would answer in another rhythm.
    client: Any = redis.Redis.from_url(
        place.redis_url,
        protocol=2,
        socket_timeout=place.timeout,
        socket_connect_timeout=place.timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=1,
    )
    cache = SharedCache(client, ACTIVE_VERSIONS, settings_of(place, lease=0))
    connection = place.database.connection
    digest = cache.read(connection).digest
    key = f"{place.namespace}:plain"
    client.set(key, orjson.dumps(place.load()))
    store = Store(client, ACTIVE_VERSIONS.name, cache.settings)
    question = Question(token=SYSTEM.token(), known=digest)
    local.things["asking"] = {
        _PING: client.ping,
        _SCRIPT: lambda: store.read(question),
        _READ: lambda: cache.read(connection),
        _GET: lambda: orjson.loads(client.get(key)),
    }


def _time(local: Local, kind: str, count: int) -> float:
    work = local.things["asking"][kind]
    began = time.perf_counter()
    for _ in range(count):
        work()
    return time.perf_counter() - began
