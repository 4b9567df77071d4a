"""The promoters: ``python -m tests.soak.promoter``, one thread for each operator.

Each has a model, a connection and a cache of its own, and does one thing over and over: raise the version, commit,
invalidate until it returns, and only then write the new floor.
"""

import contextlib
import logging
import os
import random
import sys
import threading
import time
from typing import Any

import psycopg2

from kcg_cache import InvalidateError, Settings, SharedCache
from kcg_cache.demo import wire
from kcg_cache.system import SYSTEM
from tests.soak import plants
from tests.soak.audit import model_of
from tests.soak.board import CEILING, COMMITTED, DATABASE_FAULT, FAULT, FLOOR, PULSE, Board
from tests.soak.crew import die_with_parent
from tests.topology import clients

# The version is counted in the database, under the lock of its row: whether a commit whose reply was lost has
# happened, and also one that is only now about to happen, is thereby read back before anything else is done.
_RAISE = """
    UPDATE kcg.detection_model_versions
    SET params = jsonb_build_object('v', (params->>'v')::bigint + 1), updated_at = now()
    WHERE model_id = %s
    RETURNING (params->>'v')::bigint
"""
_AFTER_ERROR = 0.05
_PAUSE = 0.25


class Operator:
    """One operator."""

    def __init__(self, number: int, told: dict[str, Any], board: Board) -> None:
        self._number = number
        self._words = board.words
        self._place = board.place(number)
        self._dsn = told["dsn"][number % len(told["dsn"])]
        self._connection: Any = None
        redis = told["redis"][number % len(told["redis"])]
        settings = Settings(**told["settings"])
        self._cache = SharedCache(clients.given(redis, settings.redis_timeout), settings=settings)
        self._random = random.Random(told["seed"] * 1000 + number)  # noqa: S311 - a seeded run, no secret
        self._opened_under = 0

    def run(self, stop: threading.Event) -> None:
        """Promote until told to stop."""
        while not stop.wait(self._random.uniform(0, _PAUSE)):
            faults = {self._words[FAULT]}
            # A connection that was opened before a fault may be broken since: that is told by its next use.
            word = self._words[DATABASE_FAULT] if self._connection is None else self._opened_under
            try:
                version = self._change()
            except psycopg2.Error as error:
                now = self._words[DATABASE_FAULT]
                wire.say(
                    "change_failed",
                    operator=self._number,
                    fault=self._words[FAULT],
                    what=_said(error),
                    allowed=now % 2 == 1 or now != word,
                )
                self._disconnect()
                time.sleep(_AFTER_ERROR)
                continue
            repeats = self._invalidate(version, faults)
            self._words[self._place + FLOOR] = version
            # No two are equal: the thread's number in the last digits.
            self._words[PULSE] = time.monotonic_ns() // 100 * 100 + self._number
            faults.add(self._words[FAULT])
            wire.say("invalidated", operator=self._number, version=version, faults=sorted(faults), repeats=repeats)

    def _change(self) -> int:
        """Raise the version and commit; raises what the connection raises, and then nobody knows whether it did."""
        words, place = self._words, self._place
        if self._connection is None:
            self._opened_under = self._words[DATABASE_FAULT]
            self._connection = psycopg2.connect(self._dsn)
        with self._connection.cursor() as cursor:
            cursor.execute(_RAISE, (model_of(self._number),))
            ((version,),) = cursor.fetchall()
        words[place + CEILING] = max(words[place + CEILING], version)
        self._connection.commit()
        words[place + COMMITTED] = version
        return int(version)

    def _invalidate(self, version: int, faults: set[int]) -> int:
        """Invalidate until it is confirmed; give how often it had to be repeated."""
        repeats = 0
        while True:
            began = SYSTEM.now()
            try:
                self._cache.invalidate(reason=f"version {version} of {model_of(self._number)}")
            except InvalidateError as error:
                repeats += 1
                fault = self._words[FAULT]
                faults.add(fault)
                wire.say(
                    "invalidate_failed",
                    operator=self._number,
                    fault=fault,
                    what=_said(error),
                    seconds=SYSTEM.now() - began,
                )
                time.sleep(_AFTER_ERROR)
            else:
                return repeats

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(psycopg2.Error):
                connection.close()


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def main() -> int:
    """Promote as told until told to stop."""
    orders = wire.Orders()
    told = orders.must()
    die_with_parent(told["parent"])
    logging.disable(logging.CRITICAL)
    plants.rule_removed(told["plant"])
    board = Board(told["board"], told["operators"], writable=True)
    stop = orders.until_told()
    operators = [Operator(number, told, board) for number in range(told["operators"])]
    threads = [threading.Thread(target=operator.run, args=(stop,), daemon=True) for operator in operators]
    wire.say("ready")
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(told["patience"])
    wire.say("final")
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
