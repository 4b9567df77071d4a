"""A connection that listens: `LISTEN kcg_changes` on PostgreSQL, and a wait that a notification or a stop ends."""

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from kcg_cache import postgres
from kcg_cache.errors import StandbyError
from kcg_cache.system import System

#: What `sql/notify.sql` notifies on: a public contract (docs/other-languages.md).
CHANNEL = "kcg_changes"
#: Seconds that a probe of our own may take before notifications count as not coming through.
PROBE_SECONDS = 1.0
#: What tells a server that is gone without a word, in libpq's parameters: the kernel's own answer takes two hours.
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}

#: A read that takes longer has failed, unless the connection string or the role says otherwise: behind somebody's lock
#: it would wait without end, and nobody would be told.
_BOUNDED = "SELECT set_config('statement_timeout', '30s', false) WHERE current_setting('statement_timeout') = '0'"

#: Opens a connection and closes it, as `kcg_cache.postgres.connect` does.
Connect = Callable[[], AbstractContextManager[Any]]


class Stop:
    """Like a `threading.Event`, with a descriptor that becomes readable when it is set.

    It takes no lock: a signal handler may set it, also while the thread that it interrupts waits for it or sets it.
    """

    def __init__(self) -> None:
        self._said = False
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)

    def set(self) -> None:
        """Say that it is time to end."""
        self._said = True
        with contextlib.suppress(BlockingIOError):  # full of earlier ones
            os.write(self._writing, b".")

    def is_set(self) -> bool:
        """Tell whether it was said."""
        return self._said

    def fileno(self) -> int:
        """Give the descriptor to select on."""
        return self._reading

    def wait(self, seconds: float) -> bool:
        """Wait for it, at most so long; tell whether it is set."""
        select.select([self], [], [], seconds)
        return self._said

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._reading)
        os.close(self._writing)


class Heard(NamedTuple):
    """What notifications came: how many, and the newest one's payload."""

    number: int
    payload: str


class Listener:
    """One connection in autocommit, whose notifications are waited for; made by `listening`."""

    def __init__(self, connection: Any, stop: Stop, system: System) -> None:
        self.connection = connection
        #: Whether notifications come through: behind a pooler that pools transactions they do not.
        self.hears = False
        self._stop = stop
        self._system = system

    def check(self) -> None:
        """Ask the server whether it is there, and a primary. Raises `StandbyError`, and what the connection raises."""
        (answer,) = postgres.fetch(self.connection, "SELECT pg_catalog.pg_is_in_recovery() AS standby")
        if answer["standby"]:
            raise StandbyError(
                "the PostgreSQL server is a standby, whose rows may be old: give the primary's address "
                "(with several hosts: target_session_attrs=read-write)"
            )

    def wait(self, seconds: float) -> Heard | None:
        """Wait for notifications or the stop, at most `seconds`; give what came. Raises what the connection raises."""
        until = self._system.now() + seconds
        while not (heard := self._taken()) and not self._stop.is_set():
            left = until - self._system.now()
            if left <= 0:
                return None
            select.select([self.connection, self._stop], [], [], left)
            self.connection.poll()
        return heard

    def gather(self, seconds: float) -> Heard | None:
        """Take what comes within `seconds`, all of it: a burst is one reason to look."""
        until = self._system.now() + seconds
        count, payload = 0, ""
        while (left := until - self._system.now()) > 0 and not self._stop.is_set():
            if heard := self.wait(left):
                count, payload = count + heard.number, heard.payload
        return Heard(count, payload) if count else None

    def probe(self, connect: Connect) -> None:
        """Find out whether notifications come through: send one, from another connection, on a channel of our own.

        On this connection it would come back even where it is a pooler's, with the answer to the very statement.
        """
        channel = f"{CHANNEL}_probe_{self._system.reader()}"
        postgres.execute(self.connection, f"LISTEN {channel}")
        with contextlib.suppress(*postgres.ERRORS):  # no room for a second one: then it polls
            with connect() as other:
                other.autocommit = True
                postgres.execute(other, f"NOTIFY {channel}")
            until = self._system.now() + PROBE_SECONDS
            while not self.hears and (left := until - self._system.now()) > 0 and not self._stop.is_set():
                select.select([self.connection, self._stop], [], [], left)
                self.connection.poll()
                self.hears = any(each.channel == channel for each in self.connection.notifies)
        postgres.execute(self.connection, f"UNLISTEN {channel}")
        self.connection.notifies.clear()

    def _taken(self) -> Heard | None:
        came = [each.payload for each in self.connection.notifies]
        self.connection.notifies.clear()
        return Heard(len(came), came[-1]) if came else None


@contextlib.contextmanager
def listening(connect: Connect, stop: Stop, system: System) -> Iterator[Listener]:
    """Connect to a primary and listen. Raises `StandbyError`, and what connections raise."""
    with connect() as connection:
        connection.autocommit = True
        listener = Listener(connection, stop, system)
        listener.check()
        listener.probe(connect)
        if listener.hears:
            # Not before: a pooler's server process would listen on for whoever is given it next. What came before this
            # is not lost: every connection begins with a look.
            postgres.execute(connection, f"LISTEN {CHANNEL}")
            postgres.execute(connection, _BOUNDED)
        yield listener
