"""django-redis: Django's cache on Redis."""

from typing import Any, ClassVar

import orjson
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.candidates.base import Candidate, Place


class OrjsonSerializer:
    """A serializer in the sense of django-redis."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def dumps(self, value: Any) -> bytes:
        """Give what is stored."""
        return orjson.dumps(value)

    def loads(self, value: bytes) -> Any:
        """Give what was stored."""
        return orjson.loads(value)


class DjangoRedis(Candidate):
    """`cache.get_or_set`, Django's way to cache what is costly; it has no lock, every process that misses loads."""

    name: ClassVar = "django-redis"
    distributions: ClassVar = ("django-redis", "Django", "redis", "orjson")
    promise: ClassVar = (
        "`delete` takes the key from Redis, which every read asks; nothing is said of a load that had begun."
    )
    near: ClassVar = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from django.conf import settings  # noqa: PLC0415 - only where it is used
        from django.core.cache import CacheHandler  # noqa: PLC0415

        if not settings.configured:
            settings.configure()
        # A handler of its own, which is what `django.core.cache.caches` is: settings can be made but once a process.
        self._cache: Any = CacheHandler(
            {
                "default": {
                    "BACKEND": "django_redis.cache.RedisCache",
                    "LOCATION": place.redis_url,
                    "KEY_PREFIX": place.namespace,
                    "OPTIONS": {
                        "CLIENT_CLASS": "django_redis.client.DefaultClient",
                        "SERIALIZER": f"{__name__}.{OrjsonSerializer.__name__}",
                        "SOCKET_TIMEOUT": place.timeout,
                        "SOCKET_CONNECT_TIMEOUT": place.timeout,
                        "CONNECTION_POOL_KWARGS": {"protocol": 2, "retry": Retry(NoBackoff(), 0)},
                        "CLOSE_CONNECTION": True,
                    },
                }
            }
        )["default"]

    def read(self) -> Any:
        return self._cache.get_or_set("rows", self.place.load, timeout=self.place.ttl)

    def invalidate(self) -> None:
        self._cache.delete("rows")

    def close(self) -> None:
        self._cache.close()
