"""Ours, with a read lease of a second, and with none."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from benchmarks.candidates.base import Candidate, Place
from kcg_cache import ACTIVE_VERSIONS, Dataset, Settings, SharedCache, api, load_active_versions


def settings_of(place: Place, **changes: Any) -> Settings:
    """Give the settings that fit a place."""
    return Settings(
        redis_url=place.redis_url, namespace=place.namespace, ttl=place.ttl, redis_timeout=place.timeout, **changes
    )


def dataset_of(place: Place) -> Dataset:
    """Give the active versions, whose load takes as much longer as the place says."""
    if not place.load_delay:
        return ACTIVE_VERSIONS

    def slowly(conn: Any) -> Any:
        rows = ACTIVE_VERSIONS.load(conn)
        time.sleep(place.load_delay)
        return rows

    return dataclasses.replace(ACTIVE_VERSIONS, load=slowly)


class Ours(Candidate):
    """`load_active_versions`, as a service calls it, with a connection that only a load asks for."""

    name: ClassVar = "kcg_cache, lease=1: load_active_versions"
    distributions: ClassVar = ("kcg-cache",)
    promise: ClassVar = "A read that begins after an invalidate returned sees what was committed before it."
    near: ClassVar = True
    ours: ClassVar = True
    lease: ClassVar = 1.0

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.cache = SharedCache(place.redis_url, dataset_of(place), settings_of(place, lease=self.lease))
        self._be_default()

    def _be_default(self) -> None:
        # The module API reads its one default cache; configure() knows no dataset with a delay.
        api._default = self.cache  # noqa: SLF001

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        yield self.place.database.connection

    def read(self) -> Any:
        self._be_default()  # there may be several of these in one process
        return load_active_versions(self._connection)

    def time_reads(self, count: int) -> float:
        self._be_default()
        connection = self._connection
        began = time.perf_counter()
        for _ in range(count):
            load_active_versions(connection)
        return time.perf_counter() - began

    def invalidate(self) -> None:
        self.cache.invalidate()

    def close(self) -> None:
        self.cache.close()


class OursRead(Ours):
    """`SharedCache.read`: the snapshot, which nobody copies."""

    name: ClassVar = "kcg_cache, lease=1: SharedCache.read"

    def read(self) -> Any:
        return self.cache.read(self._connection).rows

    def time_reads(self, count: int) -> float:
        read, connection = self.cache.read, self._connection
        began = time.perf_counter()
        for _ in range(count):
            read(connection)
        return time.perf_counter() - began


class OursAsking(OursRead):
    """Without a lease every read asks Redis, and is given no rows that it has."""

    name: ClassVar = "kcg_cache, lease=0"
    near: ClassVar = False
    lease: ClassVar = 0.0
