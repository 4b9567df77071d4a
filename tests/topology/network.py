"""Relays in front of servers that can be cut for some users alone: ``python -m tests.topology.network``.

A host that is partitioned goes on serving whoever is on its side. All clients know a server by one address, that of its
relay, so the relay tells the sides apart by who they are: the user of the first AUTH, or on the bus of a Cluster the
node that sent the first message. Nothing goes through on a
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
from tests.topology.nodes import HOST

#: AUTH user password, as the protocol has it on the wire.
_AUTH = re.compile(rb"\*3\r\n\$4\r\nAUTH\r\n\$\d+\r\n(\w+)\r\n", re.IGNORECASE)
#: What every message on the bus begins with, and where in it the sender's 40 hex digits are.
_BUS, _SENDER = b"RCmb", slice(40, 80)
_CHUNK = 65536


class Network(crew.Member):
    """The process of all relays."""

    package = "tests.topology"
    #: The port of each relay, once it was asked for.
    ports: dict[str, int]

    def cut(self, name: str, *users: str) -> int:
        """Let nothing of these users through a relay, and all of everybody else; give how many links that cuts."""
        self.tell(cut=name, users=users)
        return int(self._answer("cut")["links"])

    def _answer(self, event: str) -> dict[str, Any]:
        """Read the next answer; nobody else reads from it."""
        while True:
            chunk = os.read(self.streams[0], _CHUNK)
            if not chunk:
                raise RuntimeError(f"the network has ended: {self.complaints.decode(errors='replace')}")
            for message in self.lines.feed(chunk):
                if message["event"] == event:
                    return message


def started(members: crew.Crew, upstream: dict[str, int]) -> Network:
    """Start a relay for each port of this host; `members` ends them."""
    told = {"upstream": {name: [HOST, port] for name, port in upstream.items()}}
    network = members.start("network", "network", told, member_type=Network)
    assert isinstance(network, Network)
    network.ports = network._answer("ready")["ports"]
    return network


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
        if end is link.server and link not in self._users:
            if found := _AUTH.search(chunk):
                self._users[link] = found[1].decode()
            elif chunk.startswith(_BUS):
                self._users[link] = chunk[_SENDER].decode()
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
