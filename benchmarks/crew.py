"""Processes that do one thing when they are told to: a reader, an operator, a fleet.

Each is told a function and its arguments, calls it with what it keeps (`Local`), and answers with what it gave. They
are forked from a server process that has imported the common modules, so that hundreds are there at once; they end when
their pipe does, and the kernel kills them when that server goes, which goes with the benchmark.
"""

import contextlib
import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.board import Board
from tests.soak.crew import die_with_parent

_PRELOADED = ["benchmarks.crew", "benchmarks.candidates.base", "benchmarks.database", "kcg_cache"]
_GRACE = 10.0


class CrewError(Exception):
    """A process of the crew failed, or did not answer in time; the text is its traceback."""


@dataclass(slots=True)
class Local:
    """What one process keeps between two orders."""

    board: Board
    things: dict[str, Any] = field(default_factory=dict)


class Member:
    """One process. `call` orders and waits; `order` and `answer` do one of both."""

    def __init__(self, board: Board, cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, board, list(cores)), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        pid = self._process.pid
        assert pid is not None
        return pid

    def order(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have it call ``function(local, *arguments)``."""
        self._pipe.send((function, arguments))

    def answer(self, seconds: float = 600.0) -> Any:
        """Wait for what the function gave; raise `CrewError` for what it raised, or when it takes longer."""
        if not self._pipe.poll(seconds):
            raise CrewError(f"process {self.pid} did not answer within {seconds:g} s")
        try:
            good, value = self._pipe.recv()
        except EOFError:
            raise CrewError(f"process {self.pid} ended") from None
        if not good:
            raise CrewError(value)
        return value

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float = 600.0) -> Any:
        """`order`, then `answer`."""
        self.order(function, *arguments)
        return self.answer(seconds)

    def close(self) -> None:
        """Let it end; kill it if it does not."""
        self._pipe.close()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


@contextlib.contextmanager
def crew(count: int, board: Board, cores: Sequence[int]) -> Iterator[list[Member]]:
    """Give so many processes, on these cores, until the block ends."""
    with contextlib.ExitStack() as stack:
        members = []
        for _ in range(count):
            member = Member(board, cores)
            stack.callback(member.close)
            members.append(member)
        for member in members:
            member.call(_ready)
        yield members


def all_call(members: Sequence[Member], function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Have all of them do the same at once; give their answers in order."""
    for member in members:
        member.order(function, *arguments)
    return [member.answer() for member in members]


def clock() -> float:
    """Give a time that all processes of this host share, in seconds."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _ready(_local: Local) -> int:
    return os.getpid()


def _serve(pipe: Connection, board: Board, cores: list[int]) -> None:
    die_with_parent(os.getppid())
    if cores:
        os.sched_setaffinity(0, cores)
    # What a library raises is counted; what it logs of a broken server would only stand between the tables.
    logging.disable()
    local = Local(board)
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            function, arguments = pipe.recv()
            try:
                answer = True, function(local, *arguments)
            except Exception:  # noqa: BLE001 - told to who ordered it, who raises
                answer = False, traceback.format_exc()
            pipe.send(answer)
