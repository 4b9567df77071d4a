"""The command: scripts/redis_bounds. How long one call takes where addresses take connections and never answer."""

import argparse
import contextlib
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from kcg_cache import Settings
from kcg_cache.embedded.ports import LOOPBACK
from kcg_cache.errors import StoreError
from kcg_cache.store import Store
from tests.redis_forms import SENTINEL_PASSWORD, SERVICE, cluster_of_one, sentinel_of


@dataclass(frozen=True, slots=True)
class Bound:
    """What one call came to: seconds, and how often each silent address was tried."""

    what: str
    addresses: int
    bound: float
    took: float
    tried: tuple[int, ...]


class Silent:
    """An address that takes connections, and says nothing.

    It is one of its own among the loopback's: to a port of 127.0.0.1 come clients of servers that once had it, too.
    """

    def __init__(self) -> None:
        host = ".".join(map(str, (127, *(1 + secrets.randbelow(253) for _ in range(3)))))
        self._listener = socket.create_server((host, 0))
        self._listener.setblocking(False)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._taken: list[socket.socket] = []

    @property
    def address(self) -> str:
        """Host and port, as a URL has them."""
        return f"{self.host}:{self.port}"

    def tried(self) -> int:
        """Count the connections since it was asked last."""
        before = len(self._taken)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._taken.append(self._listener.accept()[0])
        return len(self._taken) - before

    def close(self) -> None:
        """Close it, and all connections."""
        for each in (*self._taken, self._listener):
            each.close()


def measured(timeout: float) -> Iterator[Bound]:
    """Measure one call of each kind with this `redis_timeout`, in seconds."""
    with contextlib.ExitStack() as stack:
        *silent, master = [stack.enter_context(contextlib.closing(Silent())) for _ in range(4)]
        hosts = ",".join(each.address for each in silent)
        yield _one("a single server", f"redis://{silent[0].address}", silent[:1], timeout)
        yield _one("three Sentinels", f"redis+sentinel://{hosts}/{SERVICE}", silent, timeout)
        port = stack.enter_context(sentinel_of(master.host, master.port, ""))
        sentinels = f"{silent[0].address},{silent[1].address},{LOOPBACK}:{port}"
        url = f"redis+sentinel://{sentinels}/{SERVICE}?sentinel_password={SENTINEL_PASSWORD}"
        yield _one("two of three Sentinels, and the master", url, silent[:2], timeout)
        yield _one("three nodes of a Cluster, at the first call", f"redis+cluster://{hosts}", silent, timeout)
        node = stack.enter_context(cluster_of_one())
        url = f"redis+cluster://:{node.password}@{node.host}:{node.port},{silent[0].address}"
        with contextlib.closing(_store(url, max(timeout, 5.0))) as store:
            store.inspect(1)
            made = store._client.redis
            for known in (*made.get_nodes(), *made.nodes_manager.startup_nodes.values()):
                pool = known.redis_connection and known.redis_connection.connection_pool
                if pool:
                    pool.connection_kwargs |= {"socket_timeout": timeout, "socket_connect_timeout": timeout}
                    pool.reset()
            made.nodes_manager.connection_kwargs |= {"socket_timeout": timeout, "socket_connect_timeout": timeout}
            node.pause()
            silent[0].tried()
            bound = timeout * store._client.addresses
            yield _timed("a node that held the slot, and the other of two", store, silent[:1], bound)
            node.resume()


def _store(url: str, timeout: float) -> Store:
    settings = Settings(redis_url=url, redis_timeout=timeout)
    return Store(url, "d", settings)


def _one(what: str, url: str, silent: list[Silent], timeout: float) -> Bound:
    with contextlib.closing(_store(url, timeout)) as store:
        bound = store._client.bound
        assert bound is not None
        return _timed(what, store, silent, bound)


def _timed(what: str, store: Store, silent: list[Silent], bound: float) -> Bound:
    began = time.monotonic()
    try:
        store.inspect(1)
    except StoreError:
        took = time.monotonic() - began
        return Bound(what, store._client.addresses, bound, took, tuple(each.tried() for each in silent))
    raise AssertionError(what)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(prog="scripts/redis_bounds", description=__doc__)
    parser.add_argument("--timeout", type=float, default=0.5, metavar="SECONDS", help="redis_timeout")
    given = parser.parse_args()
    sys.stdout.write("| what does not answer | addresses | bound | took |\n|---|---|---|---|\n")
    for found in measured(given.timeout):
        sys.stdout.write(f"| {found.what} | {found.addresses} | {found.bound:.2f} s | {found.took:.2f} s |\n")


if __name__ == "__main__":
    main()
