"""Children of a worker, forked in the middle of its reads or spawned: they read too, and are audited as well."""

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import kcg_cache
from kcg_cache import Settings
from kcg_cache.demo import wire
from kcg_cache.system import SYSTEM
from tests.soak.audit import Audit
from tests.soak.board import Board
from tests.soak.crew import die_with_parent
from tests.soak.reads import Process, Reader

#: How the child of a worker is made: as gunicorn forks, as multiprocessing forks, as multiprocessing spawns.
KINDS = ("os", "fork", "spawn")
_READS_FOR = 1.2
_THREADS = 2
#: Met only when a child hangs, and that is told.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Spawned:
    """What a spawned child, which inherits no memory, is told."""

    name: str
    settings: dict[str, Any]
    dsn: str
    operators: int
    board: str
    parent: int
    seed: int


def make(kind: str, process: Process, told: dict[str, Any]) -> None:
    """Make one child and wait for its end; one that hangs is killed and told of."""
    began, parent = SYSTEM.now(), os.getpid()
    if kind == "os":
        pid = os.fork()
        if pid == 0:
            try:
                _forked(process, parent)
            finally:
                traceback.print_exc()
                os._exit(1)
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if SYSTEM.now() - began > _PATIENCE:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        _judge_end(process, kind, os.waitstatus_to_exitcode(ended[1]))
        return
    if kind == "fork":
        child: Any = multiprocessing.get_context("fork").Process(target=_forked, args=(process, parent))
    else:
        spawned = Spawned(
            f"{process.name}/spawn",
            told["settings"],
            told["dsn"],
            told["operators"],
            f"/proc/{parent}/fd/{process.board.descriptor}",
            parent,
            process.seed,
        )
        child = multiprocessing.get_context("spawn").Process(target=run_spawned, args=(spawned,))
    child.start()
    child.join(_PATIENCE)
    if child.exitcode is None:
        child.kill()
        child.join()
    _judge_end(process, kind, child.exitcode)


def _judge_end(process: Process, kind: str, code: int) -> None:
    if code:
        why = "hung" if code == -signal.SIGKILL else f"ended with status {code}"
        wire.say("trouble", what=f"a child of {process.name} {why} ({kind})")


def _forked(process: Process, parent: int) -> None:
    """Go on with everything that the parent had at the fork, but its threads and its connections."""
    die_with_parent(parent)
    process.renew_locks_after_fork()
    process.name += "/fork"
    process.reads = process.special = process.exempt = process.own_writes_seen = process.audit.violations = 0
    process.hold = False
    process.keeps_connection = False
    _read(process)


def run_spawned(told: Spawned) -> None:
    """Begin from nothing, in a process that multiprocessing spawned."""
    die_with_parent(told.parent)
    logging.disable(logging.CRITICAL)
    board = Board(os.open(told.board, os.O_RDWR), told.operators, writable=False)
    cache = kcg_cache.configure(settings=Settings(**told.settings))
    audit = Audit(board, lambda finding: wire.say("violation", **finding), SYSTEM.now)
    _read(Process(told.name, board, cache, told.dsn, audit, told.seed))


def _read(process: Process) -> None:
    until = SYSTEM.now() + _READS_FOR
    # Not below 1: number 0 is the one that watches for faults, which is the parent's to do.
    readers = [Reader(process, number) for number in range(1, 1 + _THREADS)]
    threads = [threading.Thread(target=reader.run, args=(lambda: SYSTEM.now() > until,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.report("child")
    os._exit(0)
