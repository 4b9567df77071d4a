"""Three masters with a replica each; what an operator of a Cluster does with the slot of the fleet's dataset."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import redis
from redis.crc import key_slot

from kcg_cache.keys import Keys
from tests.soak.crew import Crew
from tests.topology import network
from tests.topology.nodes import ADMIN, FAR, HOST, Node, new_password, new_port, replica, start_node

_MASTERS, _SLOTS = 3, 16384
SLOT = key_slot(Keys.of("soak", "active_versions").entry.encode())


@dataclass(frozen=True)
class Timing:
    """What decides how long a failover takes, and how long a master that is cut off goes on."""

    #: Milliseconds without an answer after which the others take a node for dead.
    node_timeout: int = 2000
    #: As for Sentinels. A master that has taken over has no replica until another comes.
    min_replicas: int = 0
    max_lag: int = 1

    def options(self) -> tuple[str, ...]:
        """Give the options of every node."""
        return (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(self.node_timeout)),
            *("--min-replicas-to-write", str(self.min_replicas), "--min-replicas-max-lag", str(self.max_lag)),
        )


class Cluster:
    """The nodes, the first three of which begin as masters."""

    def __init__(self, nodes: list[Node], relays: network.Network, password: str) -> None:
        self.nodes = nodes
        self._relays = relays
        self._password = password
        self.ids: list[str] = [node.ask("CLUSTER", "MYID").decode() for node in nodes]

    def url(self, user: str) -> str:
        """Give the address for clients."""
        addresses = ",".join(f"{HOST}:{node.announced}" for node in self.nodes)
        return f"redis+cluster://{user}:{self._password}@{addresses}"

    def master(self) -> Node:
        """Give the node that says it serves the slot, of several the newest; raises `LookupError` while none does."""
        owners = [(self._epoch(node), number) for number, node in enumerate(self.nodes) if self._serves(node)]
        if not owners:
            raise LookupError(f"no node says that it serves slot {SLOT}")
        return self.nodes[max(owners)[1]]

    def cut_off(self, node: Node) -> int:
        """Let a node not hear the others nor be heard, nor by those who are far; give how many links that cut."""
        number = self.nodes.index(node)
        others = [one for one in range(len(self.nodes)) if one != number]
        links = self._relays.cut(f"{number}", FAR, *map(replica, others))
        links += self._relays.cut(f"{number} bus", *(self.ids[one] for one in others))
        return links + sum(self._relays.cut(f"{one} bus", self.ids[number]) for one in others)

    def join_again(self) -> None:
        """Let everything through everywhere."""
        for number in range(len(self.nodes)):
            self._relays.cut(f"{number}")
            self._relays.cut(f"{number} bus")

    def replica_of(self, master: Node) -> Node:
        """Give the node that follows this one."""
        wanted = self.ids[self.nodes.index(master)]
        for node in self.nodes:
            mine = next(line for line in self._lines(node) if "myself" in line[2])
            if mine[3] == wanted:
                return node
        raise LookupError("it has no replica")

    def another_master(self, than: Node) -> Node:
        """Give a master that serves other slots."""
        masters = [node for node in self.nodes if node is not than and node.facts("replication")["role"] == "master"]
        return masters[0]

    def is_whole(self) -> bool:
        """Tell whether every node sees every other well, all slots are served, and each master has its replica."""
        try:
            for node in self.nodes:
                lines = self._lines(node)
                flags = [line[2].replace("myself,", "") for line in lines]
                state = dict(row.split(":", 1) for row in node.ask("CLUSTER", "INFO").decode().split("\r\n") if row)
                if sorted(flags) != ["master"] * _MASTERS + ["slave"] * _MASTERS or state["cluster_state"] != "ok":
                    return False
                facts = node.facts("replication")
                if facts["role"] == "master" and facts.get("slave0", {}).get("state") != "online":
                    return False
                if facts["role"] == "slave" and facts["master_link_status"] != "up":
                    return False
            self.master()
        except (LookupError, redis.exceptions.RedisError):
            return False
        return True

    # --- a slot -----------------------------------------------------------------------------------------------------

    def begin_migration(self, source: Node, target: Node) -> None:
        """Open the slot on both ends: from now on scripts are refused where some of their keys are missing."""
        target.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", self._id(source))
        source.ask("CLUSTER", "SETSLOT", SLOT, "MIGRATING", self._id(target))

    def move_keys(self, source: Node, target: Node, most: int = 1000) -> int:
        """Move keys that are there now, at most so many; give how many."""
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", SLOT, most)
        for key in keys:
            where = (HOST, target.announced, "", 0, 2000, "REPLACE", "AUTH2", ADMIN, self._password, "KEYS", key)
            source.ask("MIGRATE", *where)
        return len(keys)

    def end_migration(self, source: Node, target: Node) -> None:
        """Give the slot to the target: on itself, then the source, then the others."""
        masters = [node for node in self.nodes if node.facts("replication").get("role") == "master"]
        for node in (target, source, *(one for one in masters if one not in (source, target))):
            node.ask("CLUSTER", "SETSLOT", SLOT, "NODE", self._id(target))

    def migrate_at_once(self, source: Node, target: Node) -> None:
        """Have the source hand the slot over by itself (Valkey 9)."""
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SLOT, SLOT, "NODE", self._id(target))

    def _id(self, node: Node) -> str:
        return self.ids[self.nodes.index(node)]

    def _epoch(self, node: Node) -> int:
        mine = next(line for line in self._lines(node) if "myself" in line[2])
        return int(mine[6])

    def _serves(self, node: Node) -> bool:
        try:
            mine = next(line for line in self._lines(node) if "myself" in line[2])
        except redis.exceptions.RedisError:
            return False
        for words in mine[8:]:
            first, _, last = words.partition("-")
            if first.isdigit() and int(first) <= SLOT <= int(last or first):
                return "master" in mine[2]
        return False

    @staticmethod
    def _lines(node: Node) -> list[list[str]]:
        text: bytes = node.ask("CLUSTER", "NODES")  # two words: the driver makes no dict of it
        return [row.split(" ") for row in text.decode().splitlines()]


@contextlib.contextmanager
def started(crew: Crew, timing: Timing) -> Iterator[Cluster]:
    """Start all of it; who uses it waits until `is_whole`. It goes with this process, however that ends."""
    password = new_password()
    ports = {f"{number}{bus}": new_port() for number in range(2 * _MASTERS) for bus in ("", " bus")}
    relays = network.started(crew, ports)
    buses = [relays.ports[f"{number} bus"] for number in range(2 * _MASTERS)]
    with contextlib.ExitStack() as stack:
        nodes: list[Node] = []
        for number, bus in enumerate(buses):
            announced = relays.ports[f"{number}"]
            options = (
                *timing.options(),
                *("--cluster-port", str(ports[f"{number} bus"]), "--cluster-announce-bus-port", str(bus)),
                *("--cluster-announce-ip", HOST, "--cluster-announce-port", str(announced)),
            )
            node = start_node(number, password, options, port=ports[f"{number}"], announced=announced)
            nodes.append(stack.enter_context(contextlib.closing(node)))
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            nodes[0].ask("CLUSTER", "MEET", HOST, node.announced, bus)
        cluster = Cluster(nodes, relays, password)
        for number, master in enumerate(nodes[:_MASTERS]):
            first, last = _SLOTS * number // _MASTERS, _SLOTS * (number + 1) // _MASTERS - 1
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, follower in enumerate(nodes[_MASTERS:]):
            _follow(follower, cluster.ids[number])
        yield cluster


def _follow(follower: Node, master: str) -> None:
    """Make it a replica, as soon as it has heard of its master."""
    until = time.monotonic() + 30.0
    while True:
        try:
            follower.ask("CLUSTER", "REPLICATE", master)
        except redis.exceptions.ResponseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
