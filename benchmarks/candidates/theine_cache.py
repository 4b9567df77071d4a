"""theine in front of redis-py: a cache in the process before the one that is shared."""

import datetime as dt
from typing import Any, ClassVar

from benchmarks.candidates.base import Place
from benchmarks.candidates.redis_get import RedisGet


class TheineNear(RedisGet):
    """`Cache.get` and `set` with the TTL, before GET and orjson.

    Its decorator holds callers of one process back while one loads, but what it cached cannot be withdrawn.
    """

    name: ClassVar = "theine before redis-py GET"
    distributions: ClassVar[tuple[str, ...]] = ("theine", "theine-core", "redis", "orjson")
    promise: ClassVar = (
        "A delete reaches Redis and the memory of the process that calls it; every other keeps its rows for the TTL."
    )
    near: ClassVar = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        from theine import Cache  # noqa: PLC0415 - only where it is used: it starts a thread

        self._near: Any = Cache(10_000)
        self._ttl = dt.timedelta(seconds=place.ttl)

    def read(self) -> Any:
        rows, found = self._near.get("rows")
        if not found:
            rows = super().read()
            self._near.set("rows", rows, self._ttl)
        return rows

    def invalidate(self) -> None:
        super().invalidate()
        self._near.delete("rows")

    def close(self) -> None:
        self._near.close()
        super().close()
