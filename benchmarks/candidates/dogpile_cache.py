"""dogpile.cache: one region on Redis with its lock, and the same behind a region in memory."""

from typing import Any, ClassVar

import orjson
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.candidates.base import Candidate, Place

#: Redis keeps a value longer than dogpile holds it fresh, as its documentation asks: a stale one is served meanwhile.
_KEPT = 2
#: Seconds after which the lock of a process that died is free. By default it never is.
_LOCK_TIMEOUT = 10


class Dogpile(Candidate):
    """`get_or_create` on a Redis region with the distributed lock; orjson as the region's serializer."""

    name: ClassVar = "dogpile.cache on Redis"
    distributions: ClassVar = ("dogpile.cache", "redis", "orjson")
    promise: ClassVar = (
        "A deleted value is created anew, by one process under the lock; nothing is said of a creation that had begun."
    )
    near: ClassVar = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        # Here and in the other modules: only a process that uses a library has it, not the one that all are forked of.
        from dogpile.cache import make_region  # noqa: PLC0415

        self._region: Any = make_region(
            key_mangler=lambda key: f"{place.namespace}:{key}", serializer=orjson.dumps, deserializer=orjson.loads
        ).configure(
            "dogpile.cache.redis",
            expiration_time=place.ttl,
            arguments={
                "url": place.redis_url,
                "redis_expiration_time": max(1, round(place.ttl * _KEPT)),
                "distributed_lock": True,
                "thread_local_lock": False,
                "lock_timeout": _LOCK_TIMEOUT,
                "socket_timeout": place.timeout,
                "socket_connect_timeout": place.timeout,
                "connection_kwargs": {"protocol": 2, "retry": Retry(NoBackoff(), 0)},
            },
        )

    def read(self) -> Any:
        return self._region.get_or_create("rows", self.place.load)

    def invalidate(self) -> None:
        self._region.delete("rows")

    def close(self) -> None:
        self._region.backend.writer_client.close()


class DogpileNear(Dogpile):
    """A memory region whose creator is the Redis region, both with the same TTL.

    dogpile.cache documents no near cache: two regions are what its own pieces give. A memory backend behind a
    `ProxyBackend` would keep the serialized value, and decode it at every read.
    """

    name: ClassVar = "dogpile.cache, memory before Redis"
    promise: ClassVar = (
        "A delete reaches Redis and the memory of the process that calls it; every other keeps its rows for the TTL."
    )
    near: ClassVar = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from dogpile.cache import make_region  # noqa: PLC0415 - as above

        self._memory: Any = make_region().configure("dogpile.cache.memory", expiration_time=place.ttl)
        self._from_redis = super().read

    def read(self) -> Any:
        return self._memory.get_or_create("rows", self._from_redis)

    def invalidate(self) -> None:
        super().invalidate()
        self._memory.delete("rows")
