"""aiocache: its decorator against stampedes, on Redis."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

import orjson
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from benchmarks.candidates.looping import Looping


class OrjsonSerializer:
    """A serializer in aiocache's sense; with no encoding its backend gives bytes."""

    encoding = None

    def dumps(self, value: Any) -> bytes:
        """Give what is stored."""
        return orjson.dumps(value)

    def loads(self, value: bytes | None) -> Any:
        """Give what was stored; None for what was not."""
        return None if value is None else orjson.loads(value)


class Aiocache(Looping):
    """`cached_stampede` with its default lease of 2 s; its lock makes calls of one process wait, not of others."""

    name: ClassVar = "aiocache"
    distributions: ClassVar = ("aiocache", "redis", "orjson")
    promise: ClassVar = (
        "`delete` takes the key from Redis, which every read asks; nothing is said of a load that had begun."
    )
    near: ClassVar = False

    async def open(self) -> None:
        from aiocache import Cache, cached_stampede  # noqa: PLC0415 - only where it is used

        server = urlsplit(self.place.redis_url)
        self._rows: Any = cached_stampede(
            key="rows",
            namespace=f"{self.place.namespace}:",
            ttl=float(self.place.ttl),
            cache=Cache.REDIS,
            serializer=OrjsonSerializer(),
            endpoint=server.hostname,
            port=server.port,
            password=server.password,
            timeout=self.place.timeout,
            create_connection_timeout=self.place.timeout,
            connection_pool_kwargs={
                "protocol": 2,
                "socket_timeout": self.place.timeout,
                "retry": Retry(NoBackoff(), 0),
            },
        )(self.load)

    async def fetch(self) -> Any:
        return await self._rows()

    async def withdraw(self) -> None:
        await self._rows.cache.delete("rows")

    async def shut(self) -> None:
        await self._rows.cache.close()
