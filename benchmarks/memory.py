"""Memory: what a near copy takes beside plain dicts, that there is one of it, and that none is left behind."""

import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.candidates import OursRead, Place
from benchmarks.candidates.kcg import settings_of
from benchmarks.crew import Local
from benchmarks.database import Database
from benchmarks.results import Bar, Chart, Goal, Result, Table, amount, times
from benchmarks.rig import Effort, Rig
from kcg_cache import ACTIVE_VERSIONS, Dataset, SharedCache, VersionRow, codec

NAME = "memory"
TITLE = "Memory of a near copy"

_THREADS = 8
_SIZES = ("S", "M", "L")
#: What may be there more after the last nine tenths of the changes than before them. One copy left behind at each
#: change would be tens of megabytes, and hundreds of thousands of objects.
_MOST_BYTES, _MOST_OBJECTS = 2_000_000, 200
_LEAKED_ROWS = 20


@dataclass(frozen=True, slots=True)
class _Copy:
    """One near copy of one size."""

    rows: int
    json: int
    #: All objects, each counted once; and what the allocator gave for one decoding of the same payload.
    ours: int
    plain: int
    ours_allocated: int
    plain_allocated: int
    #: Rows alive in the process, after threads have read them and their content has changed.
    alive: int
    #: Whether all threads were given the very same rows.
    same: bool


@dataclass(frozen=True, slots=True)
class _Held:
    """What the process, and Redis, held at one moment."""

    changes: int
    resident: int
    objects: int
    redis: int


def run(rig: Rig, effort: Effort) -> Result:
    """Measure copies of every size, then change small rows again and again."""
    copies = {}
    for size in effort.of(_SIZES, _SIZES[:1]):
        with rig.crew(1) as (member,):
            place = Place(rig.valkey.url, Database(rig.database(size).dsn), rig.namespace())
            copies[size] = member.call(_copy, place)
    with rig.crew(1) as (member,):
        place = Place(rig.valkey.url, Database(rig.database("S").dsn), rig.namespace())
        held = member.call(_change, place, effort.of(10_000, 100))
    return _result(copies, held)


def _copy(_local: Local, place: Place) -> _Copy:
    candidate = OursRead(place)
    rows = candidate.read()
    payload = codec.encode(ACTIVE_VERSIONS.name, list(rows))._replace(rows=())  # no copy but the candidate's
    data = orjson.dumps(list(rows))
    ours, ours_allocated = _allocated(
        lambda: codec.decode(payload.data, payload.format, payload.digest, VersionRow, max_payload=payload.size)
    )
    plain, plain_allocated = _allocated(lambda: orjson.loads(data))
    sizes = _deep_size(ours), _deep_size(plain)
    count = len(rows)
    del ours, plain, rows

    # The content changes, and every thread reads what is there then.
    place.database.promote(1)
    candidate.cache.read(place.database.connection, force=True)
    given: list[Any] = []
    threads = [threading.Thread(target=lambda: given.append(candidate.read())) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    alive = sum(type(thing) is VersionRow for thing in gc.get_objects())
    same = len(given) == _THREADS and len(set(map(id, given))) == 1
    candidate.close()
    return _Copy(count, len(data), *sizes, ours_allocated, plain_allocated, alive, same)


def _allocated(make: Callable[[], Any]) -> tuple[Any, int]:
    """Give what it makes, and how many bytes more are allocated with it than were before."""
    make()  # what is kept from the first time on, is kept already
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    made = make()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, after - before


def _deep_size(thing: Any) -> int:
    """Add up `sys.getsizeof` of everything that can be reached, each object once, without what classes are made of."""
    seen: dict[int, Any] = {}
    pending = [thing]
    while pending:
        inner = pending.pop()
        if id(inner) in seen:
            continue
        seen[id(inner)] = inner
        if isinstance(inner, dict):
            pending += [*inner.keys(), *inner.values()]
        elif isinstance(inner, (list, tuple)):
            pending += inner
    return sum(map(sys.getsizeof, seen.values()))


def _change(_local: Local, place: Place, changes: int) -> list[_Held]:
    """Change the content so often: one cache loads and publishes it, another is given it by Redis."""
    number = 0

    def load(_conn: Any) -> list[dict[str, Any]]:
        return [{"id": row, "text": f"{number}-{row}", "weights": [number, row]} for row in range(_LEAKED_ROWS)]

    dataset = Dataset("changing", load, transactional=False)
    settings = settings_of(place, lease=0.0)
    loader, reader = (SharedCache(place.redis_url, dataset, settings) for _ in range(2))
    held = []
    for number in range(1, changes + 1):
        loader.read(None, force=True)
        rows = reader.read(None).rows
        if rows[0]["text"] != f"{number}-0":
            raise ValueError(f"change {number} was answered with {rows[0]['text']}")
        if number in (changes // 10, changes):
            held.append(_hold(loader, number))
    loader.close()
    reader.close()
    return held


def _hold(cache: SharedCache, changes: int) -> _Held:
    gc.collect()
    objects = len(gc.get_objects())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return _Held(changes, pages * 4096, objects, int(cache.server()["used_memory"]))


def _result(copies: dict[str, _Copy], held: list[_Held]) -> Result:
    result = Result(NAME, TITLE)
    first, last = held
    ratios = {size: copy.ours / copy.plain for size, copy in copies.items()}
    result.goals += [
        Goal(
            12,
            "bytes per row of a near copy beside plain dicts",
            "measured",
            ", ".join(
                f"{size}: {amount(copy.ours / copy.rows)} beside {amount(copy.plain / copy.rows)} "
                f"({times(ratios[size])})"
                for size, copy in copies.items()
            ),
            None,
        ),
        Goal(
            12,
            "near copies of a dataset in one process",
            f"one, whichever of {_THREADS} threads reads",
            ", ".join(f"{size}: {copy.alive:,} rows alive of {copy.rows:,}" for size, copy in copies.items()),
            all(copy.alive == copy.rows and copy.same for copy in copies.values()),
        ),
        Goal(
            12,
            f"left behind from {first.changes:,} to {last.changes:,} content changes",
            f"nothing: < {amount(_MOST_BYTES)} and < {_MOST_OBJECTS} objects more",
            f"{_more(last.resident - first.resident)} resident, {last.objects - first.objects:+,} objects",
            last.resident - first.resident < _MOST_BYTES and last.objects - first.objects < _MOST_OBJECTS,
        ),
    ]
    result.tables += [
        Table(
            "One near copy",
            ("size", "rows", "JSON", "near copy", "per row", "plain dicts", "per row", "ratio", "allocated", "plain"),
            tuple(
                (
                    size,
                    f"{copy.rows:,}",
                    amount(copy.json),
                    amount(copy.ours),
                    amount(copy.ours / copy.rows),
                    amount(copy.plain),
                    amount(copy.plain / copy.rows),
                    times(ratios[size]),
                    amount(copy.ours_allocated),
                    amount(copy.plain_allocated),
                )
                for size, copy in copies.items()
            ),
        ),
        Table(
            "While the content changes",
            ("changes", "resident", "objects of the collector", "Redis: used_memory"),
            tuple((f"{one.changes:,}", amount(one.resident), f"{one.objects:,}", amount(one.redis)) for one in held),
        ),
    ]
    result.pictures.append(
        Chart(
            "memory",
            "Bytes per row in a process",
            "B",
            tuple(
                Bar(f"{size}, {label}", value, value, value, ours=ours)
                for size, copy in copies.items()
                for label, value, ours in (
                    ("near copy", copy.ours / copy.rows, True),
                    ("plain dicts of orjson", copy.plain / copy.rows, False),
                    ("JSON", copy.json / copy.rows, False),
                )
            ),
            log=False,
        )
    )
    result.notes += [
        (
            'A copy is measured by sys.getsizeof of every object in it, each counted once; "allocated" is what '
            "tracemalloc saw remain of one decoding of the same payload. Plain dicts are what orjson.loads makes of "
            "that payload. Rows alive are those that the garbage collector knows, after a change of the content, a "
            f"forced read and reads of {_THREADS} threads."
        ),
        (
            f"Each content change is a forced load of {_LEAKED_ROWS} small rows by one cache, published to Redis, and "
            "a read of them by another cache without a lease. Its stream of events in Redis is capped."
        ),
    ]
    result.figures = {
        "copies": {
            size: {
                "rows": copy.rows,
                "json_bytes": copy.json,
                "near_bytes": copy.ours,
                "plain_bytes": copy.plain,
                "near_allocated": copy.ours_allocated,
                "plain_allocated": copy.plain_allocated,
                "rows_alive": copy.alive,
                "one_object_for_all_threads": copy.same,
            }
            for size, copy in copies.items()
        },
        "changes": [
            {"changes": one.changes, "resident": one.resident, "objects": one.objects, "redis": one.redis}
            for one in held
        ],
    }
    return result


def _more(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{amount(abs(size))}"
