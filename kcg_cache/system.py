"""The doors to the host: its clock, its randomness, and who and where this process is.

Everything that decides something asks through a `System`, so that a test owns time and chance, and which
thread goes on when.
"""

import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Protocol

# CLOCK_BOOTTIME where it exists: it goes on while the host sleeps, so a suspended host wakes without a lease (R6).
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lock(AbstractContextManager[bool], Protocol):
    """What the cache needs of a lock: `threading.Lock`'s, which is not reentrant."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - threading's own
        """Take it, within `timeout` seconds (-1: however long it takes); tell whether it is taken."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...

    def locked(self) -> bool:
        """Tell whether somebody has it."""
        ...


class System:
    """The real host. `now` is in seconds on a clock that never steps, whose zero means nothing."""

    #: Called on every covered read: a C function with its argument bound, which asks the vDSO and makes no system call.
    now: Callable[[], float] = staticmethod(functools.partial(time.clock_gettime, _CLOCK))

    def stopwatch(self) -> float:
        """Read the same clock, for figures and the log alone: what decides nothing is no step of a simulation."""
        return self.now()

    def sleep(self, seconds: float) -> None:
        """Return when at least `seconds` have passed on `now`."""
        until = self.now() + seconds
        while (left := until - self.now()) > 0:
            time.sleep(left)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for `event`, at most `seconds`; tell whether it is set."""
        return event.wait(seconds)

    def lock(self) -> Lock:
        """Make a lock."""
        return threading.Lock()

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work` on a thread of its own, which does not keep the process alive.

        Raises `RuntimeError` when the host gives no more threads, or the interpreter is about to end.
        """
        threading.Thread(target=work, name=name, daemon=True).start()

    def token(self) -> str:
        """Give 128 random bits as hex: nobody else's, after a fork and on every host."""
        return os.urandom(16).hex()

    def reader(self) -> str:
        """Give 64 random bits as hex, by which one cache in one process is told from all others."""
        return os.urandom(8).hex()

    def program(self) -> str:
        """Name the program that this process runs: its file without the ending, or the package of ``python -m``."""
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        given = sys.argv[0] if getattr(sys, "argv", None) else ""  # none where Python is embedded
        if spec is not None and spec.name:
            name = spec.name.removesuffix(".__main__")
        elif given in ("", "-c", "-"):
            name = "python"
        else:
            name = PurePath(given).stem
        return "".join(filter(str.isprintable, name))[:100]

    def user(self) -> str:
        """Name the account that this process runs under."""
        import getpass  # noqa: PLC0415 - a reader never asks, and every process would pay for it at import

        try:
            return getpass.getuser()
        except (KeyError, OSError):  # no such entry in the account database, as in many containers
            return f"uid {os.getuid()}"

    def host(self) -> str:
        """Name this host."""
        return socket.gethostname()

    def pid(self) -> int:
        """Give this process's number."""
        return os.getpid()


SYSTEM = System()
