"""A TCP proxy that can go wrong: ``python -m tests.soak.proxy``, told how on standard input.

It stands between the workers and a server. In one process and one thread: what it does to one byte is done before it
looks at the next, and an order is obeyed when its answer is written.

==============  =====================================================================================================
mode            what it does
==============  =====================================================================================================
``pass``        nothing
``drop``        lets questions through and throws the answers away: what was asked happens, and nobody hears of it
``delay``       holds every chunk back for some seconds, both ways
``deaf``        takes new connections and reads nothing from anybody: nothing arrives, nothing comes back
``half_close``  instead of an answer tells the asker that there will be none (FIN), and goes on taking its questions
``cut``         resets every connection in the middle of an answer, after a random number of bytes
``refuse``      resets every connection at once
==============  =====================================================================================================
"""

import collections
import contextlib
import os
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from kcg_cache.demo import wire
from tests.soak.crew import die_with_parent

MODES = ("pass", "drop", "delay", "deaf", "half_close", "cut", "refuse")
_CHUNK = 65536
#: Beyond this one side is not read before the other has taken what is there.
_MOST_WAITING = 4 * 1024 * 1024
_MOST_BEFORE_A_CUT = 600
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class End:
    """One end of a connection, and what waits to be sent to it."""

    socket: socket.socket
    link: "Link"
    asks: bool
    waiting: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)
    waiting_bytes: int = 0
    #: It will send no more.
    ended: bool = False
    #: It was told that nothing more comes.
    closed: bool = False
    connected: bool = True
    events: int = 0

    @property
    def other(self) -> "End":
        return self.link.server if self.asks else self.link.client


class Link:
    """One client's connection and the one to the server that it stands for."""

    def __init__(self, client: socket.socket, server: socket.socket, cut_after: int) -> None:
        self.client = End(client, self, asks=True)
        self.server = End(server, self, asks=False, connected=False)
        self.cut_after = cut_after
        #: Bytes were thrown away, or one side was lied to: it cannot go on when the mode ends.
        self.spoilt = False


class Proxy:
    """One listening port in front of one server."""

    def __init__(self, upstream: tuple[str, int], selector: selectors.BaseSelector, seed: int) -> None:
        self._upstream = upstream
        self._selector = selector
        self._random = random.Random(seed)  # noqa: S311 - a seeded run, no secret
        self._links: set[Link] = set()
        self.mode = "pass"
        self._delay = 0.0
        self._hits = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def set(self, mode: str, seconds: float = 0.0) -> int:
        """Go wrong in this way from now on; give how often it went wrong in the way before."""
        if mode not in MODES:
            raise ValueError(f"no such mode: {mode!r}; there are: {', '.join(MODES)}")
        # Nobody can count what a deaf one did not hear: those who wait for it are counted.
        hits, self._hits = self._hits + (len(self._links) if self.mode == "deaf" else 0), 0
        self.mode, self._delay = mode, seconds
        for link in list(self._links):
            if link.spoilt or mode == "refuse":
                self._reset(link)
            else:
                link.cut_after = self._random.randrange(_MOST_BEFORE_A_CUT)
                self._watch(link)
        return hits

    def is_deaf(self, _link: Link) -> bool:
        """Tell whether nothing goes through on this connection for now."""
        return self.mode == "deaf"

    def reset_all(self) -> None:
        """Reset every connection there is."""
        for link in list(self._links):
            self._reset(link)

    def due(self) -> float | None:
        """Send what was delayed and is due; give the seconds until the next is, None for nothing."""
        now, nearest = time.monotonic(), None
        if self.mode == "deaf":
            return None
        for link in list(self._links):
            for end in (link.client, link.server):
                if end.waiting and end.waiting[0][0] > 0:
                    left = end.waiting[0][0] - now
                    if left <= 0:
                        self._send(end)
                        self._watch(link)
                    elif nearest is None or left < nearest:
                        nearest = left
        return nearest

    def close(self) -> None:
        """Let go of everything."""
        self.reset_all()
        self._selector.unregister(self._listener)
        self._listener.close()

    # --- one event ----------------------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it went away while it was waiting
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.mode == "refuse":
            self._hits += 1
            _close(client, reset=True)
            return
        server = socket.socket()
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            server.connect(self._upstream)
        link = Link(client, server, self._random.randrange(_MOST_BEFORE_A_CUT))
        self._links.add(link)
        self._watch(link)

    def _event(self, end: End, events: int) -> None:
        if end.link not in self._links:  # reset by an earlier event of the same round
            return
        try:
            if events & selectors.EVENT_WRITE:
                if end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):  # no server there
                    self._reset(end.link)
                    return
                end.connected = True
                self._send(end)
            if events & selectors.EVENT_READ and end.link in self._links:
                self._read(end)
        except OSError:
            self._reset(end.link)
            return
        if end.link in self._links:
            self._watch(end.link)

    def _read(self, end: End) -> None:
        chunk = end.socket.recv(_CHUNK)
        link, other = end.link, end.other
        if not chunk:
            end.ended = True
            self._pass_end_on(other)
        elif end.asks:
            self._forward(other, chunk)
        elif self.mode == "drop" or link.client.closed:
            link.spoilt = True
            self._hits += 1
        elif self.mode in ("cut", "half_close"):
            kept, link.cut_after = chunk[: link.cut_after], link.cut_after - len(chunk)
            self._hits += link.cut_after < 0
            if link.cut_after >= 0:
                self._forward(other, chunk)
            elif self.mode == "half_close":
                self._half_close(link)
            else:
                with contextlib.suppress(OSError):
                    link.client.socket.send(kept)
                self._reset(link)
        else:
            self._forward(other, chunk)

    def _forward(self, end: End, chunk: bytes) -> None:
        due = time.monotonic() + self._delay if self.mode == "delay" else 0.0
        self._hits += self.mode == "delay"
        if end.waiting and not due:
            due = end.waiting[-1][0]  # never before what came before it
        end.waiting.append((due, chunk))
        end.waiting_bytes += len(chunk)
        self._send(end)

    def _send(self, end: End) -> None:
        now = time.monotonic()
        while end.waiting and end.connected and end.waiting[0][0] <= now:
            due, chunk = end.waiting[0]
            try:
                sent = end.socket.send(chunk)
            except BlockingIOError:
                break
            except OSError:
                self._reset(end.link)
                return
            end.waiting_bytes -= sent
            if sent < len(chunk):
                end.waiting[0] = (due, chunk[sent:])
                break
            end.waiting.popleft()
        self._pass_end_on(end)

    def _pass_end_on(self, end: End) -> None:
        """Tell an end that the other has ended, once it has got everything; forget a link that has ended both ways."""
        link = end.link
        if end.other.ended and not end.waiting and not end.closed and end.connected:
            end.closed = True
            with contextlib.suppress(OSError):
                end.socket.shutdown(socket.SHUT_WR)
        if link.client.ended and (link.server.ended or link.spoilt):
            self._forget(link, reset=False)

    def _half_close(self, link: Link) -> None:
        link.spoilt = True
        link.client.closed = True
        with contextlib.suppress(OSError):
            link.client.socket.shutdown(socket.SHUT_WR)
        self._watch(link)

    # --- what is watched ----------------------------------------------------------------------------------------------

    def _watch(self, link: Link) -> None:
        if link not in self._links:
            return
        for end in (link.client, link.server):
            events = 0
            deaf = self.is_deaf(link)
            if not end.ended and end.connected and not deaf and end.other.waiting_bytes < _MOST_WAITING:
                events |= selectors.EVENT_READ
            due = end.waiting and end.waiting[0][0] <= time.monotonic()
            if not end.connected or (due and not deaf):
                events |= selectors.EVENT_WRITE
            if events == end.events:
                continue
            if not events:
                self._selector.unregister(end.socket)
            elif end.events:
                self._selector.modify(end.socket, events, _Handler(self, end))
            else:
                self._selector.register(end.socket, events, _Handler(self, end))
            end.events = events

    def _reset(self, link: Link) -> None:
        self._forget(link, reset=True)

    def _forget(self, link: Link, *, reset: bool) -> None:
        if link not in self._links:
            return
        self._links.discard(link)
        for end in (link.client, link.server):
            if end.events:
                self._selector.unregister(end.socket)
            _close(end.socket, reset=reset)


@dataclass(frozen=True)
class _Handler:
    proxy: Proxy
    end: End

    def __call__(self, events: int) -> None:
        self.proxy._event(self.end, events)


def _close(sock: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def serve(proxies: dict[str, Proxy], selector: selectors.BaseSelector, orders: int) -> None:
    """Obey until there are no more orders."""
    lines = wire.Lines()
    ended = False

    def listen(_events: int) -> None:
        nonlocal ended
        chunk = os.read(orders, _CHUNK)
        ended = not chunk
        for order in lines.feed(chunk):
            proxy = proxies[order["proxy"]]
            wire.say("set", hits=proxy.set(order["mode"], order["seconds"]))

    selector.register(orders, selectors.EVENT_READ, listen)
    while not ended:
        waits = [wait for proxy in proxies.values() if (wait := proxy.due()) is not None]
        for key, events in selector.select(min(waits, default=None)):
            key.data(events)


def main() -> int:
    """Stand between as told."""
    told: dict[str, Any] = wire.Orders().must()
    die_with_parent(told["parent"])
    with selectors.DefaultSelector() as selector:
        proxies = {
            name: Proxy((host, port), selector, told["seed"]) for name, (host, port) in sorted(told["upstream"].items())
        }
        wire.say("ready", ports={name: proxy.port for name, proxy in proxies.items()})
        serve(proxies, selector, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
