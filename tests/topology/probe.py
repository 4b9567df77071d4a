"""Sees when which server takes writes: a write that changes nothing, to every node, many times a second."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import redis

from kcg_cache.keys import Keys
from kcg_cache.system import SYSTEM
from tests.topology.nodes import Node

_EVERY = 0.025
#: Of the dataset's slot, and nobody's key.
_KEY = Keys.of("soak", "active_versions").guard
TAKEN = "taken"


@dataclass(frozen=True)
class Change:
    """From when on a node answered something else."""

    at: float
    node: int
    answer: str


class Probe:
    """Asks in a thread of its own while the ``with`` block lasts."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._last = [""] * len(nodes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.changes: list[Change] = []

    def taken(self, node: int, since: float, until: float) -> list[tuple[float, float]]:
        """Give the spans of time in which a node took writes, each cut to the one that is asked about."""
        spans: list[tuple[float, float]] = []
        mine = [change for change in list(self.changes) if change.node == node]
        for change, after in zip(mine, [*mine[1:], None], strict=True):
            began, ended = max(change.at, since), min(until if after is None else after.at, until)
            if change.answer == TAKEN and began < ended:
                spans.append((began, ended))
        return spans

    def both_took(self, since: float, until: float) -> float:
        """Give for how many seconds more than one node took writes."""
        spans = sorted(span for node in range(len(self._nodes)) for span in self.taken(node, since, until))
        total, latest = 0.0, 0.0
        for began, ended in spans:
            total += max(0.0, min(ended, latest) - began)
            latest = max(latest, ended)
        return total

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            for number, node in enumerate(self._nodes):
                answer = _answer(node)
                if answer != self._last[number]:
                    self._last[number] = answer
                    self.changes.append(Change(SYSTEM.now(), number, answer))


def _answer(node: Node) -> str:
    """Give TAKEN, or the word with which the node or the driver refused."""
    try:
        node.ask("DEL", _KEY)
    except redis.exceptions.ResponseError as error:
        # What the driver has no class for begins with the server's own word.
        return str(error).split()[0] if type(error) is redis.exceptions.ResponseError else type(error).__name__
    except redis.exceptions.RedisError as error:
        return type(error).__name__
    return TAKEN
