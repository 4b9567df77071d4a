"""A program with several processes whose metrics are exported; what each did it says on standard output.

Run as ``python -m tests.exported`` with JSON on standard input: `redis`, `namespace`.
"""

import json
import os
import sys
from typing import Any

import kcg_cache.prometheus
from kcg_cache import Settings, SharedCache, exporting
from tests.doubles import Source


def say(**told: Any) -> None:
    """Tell one line, whole also beside those of other processes."""
    os.write(1, f"{json.dumps(told)}\n".encode())


def main() -> None:
    """Read in a process and in two forks of it, end each in another way."""
    given = json.load(sys.stdin)
    kcg_cache.prometheus.export()
    kcg_cache.prometheus.export()  # changes nothing
    source = Source()

    def opened() -> SharedCache:
        return SharedCache(given["redis"], source.dataset(), Settings(namespace=given["namespace"], lease=1))

    cache = opened()
    for _ in range(4):
        cache.read(None)
    other = opened()
    other.read(None)
    other.read(None)
    gone = [other.metrics.as_dict()]
    del other
    # Of the parent's covered reads three are not written yet, and the child must not write them, too.
    children = []
    for number in (1, 2):
        pid = os.fork()
        if pid == 0:
            for _ in range(5 * number):
                cache.read(None)
            cache.read(None, force=True)
            for _ in range(7):
                cache.read(None)
            seen = {
                sample.labels[2]: sample.value
                for sample in exporting.collect()[0].samples
                if sample.labels[:2] == (given["namespace"], "numbers")
            }
            say(counts=[cache.metrics.as_dict()], collected=seen, pid=os.getpid())
            if number == 1:
                sys.exit(0)  # as a worker of gunicorn ends
            kcg_cache.prometheus.flush()
            os._exit(0)  # as a child of multiprocessing ends
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    cache.invalidate(wait=False)
    cache.read(None)
    cache.read(None)
    say(counts=[cache.metrics.as_dict(), *gone], pid=os.getpid())


if __name__ == "__main__":
    main()
