"""The command: scripts/watch_times. From a commit that nobody told of to the last of 8 processes on the new rows."""

import argparse
import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from benchmarks.crew import Local, Member, all_call, clock
from benchmarks.database import Database
from benchmarks.results import duration, widths
from benchmarks.rig import Rig, raised
from benchmarks.rows import generation_of
from kcg_cache import ACTIVE_VERSIONS, Settings, SharedCache, postgres, queries
from kcg_cache.listening import Stop
from kcg_cache.settings import LEASE_MAX
from kcg_cache.watcher import Watcher

READERS = 8
#: Seconds that the fleet may take after the watcher's part: with triggers from the commit, without them from the
#: interval's end.
GOAL = 1.5
#: Seconds between two reads of one process.
_PAUSE = 0.005
#: Seconds after which a process that is not on the new rows has missed the change.
_MISSED = 60.0


class Times(NamedTuple):
    """Seconds from just before a commit is sent to the first read of the last process that gives the new rows."""

    triggers: bool
    interval: float
    seconds: tuple[float, ...]
    #: How often the watcher withdrew: once for each commit, or it withdrew what was right.
    invalidations: int

    @property
    def goal(self) -> float:
        """The longest that it may take."""
        return GOAL if self.triggers else self.interval + GOAL

    @property
    def met(self) -> bool:
        """Whether all of them were quick enough."""
        return max(self.seconds) <= self.goal


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both ways; 0 when every change was in time, 1 when one was not, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    with raised() as rig:
        found = [
            _measured(rig, triggers=True, interval=options.interval, trials=options.trials),
            _measured(rig, triggers=False, interval=options.interval, trials=options.trials),
        ]
    if options.json:
        sys.stdout.write(json.dumps([each._asdict() | {"goal": each.goal} for each in found], indent=1) + "\n")
    else:
        sys.stdout.write(_table(found))
    return 0 if all(each.met for each in found) else 1


def _measured(rig: Rig, *, triggers: bool, interval: float, trials: int) -> Times:
    database, namespace = rig.database("M"), rig.namespace()
    postgres.execute(database.connection, queries.load("notify" if triggers else "notify_remove"))
    chance = random.Random(1)  # noqa: S311 - the same moments in every run, no secret
    seconds: list[float] = []
    with rig.crew(READERS + 1) as (watcher, *readers):
        all_call(readers, _open, rig.valkey.url, namespace, database)
        # The database serves both measurements, so the second begins where the first ended.
        generation = max(seen for _, seen in all_call(readers, _await_generation, 0))
        watcher.call(_watch, rig.valkey.url, namespace, database.dsn, interval)
        for _ in range(trials):
            generation += 1
            seconds.append(_trial(database, readers, generation, chance.uniform(0, max(interval, LEASE_MAX))))
        invalidations = watcher.call(_stop_watching)
        all_call(readers, _close)
    return Times(triggers, interval, tuple(seconds), invalidations)


def _trial(database: Database, readers: Sequence[Member], generation: int, after: float) -> float:
    """Commit `after` so many seconds of reading, at no moment that the interval or the leases know."""
    for reader in readers:
        reader.order(_await_generation, generation)
    time.sleep(after)
    began = clock()
    database.promote(generation)
    last: float = max(reader.answer()[0] for reader in readers)
    return last - began


def _open(local: Local, url: str, namespace: str, database: Database) -> None:
    local.things["cache"] = SharedCache(None, ACTIVE_VERSIONS, Settings(redis_url=url, namespace=namespace))
    local.things["database"] = database


def _await_generation(local: Local, generation: int) -> tuple[float, int]:
    """Read without end, until the rows are of this generation or a later one; give when, and which."""
    cache, database = local.things["cache"], local.things["database"]
    until = clock() + _MISSED
    while (seen := generation_of(cache.read(_connection(database)).rows)) < generation:
        if clock() > until:
            raise TimeoutError(f"generation {seen} after {_MISSED:g} s, where {generation} was committed")
        time.sleep(_PAUSE)
    return clock(), seen


def _connection(database: Database) -> Any:
    """Give what a hit does not call: this process's connection is opened by its first load."""

    @contextlib.contextmanager
    def lent() -> Iterator[Any]:
        yield database.connection

    return lent


def _close(local: Local) -> None:
    local.things["cache"].close()
    local.things["database"].close()


def _watch(local: Local, url: str, namespace: str, dsn: str, interval: float) -> None:
    """Start a watcher on a thread of this process, and return when it has made its first round."""
    cache = SharedCache(None, ACTIVE_VERSIONS, Settings(redis_url=url, namespace=namespace), present=False)
    stop, looked, told = Stop(), threading.Event(), []

    def on_event(event: Any) -> None:
        told.append(event.name)
        if event.name in ("equal", "nothing_shared", "invalidated"):
            looked.set()

    connect = partial(postgres.connect, dsn)
    watcher = Watcher(cache, connect, interval=interval, stop=stop, on_event=on_event)
    thread = threading.Thread(target=watcher.run, daemon=True)
    thread.start()
    if not looked.wait(_MISSED):
        raise TimeoutError(f"the watcher made no round; it told: {told}")
    local.things.update(stop=stop, thread=thread, told=told, watching=cache)


def _stop_watching(local: Local) -> int:
    """Let the watcher end; tell how often it withdrew."""
    things = local.things
    things["stop"].set()
    things["thread"].join()
    things["stop"].close()
    things["watching"].close()
    count: int = things["told"].count("invalidated")
    return count


def _table(found: Sequence[Times]) -> str:
    rows = [("triggers", "interval", "commits", "median", "longest", "goal", "met", "invalidates")]
    for each in found:
        ordered = sorted(each.seconds)
        rows.append(
            (
                "yes" if each.triggers else "no",
                f"{each.interval:g} s",
                str(len(ordered)),
                duration(ordered[len(ordered) // 2]),
                duration(ordered[-1]),
                f"{each.goal:g} s",
                "yes" if each.met else "no",
                str(each.invalidations),
            )
        )
    wide = widths(rows)
    return "".join("  ".join(map(str.ljust, row, wide)).rstrip() + "\n" for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/watch_times",
        description=f"Measure from a commit to the last of {READERS} processes on the new rows, on real servers, where "
        "only a watcher tells of it (docs/watch.md): with the triggers of sql/notify.sql, and without.",
        epilog="Exit codes: 0 all were in time, 1 one was not, 2 wrong usage.",
    )
    parser.add_argument("--trials", type=_positive, default=20, help="commits for each of both (20)")
    parser.add_argument("--interval", type=float, default=5.0, help="the watcher's interval in seconds (5)")
    parser.add_argument("--json", action="store_true", help="give what comes out as JSON")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
