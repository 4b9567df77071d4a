"""Clients of Redis: made from settings so that every call is bounded, or checked where one is passed.

A `Client` is how the store talks to one: a single server, the master that Sentinels name, or a Cluster. All three are
redis-py's own clients; what is added is where a command without a key goes, and what is forgotten after a failure.
"""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import redis
import redis.asyncio
from redis.client import NEVER_DECODE

from kcg_cache import connecting, redis_url
from kcg_cache.errors import ConfigurationError
from kcg_cache.redis_url import Place
from kcg_cache.settings import Settings
from kcg_cache.system import SYSTEM

# Not typed in redis-py.
_Sentinel: Any = redis.Sentinel
_ClusterNode: Any = redis.cluster.ClusterNode
#: A command may be sent so often before an answer is one: MOVED, then ASK, and once more each. redis-py's own 16 are
#: for the length of a migration, which no reader waits out.
CLUSTER_HOPS = 4


class Client:
    """One server, by a client of redis-py that keeps its connections in one pool."""

    def __init__(self, client: Any) -> None:
        #: redis-py's.
        self.redis = client

    def execute(self, _key: str, *command: Any) -> Any:
        """Send one command to the server that holds the key; NEVER_DECODE keeps payloads bytes on any client."""
        return self.redis.execute_command(*command, **{NEVER_DECODE: True})

    def forget(self) -> None:
        """Close the idle connections: one of them may hold an answer that nobody waited for."""
        self.redis.connection_pool.disconnect(inuse_connections=False)

    def look_again(self, symptom: str) -> None:
        """After a call that failed by this symptom: see to it that the next one asks again where the server is."""

    def close(self) -> None:
        """Close the connections; they are opened anew when it is used again."""
        self.redis.close()

    @property
    def addresses(self) -> int:
        """How many addresses one call may try, one after the other."""
        return 1

    @property
    def socket_timeout(self) -> float | None:
        """Seconds that redis-py waits for an answer; None for ever."""
        timeout = _timeouts(self._arguments)[0]
        return None if timeout is None else float(timeout)

    @property
    def bound(self) -> float | None:
        """The longest that one call may take, in seconds; None for no bound, 0 where no socket is."""
        if getattr(self.redis, "kcg_cache_in_process", False):  # set by kcg_cache.testing
            return 0.0
        once = self._once()
        waiting = getattr(getattr(self.redis, "connection_pool", None), "timeout", 0.0)  # of a pool that blocks
        if once is None or waiting is None:
            return None
        return once * _tries(self._arguments, self.redis) + float(waiting)

    @property
    def _arguments(self) -> Mapping[str, Any]:
        """What connections are made with; a client that does not say has no timeout."""
        kwargs = getattr(getattr(self.redis, "connection_pool", None), "connection_kwargs", None)
        return kwargs if isinstance(kwargs, Mapping) else {"socket_timeout": None}

    def _once(self) -> float | None:
        """Give the longest that one try may take, in seconds; None for no bound."""
        return _longest(self._arguments)


class SentinelClient(Client):
    """The master that Sentinels name: redis-py asks them whenever it opens a connection, and only then."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._manager = client.connection_pool.sentinel_manager
        # redis-py moves the one that answered to the front; two threads that do so at once can lose one.
        self._sentinels = tuple(self._manager.sentinels)
        self._first = 0

    def look_again(self, _symptom: str) -> None:
        """Ask the Sentinels again, and another of them first.

        A master that is cut off or was demoted keeps its clients; so does the one Sentinel that is cut off with it.
        """
        self.forget()
        self._first = (self._first + 1) % len(self._sentinels)
        self._manager.sentinels = [*self._sentinels[self._first :], *self._sentinels[: self._first]]

    @property
    def addresses(self) -> int:
        """Each Sentinel, and the master."""
        return len(self._sentinels) + 1

    def close(self) -> None:
        """Close the connections to the Sentinels, too."""
        super().close()
        for sentinel in self._sentinels:
            sentinel.close()

    def _once(self) -> float | None:
        total = super()._once()
        for sentinel in self._sentinels:
            arguments = sentinel.connection_pool.connection_kwargs
            longest = _longest(arguments)
            if total is None or longest is None:
                return None
            total += longest * _tries(arguments, sentinel)
        return total


class ClusterClient(Client):
    """The node of a Cluster that holds a dataset's slot, as redis-py's cluster client finds it."""

    def execute(self, key: str, *command: Any) -> Any:
        """Send one command to the node that holds the key, whether the command names the key or not.

        redis-py reads a script's keys by itself; for other commands it may have to ask the server where they are.
        """
        client = self._client()
        if command[0] in ("EVALSHA", "EVAL"):
            return client.execute_command(*command, **{NEVER_DECODE: True})
        node = client.get_node_from_key(key)
        # What it merges the answers of several nodes by (PING) does not know the word.
        options = {} if command[0] in client.result_callbacks else {NEVER_DECODE: True}
        return client.execute_command(*command, target_nodes=node, **options)

    def _client(self) -> Any:
        return self.redis

    def forget(self) -> None:
        """Close the idle connections of each node."""
        if self.redis is not None:
            for node in self.redis.get_nodes():
                if node.redis_connection is not None:
                    node.redis_connection.connection_pool.disconnect(inuse_connections=False)

    def look_again(self, symptom: str) -> None:
        """Ask the nodes who holds what, another one first, where redis-py has not done so itself.

        It has after a lost connection. A master that is cut off answers its clients still, and refuses to write; asked
        who holds what, it names itself.
        """
        if self.redis is None or symptom in ("connection", "timeout"):
            return
        self.forget()
        nodes = self.redis.nodes_manager
        first, *others = nodes.startup_nodes.items()
        nodes.startup_nodes = dict([*others, first])
        # The call has failed already, and says so; the next one that fails asks again.
        with contextlib.suppress(redis.RedisError, OSError):
            nodes.initialize()

    @property
    def addresses(self) -> int:
        """The node, and each that is asked who holds what when it fails."""
        return 1 + len(self.redis.nodes_manager.startup_nodes)

    @property
    def _arguments(self) -> Mapping[str, Any]:
        kwargs = self.redis.nodes_manager.connection_kwargs
        return kwargs if isinstance(kwargs, Mapping) else {"socket_timeout": None}

    @property
    def bound(self) -> float | None:
        """The longest that one call may take, in seconds: each try asks the nodes, too."""
        longest = _longest(self._arguments)
        return None if longest is None else longest * self.addresses * (1 + self.redis.retry.get_retries())


class LazyClusterClient(ClusterClient):
    """A cluster client that is made when it is used first: redis-py asks the nodes when it makes one."""

    def __init__(self, make: Callable[[], Any], nodes: int, timeout: float) -> None:
        super().__init__(None)
        self._make = make
        self._nodes = nodes
        self._timeout = timeout
        self._pid = 0

    def _client(self) -> Any:
        pid = SYSTEM.pid()
        if self.redis is None or self._pid != pid:  # after a fork another thread's locks in it are never given back
            self.redis, self._pid = self._make(), pid
        return self.redis

    def close(self) -> None:
        """Close the connections; redis-py's client does not come back from that, so that another is made."""
        client, self.redis = self.redis, None
        if client is not None:
            client.close()

    @property
    def addresses(self) -> int:
        """The node, and each that the URL names."""
        return 1 + self._nodes

    @property
    def socket_timeout(self) -> float | None:
        """Seconds that redis-py waits for an answer."""
        return self._timeout

    @property
    def bound(self) -> float | None:
        """The longest that one call may take, in seconds."""
        return self._timeout * self.addresses


class ClientTimeoutWarning(UserWarning):
    """A client was passed whose timeouts or retries let a call take longer than redis_timeout."""


# --- made -----------------------------------------------------------------------------------------------------------


def connect(settings: Settings) -> Client:
    """Make a client whose every call is bounded by `redis_timeout` for each address, and not retried behind our back.

    Nothing is asked yet. Raises `ConfigurationError` for files that cannot be read.
    """
    place = redis_url.parsed(settings.redis_url)
    return _MAKERS[place.form](place, connecting.arguments(place, settings))


def _single(place: Place, arguments: dict[str, Any]) -> Client:
    if place.socket:
        address: dict[str, Any] = {"unix_socket_path": place.socket}
    else:
        address = dict(zip(("host", "port"), place.addresses[0], strict=True))
    return Client(redis.Redis(**address, db=place.db, **arguments))


def _sentinel(place: Place, arguments: dict[str, Any]) -> Client:
    asking = connecting.for_sentinels(place, arguments)
    sentinel: Any = _Sentinel(place.addresses, sentinel_kwargs=asking, db=place.db, **arguments)
    return SentinelClient(sentinel.master_for(place.service))


def _cluster(place: Place, arguments: dict[str, Any]) -> Client:
    def make() -> Any:
        client = redis.RedisCluster(
            startup_nodes=[_ClusterNode(*address) for address in place.addresses],
            # A dataset is one slot: it lives on where others are not served.
            require_full_coverage=False,
            # Those of the URL, which may be names that lead elsewhere tomorrow; and no more are tried in one call.
            dynamic_startup_nodes=False,
            # MOVED names the node that has the slot now, the only one that matters: nobody else need be asked.
            reinitialize_steps=0,
            **arguments,
        )
        client.RedisClusterRequestTTL = CLUSTER_HOPS
        return client

    return LazyClusterClient(make, len(place.addresses), max(_timeouts(arguments)))


_MAKERS: dict[str, Callable[[Place, dict[str, Any]], Client]] = {
    "single": _single,
    "sentinel": _sentinel,
    "cluster": _cluster,
}


# --- passed ---------------------------------------------------------------------------------------------------------


def given(client: Any) -> Client:
    """Take a client that was passed; raise `ConfigurationError` for one that is none, or that cannot write."""
    if isinstance(client, (redis.asyncio.Redis, redis.asyncio.RedisCluster)) or inspect.iscoroutinefunction(
        getattr(client, "execute_command", None)
    ):
        raise ConfigurationError(
            f"{type(client).__module__}.{type(client).__name__} is an asyncio client: give a sync one, or a URL"
        )
    if isinstance(client, redis.Sentinel):
        raise ConfigurationError("a Sentinel is no redis client: give its master_for(SERVICE), or a URL")
    unfit = isinstance(client, redis.client.Pipeline)
    if unfit or not callable(getattr(client, "execute_command", None)):
        raise ConfigurationError(f"{type(client).__name__} is no redis client: give a redis.Redis, or a URL")
    if isinstance(client, redis.RedisCluster):
        return ClusterClient(client)
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        if not pool.is_master:
            raise ConfigurationError("slave_for gives a replica, which does not write: give master_for(SERVICE)")
        return SentinelClient(client)
    return Client(client)


def _timeouts(arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """Give the seconds for an answer and for connecting; None for no end. What is not said is redis-py's default."""
    if "socket_timeout" in arguments and "socket_connect_timeout" in arguments:
        return arguments["socket_timeout"], arguments["socket_connect_timeout"]
    timeout = arguments.get("socket_timeout", inspect.signature(redis.Redis).parameters["socket_timeout"].default)
    return timeout, arguments.get("socket_connect_timeout", timeout)


def _longest(arguments: Mapping[str, Any]) -> float | None:
    timeouts = _timeouts(arguments)
    return None if None in timeouts else float(max(timeouts))


def _tries(arguments: Mapping[str, Any], client: Any) -> int:
    retry = arguments.get("retry") or getattr(client, "retry", None)
    return 1 + (retry.get_retries() if retry is not None else 0)
