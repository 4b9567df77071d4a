"""One worker: ``python -m tests.soak.worker``, told what to do on standard input."""

import logging
import os
import sys
import threading
import warnings
from typing import Any

import kcg_cache
from kcg_cache import Settings
from kcg_cache.demo import wire
from kcg_cache.system import SYSTEM
from tests.soak import children, plants
from tests.soak.audit import Audit
from tests.soak.board import Board
from tests.soak.crew import die_with_parent
from tests.soak.reads import Process, Reader
from tests.topology import clients

#: Servers, promoters and nemesis come first.
_NICENESS = 10


def settings_of(told: dict[str, Any]) -> Settings:
    """Give the settings that a process was told."""
    return Settings(**told["settings"])


class Orders:
    """Obeys what the soak says, in a thread of its own, which makes the children too."""

    def __init__(self, orders: wire.Orders, process: Process, told: dict[str, Any], readers: threading.Event) -> None:
        self._orders = orders
        self._process = process
        self._told = told
        self._stop = readers
        self._forks = threading.Semaphore(0)
        self._kinds: list[str] = []
        for work in (self._listen, self._make_children):
            threading.Thread(target=work, daemon=True).start()

    def _listen(self) -> None:
        while (order := self._orders.next()) is not None:
            if "hold" in order:
                self._process.hold = order["hold"]
            elif "go_on" in order:
                self._process.go_on.set()
            elif "child" in order:
                self._kinds.append(order["child"])
                self._forks.release()
            elif "stop" in order:
                self._stop.set()
        # The soak is gone: nobody is there any more to hear of what the other threads do.
        os._exit(0)

    def _make_children(self) -> None:
        # One thread for all of them, which lives as long as the process: with it the kernel ends what it has forked.
        while True:
            self._forks.acquire()
            children.make(self._kinds.pop(0), self._process, self._told)
            wire.say("child_ended")


def main() -> int:
    """Read until told to stop."""
    orders = wire.Orders()
    told = orders.must()
    die_with_parent(told["parent"])
    # Forking beside threads is what is tried here, and newer Pythons advise against it each time.
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.disable(logging.CRITICAL)  # a fault is logged by every process, and is none of the findings
    plants.rule_removed(told["plant"])
    board = Board(told["board"], told["operators"], writable=False)
    settings = settings_of(told)
    cache = kcg_cache.configure(clients.given(told["redis"], settings.redis_timeout), settings=settings)
    if told["plant"] == "long_lease":
        plants.lengthened(cache)
    process = Process(
        told["name"],
        board,
        cache,
        told["dsn"],
        Audit(board, lambda finding: wire.say("violation", **finding), SYSTEM.now, told["findings"]),
        told["seed"],
        batch=told["batch"],
        plain_only=told["plain_only"],
        keeps_connection=told["keeps_connection"],
        planted=plants.planted(told["plant"], board),
    )
    os.nice(_NICENESS)
    stop = threading.Event()
    readers = [Reader(process, number) for number in range(told["threads"])]
    readers[0].attempt(readers[0].first_read)
    wire.say("ready")
    Orders(orders, process, told, stop)
    threads = [threading.Thread(target=reader.run, args=(stop.is_set,), daemon=True) for reader in readers[1:]]
    for thread in threads:
        thread.start()
    readers[0].run(stop.is_set)
    for thread in threads:
        thread.join()
    process.report("final")
    sys.stdout.flush()
    # Not through the interpreter's end: a child may be in the making.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
