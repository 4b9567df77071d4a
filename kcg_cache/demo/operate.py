"""The operator: ``python -m kcg_cache.demo.operate``, told what to do on standard input.

Change, commit, invalidate; and only when that has returned, write the new floor to the board.
"""

import itertools
import sys
import threading
from typing import Any

from kcg_cache import InvalidateError, SharedCache, configure, invalidate_cache, postgres
from kcg_cache.demo import wire
from kcg_cache.demo.board import BEGUN, FLOOR, Board
from kcg_cache.demo.changes import CHANGES, STAMP, Change
from kcg_cache.demo.worker import settings_of
from kcg_cache.settings import INVALIDATE_WAIT
from kcg_cache.system import SYSTEM

#: Seconds between two changes: in a short play at least so many that an invalidate, which takes 1.02, is done before
#: the next; in a long one as in the default one, and far fewer than `worker.MAX_AGE`.
_LEAST_APART, _MOST_APART = 1.6, 2.3
_SPREAD_OVER = 8
#: Seconds from the start to the first change, and at least from the end of the last one to the end.
_LEAD = 0.5
#: How often an invalidate that is not confirmed is repeated.
_REPEATS = 20


class Operator:
    """The operator's connection, and the generation that it has come to."""

    def __init__(self, connection: Any, board: Board) -> None:
        self._connection = connection
        self._board = board
        self._generation = board.words[FLOOR]

    def play(self, seconds: float, stop: threading.Event) -> None:
        """Make changes for so many seconds, or until told to stop."""
        began = SYSTEM.now()
        end = began + seconds
        period = min(_MOST_APART, max(_LEAST_APART, seconds / _SPREAD_OVER))
        for number, change in enumerate(itertools.cycle(CHANGES)):
            due = max(SYSTEM.now(), began + _LEAD + number * period)
            if due + INVALIDATE_WAIT + _LEAD > end or stop.wait(due - SYSTEM.now()):
                break
            self.make(change)
        stop.wait(max(0.0, end - SYSTEM.now()))

    def make(self, change: Change) -> None:
        """Make one change: transaction, commit, invalidate, and only then the floor."""
        self._generation += 1
        generation, words = self._generation, self._board.words
        for step in change.steps:
            changed = postgres.execute(self._connection, step.sql, *step.values)
            if changed != 1:
                raise RuntimeError(f"{change.what}: {changed} rows were changed instead of one")
        postgres.execute(self._connection, STAMP, generation)
        words[BEGUN] = generation
        commit_sent_at = SYSTEM.now()
        self._connection.commit()
        committed_at = SYSTEM.now()
        wire.say(
            "committed",
            generation=generation,
            what=change.what,
            model=change.model,
            version=change.version,
            promotes=change.promotes,
            commit_sent_at=commit_sent_at,
            committed_at=committed_at,
        )
        repeats = self._invalidate(change.what)
        words[FLOOR] = generation
        wire.say("invalidated", generation=generation, returned_at=SYSTEM.now(), repeats=repeats)

    @staticmethod
    def _invalidate(reason: str) -> int:
        """Invalidate until it is confirmed; give how often it had to be repeated."""
        for repeats in range(_REPEATS):
            try:
                invalidate_cache(reason=reason)
            except InvalidateError:
                continue
            return repeats
        raise InvalidateError(f"not confirmed in {_REPEATS} tries")


def _servers(cache: SharedCache, connection: Any) -> dict[str, str]:
    """Name the two servers and their versions."""
    facts = cache.server()
    valkey = facts.get("valkey_version")
    (version,) = postgres.fetch(connection, "SHOW server_version")
    connection.rollback()
    return {
        "redis": f"Valkey {valkey}" if valkey else f"Redis {facts.get('redis_version', '?')}",
        "postgres": f"PostgreSQL {version['server_version'].split()[0]}",
    }


def main() -> int:
    """Do as told."""
    orders = wire.Orders()
    told = orders.must()
    board = Board(told["board"], writable=True)
    cache = configure(settings=settings_of(told))
    with postgres.connect(told["dsn"]) as connection:
        wire.say("ready", **_servers(cache, connection))
        play = orders.must()
        Operator(connection, board).play(play["seconds"], orders.until_told())
    wire.say("final")
    cache.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
