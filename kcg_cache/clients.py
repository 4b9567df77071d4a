"""Clients of Redis: made from a URL so that every call is bounded, or checked where one is passed."""

import inspect
from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kcg_cache.errors import ConfigurationError
from kcg_cache.settings import without_password

#: redis-py 8 tells the server its release, and reads that from the disk for every connection that it makes: half of
#: what connecting costs, unless it is told. Older releases do not know the word.
_DRIVER = {"driver_info": redis.DriverInfo(lib_version=redis.__version__)} if hasattr(redis, "DriverInfo") else {}


def connect(url: str, timeout: float) -> "redis.Redis":
    """Make a client whose every call is bounded by `timeout` seconds and is not retried behind our back.

    Raises `ConfigurationError` for a URL that redis-py does not read.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **_DRIVER,
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"redis_url {without_password(url)!r} cannot be used: {error}") from error


def checked(client: Any) -> Any:
    """Give a client that was passed; raise `ConfigurationError` for one that is none, or an asyncio one."""
    if isinstance(client, (redis.asyncio.Redis, redis.asyncio.RedisCluster)) or inspect.iscoroutinefunction(
        getattr(client, "execute_command", None)
    ):
        raise ConfigurationError(
            f"{type(client).__module__}.{type(client).__name__} is an asyncio client: give a sync one, or a URL"
        )
    unfit = isinstance(client, (redis.client.Pipeline, redis.Sentinel))
    if unfit or not callable(getattr(client, "execute_command", None)):
        raise ConfigurationError(f"{type(client).__name__} is no redis client: give a redis.Redis, or a URL")
    return client


def bound_of(client: Any) -> float | None:
    """Give the longest that one call of a client may take, in seconds; None for no bound, 0 where no socket is."""
    if getattr(client, "kcg_cache_in_process", False):  # set by kcg_cache.testing
        return 0.0
    kwargs = arguments_of(client)
    timeout = kwargs.get("socket_timeout", 5.0)
    connect_timeout = kwargs.get("socket_connect_timeout", timeout)
    if timeout is None or connect_timeout is None:
        return None
    retry = kwargs.get("retry") or getattr(client, "retry", None)
    tries = 1 + (retry.get_retries() if retry is not None else 0)
    waiting = getattr(getattr(client, "connection_pool", None), "timeout", 0.0)  # of a pool that blocks
    return None if waiting is None else max(float(timeout), float(connect_timeout)) * tries + float(waiting)


def arguments_of(client: Any) -> Mapping[str, Any]:
    """Give what a client makes its connections with; a client that does not say has no timeout."""
    kwargs = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    if kwargs is None:  # a cluster client keeps them elsewhere
        kwargs = getattr(getattr(client, "nodes_manager", None), "connection_kwargs", None)
    return kwargs if isinstance(kwargs, Mapping) else {"socket_timeout": None}


class ClientTimeoutWarning(UserWarning):
    """A client was passed whose timeouts or retries let a call take longer than redis_timeout."""
