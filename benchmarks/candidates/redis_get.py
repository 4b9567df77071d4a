"""redis-py by hand: GET and orjson, SETEX on a miss, DEL to invalidate; and the same behind its client-side cache."""

from typing import Any, ClassVar

import orjson
import redis
from redis import connection as redis_connection
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from benchmarks.candidates.base import Candidate, Place


def client_of(place: Place, **changes: Any) -> Any:
    """Give a client of a place's server: RESP2, its timeout, no second attempt."""
    settings: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": place.timeout,
        "socket_connect_timeout": place.timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    return redis.Redis.from_url(place.redis_url, **settings | changes)


class RedisGet(Candidate):
    """Cache-aside with redis-py."""

    name: ClassVar = "redis-py GET + orjson"
    distributions: ClassVar[tuple[str, ...]] = ("redis", "hiredis", "orjson")
    promise: ClassVar = "Every read asks Redis; a load that races an invalidate stores what it read before."
    near: ClassVar = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._client = self._connect()
        self._key = f"{place.namespace}:rows"

    def _connect(self) -> Any:
        return client_of(self.place)

    def read(self) -> list[dict[str, Any]]:
        data: Any = self._client.get(self._key)
        if data is not None:
            rows: list[dict[str, Any]] = orjson.loads(data)
            return rows
        rows = self.place.load()
        self._client.set(self._key, orjson.dumps(rows), px=round(self.place.ttl * 1000))
        return rows

    def invalidate(self) -> None:
        self._client.delete(self._key)

    def close(self) -> None:
        self._client.close()


class RedisTracking(RedisGet):
    """The same, behind redis-py's client-side cache: RESP3 and a default `CacheConfig`, as its documentation shows.

    It keeps replies, so every read decodes; it has no TTL of its own, Redis tells it of expired keys too. It takes no
    server that calls itself other than Redis, so here it is told that Valkey is one.
    """

    name: ClassVar = "redis-py client-side cache + orjson"
    promise: ClassVar = "Redis tells each client of a changed key; until that message is read, the copy is the answer."
    near: ClassVar = True

    def _connect(self) -> Any:
        redis_connection.CacheProxyConnection.DEFAULT_SERVER_NAME = "valkey"
        return client_of(self.place, protocol=3, cache_config=CacheConfig())
