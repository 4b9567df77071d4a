"""A link between a client and a server: as fast as it is told to be, shared by all, and it counts.

It runs in a process of the crew. All connections share one bandwidth in each direction, piece by piece, so that none
starves.
"""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.crew import Local

_PIECE = 32768


@dataclass(slots=True)
class Counts:
    """What went over the link so far."""

    #: From clients to the server, and back.
    up: int = 0
    down: int = 0
    #: How often a client spoke after the server had: with one connection, the round trips.
    turns: int = 0


class _Direction:
    """Half of a full duplex link: when it is free again is one number."""

    def __init__(self, bits_per_second: float | None) -> None:
        self._bytes_per_second = bits_per_second / 8 if bits_per_second else None
        self._lock = threading.Lock()
        self._free_at = 0.0

    def carry(self, size: int) -> None:
        """Return when so many bytes, behind all that came before them, are through."""
        if self._bytes_per_second is None:
            return
        with self._lock:
            self._free_at = max(time.monotonic(), self._free_at) + size / self._bytes_per_second
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)


class Relay:
    """Listens on a port of its own and passes everything on to one server."""

    def __init__(self, host: str, port: int, bits_per_second: float | None) -> None:
        self._server = host, port
        self._up, self._down = _Direction(bits_per_second), _Direction(bits_per_second)
        self._lock = threading.Lock()
        self._counts = Counts()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def counts(self) -> Counts:
        """Give what went over it so far."""
        with self._lock:
            return Counts(self._counts.up, self._counts.down, self._counts.turns)

    def close(self) -> None:
        """Take no more connections; those that are open end with their client."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(self._server)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            spoke = [False]  # the client, last: shared by both directions of this connection
            for arguments in ((client, server, True, spoke), (server, client, False, spoke)):
                threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool, spoke: list[bool]) -> None:  # noqa: FBT001
        direction = self._up if up else self._down
        with contextlib.suppress(OSError):  # either side is gone: so is the connection
            while piece := source.recv(_PIECE):
                with self._lock:
                    if up:
                        self._counts.up += len(piece)
                        self._counts.turns += not spoke[0]
                    else:
                        self._counts.down += len(piece)
                    spoke[0] = up
                direction.carry(len(piece))
                target.sendall(piece)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def open_relay(local: Local, name: str, host: str, port: int, bits_per_second: float | None) -> int:
    """Open a link in this process; give its port."""
    relay = local.things[name] = Relay(host, port, bits_per_second)
    return relay.port


def counts(local: Local, name: str) -> Counts:
    """Give what went over a link of this process."""
    relay: Any = local.things[name]
    found: Counts = relay.counts()
    return found


def close_relay(local: Local, name: str) -> None:
    """Close a link of this process."""
    local.things.pop(name).close()
