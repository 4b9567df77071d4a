"""What grows with a fleet beside the server's core: replicas' links, connections, datasets, a Cluster's masters."""

import contextlib
import dataclasses
import functools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.crc
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from benchmarks.candidates import Place
from benchmarks.candidates.kcg import settings_of
from benchmarks.crew import Local, Member, clock
from benchmarks.fleet import reading, shares
from benchmarks.results import Result, Table, amount
from benchmarks.rig import Effort, Rig
from kcg_cache import ACTIVE_VERSIONS, SharedCache
from kcg_cache.embedded import EmbeddedValkey, start_valkey
from kcg_cache.keys import Keys

NAME = "scaling"
TITLE = "what grows with the fleet: replication, connections, datasets, the nodes of a Cluster"

_PROCESSES = 4
_MASTERS = 3
_SLOTS = 16384
_DEADLINE = 30.0
#: The servers have passwords of their own, and a Cluster's client one for all: that of this user.
_USER = "bench"
#: A replica is sent the data when it comes, without waiting for more replicas.
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
_NOTES = (
    (
        "*Sent to replicas* is what `master_repl_offset` grew by: the same bytes go to every replica, and to an "
        "append-only file where one is kept. A question writes nothing but the presence of its reader; with "
        "`present=False` it writes nothing at all."
    ),
    (
        "*Connections*: a cache that is given a URL opens its own, one for each thread that asks at the same time; "
        "caches that are given one client share its pool. Here each process reads all its datasets in one thread."
    ),
    (
        "*Cluster*: the keys of one dataset carry one hash tag, so each dataset lives on one master, as a whole. Many "
        "datasets spread by their slots, as evenly as chance does; one dataset stays on one master however many "
        "there are. The share is of the questions of a second."
    ),
)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the readers are given: the servers, and whether those of a process share one client."""

    urls: tuple[str, ...]
    shared: bool = False
    present: bool = True
    #: Of `_USER`, on every master of a Cluster; a single server's is in its URL.
    password: str = ""
    #: Seconds over which those of a process are opened.
    spread: float = 1.0

    def client(self, timeout: float) -> Any:
        """Make the client that the readers of a process share."""
        bounds: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2}
        if not self.password:
            return redis.Redis.from_url(self.urls[0], retry=Retry(NoBackoff(), 0), **bounds)
        nodes: list[Any] = [ClusterNode(url.hostname, url.port) for url in map(urlsplit, self.urls)]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, username=_USER, password=self.password, **bounds)


@dataclass(frozen=True, slots=True)
class Second:
    """What a server did in a second."""

    questions: float
    replicated: float
    clients: int
    fleet_bytes: int


def run(rig: Rig, effort: Effort) -> Result:
    """Measure each, with readers whose leases of a second end one by one."""
    result = Result(NAME, TITLE)
    seconds = effort.of(10.0, 0.3)
    with rig.crew(_PROCESSES) as members:
        result.tables.append(_replication(rig, members, effort, seconds, result))
        result.tables.append(_connections(rig, members, effort, seconds, result))
        result.tables.append(_cluster(rig, members, effort, seconds, result))
    result.notes += _NOTES
    return result


# --- one server -----------------------------------------------------------------------------------------------------


def _replication(rig: Rig, members: Sequence[Member], effort: Effort, seconds: float, result: Result) -> Table:
    """One reader after the other asks; a replica hears of it."""
    readers, spread = effort.of(256, 4), effort.of(1.0, 0.0)
    rows = []
    with start_valkey(options=_AT_ONCE) as master, start_valkey(options=_replica_of(master)) as replica:
        for server in (master, replica):
            rig.pin_server(server.pid)
        with contextlib.closing(_client(master)) as client:
            _until(lambda: client.info("replication").get("slave0", {}).get("state") == "online")
            for present in (True, False):
                with _reading(
                    rig, members, _Given((master.url,), present=present, spread=spread), shares(readers, _PROCESSES)
                ) as keys:
                    second = _second(client, seconds, keys)
                each = second.replicated / second.questions if second.questions else 0.0
                rows.append(
                    (
                        f"{readers} readers" if present else f"{readers} readers, `present=False`",
                        f"{second.questions:,.0f}",
                        f"{amount(each)}",
                        f"{amount(second.replicated)}/s",
                        amount(second.fleet_bytes / readers) if present else "0 B",
                    )
                )
                result.figures[f"replication, present={present}"] = asdict(second)
    head = (
        "readers",
        "questions a second",
        "sent to replicas for each",
        "sent to replicas",
        "the fleet's key, for each",
    )
    return Table("One server with a replica, lease of 1 s", head, tuple(rows))


def _connections(rig: Rig, members: Sequence[Member], effort: Effort, seconds: float, result: Result) -> Table:
    """Several datasets in each process: what the server holds and does."""
    rows = []
    with start_valkey() as server, contextlib.closing(_client(server)) as client:
        rig.pin_server(server.pid)
        idle = int(client.info("clients")["connected_clients"])
        for datasets in effort.of((1, 4, 16), (1, 2)):
            for shared in (False, True):
                given = _Given((server.url,), shared, spread=effort.of(1.0, 0.0))
                with _reading(rig, members, given, (1,) * _PROCESSES, datasets) as keys:
                    second = _second(client, seconds, keys)
                rows.append(
                    (
                        str(datasets),
                        "one client" if shared else "a URL each",
                        f"{(second.clients - idle) / _PROCESSES:g}",
                        f"{second.questions / _PROCESSES:.1f}",
                    )
                )
                result.figures[f"{datasets} datasets, shared={shared}"] = asdict(second)
    head = ("datasets in a process", "given", "connections of a process", "questions of a process a second")
    return Table("Datasets and connections, lease of 1 s", head, tuple(rows))


# --- a Cluster ------------------------------------------------------------------------------------------------------


def _cluster(rig: Rig, members: Sequence[Member], effort: Effort, seconds: float, result: Result) -> Table:
    """Datasets and their questions spread over the masters."""
    rows = []
    with _masters(rig) as (servers, password), contextlib.ExitStack() as stack:
        given = _Given(
            tuple(server.url for server in servers), shared=True, password=password, spread=effort.of(1.0, 0.0)
        )
        clients = [stack.enter_context(contextlib.closing(_client(server))) for server in servers]
        for datasets in effort.of((1, 12, 96), (1, 3)):
            with _reading(rig, members, given, (1,) * _PROCESSES, datasets) as keys:
                before = [_questions(client) for client in clients]
                time.sleep(seconds)
                asked = [_questions(client) - then for client, then in zip(clients, before, strict=True)]
            placed = [_place(one.entry) for one in keys]
            total = max(1, sum(asked))
            rows.append(
                (
                    str(datasets),
                    " / ".join(str(placed.count(master)) for master in range(_MASTERS)),
                    " / ".join(f"{100 * one / total:.0f}%" for one in asked),
                )
            )
            result.figures[f"cluster, {datasets} datasets"] = {
                "datasets": [placed.count(master) for master in range(_MASTERS)],
                "questions": asked,
            }
    head = ("datasets", "on each master", "of the questions, on each master")
    return Table(f"A Cluster of {_MASTERS} masters, {_PROCESSES} processes that read every dataset", head, tuple(rows))


@contextlib.contextmanager
def _masters(rig: Rig) -> Iterator[tuple[list[EmbeddedValkey], str]]:
    """Start a Cluster of masters without replicas, each with a third of the slots; give the password of `_USER`."""
    password = secrets.token_hex(16)
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "15000")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(start_valkey(options=options)) for _ in range(_MASTERS)]
        clients = [stack.enter_context(contextlib.closing(_client(server))) for server in servers]
        for number, (server, client) in enumerate(zip(servers, clients, strict=True)):
            rig.pin_server(server.pid)
            first, last = _slots(number)
            client.execute_command("ACL", "SETUSER", _USER, "on", f">{password}", "~*", "+@all")
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            clients[0].execute_command("CLUSTER", "MEET", server.host, server.port)
        for client in clients:
            _until(functools.partial(_sees_all, client))
        yield servers, password


def _sees_all(client: Any) -> bool:
    """Tell whether a master knows the others and their slots."""
    return len(client.execute_command("CLUSTER", "SLOTS")) == _MASTERS and (
        b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO")
    )


def _slots(master: int) -> tuple[int, int]:
    return _SLOTS * master // _MASTERS, _SLOTS * (master + 1) // _MASTERS - 1


def _place(key: str) -> int:
    """Tell which master has a key."""
    slot = redis.crc.key_slot(key.encode())
    return next(master for master in range(_MASTERS) if slot <= _slots(master)[1])


# --- looking at a server --------------------------------------------------------------------------------------------


def _client(server: EmbeddedValkey) -> Any:
    return redis.Redis.from_url(server.url, protocol=2)


def _replica_of(master: EmbeddedValkey) -> tuple[str, ...]:
    return ("--replicaof", f"{master.host} {master.port}", "--masterauth", master.password)


def _until(true: Callable[[], bool]) -> None:
    """Wait until it is so; raise `TimeoutError` when it does not come."""
    deadline = clock() + _DEADLINE
    while not true():
        if clock() > deadline:
            raise TimeoutError(f"it did not come within {_DEADLINE:g} s")
        time.sleep(0.05)


def _questions(client: Any) -> int:
    return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def _second(client: Any, seconds: float, keys: Sequence[Keys]) -> Second:
    """Watch a server for some seconds."""
    questions, offset, began = _questions(client), client.info("replication")["master_repl_offset"], clock()
    time.sleep(seconds)
    asked, sent, took = _questions(client), client.info("replication")["master_repl_offset"], clock() - began
    return Second(
        questions=(asked - questions) / took,
        replicated=(sent - offset) / took,
        clients=int(client.info("clients")["connected_clients"]),
        fleet_bytes=sum(int(client.memory_usage(one.fleet, samples=0) or 0) for one in keys),
    )


# --- readers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(
    rig: Rig, members: Sequence[Member], given: _Given, readers: Sequence[int], datasets: int = 1
) -> Iterator[list[Keys]]:
    """Have each process read with so many readers of each dataset for the length of the block; give their keys."""
    place = Place(given.urls[0], rig.database("S"), rig.namespace())
    names = [f"set-{number}" for number in range(datasets)]
    each = [(place, given, names, count) for count in readers]
    with reading(rig, members, _open, each):
        yield [Keys.of(place.namespace, name) for name in names]


def _open(local: Local, place: Place, given: _Given, names: list[str], count: int) -> None:
    """Open so many readers of each dataset, one after the other: a fleet's leases do not end all at once."""
    client = given.client(place.timeout) if given.shared else None
    caches = []
    for name in names:
        dataset = dataclasses.replace(ACTIVE_VERSIONS, name=name)
        for _ in range(count):
            redis_ = given.urls[0] if client is None else client
            cache = SharedCache(redis_, dataset, settings_of(place), present=given.present)
            cache.read(place.database.connection)
            caches.append(cache)
            time.sleep(given.spread / (count * len(names)))
    local.things.update(caches=caches, place=place, client=client)
