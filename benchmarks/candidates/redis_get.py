"""redis-py by hand: GET and orjson, SETEX on a miss, DEL to invalidate."""

from typing import Any, ClassVar

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.candidates.base import Candidate, Place


class RedisGet(Candidate):
    """Cache-aside with redis-py."""

    name: ClassVar = "redis-py GET + orjson"
    distributions: ClassVar = ("redis", "hiredis", "orjson")
    promise: ClassVar = "Every read asks Redis; a load that races an invalidate stores what it read before."
    near: ClassVar = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._client = redis.Redis.from_url(
            place.redis_url,
            protocol=2,
            socket_timeout=place.timeout,
            socket_connect_timeout=place.timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._key = f"{place.namespace}:rows"

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
