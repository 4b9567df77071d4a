"""The command: scripts/watch_times. Real servers, a real ``kcg-cache watch``, and processes that read every 20 ms."""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg2

from kcg_cache import queries
from kcg_cache.embedded import start_postgres, start_valkey
from tests.programs import SOURCE
from tests.test_fleet import process


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/watch_times", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="commits that are timed, of each kind")
    parser.add_argument("--interval", type=float, default=5.0, metavar="SECONDS", help="of the watcher")
    parser.add_argument("--processes", type=int, default=8, metavar="N", help="that read")
    given = parser.parse_args()
    with start_valkey() as redis, start_postgres() as database:
        for part in ("schema", "sample_data"):
            _run(database.dsn, queries.load(part))
        for kind in ("without triggers", "with triggers"):
            if kind == "with triggers":
                _run(database.dsn, queries.load("notify"))
            servers = {"redis": redis.url, "dsn": database.dsn, "namespace": kind.replace(" ", "-")}
            times = list(_timed(servers, given.runs, given.interval, given.processes))
            line = " ".join(f"{seconds:.2f}" for seconds in times)
            sys.stdout.write(f"{kind}, interval {given.interval:g} s: {line} s; longest {max(times):.2f} s\n")
            sys.stdout.flush()


def _timed(servers: dict[str, str], runs: int, interval: float, processes: int) -> Iterator[float]:
    """Give, for each commit, the seconds until the last process has read the new rows."""
    with process("following", {**servers, "processes": processes}) as readers, _watcher(servers, interval) as watcher:
        digests = {line["pid"]: line["digest"] for line in (readers.line() for _ in range(processes))}
        _until(watcher, ("equal", "nothing_shared"))
        for number in range(runs):
            # Anywhere between two looks.
            time.sleep(random.uniform(1.5, 1.5 + interval))  # noqa: S311 - spreads, and guards nothing
            before = time.monotonic()
            _run(
                servers["dsn"],
                f"UPDATE kcg.detection_model_versions SET params = '{{\"run\": {number}}}' WHERE status = 'ACTIVE'",
            )
            new = _until(watcher, ("invalidated",))["details"]["digest"]
            last = before
            while set(digests.values()) != {new}:
                line = readers.line()
                digests[line["pid"]], last = line["digest"], max(last, line["at"])
            yield last - before
        readers.close()


@contextlib.contextmanager
def _watcher(servers: dict[str, str], interval: float) -> Iterator[Any]:
    command = [sys.executable, "-m", "kcg_cache", "watch", "--json", "--interval", f"{interval}s"]
    options = [part for name, value in servers.items() for part in (f"--{name}", value)]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE) as watcher:
        try:
            yield watcher
        finally:
            watcher.terminate()


def _until(watcher: Any, names: tuple[str, ...]) -> dict[str, Any]:
    while line := watcher.stdout.readline():
        event = json.loads(line)
        if event["event"] in names:
            return dict(event)
    raise SystemExit("the watcher ended")


def _run(dsn: str, statement: str) -> None:
    """Run and commit; the time that it takes is part of what is measured."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(statement)


if __name__ == "__main__":
    main()
