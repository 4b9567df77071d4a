"""What every embedded server does alike: start on a free port, stop, be killed, start again."""

import atexit
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from kcg_cache.embedded.launcher import Launcher
from kcg_cache.embedded.ports import LOOPBACK, free_port
from kcg_cache.errors import EmbeddedError

# Another process may take the port between the choice and the server's bind.
_PORT_TRIES = 5

# Between two questions whether the server is ready. The wait ends at once when the server ends.
_STEP_SECONDS = 0.01

# The kernel's limit for the name of a Unix socket, with its closing zero.
_SOCKET_NAME_LIMIT = 108


class EmbeddedServer(ABC):
    """A real server on the loopback, which lives no longer than the process that started it.

    A context manager that stops it. In a fork of the owner the address is good, `stop` does nothing, and the
    other methods raise `EmbeddedError`.
    """

    def __init__(self, launcher: Launcher, password: str) -> None:
        self._launcher = launcher
        self._password = password
        self._port = 0
        self._pid = 0

    @property
    def host(self) -> str:
        """The address that the server listens on; it is the loopback's."""
        return LOOPBACK

    @property
    def port(self) -> int:
        """The TCP port, the same for as long as this object lives."""
        return self._port

    @property
    def password(self) -> str:
        """The password, random, of letters and digits."""
        return self._password

    @property
    def pid(self) -> int:
        """The server's process number; the last one, when the server does not run."""
        return self._pid

    @property
    def guard_pid(self) -> int:
        """The number of the process that guards the server."""
        return self._launcher.pid

    def stop(self) -> None:
        """Stop the server for good and remove its private directory; repeatable.

        Raises `EmbeddedError` when something may have been left behind.
        """
        try:
            if self._launcher.mine and not self._launcher.closed:
                atexit.unregister(self.stop)
                self._say_goodbye()
        finally:
            self._launcher.close()

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL, its children too) and keep its data; see `restart`."""
        self._launcher.end()

    def restart(self, *, deadline: float | None = None) -> None:
        """Stop the server if it runs, as an operator would, and start it: same port, password and data.

        `deadline`: seconds for all of it, by default those of the start. Raises `EmbeddedError` when it is
        not ready by then, or when another process has taken the port.
        """
        until = time.monotonic() + (self._default_deadline if deadline is None else deadline)
        self._end_in_order(until)
        self._launch(self._port, until)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _failure: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:  # without the password: it may be shown in a log
        return f"<{type(self).__name__} at {self.host}:{self.port}, process {self.pid}>"

    # What one kind of server knows.

    @property
    @abstractmethod
    def _default_deadline(self) -> float: ...

    @abstractmethod
    def _spawn(self, port: int) -> int:
        """Start the program on this port; return its process number."""

    @abstractmethod
    def _is_ready(self, port: int) -> bool:
        """Say whether the server of this object, and no stranger, serves on this port."""

    @abstractmethod
    def _end_in_order(self, until: float) -> None:
        """Let a running server end by itself, and kill it at the time `until` (monotonic)."""

    def _say_goodbye(self) -> None:  # noqa: B027 - most servers have nothing to save
        """Do what must be done before the server is killed for good."""

    # How all of them start.

    def _start(
        self,
        wanted: int | None,
        until: float,
        prepare: Callable[[float], None] | None = None,
    ) -> Self:
        """Prepare the data, start for the first time, and see to it that the owner's exit ends it."""
        try:
            if prepare is not None:
                prepare(until)
            self._launch(wanted, until)
        except OSError as failure:
            problem = EmbeddedError(f"{self._name} could not be prepared: {failure}")
            self._give_up(problem)
            raise problem from failure
        except BaseException as failure:
            self._give_up(failure)
            raise
        atexit.register(self.stop)
        return self

    def _give_up(self, failure: BaseException) -> None:
        """Undo a failed start, without hiding why it failed."""
        try:
            self._launcher.close()
        except EmbeddedError as left:
            failure.add_note(str(left))

    def _launch(self, wanted: int | None, until: float) -> None:
        """Start the server and wait until it is ready.

        A port that was `wanted` is a must; any other is replaced when another process was faster.
        """
        for _ in range(_PORT_TRIES):
            port = free_port() if wanted is None else wanted
            if self._launch_on(port, until):
                self._port = port
                return
            if wanted is not None:
                raise EmbeddedError(
                    f"{self._name} cannot listen on {self.host}:{port}: the port is taken. Choose another, "
                    "or none and let it be chosen."
                )
        raise EmbeddedError(f"{self._name} lost the race for a port {_PORT_TRIES} times; name one with port=.")

    def _launch_on(self, port: int, until: float) -> bool:
        """Start the server; False when the port is taken."""
        mark = self._launcher.log_size()
        self._pid = self._spawn(port)
        while True:
            status = self._launcher.wait(_STEP_SECONDS)
            if status is not None:
                if "Address already in use" in self._launcher.log_since(mark):
                    return False
                raise EmbeddedError(
                    f"{self._name} ended with status {status} when it was started.\n{self._launcher.log_tail()}"
                )
            if self._is_ready(port):
                return True
            if time.monotonic() > until:
                self._launcher.end()
                raise EmbeddedError(
                    f"{self._name} was not ready in time; a slow machine may need a longer deadline=.\n"
                    f"{self._launcher.log_tail()}"
                )

    @property
    def _name(self) -> str:
        return type(self).__name__.removeprefix("Embedded")


def checked_socket_path(path: Path) -> Path:
    """Return the path, if a Unix socket may be called so; raise `EmbeddedError` if it is too long."""
    if len(bytes(path)) >= _SOCKET_NAME_LIMIT:
        raise EmbeddedError(
            f"The directory for temporary files makes the name of a Unix socket too long ({path}); "
            "set TMPDIR to a shorter one, such as /tmp."
        )
    return path


def ask_unix_socket(path: Path, question: bytes, *, enough: int | None = None, seconds: float = 1.0) -> bytes:
    """Send a question to a server's Unix socket; return its answer.

    Up to its end, or as soon as `enough` bytes have come. Empty when nobody listens there, or nobody answers
    within the seconds.
    """
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
            connection.sendall(question)
            while (enough is None or len(answer) < enough) and (chunk := connection.recv(65536)):
                answer += chunk
        except OSError:
            return b""
    return answer
