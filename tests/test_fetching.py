"""A large payload is fetched after the script's answer, and is that answer's own or none (PROTOCOL R1, R2)."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from kcg_cache import Settings, codec, testing
from kcg_cache.answers import Current, Entry, Fill, Question, Wait
from kcg_cache.errors import StoreError, StoreReplyError
from kcg_cache.store import FETCHES, INLINE, Store
from tests.conftest import Backend, real_client
from tests.doubles import fail, version_of

PAYLOAD = codec.encode("numbers", [{"a": 1}])
OTHER = codec.encode("numbers", [{"a": 2}])
#: One decision, and the fetching of what it named.
ONCE = ["EVALSHA", "HMGET"]
TOKEN = "a" * 32


@pytest.fixture
def store(backend: Backend) -> Store:
    """Give the store of the test's dataset, which fetches every payload."""
    return fetching(Store(backend.client, "numbers", backend.settings))


def fetching(store: Store) -> Store:
    store.inline = 0
    return store


def fill(store: Store, payload: codec.Payload = PAYLOAD, token: str = "f" * 32) -> None:
    answer = store.read(Question(token=token, now=True))
    assert isinstance(answer, Fill)
    assert store.publish(answer.grant, payload, load_us=5, source="1/db", signature="", by="host:1") is not None


def watched(client: Any, *actions: Callable[[], object]) -> list[str]:
    """Give the commands that are sent from now on, and do one of `actions` before each HMGET."""
    execute, sent, pending = client.execute_command, [], list(actions)

    def watch(*command: Any, **options: Any) -> Any:
        sent.append(command[0])
        if command[0] == "HMGET" and pending:
            action, client.execute_command = pending.pop(0), execute
            try:
                action()
            finally:
                client.execute_command = watch
        return execute(*command, **options)

    client.execute_command = watch
    return sent


def test_a_large_payload_is_fetched_by_one_plain_command(store: Store, backend: Backend) -> None:
    """Lua copies it several times, in the server's one thread."""
    fill(store)
    sent = watched(backend.client)
    answer = store.read(Question(token=TOKEN))
    assert isinstance(answer, Current)
    assert answer.entry.payload == PAYLOAD.data
    assert answer.entry.digest == PAYLOAD.digest
    assert sent == ONCE


@pytest.mark.parametrize(("spare", "sent"), [(0, ["EVALSHA"]), (-1, ONCE)])
def test_what_is_small_comes_in_one_round_trip(store: Store, backend: Backend, spare: int, sent: list[str]) -> None:
    """Up to the very limit."""
    fill(store)
    store.inline = len(PAYLOAD.data) + spare
    seen = watched(backend.client)
    answer = store.read(Question(token=TOKEN))
    assert isinstance(answer, Current)
    assert answer.entry.payload == PAYLOAD.data
    assert seen == sent


def test_the_limit_is_that_of_every_store(backend: Backend) -> None:
    """It is no setting: what an answer says is taken by every version."""
    assert Store(backend.client, "numbers", backend.settings).inline == INLINE == 65536


def test_who_holds_the_rows_fetches_nothing(store: Store, backend: Backend) -> None:
    """SAME, as ever."""
    fill(store)
    sent = watched(backend.client)
    answer = store.read(Question(token=TOKEN, known=PAYLOAD.digest))
    assert isinstance(answer, Current)
    assert answer.entry.payload is None
    assert sent == ["EVALSHA"]


def _restarted(backend: Backend) -> None:
    backend.down()
    backend.up()


#: What comes between the answer and the fetching, and the note of the question that is put again.
BETWEEN: dict[str, tuple[Callable[[Store, Backend], object], str]] = {
    "an invalidate": (lambda store, _: store.invalidate(who="w", host="h", reason="r"), ""),
    "an eviction": (lambda _, backend: backend.client.delete(backend.keys.entry), ""),
    "a restart": (lambda _, backend: _restarted(backend), ""),
    "a foreign key": (
        lambda _, backend: (backend.client.delete(backend.keys.entry), backend.client.set(backend.keys.entry, "x")),
        "type",
    ),
    "another incarnation": (
        lambda _, backend: backend.client.hset(backend.keys.entry, "incarnation", "some/one"),
        "incarnation",
    ),
    "no payload": (lambda _, backend: backend.client.hdel(backend.keys.entry, "payload"), "malformed"),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_rows_that_went_in_between_are_asked_for_again(store: Store, backend: Backend, what: str) -> None:
    """The script says what that means, and grants the lock."""
    between, note = BETWEEN[what]
    fill(store)
    sent = watched(backend.client, lambda: between(store, backend))
    answer = store.read(Question(token=TOKEN))
    assert isinstance(answer, Fill)
    assert answer.fallback is None
    assert answer.note == note
    assert sent[:3] == [*ONCE, "EVALSHA"]
    assert "HMGET" not in sent[3:]


@pytest.mark.parametrize("rows", [OTHER, PAYLOAD], ids=["other rows", "the same rows"])
def test_rows_that_came_in_between_are_those_of_a_new_answer(
    store: Store, backend: Backend, rows: codec.Payload
) -> None:
    """With their own time, also where the bytes are the same."""
    fill(store)
    before = backend.entry()["loaded_at"].decode()
    sent = watched(backend.client, lambda: fill(store, rows))
    answer = store.read(Question(token=TOKEN))
    assert isinstance(answer, Current)
    assert (answer.entry.digest, answer.entry.payload) == (rows.digest, rows.data)
    assert sent == ONCE * 2
    assert answer.entry.loaded_at == backend.entry()["loaded_at"].decode() > before


def test_rows_under_another_digest_are_those_of_a_new_answer(store: Store, backend: Backend) -> None:
    """Whoever wrote it there: the payload is held against the digest that comes with it (R14)."""
    fill(store)
    sent = watched(
        backend.client,
        lambda: backend.client.hset(backend.keys.entry, mapping={"digest": OTHER.digest, "payload": OTHER.data}),
    )
    answer = store.read(Question(token=TOKEN))
    assert isinstance(answer, Current)
    assert (answer.entry.digest, answer.entry.payload) == (OTHER.digest, OTHER.data)
    assert sent == ONCE * 2


def test_rows_that_change_faster_than_they_are_fetched_come_within_an_answer(store: Store, backend: Backend) -> None:
    """After three tries the script gives them, however large: it ends."""
    fill(store)
    sent = watched(backend.client, *[lambda: fill(store, OTHER), lambda: fill(store)] * 3)
    answer = store.read(Question(token=TOKEN))
    assert isinstance(answer, Current)
    assert answer.entry.payload == OTHER.data
    assert sent == [*ONCE * FETCHES, "EVALSHA"]
    assert FETCHES == 3


def test_a_filler_whose_fallback_went_in_between_has_the_lock_that_it_was_granted(
    store: Store, backend: Backend
) -> None:
    """With its original time, and without a fallback (R2, R15)."""
    tolerant = fetching(Store(backend.client, "numbers", backend.settings.replace(stale_if_error=60)))
    fill(tolerant)
    backend.client.pexpire(backend.keys.entry, 30_000)
    locks: list[bytes] = []

    def evict() -> None:
        locks.append(backend.client.get(backend.keys.lock))
        backend.client.delete(backend.keys.entry)

    sent = watched(backend.client, evict)
    answer = tolerant.read(Question(token=TOKEN))
    assert isinstance(answer, Fill)
    assert answer.fallback is None
    assert sent == [*ONCE, "EVALSHA"]
    assert locks == [answer.grant.value.encode()] == [backend.client.get(backend.keys.lock)]


def test_fallbacks_are_fetched_as_well(backend: Backend) -> None:
    """Past the TTL by the filler and by who waits for it (R15), and by who refreshes ahead (R16)."""
    tolerant = fetching(Store(backend.client, "numbers", backend.settings.replace(stale_if_error=60)))
    fill(tolerant)
    backend.client.pexpire(backend.keys.entry, 30_000)
    sent = watched(backend.client)
    filler, waiter = tolerant.read(Question(token=TOKEN)), tolerant.read(Question(token="b" * 32))
    assert isinstance(filler, Fill)
    assert isinstance(waiter, Wait)
    assert filler.fallback is not None
    assert waiter.fallback is not None
    assert filler.fallback.payload == waiter.fallback.payload == PAYLOAD.data
    assert sent == ONCE * 2


# --- through the cache ----------------------------------------------------------------------------------------------


def test_rows_that_change_in_between_are_nothing_corrupt(backend: Backend) -> None:
    """Nothing is counted, and the reader has the new ones."""
    writer, reader = backend.worker(), backend.worker()
    fetching(reader._store)
    writer.read(None)

    def promote() -> None:
        backend.source.version = 2
        writer.read(None, force=True)

    watched(backend.client, promote)
    snapshot = reader.read(None)
    assert (version_of(snapshot), snapshot.source) == (2, "redis")
    assert reader.metrics["entries_rejected"] == reader.metrics["loads"] == reader.metrics["store_errors"] == 0


def test_a_fetched_payload_that_contradicts_its_digest_is_corrupt(backend: Backend) -> None:
    """Counted, and replaced by the next fill (R14)."""
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, "payload", b'[{"version": 99}]')
    reader = backend.worker()
    fetching(reader._store)
    assert reader.read(None).source == "database"
    assert reader.metrics["entries_rejected"] == 1
    assert backend.worker().read(None).source == "redis"


def test_the_lease_counts_from_before_the_script_and_not_from_the_fetching(backend: Backend) -> None:
    """An invalidate may have come in between, and waits out one lease from then (R6)."""
    backend.worker().read(None)
    reader = backend.worker(lease=1.0)
    fetching(reader._store)
    sent = watched(backend.client, lambda: backend.system.tick(0.9))
    assert reader.read(None).source == "redis"
    backend.system.tick(0.09)
    assert reader.read(None).source == "near"
    backend.system.tick(0.02)
    assert reader.read(None).source == "redis"
    assert sent == [*ONCE, "EVALSHA"]


def test_a_payload_that_cannot_be_fetched_is_an_outage_as_any_other(backend: Backend) -> None:
    """The rows come from the database, privately (R8)."""
    backend.worker().read(None)
    reader = backend.worker()
    fetching(reader._store)

    def lose() -> None:
        raise redis.TimeoutError("lost")

    watched(backend.client, lose)
    snapshot = reader.read(None)
    assert (snapshot.source, snapshot.shared) == ("database", False)
    assert reader.metrics["store_errors"] == reader.metrics["private_loads"] == 1
    assert reader.metrics["entries_rejected"] == 0


def test_a_fetched_fallback_is_served_when_the_load_fails(backend: Backend) -> None:
    """Stale, and with no other error than the database's (R15)."""
    backend.worker(stale_if_error=60).read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    reader = backend.worker(stale_if_error=60)
    fetching(reader._store)
    backend.source.before_read = fail
    sent = watched(backend.client)
    snapshot = reader.read(None)
    assert snapshot.stale
    assert version_of(snapshot) == 1
    assert sent[:2] == ONCE


# --- clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fakeredis", "valkey"])
def test_a_client_that_decodes_gives_bytes(kind: str, redis_url: str, backend: Backend) -> None:
    """A payload is bytes, whatever the client makes of other answers."""
    client = (
        testing.fake_redis(decode_responses=True)
        if kind == "fakeredis"
        else real_client(redis_url, decode_responses=True)
    )
    with client:
        store = fetching(Store(client, "numbers", backend.settings))
        fill(store)
        answer = store.read(Question(token=TOKEN))
        assert isinstance(answer, Current)
        assert answer.entry.payload == PAYLOAD.data


_WHOLE: list[Any] = [b"d", b"1", b"a/b", b"[]"]
ENTRY = Entry("d", "orjson", "1", "5", "1/db", "", "a/b", age=0.0, fresh=1.0, life=1.0, payload=b"")


@pytest.mark.parametrize(
    "answer",
    [None, 5, b"four", "four", {}, [], _WHOLE[:3], [*_WHOLE, b"x"], [*_WHOLE[:3], 5], [*_WHOLE[:3], "[]"], [None] * 3],
    ids=repr,
)
def test_what_no_hmget_answers_is_a_reply_error(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """An outage to a reader; and no connection is kept that may hold another question's answer."""
    store = Store(testing.fake_redis(), "numbers", Settings())
    forgotten: list[bool] = []
    monkeypatch.setattr(store, "_forget_connections", lambda: forgotten.append(True))
    monkeypatch.setattr(store, "_call", lambda *_: answer)
    with pytest.raises(StoreReplyError, match="HMGET gave") as failed:
        store.payload(ENTRY)
    assert failed.value.symptom == "reply"
    assert forgotten == [True]


@pytest.mark.parametrize(
    ("answer", "payload"),
    [
        (_WHOLE, b"[]"),
        (tuple(_WHOLE), b"[]"),
        ([b"e", *_WHOLE[1:]], None),
        ([b"d", b"2", *_WHOLE[2:]], None),
        ([*_WHOLE[:2], b"a/c", b"[]"], None),
        ([*_WHOLE[:3], None], None),
        ([None] * 4, None),
    ],
)
def test_a_payload_is_that_of_the_entry_that_was_named(
    monkeypatch: pytest.MonkeyPatch, answer: Sequence[Any], payload: bytes | None
) -> None:
    """By its digest, its time and its incarnation, each."""
    store = Store(testing.fake_redis(), "numbers", Settings())
    monkeypatch.setattr(store, "_call", lambda *_: answer)
    assert store.payload(ENTRY) == payload


def test_an_error_that_says_nothing_of_the_entry_is_an_error(backend: Backend, store: Store) -> None:
    """Only a foreign type is a change of the entry."""
    fill(store)

    def refuse() -> None:
        raise redis.ResponseError("ERR syntax error")

    watched(backend.client, refuse)
    with pytest.raises(StoreError, match="syntax error"):
        store.read(Question(token=TOKEN))
