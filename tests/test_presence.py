"""What readers leave of themselves in Redis, what is made of it, and that nothing hangs on it (PROTOCOL, Presence)."""

import os
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import kcg_cache
from kcg_cache import ConfigurationError, Invalidation, SharedCache, lua, testing
from kcg_cache.answers import Question, Report, State
from kcg_cache.errors import StoreError, StoreReplyError
from kcg_cache.fleet import Fleet, FleetReceipt, Reader, parsed, seen, taken_up
from kcg_cache.keys import FLEET_FORGET_US, FLEET_MAX
from kcg_cache.presence import COUNTS, REPORT_EVERY
from kcg_cache.system import SYSTEM, System
from tests.conftest import Backend, real_client
from tests.doubles import TickedSystem, fail, version_of
from tests.waiting import eventually

pytestmark = pytest.mark.once

DIGEST, OTHER = "a" * 32, "b" * 32
SECOND = 1_000_000


def only(cache: SharedCache) -> Reader:
    """Give the one reader of a fleet."""
    (reader,) = cache.fleet().readers
    return reader


def records(backend: Backend) -> dict[bytes, bytes]:
    return dict(backend.client.hgetall(backend.keys.fleet))


# --- what is left -----------------------------------------------------------------------------------------------------


def test_a_reader_tells_who_and_where_it_is_and_what_it_has(backend: Backend) -> None:
    """Its first fill is its first word."""
    worker = backend.worker(application="탐지기 (detector)", lease=0.8)
    snapshot = worker.read(None)
    fleet = worker.fleet()
    (reader,) = fleet.readers
    assert re.fullmatch("[0-9a-f]{16}", reader.id)
    assert (reader.host, reader.pid) == (SYSTEM.host(), os.getpid())
    assert (reader.application, reader.version) == ("탐지기 (detector)", kcg_cache.__version__)
    assert (reader.kind, reader.digest, reader.loaded_at_us) == ("PUBLISHED", snapshot.digest, snapshot.loaded_at_us)
    assert (fleet.digest, fleet.loaded_at_us) == (snapshot.digest, snapshot.loaded_at_us)
    assert reader.seen_us == fleet.filled_at_us == reader.since_us
    assert reader.seen_us <= fleet.at_us
    assert reader.lease == 0.8
    assert dict(reader.settings) == {
        "ttl": 300,
        "lock_ttl": 3,
        "wait_timeout": 10,
        "max_payload": 32 * 1024 * 1024,
        "stale_if_error": 0,
        "refresh_ahead": 0,
        "signed": False,
    }
    assert fleet.standing(reader) == "current"
    assert fleet.unreadable == 0


def test_signing_is_told_and_the_keys_are_not(backend: Backend) -> None:
    """Whether there are any, and no more."""
    key = secrets.token_hex(16)
    worker = backend.worker(signing_keys=key)
    worker.read(None)
    assert only(worker).settings["signed"] is True
    assert key.encode() not in b"".join(records(backend).values())


def test_it_is_told_with_the_questions_that_are_asked_anyway(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """No round trip and no thread of its own; a covered read tells nothing."""
    worker = backend.worker()
    worker.read(None)
    sent: list[Any] = []
    call = worker._store._call

    def watched(*command: Any) -> Any:
        sent.append(command[0])
        return call(*command)

    monkeypatch.setattr(worker._store, "_call", watched)
    before = records(backend)
    worker.read(None)
    assert (sent, records(backend)) == ([], before)
    backend.system.tick(1.0)
    worker.read(None)
    assert sent == ["EVALSHA"]
    assert records(backend) != before


def test_reads_are_counted_by_source_from_one_settled_answer_to_the_next(backend: Backend) -> None:
    """A fill between two does not begin the counting anew."""
    worker = backend.worker()
    worker.read(None)
    assert not any(only(worker).counts.values())  # nothing before the first fill, and it is itself still under way
    for _ in range(3):
        worker.read(None)
    backend.system.tick(1.5)
    worker.read(None)
    reader = only(worker)
    assert dict(reader.counts) == dict.fromkeys(COUNTS, 0) | {"database": 1, "near": 3}
    assert reader.counted_seconds == 1.5
    backend.client.delete(backend.keys.entry)
    backend.system.tick(2.0)
    worker.read(None)
    reader = only(worker)
    assert (reader.kind, reader.counted_seconds) == ("PUBLISHED", 2.0)
    assert dict(reader.counts) == dict.fromkeys(COUNTS, 0) | {"redis": 1}


def test_since_when_it_has_its_rows_is_kept_until_they_are_others(backend: Backend) -> None:
    """On the server's clock, by the time that the reader has counted."""
    worker, other = backend.worker(), backend.worker(present=False)
    worker.read(None)
    backend.system.tick(5.0)
    worker.read(None)
    reader = only(worker)
    assert (reader.kind, reader.seen_us - reader.since_us) == ("SAME", 5 * SECOND)
    # The same rows, loaded anew: it has them for as long as before.
    other.read(None, force=True)
    backend.system.tick(2.0)
    worker.read(None)
    reader = only(worker)
    assert (reader.kind, reader.seen_us - reader.since_us) == ("SAME", 7 * SECOND)
    backend.system.tick(1.0)
    worker.read(None, force=True)
    reader = only(worker)
    assert (reader.kind, reader.seen_us - reader.since_us) == ("PUBLISHED", 8 * SECOND)
    backend.source.version = 2
    other.read(None, force=True)
    backend.system.tick(1.0)
    worker.read(None)
    reader = only(worker)
    assert (reader.kind, reader.seen_us - reader.since_us) == ("ROWS", 0)


def test_who_asks_on_every_read_tells_of_it_now_and_then(backend: Backend) -> None:
    """With lease=0 every read is a question: the same news twice in half a second is none."""
    worker, other = backend.worker(lease=0), backend.worker(present=False)
    worker.read(None)
    worker.read(None)
    told = records(backend)
    backend.system.tick(REPORT_EVERY * 0.9)
    worker.read(None)
    assert records(backend) == told
    backend.system.tick(REPORT_EVERY * 0.2)
    worker.read(None)
    assert records(backend) != told
    told = records(backend)
    backend.source.version = 2
    other.read(None, force=True)
    assert version_of(worker.read(None)) == 2
    assert records(backend) == told  # it did not know when it asked
    worker.read(None)
    assert only(worker).digest == worker.fleet().digest


def test_who_was_told_to_load_or_to_wait_tells_at_once_when_it_has_rows(backend: Backend) -> None:
    """Nobody looks as if it were waiting when it is not, however short its lease."""
    worker, other = backend.worker(lease=0), backend.worker(present=False)
    worker.read(None)
    backend.client.delete(backend.keys.entry)
    backend.source.before_read = fail
    backend.system.tick(1.0)
    with pytest.raises(LookupError):
        worker.read(None)
    assert only(worker).kind == "FILL"
    backend.source.before_read = lambda: None
    other.read(None)
    worker.read(None)
    assert only(worker).kind == "SAME"


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}])
def test_any_client_gives_the_fleet(backend: Backend, options: dict[str, Any]) -> None:
    """One that decodes what it is given, or speaks the newer protocol."""
    if backend.name == "fakeredis":
        client = testing.fake_redis(**options)
    else:
        kwargs = backend.client.connection_pool.connection_kwargs
        client = real_client(f"redis://:{kwargs['password']}@{kwargs['host']}:{kwargs['port']}/0", **options)
    cache = SharedCache(client, backend.source.dataset(), backend.settings, system=backend.system)
    cache.read(None)
    assert only(cache).kind == "PUBLISHED"
    client.close()


def test_threads_that_begin_together_are_one_reader(backend: Backend) -> None:
    """Each has a question of its own when it is forced, and they introduce themselves at once."""
    worker = backend.worker(system=System())
    barrier = threading.Barrier(8)

    def read(_: int) -> None:
        barrier.wait()
        worker.read(None, force=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert len(records(backend)) == 1


def test_a_fork_is_another_reader(backend: Backend) -> None:
    """There are two of them, and each counts its own."""
    worker = backend.worker()
    worker.read(None)
    before = set(records(backend))
    worker.read(None)
    worker._renew_locks_after_fork()
    backend.system.tick(1.0)
    worker.read(None)
    (after,) = set(records(backend)) - before
    reader = parsed(after, records(backend)[after])
    assert reader is not None
    assert not any(reader.counts.values())
    assert reader.counted_seconds is None
    assert reader.seen_us - reader.since_us == SECOND  # it has the parent's copy, for as long


@pytest.mark.parametrize("changes", [{"mode": "bypass"}, {}])
def test_who_shares_nothing_or_reads_once_leaves_none(backend: Backend, changes: dict[str, Any]) -> None:
    """The off switch asks Redis nothing; a tool that reads once is no part of the fleet."""
    worker = backend.worker(**changes, present=bool(changes))
    worker.read(None)
    worker.read(None, force=True)
    assert records(backend) == {}
    assert worker.fleet().readers == ()


def test_rows_that_are_shared_with_nobody_are_told_as_such(backend: Backend) -> None:
    """A payload over max_payload, say: for how long they have been held (R14)."""
    worker = backend.worker(max_payload=10)
    worker.read(None)
    assert only(worker).private_since_us is None
    backend.system.tick(1.0)
    worker.read(None)
    reader, fleet = only(worker), worker.fleet()
    assert (reader.kind, reader.digest, fleet.standing(reader)) == ("FILL", None, "private")
    assert reader.private_since_us == reader.seen_us - 1.02 * SECOND


def test_cut_off_periods_and_private_loads_are_told_afterwards(backend: Backend, monkeypatch: Any) -> None:
    """A reader that Redis does not hear cannot tell it meanwhile."""
    worker = backend.worker()
    worker.read(None)
    backend.system.tick(1.0)
    with monkeypatch.context() as broken:
        broken.setattr(worker._store, "_call", lambda *_: (_ for _ in ()).throw(StoreReplyError("x", symptom="reply")))
        assert not worker.read(None).shared
    backend.system.tick(10.0)
    assert worker.read(None).shared
    counts = only(worker).counts
    assert (counts["cut_off"], counts["private"], counts["database"]) == (1, 1, 2)


# --- nothing hangs on it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", ["string", "list", "stream"])
def test_a_foreign_type_in_its_place_is_replaced(backend: Backend, foreign: str) -> None:
    """The decision is the same; the fleet is empty until then."""
    plant: dict[str, Callable[[], Any]] = {
        "string": lambda: backend.client.set(backend.keys.fleet, "x"),
        "list": lambda: backend.client.rpush(backend.keys.fleet, "x"),
        "stream": lambda: backend.client.xadd(backend.keys.fleet, {"x": "y"}),
    }
    worker = backend.worker()
    plant[foreign]()
    assert worker.fleet().readers == ()
    assert worker.read(None).shared
    assert only(worker).kind == "PUBLISHED"
    assert worker.metrics["store_errors"] == 0


@pytest.mark.needs("maxmemory")
def test_a_server_without_memory_decides_the_same(backend: Backend) -> None:
    """It may or may not take the presence."""
    worker = backend.worker()
    worker.read(None)
    backend.system.tick(1.0)
    backend.client.config_set("maxmemory", "1")
    try:
        assert worker.read(None).source == "redis"
        worker.invalidate(wait=False)
        assert worker.read(None).shared
    finally:
        backend.client.config_set("maxmemory", "0")
    assert worker.metrics["store_errors"] == 0


@pytest.fixture
def limited(backend: Backend) -> Iterator[Callable[..., Any]]:
    """Give a function that makes a client with these rights and no more."""
    made: list[Any] = []

    def make(keys: list[str], commands: list[str]) -> Any:
        backend.client.acl_setuser(
            "limited", enabled=True, nopass=True, reset=True, keys=keys, commands=commands, channels=["*"]
        )
        kwargs = backend.client.connection_pool.connection_kwargs
        made.append(real_client(f"redis://limited:x@{kwargs['host']}:{kwargs['port']}/0"))
        return made[-1]

    yield make
    for client in made:
        client.close()
    backend.client.acl_deluser("limited")


@pytest.mark.needs("acl")
def test_a_user_without_rights_to_the_key_reads_as_before(backend: Backend, limited: Callable[..., Any]) -> None:
    """Its rights may name every key that there was before this one."""
    keys = [key for key in backend.keys if key != backend.keys.fleet]
    client = limited(keys, ["+@all"])
    worker = SharedCache(client, backend.source.dataset(), backend.settings, system=backend.system)
    assert worker.read(None).shared
    backend.system.tick(1.0)
    assert worker.read(None).source == "redis"
    assert worker.metrics["store_errors"] == 0
    assert records(backend) == {}
    with pytest.raises(StoreError) as refused:
        worker.fleet()
    assert refused.value.symptom == "denied"


@pytest.mark.needs("acl")
@pytest.mark.parametrize("missing", ["hlen", "hrandfield", "hdel"])
def test_a_user_who_may_add_and_not_take_away_leaves_no_crowd(
    backend: Backend, limited: Callable[..., Any], missing: str
) -> None:
    """Better no fleet than one without a bound."""
    client = limited(["*"], ["+@all", f"-{missing}"])
    _crowd(backend, FLEET_MAX, age=0)
    worker = SharedCache(client, backend.source.dataset(), backend.settings, system=backend.system)
    assert worker.read(None).shared
    assert backend.client.hlen(backend.keys.fleet) <= 1
    assert worker.metrics["store_errors"] == 0


# --- bounded, and forgotten -------------------------------------------------------------------------------------------


def _now_us(backend: Backend) -> int:
    seconds, micros = backend.client.time()
    return int(seconds) * SECOND + int(micros)


def _crowd(backend: Backend, number: int, *, age: float) -> None:
    """Put so many readers there, last seen `age` seconds ago."""
    at = _now_us(backend) - round(age * SECOND)
    value = f"{at}|SAME|{DIGEST}|1|{at}|{{}}"
    backend.client.hset(backend.keys.fleet, mapping={secrets.token_hex(8): value for _ in range(number)})


def _ask(worker: SharedCache, newcomers: int) -> None:
    for _ in range(newcomers):
        report = Report(secrets.token_hex(8), 0, b"{}")
        worker._store.read(Question(token="e" * 32, report=report))


def test_readers_are_no_more_than_so_many(backend: Backend) -> None:
    """However many processes come, and come anew."""
    worker = backend.worker(present=False)
    worker.read(None)
    _crowd(backend, FLEET_MAX - 5, age=1)
    _ask(worker, 40)
    assert backend.client.hlen(backend.keys.fleet) == FLEET_MAX
    newest = max(reader.seen_us for reader in worker.fleet().readers)
    assert newest > _now_us(backend) - 30 * SECOND
    assert 0 < backend.client.pttl(backend.keys.fleet) <= 3_600_000


def test_the_hash_lives_for_as_long_as_somebody_asks(backend: Backend) -> None:
    """One reader is enough, and a life that somebody else took away or shortened comes back."""
    worker = backend.worker()
    worker.read(None)
    backend.client.persist(backend.keys.fleet)

    def asked_and_bounded() -> bool:
        backend.system.tick(1.0)
        worker.read(None)
        return bool(backend.client.pttl(backend.keys.fleet) > 3_000_000)

    eventually(asked_and_bounded)


def test_who_does_not_ask_any_more_is_forgotten(backend: Backend) -> None:
    """Every newcomer takes some away that are older than a quarter of an hour; they are not shown before that."""
    worker = backend.worker()
    _crowd(backend, 200, age=FLEET_FORGET_US / SECOND + 1)
    assert worker.fleet().readers == ()
    worker.read(None)
    assert backend.client.hlen(backend.keys.fleet) <= 200 + 1 - 15
    assert len(worker.fleet().readers) == 1
    _ask(worker, 1)
    assert backend.client.hlen(backend.keys.fleet) <= 200 + 2 - 29


def test_what_a_clock_that_stepped_back_has_left_is_forgotten_too(backend: Backend) -> None:
    """A reader that was last seen in the future."""
    worker = backend.worker()
    _crowd(backend, 200, age=-2 * FLEET_FORGET_US / SECOND)
    worker.read(None)
    assert backend.client.hlen(backend.keys.fleet) <= 200 + 1 - 15
    assert len(worker.fleet().readers) == 1


def test_a_few_are_left_alone_and_junk_goes_first(backend: Backend) -> None:
    """Up to 64 nobody is looked for; what is no record counts as the oldest."""
    worker = backend.worker(present=False)
    worker.read(None)
    backend.client.hset(backend.keys.fleet, mapping={f"junk {number}": "x" for number in range(60)})
    _ask(worker, 4)
    assert backend.client.hlen(backend.keys.fleet) == 64
    assert worker.fleet().unreadable == 60
    _ask(worker, 1)
    assert backend.client.hlen(backend.keys.fleet) < 60


def test_the_scripts_bounds_are_the_ones_that_are_documented() -> None:
    """In one place for each language."""
    text = lua.load("read").text
    (line,) = re.findall(r"local FLEET_TTL_MS, FLEET_FORGET_US, FLEET_MAX, .* = (.*)", text)
    assert [int(number) for number in line.split(",")][1:3] == [FLEET_FORGET_US, FLEET_MAX]
    assert "FLEET_MAX" in lua.load("publish").text


# --- read back --------------------------------------------------------------------------------------------------------


def record(at: int, kind: str = "SAME", digest: str = DIGEST, loaded_at: int | str = 5, **told: Any) -> bytes:
    return f"{at}|{kind}|{digest}|{loaded_at}|{at}|".encode() + orjson.dumps({"lease": 1.0, **told})


def state(at: int, loaded_at: int = 5, digest: str = DIGEST, filled_at: int | None = None) -> State:
    """Give what inspect gives."""
    events = () if filled_at is None else ({"event": "filled", "time": str(filled_at), "loaded_at": str(loaded_at)},)
    entry = {"digest": digest, "loaded_at": str(loaded_at), "incarnation": "a/b"}
    return State(at, "a/b", entry, 1000, 10, None, -2, events, ())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"1|SAME|",
        b"1|SAME||||",
        b"-1|SAME||1|1|{}",
        b"1|same||1|1|{}",
        b"1|GONE||1|1|{}",
        b"99999999999999999|SAME||1|1|{}",
        b"1|SAME||1|1|[]",
        b"1|SAME||1|1|{",
        b'1|SAME||1|1|{"host": "\xff"}',
        b"1|SAME|\xff\xff|1|1|{}",
        b"1|SAME|" + b"a" * 65 + b"|1|1|{}",
        b"1|SAME|a|b|1|{}",
        "\u0661|SAME||1|1|{}".encode(),
    ],
)
def test_what_is_no_record_is_counted_and_skipped(value: bytes) -> None:
    """Anyone may have written it."""
    fleet = seen(state(10), {b"0" * 16: value, b"1" * 16: record(9)})
    assert (len(fleet.readers), fleet.unreadable) == (1, 1)


def test_a_field_that_is_no_readers_name_is_counted_and_skipped() -> None:
    """So is its record, which may be fine."""
    assert seen(state(10), {b"x": record(9), b"G" * 16: record(9), b"0" * 17: record(9)})[-2:] == ((), 3)


@given(st.binary(max_size=20), st.binary())
@example(b"0" * 16, b'1|SAME|a|1|1|{"lease": NaN}')
@example(b"0" * 16, b'1|SAME|a|1|1|{"lease": 1e999}')
@example(b"0" * 16, b"1|SAME|a|1|1|" + b"[" * 5000)
def test_no_bytes_make_it_raise(field: bytes, value: bytes) -> None:
    """Whatever they are."""
    assert parsed(field, value) is None or field == b"0" * 16


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_NAMES = ("host", "pid", "application", "version", "lease", "settings", "counts", "over_ms", "private_ms", "else")


@given(st.dictionaries(st.sampled_from(_NAMES), _JSON | st.dictionaries(st.sampled_from((*COUNTS, "ttl")), _JSON)))
def test_any_object_can_be_shown(told: dict[str, Any]) -> None:
    """A part that is not what it should be is as if it were missing, and the rest is shown."""
    fleet = seen(state(10), {b"0" * 16: b"9|SAME|a|5|9|" + orjson.dumps(told)})
    (reader,) = fleet.readers
    assert 0 <= reader.lease <= 1
    orjson.dumps(fleet.as_dict())


def test_what_another_release_told_is_read_as_far_as_it_is_known() -> None:
    """More than this one knows, or less."""
    more = parsed(b"0" * 16, record(9, host="h", pid=7, counts={"near": 3, "teleported": 4}, mood={"good": 1}))
    less = parsed(b"0" * 16, b"9|WAIT||||{}".replace(b"||||", b"|||9|"))
    assert more is not None
    assert less is not None
    assert (more.host, more.pid, more.counts["near"]) == ("h", 7, 3)
    assert "teleported" not in more.counts
    assert (less.host, less.pid, less.application, less.version, less.lease) == ("", None, "", "", 1.0)
    assert (less.digest, less.loaded_at_us, less.counted_seconds) == (None, None, None)
    assert (dict(less.counts), dict(less.settings)) == ({}, {})


def standing(at: int, value: bytes, **entry: Any) -> str:
    fleet = seen(state(at, **entry), {b"0" * 16: value})
    return fleet.standing(fleet.readers[0])


def test_what_a_reader_is_at() -> None:
    """By its last answer, its lease, and the entry."""
    at = 100 * SECOND
    assert standing(at, record(at)) == "current"
    assert standing(at, record(at - SECOND)) == "current"
    assert standing(at, record(at - round(1.03 * SECOND))) == "silent"
    assert standing(at, record(at - SECOND, lease=0.1)) == "silent"
    assert standing(at, record(at - round(0.55 * SECOND), lease=0.1)) == "current"  # it may have asked since, unsaid
    assert standing(at, record(at, "FILL", "", "")) == "loading"
    assert standing(at, record(at, "WAIT", "", "")) == "waiting"
    assert standing(at, record(at, "FILL", "", "", private_ms=5)) == "private"
    assert standing(at, record(at - 10, digest=OTHER, loaded_at=4)) == "following"
    assert standing(at, record(at - 10, digest=OTHER, loaded_at=4), filled_at=at - 5) == "following"
    assert standing(at, record(at - 1, digest=OTHER, loaded_at=4), filled_at=at - 5) == "lagging"
    assert standing(at, record(at + 5, digest=OTHER, loaded_at=6), filled_at=at - 5) == "following"  # a newer entry's


def test_an_entry_of_another_incarnation_is_none() -> None:
    """Nobody reads it (R10)."""
    fleet = seen(state(10)._replace(incarnation="c/d"), {})
    assert (fleet.digest, fleet.loaded_at_us, fleet.filled_at_us) == (None, None, None)
    assert fleet.as_dict()["entry"] is None


# --- who has taken up an invalidate -----------------------------------------------------------------------------------


def receipt_of(when_us: int, *, in_force: bool = True) -> Invalidation:
    system = TickedSystem()
    return Invalidation(
        dataset="numbers",
        who="w",
        host="h",
        reason=None,
        when_us=when_us,
        existed=True,
        digest=DIGEST,
        fill_cancelled=False,
        logged=True,
        in_force_at_us=when_us + 1_020_000,
        in_force_local=system.time + (0 if in_force else 1),
        system=system,
    )


AT = 100 * SECOND


@pytest.mark.parametrize(
    ("value", "uptake"),
    [
        (record(AT + 2, "ROWS", OTHER, AT + 1), "new"),
        (record(AT + 2, "SAME", DIGEST, AT + 1), "new"),
        (record(AT + 2, "FILL", DIGEST, AT + 1), "new"),  # a refresh ahead of new rows
        (record(AT + 2, "FILL", "", ""), "pending"),
        (record(AT + 2, "WAIT", "", ""), "pending"),
        (record(AT + 2, "SAME", DIGEST, AT), "lagging"),
        (record(AT + 2, "ROWS", DIGEST, 5), "lagging"),
        (record(AT), "pending"),
        (record(AT - SECOND // 2), "pending"),
        (record(AT - SECOND // 2, lease=0.1), "silent"),
        (record(AT - 2 * SECOND), "silent"),
        (record(AT + SECOND // 4, "FILL", "", "", private_ms=100), "new"),
        (record(AT + SECOND // 4, "FILL", "", "", private_ms=250), "pending"),
    ],
)
def test_a_reader_has_taken_up_an_invalidate_or_has_not(value: bytes, uptake: str) -> None:
    """By when it was last seen, its lease, and when its rows were loaded."""
    found = taken_up(seen(state(AT + SECOND // 4), {b"0" * 16: value}), receipt_of(AT))
    assert {name: len(getattr(found, name)) for name in ("new", "pending", "silent", "lagging")} == {
        "new": 0,
        "pending": 0,
        "silent": 0,
        "lagging": 0,
        uptake: 1,
    }
    assert found.complete == (uptake in ("new", "silent"))
    assert not taken_up(seen(state(AT), {}), receipt_of(AT, in_force=False)).complete
    document = found.as_dict()
    assert document["complete"] == found.complete
    assert len(document[uptake]) == 1


def test_after_a_clock_that_stepped_back_a_reader_is_pending() -> None:
    """Nobody can tell whether it was seen since."""
    found = taken_up(seen(state(AT - 3 * SECOND), {b"0" * 16: record(AT - SECOND)}), receipt_of(AT))
    assert (len(found.pending), found.complete) == (1, False)


class Polls:
    """A fleet that changes while it is looked at; the time passes when somebody sleeps."""

    def __init__(self, *looks: Fleet | StoreError) -> None:
        self.looks = list(looks)
        self.progress: list[FleetReceipt] = []

    def fleet(self) -> Fleet:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, StoreError):
            raise look
        return look


PENDING, NEW = (
    seen(state(AT + SECOND // 2), {b"0" * 16: record(AT - 1)}),
    seen(state(AT + SECOND // 2), {b"0" * 16: record(AT + 2, "ROWS", OTHER, AT + 1)}),
)
DOWN = StoreReplyError("it is down", symptom="reply")


def waited(backend: Backend, polls: Polls, receipt: Invalidation, seconds: float) -> FleetReceipt:
    worker = backend.worker()
    worker.fleet = polls.fleet  # type: ignore[method-assign]
    return worker.wait_for_fleet(receipt, seconds, progress=polls.progress.append)


def test_the_wait_ends_when_nobody_is_pending(backend: Backend) -> None:
    """And every look before is told as progress."""
    polls = Polls(PENDING, DOWN, PENDING, NEW)
    found = waited(backend, polls, receipt_of(AT), 10.0)
    assert found.complete
    assert [len(look.pending) for look in polls.progress] == [1, 1, 0]
    assert polls.progress[-1] is found
    assert sum(backend.system.slept) < 1.0


def test_the_wait_ends_with_its_time(backend: Backend) -> None:
    """And tells who is pending."""
    found = waited(backend, Polls(PENDING), receipt_of(AT), 1.0)
    assert (len(found.pending), found.complete) == (1, False)
    assert sum(backend.system.slept) == pytest.approx(1.0)


def test_the_wait_is_not_over_before_the_invalidate_is_in_force(backend: Backend) -> None:
    """Whoever left no presence may read old rows until then (R7)."""
    found = waited(backend, Polls(NEW), receipt_of(AT, in_force=False), 0.0)
    assert (len(found.new), found.in_force, found.complete) == (1, False, False)
    assert backend.system.slept == []


def test_a_redis_that_does_not_answer_until_the_end_is_raised(backend: Backend) -> None:
    """A failover has passed by then, or it has not."""
    with pytest.raises(StoreReplyError, match="it is down"):
        waited(backend, Polls(PENDING, DOWN), receipt_of(AT), 1.0)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), "10s", None])
def test_a_time_to_wait_that_is_none_is_refused(backend: Backend, seconds: Any) -> None:
    """Before anything is asked."""
    with pytest.raises(ConfigurationError, match="seconds is"):
        backend.worker().wait_for_fleet(receipt_of(AT), seconds)


def test_a_receipt_of_another_dataset_is_refused(backend: Backend) -> None:
    """Its time says nothing of these readers."""
    receipt = replace(receipt_of(AT), dataset="letters")
    with pytest.raises(ConfigurationError, match="'letters'"):
        backend.worker().wait_for_fleet(receipt, 1.0)


def test_readers_are_pending_until_they_ask_and_then_new(backend: Backend) -> None:
    """On the real clock: who reads on, who does not, and who comes late."""
    readers = [backend.worker(system=System()) for _ in range(3)]
    operator = backend.worker(present=False, system=System())
    for reader in readers:
        reader.read(None)
    receipt = operator.invalidate(wait=False)
    early = operator.wait_for_fleet(receipt, 0.0)
    assert early.new == early.lagging == ()
    assert len(early.pending) + len(early.silent) == 3
    receipt.wait()
    for reader in readers[:2]:
        assert reader.read(None).shared
    late = operator.wait_for_fleet(receipt, 30.0)
    assert late.complete
    assert (len(late.new), len(late.silent), len(late.lagging)) == (2, 1, 0)
    assert {reader.id for reader in late.new} == {
        reader._presence._introduction[""][0] for reader in readers[:2] if reader._presence is not None
    }


# --- which program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/opt/app/worker.py"], "worker"),
        (["gunicorn"], "gunicorn"),
        (["-c"], "python"),
        ([""], "python"),
        ([], "python"),
        (["/x/\x1b[31mred.py"], "[31mred"),
        (["a" * 200], "a" * 100),
    ],
)
def test_a_program_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch, argv: list[str], name: str) -> None:
    """Without ending, directory, or what would command a terminal."""
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert SYSTEM.program() == name


def test_a_package_that_is_run_is_named_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m package``: its file is called __main__."""
    spec = type("Spec", (), {"name": "detector.__main__"})()
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    assert SYSTEM.program() == "detector"
