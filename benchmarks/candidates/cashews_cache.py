"""cashews: GET and SET under its lock, and the same with its client-side cache."""

from typing import Any, ClassVar

import orjson
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from benchmarks.candidates.looping import Looping

_LOCK_SECONDS = 10
#: Seconds between two looks at a lock that another holds. By default there are none: waiters ask without a pause.
_LOCK_LOOK = 0.05
#: Seconds for the client-side cache to begin to listen: the default is one socket timeout, after which it is off.
_LISTEN_SECONDS = 10


class Cashews(Looping):
    """`get` and, on a miss, `lock`, `get` again, load and `set`; lists go through orjson by its `register_type`.

    Its decorator with ``lock=True`` protects from a stampede too, but takes the lock at every read, hits included:
    three questions instead of one. This is the same with what it documents as its low-level calls.
    """

    name: ClassVar = "cashews"
    distributions: ClassVar = ("cashews", "redis", "orjson")
    promise: ClassVar = (
        "`delete` takes the key from Redis, which every read asks; nothing is said of a load that had begun."
    )
    near: ClassVar = False

    async def open(self) -> None:
        from cashews import Cache  # noqa: PLC0415 - only where it is used
        from cashews.serialize import register_type  # noqa: PLC0415

        register_type(list, _encoded, _decoded)
        self._cache: Any = Cache()
        self._key = f"{self.place.namespace}:rows"
        self._cache.setup(
            self.place.redis_url,
            protocol=2,  # what its client-side cache listens in
            socket_timeout=self.place.timeout,
            socket_connect_timeout=self.place.timeout,
            retry=Retry(NoBackoff(), 0),
            **self.more_settings(),
        )
        await self._cache.init()

    def more_settings(self) -> dict[str, Any]:
        """Give what the set-up has beside the connection."""
        return {}

    async def fetch(self) -> Any:
        cache, key = self._cache, self._key
        rows = await cache.get(key)
        if rows is not None:
            return rows
        async with cache.lock(f"{key}:lock", expire=_LOCK_SECONDS, check_interval=_LOCK_LOOK):
            rows = await cache.get(key)
            if rows is None:
                rows = await self.load()
                await cache.set(key, rows, expire=self.place.ttl)
        return rows

    async def withdraw(self) -> None:
        await self._cache.delete(self._key)

    async def shut(self) -> None:
        await self._cache.close()


class CashewsNear(Cashews):
    """The same with ``client_side=True``: copies in memory, dropped when Redis broadcasts a change of their key.

    Its loop runs in a thread all the time, so that it hears the broadcasts. What a process set itself stays for the
    TTL, what it read until it hears of a change or of the expiry.
    """

    name: ClassVar = "cashews, client-side cache"
    promise: ClassVar = (
        "Redis broadcasts every change, and a process drops its copy when its listener hears of it; no bound is given."
    )
    near: ClassVar = True
    background: ClassVar = True

    def more_settings(self) -> dict[str, Any]:
        return {
            "client_side": True,
            "client_side_prefix": f"{self.place.namespace}:near:",
            "client_side_listen_timeout": _LISTEN_SECONDS,
        }


async def _encoded(rows: Any, *_: Any) -> bytes:
    return orjson.dumps(rows)


async def _decoded(data: bytes, *_: Any) -> Any:
    return orjson.loads(data)
