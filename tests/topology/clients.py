"""Clients that a user makes by himself from redis-py's classes, for the fleets that are not given a URL."""

from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# Not typed in redis-py.
_ClusterNode: Any = redis.cluster.ClusterNode
_Sentinel: Any = redis.Sentinel

#: In front of a URL: not for the library to read, but for a client that is made here.
PLAIN = "plain:"


def given(url: str, timeout: float) -> Any:
    """Give what a `SharedCache` is given for this address: the URL itself, or a client whose every wait is bounded."""
    if not url.startswith(PLAIN):
        return url
    parts = urlsplit(url.removeprefix(PLAIN))
    where, _, addresses = parts.netloc.rpartition("@")
    username, _, password = where.partition(":")
    hosts = [(host, int(port)) for host, _, port in (address.partition(":") for address in addresses.split(","))]
    bounds: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    user: dict[str, Any] = {"username": username, "password": password}
    if parts.scheme == "redis+cluster":
        return redis.RedisCluster(startup_nodes=[_ClusterNode(host, port) for host, port in hosts], **bounds, **user)
    sentinel = _Sentinel(hosts, sentinel_kwargs=bounds)
    return sentinel.master_for(parts.path.strip("/"), redis_class=redis.Redis, **bounds, **user)


def settings_of(url: str) -> dict[str, str]:
    """Give the setting that names this address, for processes that make their cache from settings alone."""
    return {} if url.startswith(PLAIN) else {"redis_url": url}
