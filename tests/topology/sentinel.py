"""A master, two replicas and three Sentinels, each data server behind a relay; what an operator of servers does."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import redis

from tests.soak.crew import Crew
from tests.topology import network
from tests.topology.nodes import HOST, SENTINEL, Node, new_password, new_port, start_node, start_sentinel

SERVICE = "kcg"
_REPLICAS, _SENTINELS, _QUORUM = 2, 3, 2
_IN_STEP_WITHIN = 30.0


@dataclass(frozen=True)
class Timing:
    """What decides how long a failover takes, and how long a master that is cut off goes on."""

    #: Milliseconds without an answer after which a Sentinel takes a master for dead.
    down_after: int = 1000
    #: How many replicas a master must have to accept writes; 0: it never asks.
    min_replicas: int = 1
    #: Seconds since its last word after which a replica does not count.
    max_lag: int = 1

    def options(self) -> tuple[str, ...]:
        """Give the options of every data server."""
        return (
            *("--min-replicas-to-write", str(self.min_replicas)),
            *("--min-replicas-max-lag", str(self.max_lag)),
        )


class Sentinels:
    """The servers, and the relays in front of those with data."""

    def __init__(self, nodes: list[Node], sentinels: list[Node], relays: network.Network, password: str) -> None:
        self.nodes = nodes
        self.sentinels = sentinels
        self._relays = relays
        self._password = password

    def url(self, user: str) -> str:
        """Give the address for clients: the Sentinels', with the user of the data servers."""
        addresses = ",".join(f"{HOST}:{node.server.port}" for node in self.sentinels)
        return f"redis+sentinel://{user}:{self._password}@{addresses}/{SERVICE}"

    def master(self) -> Node:
        """Give the master that most Sentinels name; raises `LookupError` while they do not agree."""
        named = [self._named(sentinel) for sentinel in self.sentinels]
        for node in self.nodes:
            if named.count(node.announced) >= _QUORUM:
                return node
        raise LookupError(f"the Sentinels name {named}")

    def is_whole(self) -> bool:
        """Tell whether there is one master with every replica in step, and every Sentinel knows it."""
        try:
            master = self.master()
            seen = [_pairs(sentinel.ask("SENTINEL", "MASTER", SERVICE)) for sentinel in self.sentinels]
        except (LookupError, redis.exceptions.RedisError):
            return False
        facts = master.facts("replication")
        in_step = [facts.get(f"slave{number}", {}) for number in range(_REPLICAS) if f"slave{number}" in facts]
        return (
            facts.get("role") == "master"
            and [replica["state"] for replica in in_step] == ["online"] * _REPLICAS
            and all(replica["lag"] <= 1 for replica in in_step)
            and all(
                (one["port"], one["flags"]) == (str(master.announced), "master")
                and (int(one["num-slaves"]), int(one["num-other-sentinels"])) == (_REPLICAS, _SENTINELS - 1)
                for one in seen
            )
            and all(self._sees_healthy_replicas(sentinel) for sentinel in self.sentinels)
        )

    def cut(self, node: Node, *users: str) -> int:
        """Let nothing of these users through to a node, and all of everybody else; give how many links that cut."""
        return self._relays.cut(str(self.nodes.index(node)), *users)

    def fail_over(self, *how: str) -> None:
        """Have a Sentinel fail the master over by order; `COORDINATED` has both servers hand over (Valkey 9)."""
        self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE, *how)

    def _named(self, sentinel: Node) -> int:
        try:
            found = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        except redis.exceptions.RedisError:
            return 0
        return int(found[1]) if found else 0

    def _sees_healthy_replicas(self, sentinel: Node) -> bool:
        replicas = [_pairs(one) for one in sentinel.ask("SENTINEL", "REPLICAS", SERVICE)]
        return all(
            one["flags"] == "slave" and one["master-link-status"] == "ok" and one["slave-repl-offset"] != "0"
            for one in replicas
        )


@contextlib.contextmanager
def started(crew: Crew, timing: Timing) -> Iterator[Sentinels]:
    """Start all of it; who uses it waits until `is_whole`. It goes with this process, however that ends."""
    password = new_password()
    ports = [new_port() for _ in range(1 + _REPLICAS)]
    relays = network.started(crew, {str(number): port for number, port in enumerate(ports)})
    with contextlib.ExitStack() as stack:
        nodes: list[Node] = []
        for number, port in enumerate(ports):
            announced = relays.ports[str(number)]
            options = (*timing.options(), "--replica-announce-ip", HOST, "--replica-announce-port", str(announced))
            node = start_node(number, password, options, port=port, announced=announced)
            nodes.append(stack.enter_context(contextlib.closing(node)))
        for replica in nodes[1:]:
            replica.ask("REPLICAOF", HOST, nodes[0].announced)
        # A Sentinel looks at a replica when it finds it, and then every ten seconds: what it finds is to be in step.
        until = time.monotonic() + _IN_STEP_WITHIN
        while any(node.facts("replication").get("master_link_status") != "up" for node in nodes[1:]):
            if time.monotonic() > until:
                raise TimeoutError("the replicas do not come into step")
            time.sleep(0.05)
        sentinels = [stack.enter_context(contextlib.closing(start_sentinel(password))) for _ in range(_SENTINELS)]
        for sentinel in sentinels:
            sentinel.ask("SENTINEL", "MONITOR", SERVICE, HOST, nodes[0].announced, _QUORUM)
            for name, value in {
                "auth-user": SENTINEL,
                "auth-pass": password,
                "down-after-milliseconds": timing.down_after,
                "failover-timeout": 10_000,
                "parallel-syncs": _REPLICAS,
            }.items():
                sentinel.ask("SENTINEL", "SET", SERVICE, name, value)
        # By order, the first is the one to go back to.
        nodes[0].ask("CONFIG", "SET", "replica-priority", 10)
        yield Sentinels(nodes, sentinels, relays, password)


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
