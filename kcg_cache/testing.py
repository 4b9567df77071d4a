"""For your own tests: the whole cache on fakeredis, without a server (extra ``testing``).

::

    redis = kcg_cache.testing.fake_redis()          # or adapt(fakeredis.FakeRedis())
    cache = kcg_cache.SharedCache(redis, settings=kcg_cache.Settings())

fakeredis has no INFO, which tells the scripts which server they run on (PROTOCOL R10), so it is given one.
"""

import os
import weakref
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kcg_cache.errors import ConfigurationError

try:
    import fakeredis
    from fakeredis._commands import SUPPORTED_COMMANDS, command
    from fakeredis._socket import FakeSocket
except ImportError as missing:
    raise ImportError("kcg_cache.testing needs fakeredis 2.39 or newer: pip install 'kcg-cache[testing]'") from missing

_Ids = dict[str, str]
_INCARNATIONS: "weakref.WeakKeyDictionary[fakeredis.FakeServer, _Ids]" = weakref.WeakKeyDictionary()


def _ids_of(server: fakeredis.FakeServer) -> _Ids:
    return _INCARNATIONS.setdefault(server, {"run_id": _fresh_id(), "master_replid": _fresh_id()})


def _fresh_id() -> str:
    return os.urandom(20).hex()


def _info(self: Any, *_sections: bytes) -> bytes:
    """INFO, as far as kcg_cache reads it."""
    ids = _ids_of(self._server)
    lines = ["# Server", "redis_version:0.0.0-fakeredis", f"run_id:{ids['run_id']}"]
    lines += ["# Replication", "role:master", f"master_replid:{ids['master_replid']}"]
    return "\r\n".join(lines).encode()


def _register_info() -> None:
    if "info" not in SUPPORTED_COMMANDS:
        FakeSocket.info = _info  # type: ignore[attr-defined]
        command(name="info", fixed=(), repeat=(bytes,))(_info)
        SUPPORTED_COMMANDS["info"].func_name = "info"


def adapt(client: Any) -> Any:
    """Make a sync fakeredis client fit for `SharedCache`, and give it back.

    Raises `ConfigurationError` for anything that is not one.
    """
    if not isinstance(client, redis.Redis) or server_of(client) is None:
        raise ConfigurationError(f"{client!r} is no sync client of fakeredis: give fakeredis.FakeRedis()")
    _register_info()
    client.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
    client.kcg_cache_in_process = True  # type: ignore[attr-defined]
    return client


def fake_redis(**arguments: Any) -> Any:
    """Give a client of a fakeredis server of its own; `arguments` are `fakeredis.FakeRedis`'s."""
    arguments.setdefault("server", fakeredis.FakeServer())
    return adapt(fakeredis.FakeRedis(**arguments))


def restart(client: Any, *, failover: bool = False) -> None:
    """Give the client's fake server a new incarnation and its old data: a restart from a file, or a failover (R10)."""
    server = server_of(client)
    if server is None:
        raise ConfigurationError(f"{client!r} is no client of fakeredis")
    ids = _ids_of(server)
    ids["master_replid" if failover else "run_id"] = _fresh_id()


def server_of(client: Any) -> fakeredis.FakeServer | None:
    """Give the fake server behind a client; None for a client that is none of fakeredis's."""
    pool = getattr(client, "connection_pool", None)
    if pool is None or not hasattr(pool, "connection_kwargs"):
        return None
    server = pool.connection_kwargs.get("server")
    if isinstance(server, fakeredis.FakeServer):
        return server
    if "client_class" not in pool.connection_kwargs:
        return None
    # A client without a server of its own is given one of a name by its first connection.
    connection = pool.make_connection()
    return getattr(connection, "_server", None)
