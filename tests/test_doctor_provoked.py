"""Faults of servers that the doctor judges by what they say, provoked on real ones: their words are what it expects."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from kcg_cache import Settings, SharedCache, doctor
from kcg_cache.embedded import EmbeddedValkey, start_valkey
from kcg_cache.embedded.binaries import find_valkey
from kcg_cache.errors import InvalidateError, StoreUnreachable
from tests.doubles import Source
from tests.soak.servers import Clock, find_faketime
from tests.waiting import eventually

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    """Give a Redis that the tests here may break."""
    with start_valkey() as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedValkey) -> Iterator[Any]:
    """Give a client of it."""
    with redis.Redis.from_url(server.url) as client:
        yield client


def visited(server: EmbeddedValkey) -> doctor.Diagnosis:
    """Have its Redis examined."""
    settings = Settings(redis_url=server.url, redis_timeout=30)
    return doctor.visit(settings, lambda: pytest.fail("PostgreSQL was not to be asked"), only="redis")


def finding(diagnosis: doctor.Diagnosis, code: str) -> doctor.Finding:
    """Give one finding of a server that answered."""
    assert diagnosis.redis_failed is None
    return next(finding for finding in diagnosis.findings if finding.code == code)


def test_a_snapshot_that_failed_is_found_and_writes_are_refused(server: EmbeddedValkey, admin: Any) -> None:
    """Its file cannot be written, so BGSAVE fails: the doctor says so, a withdrawal is refused, and the mend mends."""
    in_the_way = server.directory / "dump.rdb"
    in_the_way.mkdir()
    # Without a schedule of saving it would go on taking writes.
    admin.config_set("save", "3600 1")
    with contextlib.closing(SharedCache(server.url, Source().dataset())) as cache:
        try:
            admin.bgsave()
            eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
            found = finding(visited(server), "KCG-R07")
            assert found.severity is doctor.Severity.ERROR
            assert found.seen == "its last snapshot (RDB) failed: it refuses writes (MISCONF)"
            with pytest.raises(InvalidateError, match="does not accept writes"):
                cache.invalidate()
        finally:
            in_the_way.rmdir()
        admin.bgsave()
        eventually(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok")
        assert finding(visited(server), "KCG-R07").severity is doctor.Severity.NOTE
        cache.invalidate()
        admin.config_set("save", "")


def test_a_server_that_takes_no_more_clients_is_found(server: EmbeddedValkey, admin: Any) -> None:
    """First that it is nearly full, then that it is; and later that it has been."""
    before = admin.config_get("maxclients")["maxclients"]
    held: list[redis.Redis] = []
    try:
        admin.config_set("maxclients", admin.info("clients")["connected_clients"] + 3)
        # The doctor's own connections find the last places taken.
        for _ in range(2):
            held.append(redis.Redis.from_url(server.url, single_connection_client=True))
            held[-1].ping()
        found = finding(visited(server), "KCG-R12")
        assert found.severity is doctor.Severity.WARNING
        assert "that it takes (maxclients)" in found.seen

        held.append(redis.Redis.from_url(server.url, single_connection_client=True))
        held[-1].ping()
        full = visited(server)
        assert full.redis_failed is not None
        assert "max number of clients" in full.redis_failed
        cache = SharedCache(server.url, Source().dataset())
        with contextlib.closing(cache), pytest.raises(StoreUnreachable, match="max number of clients"):
            cache.inspect()
    finally:
        for client in held:
            client.close()
        admin.config_set("maxclients", before)
    found = finding(visited(server), "KCG-R12")
    assert found.severity is doctor.Severity.NOTE
    assert "it has refused" in found.seen


@pytest.mark.parametrize(("seconds", "side"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_apart_is_noted(seconds: int, side: str) -> None:
    """Of a Redis host whose clock is an hour off."""
    library = find_faketime()
    if library is None:
        pytest.skip("libfaketime is not installed")
    if b"libjemalloc.so" in find_valkey().read_bytes():
        pytest.skip("libfaketime does not work with a server that loads jemalloc as a library, as Debian's does")
    with contextlib.closing(Clock(library)) as clock, start_valkey(environment=clock.environment) as server:
        clock.step(seconds)
        found = finding(visited(server), "KCG-R11")
    assert found.severity is doctor.Severity.NOTE
    assert f"{side} this host's" in found.seen
