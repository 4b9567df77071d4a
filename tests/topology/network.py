"""Relays in front of servers that can be cut for some users alone: ``python -m tests.topology.network``.

A host that is partitioned goes on serving whoever is on its side. All clients know a server by one address, that of its
relay, so the relay tells the sides apart by who they are: the user of the first AUTH. Nothing goes through on a
connection that is cut, and nobody is told: it stays open, as between hosts, and goes on when the cut is over.
"""

import os
import re
import selectors
import sys
from typing import Any

from kcg_cache.demo import wire
from tests.soak import crew
from tests.soak.proxy import End, Link, Proxy

#: AUTH user password, as the protocol has it on the wire.
_AUTH = re.compile(rb"\*3\r\n\$4\r\nAUTH\r\n\$\d+\r\n(\w+)\r\n", re.IGNORECASE)
_CHUNK = 65536


class Network(crew.Member):
    """The process of all relays."""

    package = "tests.topology"


class Relay(Proxy):
    """One listening port in front of one server."""

    def __init__(self, upstream: tuple[str, int], selector: selectors.BaseSelector) -> None:
        super().__init__(upstream, selector, seed=0)
        self._users: dict[Link, str] = {}
        self._cut: frozenset[str] = frozenset()

    def cut(self, users: frozenset[str]) -> int:
        """Let nothing of these users through from now on, and all of everybody else; give how many links are cut."""
        self._cut = users
        links = list(self._links)
        for link in links:
            self._watch(link)
        return sum(self.is_deaf(link) for link in links)

    def is_deaf(self, link: Link) -> bool:
        return self._users.get(link) in self._cut

    def _forward(self, end: End, chunk: bytes) -> None:
        # What is sent before one is known goes through: it is a PING, or this AUTH, whose answer does not.
        link = end.link
        if end is link.server and link not in self._users and (found := _AUTH.search(chunk)):
            self._users[link] = found[1].decode()
        super()._forward(end, chunk)

    def _forget(self, link: Link, *, reset: bool) -> None:
        self._users.pop(link, None)
        super()._forget(link, reset=reset)


def main() -> int:
    """Relay as told: {"cut": name, "users": [...]} is answered when it is done."""
    told: dict[str, Any] = wire.Orders().must()
    crew.die_with_parent(told["parent"])
    with selectors.DefaultSelector() as selector:
        relays = {name: Relay((host, port), selector) for name, (host, port) in sorted(told["upstream"].items())}
        wire.say("ready", ports={name: relay.port for name, relay in relays.items()})
        lines, ended = wire.Lines(), False

        def obey(_events: int) -> None:
            nonlocal ended
            chunk = os.read(0, _CHUNK)
            ended = not chunk
            for order in lines.feed(chunk):
                wire.say("cut", links=relays[order["cut"]].cut(frozenset(order["users"])))

        selector.register(0, selectors.EVENT_READ, obey)
        while not ended:
            for key, events in selector.select():
                key.data(events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
