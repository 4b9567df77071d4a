"""The way of one read, and the promise, on fakeredis and on a real server: a worker is a cache of its own."""

import contextlib
import logging
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.asyncio

from kcg_cache import (
    ConfigurationError,
    Dataset,
    DatasetError,
    InvalidateError,
    Invalidation,
    Settings,
    SharedCache,
    codec,
    compression,
)
from kcg_cache.answers import Entry, Fill, Floor, Question
from kcg_cache.cache import _after_fork_in_child, _Call, _Handover, _Permit
from kcg_cache.errors import StoreRefused, StoreUnreachable
from kcg_cache.near import Debt
from kcg_cache.redis_errors import mapped
from kcg_cache.rows import FrozenDict
from kcg_cache.settings import INVALIDATE_WAIT
from kcg_cache.store import Store
from kcg_cache.system import SYSTEM
from tests.conftest import Backend, real_client
from tests.doubles import EagerSystem, fail, once, version_of
from tests.fleet import locks_of
from tests.frames import bomb, frame

pytestmark = pytest.mark.once

# --- sharing --------------------------------------------------------------------------------------------------------


def test_one_load_serves_every_worker(backend: Backend) -> None:
    """The first reads the database, the second the shared entry, and both their near copies after that."""
    first, second = backend.worker(), backend.worker()
    assert [first.read(None).source, second.read(None).source] == ["database", "redis"]
    assert [first.read(None).source, second.read(None).source] == ["near", "near"]
    assert backend.source.loads == 1
    assert first.read(None).shared
    assert second.read(None).shared
    assert [first.metrics["reads_near"], second.metrics["reads_near"]] == [2, 2]


def test_everyone_gets_equal_rows_the_loader_too(backend: Backend) -> None:
    """Cold rows, warm rows and near rows are decoded from the same payload."""
    first, second = backend.worker(), backend.worker()
    cold, warm, near = first.read(None), second.read(None), second.read(None)
    assert cold.rows == warm.rows == near.rows == ({"version": 1, "nested": {"list": [1, {"x": "가"}]}},)
    assert cold.digest == warm.digest == near.digest
    assert cold.loaded_at_us == warm.loaded_at_us is not None
    assert type(cold.rows[0]) is type(warm.rows[0])


def test_covered_reads_return_the_very_same_snapshot_and_rows(backend: Backend) -> None:
    """Nothing is copied or built (step 2)."""
    worker = backend.worker()
    worker.read(None)
    assert worker.read(None) is worker.read(None)
    assert worker.read(None).rows is worker.read(None).rows


def test_a_lapsed_lease_is_renewed_without_the_payload(backend: Backend) -> None:
    """SAME: the same rows, no load."""
    worker = backend.worker()
    rows = worker.read(None).rows
    backend.system.tick(1.0)
    again = worker.read(None)
    assert again.source == "redis"
    assert again.rows is rows
    assert worker.metrics["lease_renewals"] == 1
    assert worker.read(None).source == "near"


def test_lease_zero_asks_on_every_read(backend: Backend) -> None:
    """And still loads once."""
    worker = backend.worker(lease=0)
    assert [worker.read(None).source for _ in range(3)] == ["database", "redis", "redis"]
    assert backend.source.loads == 1


def test_age_counts_on_while_a_snapshot_is_held(backend: Backend) -> None:
    """It is computed on access, from the moment that the load began."""
    worker = backend.worker()
    snapshot = worker.read(None)
    before = snapshot.age
    backend.system.tick(5)
    assert snapshot.age == pytest.approx(before + 5)
    assert snapshot.loaded_at is not None


def test_an_empty_result_is_cached_like_any_other(backend: Backend) -> None:
    """No rows are rows."""
    backend.source.load = lambda _conn: []  # type: ignore[method-assign]
    first, second = backend.worker(), backend.worker()
    assert first.read(None).rows == ()
    assert second.read(None).source == "redis"


def test_two_datasets_do_not_disturb_each_other(backend: Backend) -> None:
    """Each has keys of its own."""
    one = backend.worker()
    other = backend.worker(backend.source.dataset("others"))
    one.read(None)
    assert other.read(None).source == "database"
    other.invalidate(wait=False)
    assert backend.worker().read(None).source == "redis"


def test_max_age_is_held_against_near_copy_and_entry(backend: Backend) -> None:
    """Too old in the near copy asks Redis; too old there loads."""
    first, second = backend.worker(), backend.worker()
    first.read(None)
    second.read(None)
    backend.system.tick(0.9)
    assert second.read(None, max_age=5).source == "near"
    assert second.read(None, max_age=0.5).source == "redis"  # the server's clock did not tick: it is young there
    assert second.read(None, max_age=0).source == "database"
    assert backend.source.loads == 2


@pytest.mark.parametrize("max_age", [-1, float("nan"), float("inf")])
def test_a_max_age_that_is_none_is_refused(backend: Backend, max_age: float) -> None:
    """Also while the near copy would cover the read."""
    worker = backend.worker()
    worker.read(None)
    if max_age == float("inf"):
        backend.system.tick(2)
    with pytest.raises(ConfigurationError, match="max_age"):
        worker.read(None, max_age=max_age)


def test_a_forced_read_loads_and_refreshes_the_shared_copy(backend: Backend) -> None:
    """Whatever is cached."""
    first, second = backend.worker(), backend.worker()
    first.read(None)
    backend.source.version = 2
    assert version_of(first.read(None)) == 1
    assert version_of(second.read(None, force=True)) == 2
    backend.system.tick(1)
    assert version_of(first.read(None)) == 2
    assert backend.source.loads == 2


# --- the promise ----------------------------------------------------------------------------------------------------


def test_after_an_invalidate_nobody_reads_what_was_before(backend: Backend) -> None:
    """Once it has returned, every worker loads anew or shares the new load."""
    workers = [backend.worker() for _ in range(3)]
    for worker in workers:
        worker.read(None)
    backend.source.version = 2
    receipt = workers[0].invalidate(reason="promotion")
    assert receipt.in_force
    assert receipt.existed
    assert [version_of(worker.read(None)) for worker in workers] == [2, 2, 2]
    assert backend.source.loads == 2


def test_an_invalidate_waits_out_the_longest_lease_from_the_receipt_of_its_reply(backend: Backend) -> None:
    """1.02 s: LEASE_MAX, whatever this process's own lease is (R7)."""
    worker = backend.worker(lease=0)
    before = backend.system.time
    receipt = worker.invalidate()
    assert backend.system.time == pytest.approx(before + INVALIDATE_WAIT)
    assert sum(backend.system.slept) == pytest.approx(1.02)
    assert receipt.in_force_in == 0


def test_an_invalidate_that_does_not_wait_says_from_when_it_is_in_force(backend: Backend) -> None:
    """And can be waited for later."""
    receipt = backend.worker().invalidate(wait=False, reason="later")
    assert backend.system.slept == []
    assert not receipt.in_force
    assert receipt.in_force_in == pytest.approx(1.02)
    assert (receipt.in_force_at - receipt.when).total_seconds() == pytest.approx(1.02, abs=0.01)
    receipt.wait()
    assert receipt.in_force


def test_a_near_copy_is_used_no_longer_than_a_lease_after_the_request_that_confirmed_it(backend: Backend) -> None:
    """Counted from the sending, not from the reply (R6)."""
    first, second = backend.worker(), backend.worker()
    first.read(None)
    read = second._store.read

    def slowly(question: Question) -> Any:
        answer = read(question)
        backend.system.tick(0.7)  # the reply was on its way for so long
        return answer

    second._store.read = slowly  # type: ignore[method-assign]
    second.read(None)
    backend.system.tick(0.29)
    assert second.read(None).source == "near"
    backend.system.tick(0.02)
    assert second.read(None).source == "redis"


def test_the_lease_of_a_fill_counts_from_its_publish(backend: Backend) -> None:
    """The load may take longer than a lease."""
    worker = backend.worker()
    backend.source.after_read = lambda: backend.system.tick(5)
    worker.read(None)
    backend.system.tick(0.99)
    assert worker.read(None).source == "near"
    backend.system.tick(0.02)
    assert worker.read(None).source == "redis"


@pytest.mark.parametrize("stale_if_error", [0, 60])
def test_a_lease_does_not_outlive_the_entry(backend: Backend, stale_if_error: float) -> None:
    """Remaining freshness bounds it (R6), however long the entry is kept in case a load fails."""
    worker = backend.worker(ttl=300, stale_if_error=stale_if_error)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 400 + 1000 * stale_if_error)
    other = backend.worker(stale_if_error=stale_if_error)
    assert not other.read(None).stale
    backend.system.tick(0.41)
    copy = other._near.copy
    assert copy is not None
    assert copy.valid_until < backend.system.time


def test_a_load_that_an_invalidate_overtook_reaches_nobody(backend: Backend) -> None:
    """Held between SELECT and publish while the row changes: it starts over, and Redis never held it (R3, R4)."""
    worker, operator, reader = backend.worker(), backend.worker(), backend.worker()

    def promote() -> None:
        backend.source.version = 2
        operator.invalidate(wait=False)

    backend.source.after_read = once(promote)
    assert version_of(worker.read(None)) == 2
    assert version_of(reader.read(None)) == 2
    assert worker.metrics["fills_rejected"] == 1
    assert backend.source.loads == 2


def test_a_filler_that_is_rejected_three_times_returns_rows_from_after_its_call_and_keeps_none(
    backend: Backend,
) -> None:
    """It gives up, drops what it had, and its next rows must be newer (R4, R8)."""
    worker, operator = backend.worker(), backend.worker()
    worker.read(None)

    def promote() -> None:
        backend.source.version += 1
        operator.invalidate(wait=False)

    backend.source.after_read = promote
    given_up = worker.read(None, force=True)
    assert version_of(given_up) == 3  # the third load's
    assert not given_up.shared
    assert worker.metrics["fills_given_up"] == 1
    assert worker._near.copy is None
    assert worker._near.debt is not None
    backend.source.after_read = lambda: None
    backend.system.tick(0.01)
    # Somebody else may still have published older rows: this process does not go back to them.
    after = worker.read(None)
    assert version_of(after) == 4
    assert worker._near.debt is None


def test_a_reply_to_an_older_request_does_not_replace_a_newer_copy(backend: Backend) -> None:
    """Its caller gets the rows; the near copy is dropped and a floor is owed (R6)."""
    worker, other = backend.worker(), backend.worker()
    other.read(None)
    read = worker._store.read
    newer: list[Any] = []

    def overtaken(question: Question) -> Any:
        answer = read(question)
        worker._store.read = read  # type: ignore[method-assign]
        backend.source.version = 2
        other.invalidate(wait=False)
        backend.system.tick(0.1)
        newer.append(worker.read(None, force=True))
        return answer

    worker._store.read = overtaken  # type: ignore[method-assign]
    older = worker.read(None)
    assert version_of(older) == 1
    assert version_of(newer[0]) == 2
    assert worker._near.copy is None
    assert worker.metrics["near_dropped"] == 1
    assert version_of(worker.read(None)) == 2


def test_a_corrupt_entry_is_a_miss_that_the_next_fill_replaces(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted, logged once, never rows and never an exception (R14)."""
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, "payload", b'[{"version": 99}]')
    reader = backend.worker()
    with caplog.at_level(logging.WARNING, "kcg_cache"):
        assert version_of(reader.read(None)) == 1
    assert reader.metrics["entries_rejected"] == 1
    assert [record.kcg_event for record in caplog.records] == ["entry_rejected"]  # type: ignore[attr-defined]
    assert backend.worker().read(None).source == "redis"


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "protobuf/9"},
        {"format": b"\xff\xfe"},
        {"digest": "0" * 32},
        {"digest": b"\xff" * 16},
        {"payload": b"\xff\xff"},
        {"payload": b""},
    ],
)
def test_whatever_is_wrong_with_an_entry_it_is_replaced(backend: Backend, fields: dict[str, Any]) -> None:
    """Unknown format, wrong digest, truncated or foreign bytes (R14)."""
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, mapping=fields)
    assert backend.worker().read(None).source == "database"
    assert backend.worker().read(None).source == "redis"
    assert backend.source.loads == 2


def test_the_same_bytes_in_another_format_are_not_the_same(backend: Backend) -> None:
    """A near copy is not confirmed by an entry that means other values."""
    worker = backend.worker()
    worker.read(None)
    backend.client.hset(backend.keys.entry, "format", "json")
    backend.system.tick(1)
    assert worker.read(None).source == "redis"
    assert worker.metrics["reads_redis"] == 1  # decoded anew, not renewed


def large(backend: Backend) -> Dataset:
    """Give a dataset whose payload is large enough to be packed."""
    return Dataset("numbers", lambda conn: backend.source.load(conn) * 200, transactional=False)


def test_a_large_payload_is_packed_and_everyone_reads_the_same_rows(backend: Backend) -> None:
    """The entry says that it is, and its digest is that of what is in it."""
    filler = backend.worker(large(backend), signing_keys=(b"0123456789abcdef",))
    filled = filler.read(None)
    entry = backend.entry()
    assert entry["format"] == b"orjson+zstd"
    raw = compression.zstd.decompress(entry["payload"])
    assert len(entry["payload"]) < len(raw) / 8
    assert entry["digest"].decode() == codec.digest_of(raw) == filled.digest
    for keys in ((), (b"0123456789abcdef",)):
        reader = backend.worker(large(backend), signing_keys=keys)
        assert reader.read(None).rows == filled.rows
        assert reader.metrics["reads_redis"] == 1
    backend.system.tick(1)
    assert filler.read(None).rows is filled.rows
    assert filler.metrics["lease_renewals"] == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [("ours", "unpacked"), ("unpacked", "ours"), ("ours", "another's"), ("another's", "ours")],
)
def test_the_same_rows_packed_otherwise_are_the_same(backend: Backend, before: str, after: str) -> None:
    """Another release filled in the meantime, or one that does not pack: no payload is sent to whoever has the rows."""
    backend.worker(large(backend)).read(None)
    payload = backend.entry()["payload"]
    raw = compression.zstd.decompress(payload)
    packings: dict[str, dict[str, Any]] = {
        "ours": {"payload": payload, "format": "orjson+zstd"},
        "another's": {"payload": frame(raw), "format": "orjson+zstd"},
        "unpacked": {"payload": raw, "format": "orjson"},
    }
    backend.client.hset(backend.keys.entry, mapping=packings[before])
    worker = backend.worker(large(backend))
    rows = worker.read(None).rows
    backend.client.hset(backend.keys.entry, mapping=packings[after])
    backend.system.tick(1)
    assert worker.read(None).rows is rows
    assert {name: worker.metrics[name] for name in ("scripts_read", "reads_redis", "lease_renewals")} == {
        "scripts_read": 2,
        "reads_redis": 1,
        "lease_renewals": 1,
    }
    stranger = backend.worker(large(backend))
    assert stranger.read(None).rows == rows
    assert stranger.metrics["reads_redis"] == 1


def test_the_same_bytes_in_another_format_are_not_the_same_when_packed(backend: Backend) -> None:
    """How they are packed is one thing, what they mean another."""
    worker = backend.worker(large(backend))
    worker.read(None)
    backend.client.hset(backend.keys.entry, "format", "json+zstd")
    backend.system.tick(1)
    assert worker.read(None).source == "redis"
    assert worker.metrics["reads_redis"] == 1
    assert worker.metrics["lease_renewals"] == 0


def test_the_signature_vouches_for_how_a_payload_is_packed(backend: Backend) -> None:
    """It covers the format as it stands there."""
    keys = (b"0123456789abcdef",)
    worker = backend.worker(large(backend), signing_keys=keys)
    worker.read(None)
    raw = compression.zstd.decompress(backend.entry()["payload"])
    backend.client.hset(backend.keys.entry, mapping={"payload": raw, "format": "orjson"})
    backend.system.tick(1)
    assert worker.read(None).source == "database"
    assert worker.metrics["entries_rejected"] == 1


def test_a_reader_that_may_hold_less_than_the_filler_loads_for_itself(backend: Backend) -> None:
    """However small the payload was packed: refused by one, and shared by those with the filler's setting (R14)."""
    filler, reader = backend.worker(large(backend)), backend.worker(large(backend), max_payload=5_000)
    rows = filler.read(None).rows
    assert len(backend.entry()["payload"]) < 5_000
    private = reader.read(None)
    assert (private.rows, private.shared) == (rows, False)
    assert reader.metrics["entries_rejected"] == 1
    assert reader.metrics["fills_oversized"] == 1
    assert not backend.client.exists(backend.keys.lock)
    assert backend.worker(large(backend)).read(None).source == "redis"


def test_a_packed_payload_counts_with_its_whole_size(backend: Backend) -> None:
    """What one host shares every host with the same setting takes: to the byte (R14)."""
    size = codec.encode("numbers", large(backend).load(None)).size
    backend.source.loads = 0
    assert backend.worker(large(backend), max_payload=size).read(None).shared
    reader = backend.worker(large(backend), max_payload=size)
    assert reader.read(None).source == "redis"
    assert backend.source.loads == 1
    smaller = backend.worker(large(backend), max_payload=size - 1)
    assert not smaller.read(None, force=True).shared
    assert smaller.metrics["fills_oversized"] == 1


def test_a_bomb_is_a_miss_that_the_next_fill_replaces(backend: Backend) -> None:
    """A gigabyte of zeros in 32 KB: no reader holds more than its max_payload of it (R14)."""
    backend.worker(large(backend)).read(None)
    backend.client.hset(backend.keys.entry, mapping={"payload": bomb(2**30), "format": "orjson+zstd"})
    limit = 1_000_000
    reader = backend.worker(large(backend), max_payload=limit)
    tracemalloc.start()
    try:
        snapshot = reader.read(None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * limit
    assert (snapshot.source, snapshot.shared) == ("database", True)
    assert reader.metrics["entries_rejected"] == 1
    assert backend.worker(large(backend)).read(None).source == "redis"
    assert backend.source.loads == 2


def test_an_unsigned_or_forged_entry_is_a_miss_to_whoever_has_keys(backend: Backend) -> None:
    """And readers without keys ignore signatures."""
    key, other = b"0123456789abcdef", b"fedcba9876543210"
    backend.worker().read(None)
    signer = backend.worker(signing_keys=(key,))
    assert signer.read(None).source == "database"
    assert backend.worker(signing_keys=(other, key)).read(None).source == "redis"
    assert backend.worker().read(None).source == "redis"
    assert backend.worker(signing_keys=(other,)).read(None).source == "database"
    backend.client.hset(backend.keys.entry, "source", "9/other")
    assert backend.worker(signing_keys=(other,)).read(None).source == "database"


def test_a_signature_is_checked_again_with_every_confirmation(backend: Backend) -> None:
    """SAME carries what it takes."""
    worker = backend.worker(signing_keys=(b"0123456789abcdef",))
    worker.read(None)
    backend.client.hset(backend.keys.entry, "signature", "00" * 32)
    backend.system.tick(1)
    assert worker.read(None).source == "database"


def test_a_payload_over_the_limit_is_not_shared(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Its rows are private for one lease, logged once, and the lock is free (R14)."""
    worker = backend.worker(max_payload=10)
    with caplog.at_level(logging.ERROR, "kcg_cache"):
        assert not worker.read(None).shared
        assert worker.read(None).source == "near"
        backend.system.tick(1)
        worker.read(None)
    assert len(caplog.records) == 1
    assert worker.metrics["fills_oversized"] == 2
    assert not backend.client.exists(backend.keys.entry, backend.keys.lock)


# --- loads that fail ------------------------------------------------------------------------------------------------


def test_a_failing_load_reaches_its_caller_as_it_is_and_frees_the_lock(backend: Backend) -> None:
    """The next reader loads at once (R11)."""
    backend.source.before_read = once(fail)
    worker = backend.worker()
    with pytest.raises(LookupError, match="own error"):
        worker.read(None)
    assert not backend.client.exists(backend.keys.lock)
    assert worker.read(None).source == "database"


def test_an_interrupt_frees_the_lock_too(backend: Backend) -> None:
    """Ctrl-C in a load does not make the fleet wait."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    backend.source.before_read = once(interrupt)
    with pytest.raises(KeyboardInterrupt):
        backend.worker().read(None)
    assert not backend.client.exists(backend.keys.lock)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("text", "load gave str"),
        ([1], "row 0 is int"),
        ([{}, {"a": {1: 2}}], r"dataset 'numbers': row 1\['a'\] has the key 1"),
        ([{"when": SYSTEM}], r"dataset 'numbers': row 0\['when'\] is System"),
        (None, "load gave NoneType"),
    ],
)
def test_rows_that_cannot_be_shared_say_which_and_why(backend: Backend, rows: Any, message: str) -> None:
    """And leave no lock behind."""
    backend.source.load = lambda _conn: rows  # type: ignore[method-assign]
    with pytest.raises(DatasetError, match=message):
        backend.worker().read(None)
    assert not backend.client.exists(backend.keys.lock)


def test_stale_rows_are_served_when_the_load_fails_and_say_so(backend: Backend) -> None:
    """Opt-in; never for a forced read, never after an invalidate (R15)."""
    worker = backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)

    backend.source.before_read = fail
    stale = worker.read(None)
    assert (stale.stale, stale.source, version_of(stale)) == (True, "redis", 1)
    assert worker.read(None).stale
    assert worker.metrics["stale_served"] == 1
    with pytest.raises(LookupError):
        worker.read(None, force=True)
    worker.invalidate()
    with pytest.raises(LookupError):
        worker.read(None)
    assert not backend.client.exists(backend.keys.lock)


def test_without_stale_if_error_a_failing_load_is_an_error(backend: Backend) -> None:
    """It is off by default."""
    worker = backend.worker()
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 1)
    backend.system.tick(1)

    backend.source.before_read = fail
    while backend.client.exists(backend.keys.entry):
        pass
    with pytest.raises(LookupError):
        worker.read(None)


def test_a_stale_fallback_keeps_the_lease_of_the_read_that_delivered_it(backend: Backend) -> None:
    """However long the load took to fail (R6, R15)."""
    worker = backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)

    def fail_slowly() -> None:
        backend.system.tick(5)
        raise LookupError

    backend.source.before_read = fail_slowly
    assert worker.read(None).stale
    copy = worker._near.copy
    assert copy is None or copy.valid_until < backend.system.time


def test_a_refresh_ahead_makes_nobody_wait_and_a_failed_one_nobody_fail(backend: Backend) -> None:
    """One caller loads, the others go on; if its load fails it has the rows that are still good (R16)."""
    worker, other = backend.worker(refresh_ahead=0.5), backend.worker(refresh_ahead=0.5)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 100_000)
    backend.system.tick(1)
    backend.source.version = 2
    meanwhile: list[int] = []
    backend.source.before_read = once(lambda: meanwhile.append(version_of(other.read(None))))
    assert version_of(worker.read(None)) == 2
    assert meanwhile == [1]
    assert worker.metrics["refreshes"] == 1
    assert worker.read(None).source == "near"
    assert version_of(worker.read(None)) == 2

    backend.client.pexpire(backend.keys.entry, 100_000)
    backend.system.tick(1)

    backend.source.before_read = fail
    served = worker.read(None)
    assert (version_of(served), served.stale, served.source) == (2, False, "redis")
    assert not backend.client.exists(backend.keys.lock)


# --- Redis failing --------------------------------------------------------------------------------------------------


def test_with_redis_down_reads_come_from_the_database_and_are_kept_for_one_lease(backend: Backend) -> None:
    """Privately, and nothing is published (R8)."""
    worker = backend.worker()
    backend.down()
    try:
        first = worker.read(None)
        assert (first.source, first.shared, first.loaded_at) == ("database", False, None)
        assert worker.read(None).source == "near"
        backend.system.tick(1)
        assert worker.read(None).source == "database"
        assert worker.metrics["private_loads"] == 2
    finally:
        backend.up()
    backend.system.tick(5)
    assert worker.read(None).shared
    assert backend.worker().read(None).source == "redis"


def test_a_dead_redis_is_asked_once_per_breaker_window(backend: Backend) -> None:
    """Not on every read (R8)."""
    worker = backend.worker(lease=0)
    backend.down()
    try:
        for _ in range(5):
            worker.read(None)
        assert worker.metrics["scripts_read"] == 1
        backend.system.tick(2.01)
        for _ in range(5):
            worker.read(None)
        assert worker.metrics["scripts_read"] == 2
        assert worker.metrics["breaker_opened"] == 1
    finally:
        backend.up()


def test_an_invalidate_that_cannot_be_confirmed_raises_and_can_be_repeated(backend: Backend) -> None:
    """It never reports success on a lost reply (R9)."""
    worker = backend.worker()
    worker.read(None)
    backend.down()
    try:
        with pytest.raises(InvalidateError, match="repeat it"):
            worker.invalidate(reason="promotion")
        assert backend.system.slept == []
    finally:
        backend.up()
    assert worker.invalidate(reason="promotion").in_force
    assert worker.metrics["invalidate_errors"] == 1


def test_a_lost_reply_to_an_invalidate_is_no_success(backend: Backend) -> None:
    """Though the deletion happened, nobody can vouch for it (R9)."""
    worker = backend.worker()
    worker.read(None)
    execute = backend.client.execute_command

    def lose_reply(*args: Any, **options: Any) -> Any:
        execute(*args, **options)
        raise redis.TimeoutError("lost")

    backend.client.execute_command = lose_reply
    with pytest.raises(InvalidateError):
        worker.invalidate()
    del backend.client.execute_command
    assert not backend.client.exists(backend.keys.entry)
    assert worker.invalidate().in_force


def test_after_private_rows_a_process_does_not_go_back_to_an_older_entry(backend: Backend) -> None:
    """Its first script resolves its floor as now, until that is met (R8, Promise 4)."""
    cut_off, other = backend.worker(), backend.worker()
    other.read(None)
    backend.source.version = 2  # committed; its invalidate has not come yet
    execute = cut_off._store._call

    def unreachable(*_command: Any) -> Any:
        raise mapped(redis.ConnectionError("cut off"))

    cut_off._store._call = unreachable  # type: ignore[method-assign]
    assert version_of(cut_off.read(None)) == 2
    cut_off._store._call = execute  # type: ignore[method-assign]
    backend.system.tick(3)
    assert version_of(cut_off.read(None)) == 2
    assert backend.source.loads == 3
    backend.system.tick(1)
    assert version_of(other.read(None)) == 2
    assert cut_off.read(None).source == "redis"
    assert backend.source.loads == 3


def test_a_publish_whose_answer_is_lost_counts_as_a_private_load(backend: Backend) -> None:
    """Its lease counts from before the query (R6)."""
    worker = backend.worker()
    publish = worker._store.publish

    def lose_reply(*args: Any, **kwargs: Any) -> Any:
        publish(*args, **kwargs)
        raise mapped(redis.TimeoutError("lost"))

    worker._store.publish = lose_reply  # type: ignore[method-assign]
    backend.source.after_read = lambda: backend.system.tick(0.6)
    snapshot = worker.read(None)
    assert not snapshot.shared
    copy = worker._near.copy
    assert copy is not None
    assert copy.valid_until == pytest.approx(backend.system.time + 0.4)
    assert worker._near.debt is not None


def test_an_entry_of_the_server_before_its_restart_is_not_served(backend: Backend) -> None:
    """A restart empties the cache by itself (R10)."""
    worker = backend.worker()
    worker.read(None)
    dump = backend.client.dump(backend.keys.entry)
    backend.down()
    backend.up()
    backend.client.restore(backend.keys.entry, 300_000, dump, replace=True)
    backend.source.version = 2
    backend.system.tick(5)
    assert version_of(worker.read(None)) == 2
    assert version_of(backend.worker().read(None)) == 2


def test_a_lock_is_renewed_while_its_holder_loads(backend: Backend) -> None:
    """So a load longer than lock_ttl is still published, by the one who began it (R3)."""
    worker = backend.worker(system=EagerSystem())
    renewed = threading.Semaphore(0)
    renew = worker._store.renew

    def counted(grant: Any) -> bool:
        held = renew(grant)
        renewed.release()
        return held

    worker._store.renew = counted  # type: ignore[method-assign]
    left: list[int] = []

    def load_for_long() -> None:
        for _ in range(3):
            backend.client.pexpire(backend.keys.lock, 1500)
            # One renewal may have been sent before that; the second one was not.
            assert renewed.acquire(timeout=10)
            assert renewed.acquire(timeout=10)
            left.append(backend.client.pttl(backend.keys.lock))

    backend.source.after_read = load_for_long
    assert worker.read(None).shared
    assert all(milliseconds > 1500 for milliseconds in left)
    assert not backend.client.exists(backend.keys.lock)


def test_a_lock_that_was_lost_is_counted_and_the_fill_rejected(backend: Backend) -> None:
    """Nothing needs to notice in time: the publish is fenced (R3)."""
    worker = backend.worker(system=EagerSystem())

    def lose() -> None:
        backend.client.delete(backend.keys.lock)
        until(lambda: worker.metrics["locks_lost"] == 1)

    backend.source.after_read = once(lose)
    assert worker.read(None).shared
    assert worker.metrics["fills_rejected"] == 1


# --- waiting and threads --------------------------------------------------------------------------------------------


def published(worker: SharedCache, granted: Fill) -> bool:
    """Publish other rows than the source's, for a lock that was granted."""
    payload = codec.encode("numbers", [{"version": 1}])
    answer = worker._store.publish(granted.grant, payload, load_us=5, source="", signature="", by="host:1")
    return answer is not None


def held(backend: Backend) -> tuple[threading.Event, threading.Event]:
    """Hold the source's next load until the second event is set; the first says that it has begun."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(10)

    backend.source.after_read = once(hold)
    return begun, go_on


def waiting(worker: SharedCache) -> Callable[[], bool]:
    return lambda: worker.metrics["waits"] > 0


def until(condition: Callable[[], bool]) -> None:
    from tests.waiting import eventually  # noqa: PLC0415 - one use

    eventually(condition, seconds=10)


def test_a_waiter_gets_the_rows_that_the_other_one_loads(backend: Backend) -> None:
    """One load for both (Promise 3)."""
    filler, waiter = backend.worker(system=SYSTEM), backend.worker(system=SYSTEM)
    begun, go_on = held(backend)
    with ThreadPoolExecutor(2) as pool:
        filling = pool.submit(filler.read, None)
        assert begun.wait(10)
        waits = pool.submit(waiter.read, None)
        until(waiting(waiter))
        go_on.set()
        assert filling.result().source == "database"
        assert waits.result().source == "redis"
    assert backend.source.loads == 1


def test_a_waiter_loads_when_the_fill_before_it_fails(backend: Backend) -> None:
    """The lock is released at once and the event wakes it (R11)."""
    filler, waiter = backend.worker(system=SYSTEM), backend.worker(system=SYSTEM)
    begun, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        assert go_on.wait(10)
        raise LookupError

    backend.source.before_read = once(fail)
    with ThreadPoolExecutor(2) as pool:
        filling = pool.submit(filler.read, None)
        assert begun.wait(10)
        waits = pool.submit(waiter.read, None)
        until(waiting(waiter))
        go_on.set()
        with pytest.raises(LookupError):
            filling.result()
        assert waits.result().source == "database"
    assert waiter.metrics["wait_timeouts"] == 0


def test_a_waiter_whose_time_is_up_loads_privately(backend: Backend) -> None:
    """And publishes nothing (R11)."""
    filler = backend.worker(system=SYSTEM)
    waiter = backend.worker(system=SYSTEM, lock_ttl=0.05, wait_timeout=0.2)
    begun, go_on = held(backend)
    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(filler.read, None)
        assert begun.wait(10)
        # The waiter's own lock_ttl would end the filler's lock: keep it as long as the filler's.
        waiter._store._fixed["lock_ttl_ms"] = 3000
        snapshot = waiter.read(None)
        assert (snapshot.source, snapshot.shared) == ("database", False)
        assert waiter.metrics["wait_timeouts"] == 1
        go_on.set()
        assert filling.result().shared


def test_threads_of_one_process_send_one_question(backend: Backend) -> None:
    """One takes the slow path, the others use what it brought (R12)."""
    worker = backend.worker(system=SYSTEM)
    begun, go_on = held(backend)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(worker.read, None)
        assert begun.wait(10)
        others = [pool.submit(worker.read, None) for _ in range(7)]
        go_on.set()
        assert first.result().source == "database"
        assert {other.result().source for other in others} == {"near"}
    assert worker.metrics["scripts_read"] == 1
    assert worker.metrics["reads_near"] == 7
    assert backend.source.loads == 1


def test_a_forced_read_neither_queues_behind_a_plain_one_nor_joins_its_fill(backend: Backend) -> None:
    """The fill began before it, so it waits for that one's end and loads anew (R12, Promise 2)."""
    worker = backend.worker(system=SYSTEM)
    begun, go_on = held(backend)
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(worker.read, None)
        assert begun.wait(10)
        backend.source.version = 2
        forced = pool.submit(worker.read, None, force=True)
        until(waiting(worker))
        go_on.set()
        assert version_of(plain.result()) == 1
        assert version_of(forced.result()) == 2
    assert backend.source.loads == 2


@pytest.mark.parametrize("processes", [1, 6])
def test_concurrent_forced_reads_cost_at_most_two_loads(backend: Backend, processes: int) -> None:
    """In one process or many; all have sent their first script before the first load ends (Promise 2)."""
    workers = [backend.worker(system=SYSTEM) for _ in range(processes)] * (6 // processes)
    waiting_threads: set[int] = set()
    for worker in set(workers):

        def await_event(*arguments: Any, wait: Any = worker._store.await_event) -> None:
            waiting_threads.add(threading.get_ident())
            wait(*arguments)

        worker._store.await_event = await_event  # type: ignore[method-assign,assignment]
    begun, go_on = held(backend)
    with ThreadPoolExecutor(6) as pool:
        forced = [pool.submit(worker.read, None, force=True) for worker in workers]
        assert begun.wait(10)
        until(lambda: len(waiting_threads) == 5)
        go_on.set()
        for result in forced:
            result.result()
    assert backend.source.loads <= 2


def test_threads_that_queued_before_a_private_load_began_take_its_rows(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lease=0 they would else load one by one (R12)."""
    worker = backend.worker(system=SYSTEM, lease=0)
    inside, go_on = threading.Event(), threading.Event()
    queueing = threading.Semaphore(0)
    acquire = _Permit.acquire

    def counted(permit: _Permit, seconds: float) -> bool:
        queueing.release()
        return acquire(permit, seconds)

    monkeypatch.setattr(_Permit, "acquire", counted)

    @contextlib.contextmanager
    def connection() -> Iterator[None]:
        inside.set()  # the first thread is held here, before its private load's first statement
        assert go_on.wait(10)
        yield

    backend.down()
    try:
        with ThreadPoolExecutor(5) as pool:
            reads = [pool.submit(worker.read, connection)]
            assert inside.wait(10)
            reads += [pool.submit(worker.read, connection) for _ in range(4)]
            for _ in range(5):
                assert queueing.acquire(timeout=10)
            go_on.set()
            snapshots = [read.result() for read in reads]
    finally:
        backend.up()
    assert {snapshot.source for snapshot in snapshots} == {"database"}
    assert backend.source.loads == 1
    assert worker.metrics["reads_handed_over"] == 4


# --- odds and ends --------------------------------------------------------------------------------------------------


def test_bypass_reads_the_database_every_time_and_writes_nothing(backend: Backend) -> None:
    """The off switch; rows are as immutable as ever, and an invalidate still reaches the others."""
    worker = backend.worker(mode="bypass")
    assert [worker.read(None).source for _ in range(2)] == ["database", "database"]
    assert backend.client.dbsize() == 0
    with pytest.raises(TypeError, match="deepcopy"):
        worker.read(None).rows[0]["version"] = 5
    other = backend.worker()
    other.read(None)
    worker.invalidate()
    assert not backend.client.exists(backend.keys.entry)


def test_copied_rows_are_private_and_mutable(backend: Backend) -> None:
    """For a first release: what one reader changes, no other sees."""
    worker = backend.worker(copy_rows=True)
    for _ in range(2):
        rows = worker.read(None).rows
        rows[0]["nested"]["list"].append("mine")
        assert type(rows[0]) is dict
    assert worker.read(None).rows == ({"version": 1, "nested": {"list": [1, {"x": "가"}]}},)


def test_a_callable_is_called_only_when_rows_are_loaded(backend: Backend) -> None:
    """A hit checks no connection out, and neither does a waiter."""
    worker = backend.worker()
    lent: list[str] = []

    class Connection:
        def __enter__(self) -> str:
            lent.append("out")
            return "connection"

        def __exit__(self, *_: object) -> None:
            lent.append("back")

    worker.read(Connection)
    assert lent == ["out", "back"]
    worker.read(Connection)
    backend.worker().read(Connection)
    assert lent == ["out", "back"]


def test_two_databases_behind_one_namespace_are_counted(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """The filler finds another database's name there (R13)."""
    worker = backend.worker()
    with caplog.at_level(logging.ERROR, "kcg_cache"):
        worker._check_source("1/a", "2/b")
        worker._check_source("1/a", "2/b")
        worker._check_source("1/a", "1/a")
        worker._check_source("1/a", "")
    assert worker.metrics["foreign_sources"] == 2
    assert len(caplog.records) == 1


def test_the_lock_is_held_by_whom_the_server_says(backend: Backend) -> None:
    """What inspect shows is entry, lock and events as they are."""
    worker = backend.worker()
    worker.read(None)
    grant = worker._store.read(Question(token="e" * 32, now=True))
    assert isinstance(grant, Fill)
    state = worker.inspect()
    assert state.lock == grant.grant
    assert state.entry["digest"] == worker.read(None).digest
    assert state.events[0]["event"] == "filled"
    assert state.payload_bytes > 0
    assert worker.inspect(0).events == ()
    assert worker.server()["run_id"]


def test_a_client_with_longer_deadlines_gets_one_warning(backend: Backend) -> None:
    """And its own bound applies."""
    loose = redis.Redis(port=1)
    with pytest.warns(UserWarning, match="redis_timeout") as warned:
        SharedCache(loose, backend.source.dataset(), Settings())
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="has no timeout"):
        SharedCache(redis.Redis(port=1, socket_timeout=None), backend.source.dataset(), Settings())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SharedCache("redis://127.0.0.1:1", backend.source.dataset(), Settings())


def test_an_asyncio_client_is_refused(backend: Backend) -> None:
    """At once, with what to give instead."""
    with pytest.raises(ConfigurationError, match="asyncio client"):
        SharedCache(redis.asyncio.Redis(), backend.source.dataset(), Settings())
    with pytest.raises(ConfigurationError, match="no redis client"):
        SharedCache(object(), backend.source.dataset(), Settings())


# --- what a review found, and what a mutation survived ----------------------------------------------------------------


def test_the_lease_of_a_fill_counts_from_the_publishs_sending_and_not_from_its_reply(backend: Backend) -> None:
    """An invalidate may have run in between (R6)."""
    worker = backend.worker()
    send = worker._store.publish

    def slowly(*args: Any, **kwargs: Any) -> Any:
        published = send(*args, **kwargs)
        backend.system.tick(0.7)
        return published

    worker._store.publish = slowly  # type: ignore[method-assign]
    sent_at = backend.system.time
    worker.read(None)
    copy = worker._near.copy
    assert copy is not None
    assert copy.valid_until == pytest.approx(sent_at + 1.0)


def test_the_lease_of_a_fill_does_not_outlive_a_short_ttl(backend: Backend) -> None:
    """Remaining freshness bounds it too (R6)."""
    worker = backend.worker(ttl=0.3)
    worker.read(None)
    backend.system.tick(0.31)
    copy = worker._near.copy
    assert copy is not None
    assert copy.valid_until < backend.system.time


def _late_receipt(backend: Backend) -> Invalidation:
    """Invalidate, and get the reply 0.4 s after the script ran."""
    worker = backend.worker()
    send = worker._store.invalidate

    def slowly(**kwargs: Any) -> Any:
        deleted = send(**kwargs)
        backend.system.tick(0.4)
        return deleted

    worker._store.invalidate = slowly  # type: ignore[method-assign]
    return worker.invalidate(wait=False)


def test_the_wait_of_an_invalidate_counts_from_the_receipt_of_its_reply(backend: Backend) -> None:
    """Not from the call (R7)."""
    receipt = _late_receipt(backend)
    assert receipt.in_force_in == pytest.approx(1.02)


def test_an_invalidate_that_does_not_wait_is_in_force_at_once_for_its_own_process(backend: Backend) -> None:
    """It forgets its near copy."""
    worker = backend.worker()
    worker.read(None)
    backend.source.version = 2
    worker.invalidate(wait=False)
    backend.system.tick(0.01)
    assert version_of(worker.read(None)) == 2


def test_a_floor_that_a_debt_has_resolved_is_kept_for_the_next_read(backend: Backend) -> None:
    """So recovering processes coalesce: what another one filled after it is enough (R8)."""
    worker, other = backend.worker(), backend.worker()
    worker.read(None)
    worker._near.drop()
    backend.system.tick(0.01)

    backend.source.before_read = once(fail)
    with pytest.raises(LookupError):
        worker.read(None)
    other.read(None, force=True)
    loads = backend.source.loads
    assert worker.read(None).source == "redis"
    assert backend.source.loads == loads
    # With that it is met: the rows are kept, and nothing is owed any more.
    assert worker.read(None).source == "near"
    assert worker._near.debt is None


def test_a_read_that_waited_while_its_process_was_given_private_rows_does_not_go_back(backend: Backend) -> None:
    """Its floor from before them does not cover them (R8, Promise 4)."""
    worker, filler = backend.worker(), backend.worker()
    granted = filler._store.read(Question(token="f" * 32))
    assert isinstance(granted, Fill)
    wait = worker._store.await_event
    given: list[int] = []

    def meanwhile(after: bytes, seconds: float) -> None:
        worker._store.await_event = wait  # type: ignore[method-assign]
        backend.source.version = 2
        worker._breaker.failed()
        backend.system.tick(0.01)
        given.append(version_of(worker.read(None, force=True)))  # privately: the breaker is open
        backend.system.tick(2.01)
        assert published(filler, granted)  # rows from before

    worker._store.await_event = meanwhile  # type: ignore[method-assign]
    assert version_of(worker.read(None)) == 2
    assert given == [2]


def test_a_call_that_was_not_answered_in_time_is_not_sent_again(backend: Backend) -> None:
    """A hung Redis costs one deadline (R8)."""
    worker, sent = backend.worker(), []

    def hang(*command: Any, **_: Any) -> Any:
        sent.append(command[0])
        raise redis.TimeoutError("hung")

    backend.client.execute_command = hang
    worker.read(None)
    del backend.client.execute_command
    assert sent == ["EVALSHA"]


def test_a_waiter_waits_no_longer_than_the_lock_lives(backend: Backend) -> None:
    """When its holder was killed no event comes (R11)."""
    worker = backend.worker()
    worker._store.read(Question(token="f" * 32))
    backend.client.pexpire(backend.keys.lock, 60)
    read, asked, waited = worker._store.read, list[Any](), list[tuple[bytes, float]]()

    def ask(question: Question) -> Any:
        asked.append(read(question))
        return asked[-1]

    def record(after: bytes, seconds: float) -> None:
        waited.append((after, seconds))
        backend.client.delete(backend.keys.lock)

    worker._store.read = ask  # type: ignore[method-assign]
    worker._store.await_event = record  # type: ignore[method-assign]
    worker.read(None)
    assert len(waited) == 1
    after, seconds = waited[0]
    assert after == asked[0].last_event  # from where that answer was: an event in between is not missed
    # A little more than it lives, or the lock would still be there.
    assert asked[0].lock_left < seconds <= asked[0].lock_left + 0.001 <= 0.061


def test_a_filler_whose_rows_redis_will_not_take_frees_the_lock(backend: Backend) -> None:
    """The waiters need not wait for it to expire (R11)."""
    worker = backend.worker()

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise StoreRefused("over maxmemory", symptom="memory")

    worker._store.publish = refuse  # type: ignore[method-assign]
    assert not worker.read(None).shared
    assert not backend.client.exists(backend.keys.lock)
    assert [event["reason"] for event in worker.inspect().events] == ["failed"]


def test_queueing_behind_another_thread_counts_as_waiting(backend: Backend) -> None:
    """Whoever is on the slow path: past wait_timeout a reader loads for itself (R11, R12)."""
    worker = backend.worker(lock_ttl=0.05, wait_timeout=0.2)
    worker._slow.acquire()
    snapshot = worker.read(None)
    assert (snapshot.source, snapshot.shared) == ("database", False)
    assert worker.metrics["wait_timeouts"] == 1
    assert worker.metrics["scripts_read"] == 0
    assert worker._slow.locked()  # what it did not get it does not give back
    assert worker.read(None).source == "near"  # a covered read does not queue at all


def test_rows_are_handed_over_only_to_calls_from_before_their_first_statement(backend: Backend) -> None:
    """Not to one of the same moment: a clock tells no order within a tick (R12)."""
    worker = backend.worker()
    snapshot = backend.worker(mode="bypass").read(None)
    call = _Call(None, False, None, 5.0, 15.0, _Permit(worker._slow), "")
    worker._handover = _Handover(5.0, snapshot)
    assert worker._answered_while_queueing(call) is None
    worker._handover = _Handover(5.5, snapshot)
    assert worker._answered_while_queueing(call) is snapshot


def test_rows_of_a_filler_that_gave_up_are_handed_over(backend: Backend) -> None:
    """To those that were queueing before it read them (R12)."""
    worker, operator = backend.worker(), backend.worker()

    def overtake() -> None:
        operator.invalidate(wait=False)

    backend.source.after_read = overtake
    given_up = worker.read(None)
    assert worker._handover is not None
    assert worker._handover.snapshot is given_up


def test_a_filler_whose_time_is_up_after_a_rejection_returns_what_it_has(backend: Backend) -> None:
    """It loads no third time (R4)."""
    worker, operator = backend.worker(wait_timeout=10), backend.worker()

    def overtaken() -> None:
        operator.invalidate(wait=False)
        operator._store.read(Question(token="f" * 32))  # somebody else fills now
        backend.system.tick(11)

    backend.source.after_read = once(overtaken)
    snapshot = worker.read(None)
    assert not snapshot.shared
    assert backend.source.loads == 1
    assert worker.metrics["fills_given_up"] == 1
    assert worker._near.copy is None


def test_an_entry_that_stays_unbelievable_costs_three_questions(backend: Backend) -> None:
    """And then a private load (R14)."""
    worker = backend.worker()
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, "payload", b"junk")
    read, asked = worker._store.read, []

    def forgetful(question: Question) -> Any:
        asked.append(question)
        assert len(asked) < 10
        return read(Question(token=question.token))

    worker._store.read = forgetful  # type: ignore[method-assign]
    assert worker.read(None).source == "database"
    assert len(asked) == 3


def test_stale_rows_are_no_refresh_ahead(backend: Backend) -> None:
    """Past the TTL nobody is given them before the load has failed (R15, R16)."""
    worker = backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)
    during: list[Any] = []
    backend.source.before_read = lambda: during.append((worker._near.copy.snapshot.stale, worker._slow.locked()))  # type: ignore[union-attr]
    worker.read(None)
    assert during == [(False, True)]
    assert worker.metrics["refreshes"] == 0


def test_stale_rows_are_served_also_when_a_private_load_fails(backend: Backend) -> None:
    """Redis offered them before it went away (R15)."""
    worker, other = backend.worker(stale_if_error=60), backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)
    other._store.read(Question(token="f" * 32))

    def gone(after: bytes, seconds: float) -> None:
        raise mapped(redis.ConnectionError("gone"))

    worker._store.await_event = gone  # type: ignore[method-assign]
    backend.source.before_read = fail
    assert worker.read(None).stale


def test_wrong_use_is_said_and_not_papered_over_with_stale_rows(backend: Backend) -> None:
    """It is no failure of the database (R15)."""
    worker = backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)
    with pytest.raises(ConfigurationError, match="context manager"):
        worker.read(lambda: 5)


def test_a_fallback_does_not_replace_what_arrived_after_it(backend: Backend) -> None:
    """It keeps the place of the read that delivered it (R6, R15)."""
    worker = backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)

    def overtaken() -> None:
        backend.source.version = 2
        backend.system.tick(0.1)
        backend.client.delete(backend.keys.lock)
        assert version_of(worker.read(None, force=True)) == 2
        backend.system.tick(0.1)
        raise LookupError

    backend.source.before_read = once(overtaken)
    assert version_of(worker.read(None)) == 1
    assert version_of(worker.read(None)) == 2


def test_while_one_thread_refreshes_the_others_read_the_rows_that_are_still_good(backend: Backend) -> None:
    """Its own process's too, and its new rows follow what they confirmed meanwhile (R12, R16)."""
    worker = backend.worker(refresh_ahead=0.5)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 100_000)
    backend.system.tick(1)
    backend.source.version = 2
    during: list[Any] = []

    def meanwhile() -> None:
        during.append((worker._slow.locked(), worker.read(None).source))
        backend.system.tick(1.1)
        during.append(worker.read(None).source)  # confirmed by Redis, after the refresh began
        backend.system.tick(0.1)

    backend.source.before_read = once(meanwhile)
    assert version_of(worker.read(None)) == 2
    assert during == [(False, "near"), "redis"]
    assert worker.read(None).source == "near"
    assert version_of(worker.read(None)) == 2
    assert worker.metrics["near_dropped"] == 0


def test_the_clock_goes_on_while_the_host_sleeps() -> None:
    """CLOCK_BOOTTIME where it exists (R6)."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("this system has none")
    assert SYSTEM.now.args == (time.CLOCK_BOOTTIME,)  # type: ignore[attr-defined]


def test_a_first_read_that_refreshes_ahead_keeps_what_it_published(backend: Backend) -> None:
    """Though its fallback arrived after its request was sent (R16)."""
    backend.worker().read(None)
    backend.client.pexpire(backend.keys.entry, 100_000)
    backend.source.version = 2
    cold = backend.worker(refresh_ahead=0.5)
    assert version_of(cold.read(None)) == 2
    assert cold.read(None).source == "near"
    assert version_of(cold.read(None)) == 2
    assert cold.metrics["near_dropped"] == 0


def test_a_published_fill_does_not_replace_rows_that_arrived_during_its_load(backend: Backend) -> None:
    """The order of copies counts from the read that was granted the lock (R6, Promise 4)."""
    worker = backend.worker()

    def meanwhile() -> None:
        backend.source.version = 2
        worker._breaker.failed()
        backend.system.tick(0.01)
        assert version_of(worker.read(None, force=True)) == 2  # privately: the breaker is open
        worker._breaker.succeeded()
        backend.system.tick(0.01)

    backend.source.after_read = once(meanwhile)
    assert version_of(worker.read(None)) == 1
    backend.system.tick(0.01)
    assert version_of(worker.read(None)) == 2


def test_a_forced_read_keeps_its_floor_when_its_process_comes_to_owe_one(backend: Backend) -> None:
    """What began after its first script is enough: else N forced threads cost N loads (R2, Promise 2)."""
    worker, other = backend.worker(), backend.worker()
    granted = other._store.read(Question(token="f" * 32))
    assert isinstance(granted, Fill)
    wait = worker._store.await_event

    def meanwhile(after: bytes, seconds: float) -> None:
        worker._store.await_event = wait  # type: ignore[method-assign]
        assert published(other, granted)  # began before the forced read
        other.read(None, force=True)  # began after it
        worker._near.drop()  # another thread's reply came too late
        backend.system.tick(0.01)

    worker._store.await_event = meanwhile  # type: ignore[method-assign]
    assert worker.read(None, force=True).source == "redis"
    assert backend.source.loads == 1
    # Those rows do not cover what the other thread was given, so they are not kept.
    assert worker._near.copy is None
    assert worker._near.debt is not None


def test_a_fallback_that_was_withdrawn_is_served_no_more(backend: Backend) -> None:
    """The last answer offered nothing (R15, R16)."""
    worker, operator = backend.worker(refresh_ahead=0.5), backend.worker()
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 100_000)
    backend.system.tick(1)

    def withdraw() -> None:
        operator.invalidate()
        backend.source.before_read = fail

    backend.source.after_read = once(withdraw)
    with pytest.raises(LookupError):
        worker.read(None)


def test_an_entry_with_an_empty_digest_is_replaced(backend: Backend) -> None:
    """It is nobody's known rows (R14)."""
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, "digest", "")
    assert backend.worker().read(None).shared
    assert backend.worker().read(None).source == "redis"


def test_an_answer_to_another_question_is_no_answer(backend: Backend) -> None:
    """An interrupted call can leave one on its connection (Promise 2)."""
    worker = backend.worker()
    worker.read(None)
    backend.system.tick(1)
    execute, late = backend.client.execute_command, []

    def one_behind(*command: Any, **options: Any) -> Any:
        late.append(execute(*command, **options))
        return late.pop(0) if len(late) > 1 else late[0]

    late.append(execute("EVALSHA", *_read_command(worker)))
    backend.client.execute_command = one_behind
    backend.source.version = 2
    snapshot = worker.read(None, force=True)
    del backend.client.execute_command
    assert version_of(snapshot) == 2


def _read_command(worker: SharedCache) -> list[Any]:
    """Give what a read sends, after EVALSHA."""
    sent: list[Any] = []
    call = worker._store._call

    def record(*command: Any) -> Any:
        sent.append(command)
        return call(*command)

    worker._store._call = record  # type: ignore[method-assign]
    worker._store.read(Question(token="e" * 32))
    worker._store._call = call  # type: ignore[method-assign]
    return list(sent[0][1:])


def test_an_interrupt_while_the_renewing_thread_starts_leaves_neither_lock_nor_thread(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would renew the lock for as long as the process lives (R11)."""
    worker = backend.worker()
    start, started = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "kcg_cache-renew":
            started.append(thread)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.read(None)
    assert not backend.client.exists(backend.keys.lock)
    started[0].join(timeout=5)
    assert not started[0].is_alive()


def test_without_another_thread_a_read_is_answered_all_the_same(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a limit of threads, and at the interpreter's end (Python 3.12)."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    worker = backend.worker()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert worker.read(None).shared


@pytest.mark.parametrize(("socket_timeout", "listens"), [(0.2, 100), (0.5, 250), (1.0, 500)])
def test_a_waiter_listens_for_half_of_the_shorter_deadline(
    monkeypatch: pytest.MonkeyPatch, socket_timeout: float, listens: int
) -> None:
    """The client's own, or redis_timeout: the listening ends before either would (R11).

    What is asked is looked at, not whether a server answered within it: on a busy machine one did not.
    """
    asked: list[tuple[object, ...]] = []
    client = real_client("redis://127.0.0.1:1/0", socket_timeout=socket_timeout, socket_connect_timeout=0.5)
    monkeypatch.setattr(client, "execute_command", lambda *command, **_options: asked.append(command))
    Store(client, "numbers", Settings(redis_timeout=1.0)).await_event(b"0-0", 9.0)
    (command,) = asked
    assert command[command.index("BLOCK") + 1] == listens


def test_a_host_name_that_is_none_is_an_unreachable_redis(backend: Backend) -> None:
    """It reaches no reader (R8)."""
    worker = SharedCache("redis://redis..svc:6379/0", backend.source.dataset(), Settings())
    assert version_of(worker.read(None)) == 1


def test_a_second_outage_is_logged_again_and_a_lasting_one_is_not(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Once per outage, under one stable name."""
    worker = backend.worker(lease=0, breaker_window=0)
    with caplog.at_level(logging.INFO, "kcg_cache"):
        for _ in range(2):
            backend.down()
            try:
                worker.read(None)
                worker.read(None)
            finally:
                backend.up()
            backend.system.tick(0.01)
            assert worker.read(None).shared
    events = [record.kcg_event for record in caplog.records]  # type: ignore[attr-defined]
    assert events == ["redis_failed", "redis_back"] * 2


def test_a_lock_is_renewed_twice_before_it_would_expire(backend: Backend) -> None:
    """So that one renewal may be lost (R3)."""
    asked: list[float] = []

    class Watched(EagerSystem):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            asked.append(seconds)
            return super().wait(event, seconds)

    worker = backend.worker(system=Watched())
    backend.source.after_read = lambda: until(lambda: bool(asked))
    worker.read(None)
    assert 0 < asked[0] <= worker.settings.lock_ttl / 3


def test_a_renewal_that_was_not_answered_is_not_the_last(backend: Backend) -> None:
    """The lock has not expired yet (R3)."""
    worker = backend.worker(system=EagerSystem())
    renew, calls = worker._store.renew, threading.Semaphore(0)

    def lost_at_first(grant: Any) -> bool:
        if worker.metrics["renew_errors"] == 0:
            raise StoreRefused("lost", symptom="reply")
        calls.release()
        return renew(grant)

    worker._store.renew = lost_at_first  # type: ignore[method-assign]
    answered: list[bool] = []
    backend.source.after_read = lambda: answered.append(calls.acquire(timeout=5))
    worker.read(None)
    assert answered == [True]


def test_a_rejected_filler_starts_over_with_another_token(backend: Backend) -> None:
    """A late duplicate of its first question is not granted the lock of the second (R4)."""
    worker, operator = backend.worker(), backend.worker()
    read, tokens = worker._store.read, []

    def noted(question: Question) -> Any:
        tokens.append(question.token)
        return read(question)

    worker._store.read = noted  # type: ignore[method-assign]
    backend.source.after_read = once(lambda: operator.invalidate(wait=False))
    worker.read(None)
    assert len(tokens) == len(set(tokens)) == 2


@pytest.mark.parametrize("seconds", [7, 0, -5])
def test_a_fillers_rows_are_as_old_as_its_grant(backend: Backend, seconds: int) -> None:
    """By the server's clock, on which the load took so long; a clock that stepped back makes no negative age (R5)."""
    worker = backend.worker()
    publish = worker._store.publish

    def late(grant: Any, payload: codec.Payload, **arguments: Any) -> Any:
        published = publish(grant, payload, **arguments)
        assert published is not None
        return published._replace(at=int(grant.granted_at) + seconds * 1_000_000)

    worker._store.publish = late  # type: ignore[method-assign]
    assert worker.read(None).age == max(0, seconds)


def test_a_connection_that_closes_late_is_not_tried_again(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the deadline has passed, and a second try may take another one (R8)."""
    worker, calls = backend.worker(), []

    def close_late(*command: Any, **_: Any) -> Any:
        calls.append(command[0])
        backend.system.tick(0.3)
        raise redis.ConnectionError("closed")

    monkeypatch.setattr(backend.client, "execute_command", close_late)
    assert not worker.read(None).shared
    assert calls == ["EVALSHA"]


def test_a_publish_that_is_not_answered_costs_one_deadline(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its lock's release nor the next read asks a Redis that hangs (R8)."""
    worker, released = backend.worker(lease=0), []

    def hang(*_: Any, **__: Any) -> Any:
        raise StoreUnreachable("no answer", symptom="timeout")

    monkeypatch.setattr(worker._store, "publish", hang)
    monkeypatch.setattr(worker._store, "release", lambda *_, **__: released.append("released"))
    assert not worker.read(None).shared
    assert not worker.read(None).shared
    assert worker.metrics["scripts_read"] == 1
    assert released == []


def test_a_max_age_is_not_answered_by_what_an_older_debt_would_accept(backend: Backend) -> None:
    """The entry is younger than the debt's floor, and still too old for this caller (R8)."""
    other, worker = backend.worker(), backend.worker()
    other.read(None)
    worker._near._debt = Debt(Floor("1", other.inspect().incarnation))
    assert worker.read(None, max_age=0).source == "database"


def test_every_failure_of_redis_is_counted(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one after which the database answers (R8)."""
    worker = backend.worker()

    def fail_to_read(_question: Question) -> Any:
        raise StoreUnreachable("refused", symptom="connection")

    monkeypatch.setattr(worker._store, "read", fail_to_read)
    worker.read(None)
    assert worker.metrics["store_errors"] == 1


def test_a_waiter_without_a_stream_asks_again_in_time_and_not_after_its_time(backend: Backend) -> None:
    """Half a redis_timeout at a time, and wait_timeout in all (R11)."""
    worker = backend.worker(lock_ttl=30, wait_timeout=60, redis_timeout=48)
    backend.client.set(backend.keys.events, "no stream")
    assert isinstance(worker._store.read(Question(token="f" * 32)), Fill)
    assert not worker.read(None).shared
    assert backend.system.slept == pytest.approx([24, 24, 12])


def test_a_waiter_that_may_not_read_the_stream_still_gets_the_others_rows(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It polls, and loads nothing (R11)."""
    worker = backend.worker()
    granted = worker._store.read(Question(token="f" * 32))
    assert isinstance(granted, Fill)

    def refuse(_after: bytes, _seconds: float) -> None:
        assert published(worker, granted)
        raise StoreRefused("NOPERM", symptom="denied")

    monkeypatch.setattr(worker._store, "await_event", refuse)
    assert worker.read(None).source == "redis"
    assert backend.source.loads == 0
    assert len(backend.system.slept) == 1


def test_the_time_in_the_queue_is_part_of_wait_timeout(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """After nine of ten seconds in the queue one is left for another's fill (R11, R12)."""
    worker, acquire = backend.worker(), _Permit.acquire

    def after_nine_seconds(permit: _Permit, seconds: float) -> bool:
        backend.system.tick(9)
        return acquire(permit, seconds)

    monkeypatch.setattr(_Permit, "acquire", after_nine_seconds)
    backend.client.set(backend.keys.events, "no stream")
    assert isinstance(worker._store.read(Question(token="f" * 32)), Fill)
    assert not worker.read(None).shared
    assert sum(backend.system.slept) == pytest.approx(1)


def test_a_published_fill_is_handed_over_by_the_near_copy_alone(backend: Backend) -> None:
    """A thread that queued during the load may have come after an invalidate, which the rows are from before (R12)."""
    worker = backend.worker(lease=0)
    worker.read(None)
    assert worker._handover is None


@pytest.mark.parametrize("ending", ["oversized", "given up"])
def test_what_is_handed_over_counts_from_its_first_statement(backend: Backend, ending: str) -> None:
    """However long its load took (R12)."""
    worker, operator = backend.worker(max_payload=10 if ending == "oversized" else 10_000), backend.worker()
    began: list[float] = []

    def take_long() -> None:
        backend.system.tick(1)
        if ending == "given up":
            operator.invalidate(wait=False)

    backend.source.before_read = lambda: began.append(backend.system.time)
    backend.source.after_read = take_long
    worker.read(None)
    assert worker._handover is not None
    assert worker._handover.first_statement_at == began[-1]


# --- what a mutation tool showed to be untested -----------------------------------------------------------------------


def test_a_cache_without_arguments_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and settings; what is given goes before."""
    monkeypatch.setenv("KCG_CACHE_REDIS_URL", "redis://127.0.0.1:7/0")
    monkeypatch.setenv("KCG_CACHE_NAMESPACE", "from-outside")
    assert SharedCache().settings.namespace == "from-outside"
    assert SharedCache(settings=Settings(namespace="given")).settings.namespace == "given"

    def port(cache: SharedCache) -> int:
        return int(cache._store._client.redis.connection_pool.connection_kwargs["port"])

    assert port(SharedCache()) == 7
    assert port(SharedCache("redis://127.0.0.1:8/0")) == 8


def test_a_max_age_may_be_anything_up_to_a_billion_seconds(backend: Backend) -> None:
    """The bound itself is allowed."""
    worker = backend.worker()
    assert worker.read(None, max_age=1e9).source == "database"
    with pytest.raises(ConfigurationError, match="0 to 1e\\+09"):
        worker.read(None, max_age=1.1e9)


def test_rows_exactly_as_old_as_accepted_are_accepted(backend: Backend) -> None:
    """From the near copy, without queueing, and by a thread that queued for it."""
    worker = backend.worker()
    worker.read(None)
    copy = worker._near.copy
    assert copy is not None
    aged = replace(copy.snapshot, age_then=0.5, as_of=backend.system.time)
    worker._near.copy = replace(copy, snapshot=aged)
    with worker._slow:
        assert worker.read(None, max_age=0.5) is aged
    call = _Call(None, False, 0.5, 5.0, 15.0, _Permit(worker._slow), "")
    assert worker._answered_while_queueing(call) is aged
    call.max_age = 0.49
    assert worker._answered_while_queueing(call) is None


def test_what_one_thread_holds_another_does_not_give_back() -> None:
    """A forced read never queues, and may come to where the others let go (R12, R13)."""
    lock = threading.Lock()
    first, forced = _Permit(lock), _Permit(lock)
    assert first.acquire(1)
    forced.release()
    assert lock.locked()
    first.release()
    first.release()
    assert not lock.locked()


@pytest.mark.parametrize("mode", ["shared", "bypass"])
def test_the_loader_gets_the_connection_that_was_given_or_lent(backend: Backend, mode: str) -> None:
    """Whichever way the rows go."""
    seen: list[Any] = []

    def load(conn: Any) -> list[dict[str, Any]]:
        seen.append(conn)
        return [{}]

    worker = backend.worker(Dataset("numbers", load, transactional=False), mode=mode)
    worker.read("given")
    worker.read(lambda: contextlib.nullcontext("lent"), force=True)
    assert seen == ["given", "lent"]


def test_everyone_gets_rows_of_the_datasets_own_type(backend: Backend) -> None:
    """Whoever loads and whoever reads the entry."""

    class Row(FrozenDict):
        __slots__ = ()

    dataset = Dataset("numbers", backend.source.load, row_type=Row, transactional=False)
    for snapshot in (backend.worker(dataset).read(None), backend.worker(dataset).read(None)):
        assert type(snapshot.rows[0]) is Row
        assert type(snapshot.rows[0]["nested"]) is FrozenDict


@pytest.mark.parametrize(
    ("fresh", "life", "stale", "lease"),
    [
        (300.0, 360.0, False, 1.0),
        (1.0, 61.0, False, 1.0),
        (0.4, 60.4, False, 0.4),
        (0.0, 60.0, True, 1.0),
        (-59.6, 0.4, True, 0.4),
    ],
)
def test_an_entry_is_stale_from_the_end_of_its_ttl_and_no_lease_outlives_it(
    backend: Backend, fresh: float, life: float, lease: float, *, stale: bool
) -> None:
    """Fresh, its TTL bounds the lease; past that, the end of stale_if_error does (R6, R15)."""
    worker = backend.worker()
    payload = codec.encode("numbers", [{"version": 1}])
    entry = Entry(payload.digest, payload.format, "5", "1", "", "", "a/b", 2.0, fresh, life, payload.data)
    call = _Call(None, False, None, 5.0, 15.0, _Permit(worker._slow), "")
    copy = worker._believed(call, worker._near.start(), entry)
    assert copy is not None
    assert copy.snapshot.stale is stale
    assert copy.snapshot.age == 2.0
    assert copy.valid_until == pytest.approx(backend.system.time + lease)


@pytest.mark.parametrize("origin", ["the entry", "a private load"])
def test_whatever_way_rows_came_they_are_confirmed_without_their_payload(backend: Backend, origin: str) -> None:
    """A worker that read them, and one that loaded the same for itself, hold what the digest says (R2)."""
    backend.worker().read(None)
    worker = backend.worker()
    if origin == "a private load":
        worker._breaker.failed()
    held = worker.read(None)
    assert held.shared is (origin == "the entry")
    backend.system.tick(3)
    if origin == "a private load":
        # After private rows newer ones are owed. Its next script says from when on, and another process loads them.
        backend.source.before_read = once(fail)
        with pytest.raises(LookupError):
            worker.read(None)
        backend.worker().read(None, force=True)
    assert worker.read(None).rows is held.rows
    assert worker.metrics["lease_renewals"] == 1
    assert worker.metrics["scripts_read"] == 2


def test_a_payload_of_exactly_the_limit_is_shared(backend: Backend) -> None:
    """max_payload is the most that is (R14)."""
    size = len(codec.encode("numbers", backend.source.load(None)).data)
    assert backend.worker(max_payload=size).read(None).shared
    assert backend.worker().read(None).source == "redis"
    assert not backend.worker(max_payload=size - 1).read(None, force=True).shared


def test_an_entry_says_how_long_its_load_took_and_names_no_database_that_nobody_asked(backend: Backend) -> None:
    """In whole microseconds; a source that is no PostgreSQL has no name (R13)."""
    backend.source.after_read = lambda: backend.system.tick(2)
    backend.worker().read(None)
    entry = backend.entry()
    assert entry["load_us"] == b"2000000"
    assert entry["source"] == b""


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("reason", "after_read", "max_payload"),
    [("failed", fail, 10_000), ("failed", interrupt, 10_000), ("oversized", lambda: None, 10)],
    ids=["failed", "interrupted", "oversized"],
)
def test_a_lock_is_given_back_once_and_the_event_says_why(
    backend: Backend, reason: str, after_read: Callable[[], None], max_payload: int
) -> None:
    """Each call is a round trip that a waiter may be waiting for (R11)."""
    worker = backend.worker(max_payload=max_payload)
    release, released = worker._store.release, []

    def counted(*arguments: Any, **named: Any) -> bool:
        released.append(arguments[1])
        return release(*arguments, **named)

    worker._store.release = counted  # type: ignore[method-assign]
    backend.source.after_read = after_read
    with contextlib.suppress(LookupError, KeyboardInterrupt):
        worker.read(None)
    assert released == [reason]
    (event,) = worker.inspect().events
    assert (event["event"], event["reason"]) == ("released", reason)
    backend.source.after_read = lambda: None
    assert backend.worker().read(None).shared


def test_an_interrupted_start_says_so(backend: Backend) -> None:
    """The fleet need not wait for a process that was told to stop (R11)."""

    class Interrupted(EagerSystem):
        def start(self, work: Callable[[], None], name: str) -> None:
            raise KeyboardInterrupt

    worker = backend.worker(system=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        worker.read(None)
    assert [event["reason"] for event in worker.inspect().events] == ["interrupted"]


def test_a_lock_that_was_published_with_is_not_given_back_as_well(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its script gave it up (R3)."""
    worker = backend.worker()
    monkeypatch.setattr(worker._store, "release", None)
    assert worker.read(None).shared


def test_a_private_load_that_fails_with_nothing_to_fall_back_on_is_the_databases_own_error(backend: Backend) -> None:
    """Both are down, and the caller's is the one to know of (R8)."""
    worker = backend.worker(stale_if_error=60)
    worker._breaker.failed()
    backend.source.before_read = fail
    with pytest.raises(LookupError, match="own error"):
        worker.read(None)


def test_wrong_use_is_said_also_when_redis_went_away_and_left_stale_rows(backend: Backend) -> None:
    """It is no failure of the database (R15)."""
    worker = backend.worker(stale_if_error=60)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.system.tick(1)
    worker._store.read(Question(token="f" * 32))

    def gone(after: bytes, seconds: float) -> None:
        raise mapped(redis.ConnectionError("gone"))

    worker._store.await_event = gone  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match="context manager"):
        worker.read(lambda: 5)


@pytest.mark.parametrize("mode", ["shared", "bypass"])
def test_private_rows_say_what_they_are(backend: Backend, mode: str) -> None:
    """As old as their load, of the same digest as everyone's, not stale and not shared."""
    digest = backend.worker().read(None).digest
    worker = backend.worker(mode=mode)
    worker._breaker.failed()
    backend.source.after_read = lambda: backend.system.tick(3)
    snapshot = worker.read(None)
    assert (snapshot.source, snapshot.digest, snapshot.age) == ("database", digest, 3.0)
    assert (snapshot.shared, snapshot.stale, snapshot.loaded_at) == (False, False, None)
    backend.system.tick(1)
    assert snapshot.age == 4.0


@pytest.mark.parametrize("reason", [None, "", "promotion", "\ud800 as it came from a shell"])
def test_a_receipt_says_what_the_log_of_invalidations_says(backend: Backend, reason: str | None) -> None:
    """Who, where, why, which rows, and whether a fill was stopped."""
    worker = backend.worker()
    digest = worker.read(None).digest
    assert isinstance(worker._store.read(Question(token="f" * 32, now=True)), Fill)
    receipt = worker.invalidate(reason=reason, wait=False)
    assert (receipt.dataset, receipt.reason, receipt.digest) == ("numbers", reason, digest)
    assert (receipt.existed, receipt.fill_cancelled, receipt.logged) == (True, True, True)
    assert (receipt.who, receipt.host) == (f"{SYSTEM.user()} (pid {SYSTEM.pid()})", SYSTEM.host())
    (logged,) = worker.inspect().invalidations
    assert (logged["who"], logged["host"], logged["digest"]) == (receipt.who, receipt.host, digest)
    assert logged["reason"] == (reason or "").replace("\ud800", "?")
    again = worker.invalidate(wait=False)
    assert (again.existed, again.digest, again.fill_cancelled) == (False, None, False)


def test_a_reason_that_is_no_text_is_refused_before_anything_is_deleted(backend: Backend) -> None:
    """It says what it is."""
    worker = backend.worker()
    worker.read(None)
    wrong: Any = 5
    with pytest.raises(ConfigurationError, match="reason is int; allowed: text, or None"):
        worker.invalidate(reason=wrong)
    assert backend.client.exists(backend.keys.entry)


def test_an_invalidate_is_in_force_on_the_servers_clock_when_it_is_on_ours(backend: Backend) -> None:
    """The script ran at the earliest when its request was sent (R7)."""
    receipt = _late_receipt(backend)
    assert receipt.in_force_at_us - receipt.when_us == 1_420_000


def test_a_forked_child_gets_fresh_locks_for_every_cache(backend: Backend) -> None:
    """Though whoever held the parent's is not there to let go (R12); tests/test_fleet.py forks in earnest."""
    workers = [backend.worker(), backend.worker()]
    locks = [lock for worker in workers for lock in locks_of(worker)]
    for lock in locks:
        lock.acquire()
    _after_fork_in_child()
    fresh = [lock for worker in workers for lock in locks_of(worker)]
    assert not set(map(id, fresh)) & set(map(id, locks))
    assert not any(lock.locked() for lock in fresh)


def test_inspecting_shows_the_ten_newest_events(backend: Backend) -> None:
    """Unless another number is asked for."""
    worker = backend.worker()
    for _ in range(12):
        worker.read(None, force=True)
    assert len(worker.inspect().events) == 10
    assert len(worker.inspect(11).events) == 11
