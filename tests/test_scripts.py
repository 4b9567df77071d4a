"""The scripts' decisions, one by one (PROTOCOL R1 to R5), through the store, on fakeredis and on a real server."""

import time
from typing import Any

import pytest

from kcg_cache import codec, lua, testing
from kcg_cache.answers import Current, Fill, Floor, Question, Wait
from kcg_cache.errors import StoreError
from kcg_cache.store import Store
from tests.conftest import Backend, real_client
from tests.waiting import eventually

#: Less than the TTL: what is further ahead counts for nothing.
AHEAD_US = 60_000_000


@pytest.fixture
def store(backend: Backend) -> Store:
    """Give the store of the test's dataset."""
    return Store(backend.client, "numbers", backend.settings)


PAYLOAD = codec.encode("numbers", [{"a": 1}])


def ask(store: Store, token: str = "a" * 32, **question: Any) -> Any:
    return store.read(Question(token=token, **question))


def fill(store: Store, payload: codec.Payload = PAYLOAD, token: str = "f" * 32, **question: Any) -> Fill:
    answer = ask(store, token, **question)
    assert isinstance(answer, Fill)
    assert publish(store, answer, payload) is not None
    return answer


def publish(store: Store, answer: Fill, payload: codec.Payload = PAYLOAD) -> Any:
    return store.publish(answer.grant, payload, load_us=5, source="1/db", signature="", by="host:1")


def test_every_header_names_what_its_script_unpacks() -> None:
    """The KEYS and ARGV lines of each header are the very order in which the script takes them."""
    for name in lua.names():
        script = lua.load(name)
        body = script.text
        for index, key in enumerate(script.keys, start=1):
            assert f"KEYS[{index}]" in body, (name, key)
        assert f"KEYS[{len(script.keys) + 1}]" not in body, name
        assert f"ARGV[{len(script.args) + 1}]" not in body, name
        for line in body.splitlines():
            assert "KEYS[0]" not in line
        unpacked = [part for part in body.replace("\n", " ").split("local ") if "ARGV[1]" in part]
        assert unpacked, name
        names_of_args: list[str] = []
        names_of_keys: list[str] = []
        for part in body.replace("\n", " ").split("local "):
            left, _, right = part.partition("=")
            if "ARGV[" in right.split("--")[0]:
                names_of_args += [word.strip() for word in left.split(",")]
            if "KEYS[" in right.split("--")[0]:
                names_of_keys += [word.strip().removesuffix("_key") for word in left.split(",")]
        assert tuple(names_of_args) == script.args, name
        assert tuple(names_of_keys) == script.keys, name


@pytest.mark.parametrize(
    "values",
    [{}, {"expected": "x"}, {"expected": "x", "other": 1}, {"expected": "x", "lock_ttl_ms": 1, "other": 1}],
)
def test_an_argument_that_the_header_does_not_list_is_refused(values: dict[str, str | bytes | int]) -> None:
    """A call site that says something else than the header fails before anything is sent."""
    with pytest.raises(TypeError, match=r"renew\.lua takes"):
        lua.load("renew").arguments(values)


def test_an_empty_cache_grants_the_lock_to_one_and_lets_the_next_wait(store: Store) -> None:
    """The first reader fills, the second waits and learns how long the lock lives and where to listen from."""
    assert isinstance(ask(store), Fill)
    second = ask(store, "b" * 32)
    assert isinstance(second, Wait)
    assert 0 < second.lock_left <= 3
    assert second.last_event == b"0-0"


def test_a_published_entry_is_rows_to_strangers_and_same_to_its_holders(store: Store) -> None:
    """Only the digest's holder is spared the payload."""
    fill(store)
    rows, same = ask(store), ask(store, known=PAYLOAD.digest)
    assert isinstance(rows, Current)
    assert rows.entry.payload == PAYLOAD.data
    assert isinstance(same, Current)
    assert same.entry.payload is None
    assert same.entry.digest == PAYLOAD.digest
    assert 299 < same.entry.fresh <= 300


def test_a_caller_whose_token_holds_the_lock_gets_it_again_with_the_original_grant_time(store: Store) -> None:
    """A lost reply and a retry do not make a caller wait for itself (R2)."""
    first, again = ask(store), ask(store)
    assert isinstance(again, Fill)
    assert again.grant == first.grant


def test_loaded_at_and_incarnation_are_the_lock_grants(store: Store, backend: Backend) -> None:
    """Never a time from after the database read (R5)."""
    granted = fill(store)
    entry = backend.entry()
    assert entry["loaded_at"].decode() == granted.grant.granted_at
    assert entry["incarnation"].decode() == granted.grant.incarnation


def test_an_entry_of_another_incarnation_is_a_miss(store: Store, backend: Backend) -> None:
    """What was restored from a file or survived a failover is never served (R10)."""
    fill(store)
    backend.client.hset(backend.keys.entry, "incarnation", "someone/else")
    answer = ask(store)
    assert isinstance(answer, Fill)
    assert answer.note == "incarnation"


def test_a_lock_of_another_incarnation_counts_as_absent(store: Store, backend: Backend) -> None:
    """A replicated lock would block everyone after a failover (R2)."""
    backend.client.set(backend.keys.lock, f"{'c' * 32}|5|someone/else|5")
    assert isinstance(ask(store), Fill)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xff\xfe|1|a/b|1", b"x" * 1000])
def test_a_lock_that_is_no_lock_of_ours_counts_as_absent(store: Store, backend: Backend, junk: bytes) -> None:
    """Foreign text under the lock's key blocks nobody."""
    backend.client.set(backend.keys.lock, junk)
    assert isinstance(ask(store), Fill)


@pytest.mark.parametrize("key", ["entry", "lock", "events"])
def test_a_foreign_type_under_any_key_does_no_harm(store: Store, backend: Backend, key: str) -> None:
    """A list where a hash, a string or a stream should be is replaced by the next fill (R14)."""
    backend.client.rpush(getattr(backend.keys, key), "x")
    fill(store)
    assert isinstance(ask(store), Current)
    assert store.invalidate(who="w", host="h", reason="r").logged


def test_a_forced_read_is_not_answered_by_what_was_loaded_before_it(store: Store) -> None:
    """Its floor is now, so it fills; a plain reader meanwhile is still answered."""
    fill(store)
    forced = ask(store, now=True)
    assert isinstance(forced, Fill)
    assert isinstance(ask(store, "b" * 32), Current)
    assert isinstance(ask(store, "c" * 32, now=True), Wait)


def test_a_redis_clock_that_steps_back_does_not_make_an_old_entry_look_new(store: Store, backend: Backend) -> None:
    """An entry loaded in the server's future does not satisfy a forced read, and the fill's floor is past it (R2)."""
    fill(store)
    ahead = int(time.time() * 1e6) + AHEAD_US
    backend.client.hset(backend.keys.entry, "loaded_at", str(ahead))
    forced = ask(store, now=True)
    assert isinstance(forced, Fill)
    assert int(forced.grant.granted_at) > ahead


def test_a_forced_read_does_not_accept_the_fill_that_was_granted_before_it(store: Store, backend: Backend) -> None:
    """Though the clock stood still: now is past the grant time of the running fill (R2)."""
    ahead = int(time.time() * 1e6) + AHEAD_US
    running = ask(store)
    backend.client.set(backend.keys.lock, f"{running.grant.token}|{ahead}|{running.grant.incarnation}|1", px=3000)
    waiting = ask(store, "b" * 32, now=True)
    assert isinstance(waiting, Wait)
    assert int(waiting.floor.value) > ahead


def test_a_lock_is_granted_at_the_callers_floor_at_least(store: Store) -> None:
    """So that the next forced reader, whose floor is the same, can accept its fill (R2)."""
    ahead = str(int(time.time() * 1e6) + AHEAD_US)
    incarnation = ask(store).floor.incarnation
    store.invalidate(who="w", host="h", reason="")
    granted = ask(store, "b" * 32, now=True, resolved=Floor(ahead, incarnation))
    assert isinstance(granted, Fill)
    assert granted.grant.granted_at == ahead


def test_a_floor_of_another_incarnation_is_resolved_anew(store: Store) -> None:
    """Another server's clock says nothing about this one's entries (R2)."""
    fill(store)
    ahead = str(int(time.time() * 1e6) + AHEAD_US)
    answer = ask(store, resolved=Floor(ahead, "someone/else"))
    assert isinstance(answer, Current)
    assert answer.floor.value == "0"
    forced = ask(store, now=True, resolved=Floor("1", "someone/else"))
    assert isinstance(forced, Fill)
    assert int(forced.floor.value) > 1


def test_a_resolved_floor_is_kept(store: Store) -> None:
    """A forced reader that waited accepts the fill that began after its first script."""
    forced = ask(store, "a" * 32, now=True)
    other = ask(store, "b" * 32, now=True)
    assert isinstance(other, Wait)
    publish(store, forced)
    # The running fill was granted before the second reader's floor, so that one loads anew …
    again = ask(store, "b" * 32, now=True, resolved=other.floor)
    assert isinstance(again, Fill)
    publish(store, again)
    # … and a third one that asked meanwhile accepts that one's.
    assert isinstance(ask(store, "c" * 32, now=True, resolved=other.floor), Current)


def test_an_age_that_is_exceeded_is_a_miss(store: Store, backend: Backend) -> None:
    """max_age is held against loaded_at, on the server's clock."""
    fill(store)
    assert isinstance(ask(store, max_age=10.0), Current)
    backend.client.hset(backend.keys.entry, "loaded_at", str(int(time.time() * 1e6) - 11_000_000))
    assert isinstance(ask(store, max_age=10.0), Fill)


@pytest.mark.parametrize("change", ["persist", "raise"])
def test_a_remaining_life_above_what_would_be_set_is_lowered(store: Store, backend: Backend, change: str) -> None:
    """After a clock step a 3 s lock was seen to live for a minute (R2)."""
    fill(store)
    ask(store, now=True)
    for key in (backend.keys.entry, backend.keys.lock):
        if change == "persist":
            backend.client.persist(key)
        else:
            backend.client.pexpire(key, 3_600_000)
    ask(store, "b" * 32)
    assert 0 < backend.client.pttl(backend.keys.entry) <= 300_000
    assert 0 < backend.client.pttl(backend.keys.lock) <= 3_000


@pytest.mark.parametrize(
    "fields",
    [
        {"loaded_at": "soon"},
        {"loaded_at": "99999999999999999"},
        {"loaded_at": "-5"},
        {"loaded_at": "1e3"},
        {"load_us": "soon"},
        {"load_us": "-inf"},
        {"load_us": "-1e309"},
        {"load_us": "nan"},
        {"load_us": ""},
    ],
)
def test_an_entry_with_an_impossible_time_is_a_miss(store: Store, backend: Backend, fields: dict[str, str]) -> None:
    """A time that a double does not hold exactly, or that is none, is not compared (R1)."""
    fill(store)
    backend.client.hset(backend.keys.entry, mapping=fields)
    answer = ask(store)
    assert isinstance(answer, Fill)
    assert answer.note == "malformed"


@pytest.mark.parametrize(
    "field", ["digest", "format", "loaded_at", "load_us", "incarnation", "source", "signature", "payload"]
)
def test_an_entry_that_lacks_a_field_is_a_miss(store: Store, backend: Backend, field: str) -> None:
    """Whichever it is (R14)."""
    fill(store)
    backend.client.hdel(backend.keys.entry, field)
    answer = ask(store)
    assert isinstance(answer, Fill)
    assert answer.note == "malformed"


def test_an_invalidate_deletes_entry_and_lock_together(store: Store, backend: Backend) -> None:
    """The fence is down before the operator hears of it (R3)."""
    fill(store)
    running = ask(store, now=True)
    deleted = store.invalidate(who="me", host="here", reason="why")
    assert deleted.existed
    assert deleted.fill_cancelled
    assert deleted.digest == PAYLOAD.digest
    assert not backend.client.exists(backend.keys.entry, backend.keys.lock)
    assert publish(store, running) is None
    assert not backend.client.exists(backend.keys.entry)
    (logged,) = store.inspect(10).invalidations
    assert logged["who"] == "me"
    assert logged["reason"] == "why"


def test_a_fill_that_outlived_its_lock_is_rejected(store: Store, backend: Backend) -> None:
    """Its lock expired, or is somebody else's by now (R3)."""
    slow = ask(store)
    backend.client.delete(backend.keys.lock)
    assert publish(store, slow) is None
    quick = ask(store, "b" * 32)
    assert publish(store, slow) is None
    assert publish(store, quick) is not None


def test_a_fill_whose_token_was_granted_a_second_time_is_rejected(store: Store, backend: Backend) -> None:
    """A late duplicate of the same request took the lock anew: same token, another grant time (R3)."""
    first = ask(store)
    backend.client.delete(backend.keys.lock)
    second = ask(store)
    assert second.grant.token == first.grant.token
    assert publish(store, first) is None
    assert publish(store, second) is not None


def test_a_fill_that_straddled_a_failover_is_rejected(store: Store, backend: Backend) -> None:
    """The lock came along to the new master, but the incarnation did not (R3)."""
    grant = ask(store).grant
    foreign = grant._replace(incarnation="someone/else")
    backend.client.set(backend.keys.lock, foreign.value)
    assert store.publish(foreign, PAYLOAD, load_us=1, source="", signature="", by="") is None
    assert not store.renew(foreign)
    assert not store.release(foreign, "why", by="")


def test_renew_keeps_a_held_lock_and_never_creates_one(store: Store, backend: Backend) -> None:
    """A filler that was invalidated must not fence the next one out (R3)."""
    grant = ask(store).grant
    backend.client.pexpire(backend.keys.lock, 500)
    assert store.renew(grant)
    assert backend.client.pttl(backend.keys.lock) > 500
    backend.client.delete(backend.keys.lock)
    assert not store.renew(grant)
    assert not backend.client.exists(backend.keys.lock)


def test_release_gives_back_only_the_own_lock_and_says_so_on_the_stream(store: Store) -> None:
    """Waiters are woken by the event (R11)."""
    grant = ask(store).grant
    store.invalidate(who="", host="", reason="")
    other = ask(store, "b" * 32)
    assert not store.release(grant, "failed", by="me")
    assert isinstance(ask(store, "c" * 32), Wait)
    assert store.release(other.grant, "failed", by="me")
    assert isinstance(ask(store, "c" * 32), Fill)
    assert [event["event"] for event in store.inspect(10).events] == ["released", "invalidated"]


def test_publish_tells_which_database_filled_before(store: Store, backend: Backend) -> None:
    """From the entry, or from the last filled event when the entry is gone (R13)."""
    first = ask(store)
    assert publish(store, first).previous_source == ""
    second = ask(store, "b" * 32, now=True)
    assert publish(store, second).previous_source == "1/db"
    backend.client.delete(backend.keys.entry)
    third = ask(store, "c" * 32)
    assert publish(store, third).previous_source == "1/db"


def test_a_payload_that_is_too_large_is_not_sent(store: Store, backend: Backend) -> None:
    """It counts as absent, and the answer says why (R14)."""
    fill(store)
    small = Store(backend.client, "numbers", backend.settings.replace(max_payload=4))
    answer = ask(small)
    assert isinstance(answer, Fill)
    assert answer.note == "oversized"


def test_an_entry_past_its_ttl_is_offered_in_case_the_load_fails(store: Store, backend: Backend) -> None:
    """Within stale_if_error, to the filler and to waiters, never to a forced read (R15)."""
    tolerant = Store(backend.client, "numbers", backend.settings.replace(stale_if_error=60))
    fill(tolerant)
    backend.client.pexpire(backend.keys.entry, 30_000)
    filler, waiter = ask(tolerant), ask(tolerant, "b" * 32)
    assert isinstance(filler, Fill)
    assert isinstance(waiter, Wait)
    for answer in (filler, waiter):
        assert answer.fallback is not None
        assert answer.fallback.fresh < 0 < answer.fallback.life
    assert ask(tolerant, "c" * 32, now=True).fallback is None
    tolerant.invalidate(who="", host="", reason="")
    assert ask(tolerant, "d" * 32).fallback is None


def test_near_its_end_an_entry_is_refreshed_by_one_while_the_others_read_on(store: Store, backend: Backend) -> None:
    """One caller is granted the lock with the rows as its fallback (R16)."""
    ahead = Store(backend.client, "numbers", backend.settings.replace(refresh_ahead=0.2))
    fill(ahead)
    assert isinstance(ask(ahead), Current)
    backend.client.pexpire(backend.keys.entry, 30_000)
    first, second = ask(ahead), ask(ahead, "b" * 32)
    assert isinstance(first, Fill)
    assert first.fallback is not None
    assert first.fallback.fresh > 0
    assert isinstance(second, Current)


@pytest.mark.needs("replicas")
def test_a_master_that_is_cut_off_from_its_replicas_serves_nothing(backend: Backend, store: Store) -> None:
    """The harmless write at the start of every script is refused (R2)."""
    fill(store)
    backend.client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(StoreError) as refused:
            ask(store, known=PAYLOAD.digest)
        assert refused.value.symptom == "replicas"
        with pytest.raises(StoreError, match="too few replicas"):
            store.invalidate(who="", host="", reason="")
    finally:
        backend.client.config_set("min-replicas-to-write", 0)


@pytest.mark.needs("acl")
def test_a_server_that_does_not_tell_its_ids_is_an_outage_that_names_the_right(backend: Backend) -> None:
    """Never a constant in their place (R10)."""
    client = backend.client
    client.acl_setuser("noinfo", enabled=True, nopass=True, keys="*", commands=["+@all", "-info"])
    kwargs = client.connection_pool.connection_kwargs
    limited = real_client(f"redis://noinfo:x@{kwargs['host']}:{kwargs['port']}/0")
    try:
        with pytest.raises(StoreError, match="INFO") as refused:
            ask(Store(limited, "numbers", backend.settings))
        assert refused.value.symptom == "incarnation"
    finally:
        limited.close()
        client.acl_deluser("noinfo")


@pytest.mark.needs("maxmemory")
def test_over_maxmemory_an_invalidate_deletes_and_a_fill_is_still_taken(backend: Backend, store: Store) -> None:
    """Servers let a script that has begun to write finish, and the guard's deletion is a write (R2, R7)."""
    fill(store)
    backend.client.config_set("maxmemory", "1")
    backend.client.config_set("maxmemory-policy", "noeviction")
    try:
        assert store.invalidate(who="", host="", reason="").existed
        assert not backend.client.exists(backend.keys.entry)
        fill(store)
        assert isinstance(ask(store), Current)
    finally:
        backend.client.config_set("maxmemory", "0")


def test_a_server_that_forgot_the_scripts_is_sent_them_again(store: Store, backend: Backend) -> None:
    """SCRIPT FLUSH and restarts cost one more round trip."""
    fill(store)
    backend.client.script_flush()
    assert isinstance(ask(store), Current)


def test_a_decoding_client_gets_payloads_as_bytes(backend: Backend) -> None:
    """decode_responses=True changes nothing here."""
    if backend.name == "fakeredis":
        client = testing.fake_redis(decode_responses=True)
    else:
        kwargs = backend.client.connection_pool.connection_kwargs
        url = f"redis://:{kwargs['password']}@{kwargs['host']}:{kwargs['port']}/0"
        client = real_client(url, decode_responses=True)
    payload = codec.encode("numbers", [{"k": "가\x00é"}])
    store = Store(client, "decoded", backend.settings)
    fill(store, payload)
    assert ask(store).entry.payload == payload.data
    client.close()


@pytest.mark.parametrize("name", ["read", "publish", "renew", "release", "invalidate", "watch", "unwatch"])
def test_the_first_command_of_every_script_that_decides_is_the_harmless_write(name: str) -> None:
    """Before it reads anything (R2)."""
    body = lua.load(name).text
    assert body.split("redis.call(", 1)[0].count("redis.pcall(") == 0 or name != "invalidate"
    own = body[body.index("-- KEYS") :]
    assert own.split("redis.", 1)[1].startswith("call('DEL', guard_key)")


def test_wait_tells_the_newest_event(store: Store, backend: Backend) -> None:
    """From there a waiter listens: from the beginning it would never sleep (R11)."""
    fill(store)
    ask(store, now=True)
    waits = ask(store, "b" * 32, now=True)
    assert isinstance(waits, Wait)
    ((newest, _),) = backend.client.xrevrange(backend.keys.events, count=1)
    assert waits.last_event == newest


def test_a_waiter_listens_from_the_event_that_it_was_told_and_for_half_a_timeout(
    store: Store, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never from '$' (R11)."""
    sent: list[Any] = []
    monkeypatch.setattr(store, "_call", lambda *command: sent.append(command))
    store.await_event(b"5-1", 9.0)
    assert sent == [("XREAD", "COUNT", 1, "BLOCK", 250, "STREAMS", backend.keys.events, b"5-1")]


def test_a_forced_read_whose_floor_an_expired_entry_meets_is_offered_nothing(store: Store, backend: Backend) -> None:
    """Never for a forced read, whenever it was resolved (R15)."""
    tolerant = Store(backend.client, "numbers", backend.settings.replace(stale_if_error=60))
    incarnation = fill(tolerant).grant.incarnation
    backend.client.pexpire(backend.keys.entry, 30_000)
    forced = ask(tolerant, now=True, resolved=Floor("1", incarnation))
    assert isinstance(forced, Fill)
    assert forced.fallback is None


def test_a_forced_read_that_waited_is_answered_by_an_entry_near_its_end(store: Store, backend: Backend) -> None:
    """It refreshes nothing ahead (R16)."""
    ahead = Store(backend.client, "numbers", backend.settings.replace(refresh_ahead=0.2))
    incarnation = fill(ahead).grant.incarnation
    backend.client.pexpire(backend.keys.entry, 30_000)
    assert isinstance(ask(ahead, now=True, resolved=Floor("1", incarnation)), Current)


@pytest.mark.needs("stream ids")
def test_an_invalidate_that_cannot_be_logged_has_still_deleted(store: Store, backend: Backend) -> None:
    """Whatever is wrong with the streams (R7)."""
    fill(store)
    for key in (backend.keys.events, backend.keys.invalidations):
        backend.client.delete(key)
        backend.client.xadd(key, {"a": "b"}, id="18446744073709551615-18446744073709551615")
    deleted = store.invalidate(who="w", host="h", reason="")
    assert (deleted.existed, deleted.logged) == (True, False)


def test_two_grants_at_the_same_floor_are_two_locks(store: Store) -> None:
    """After a clock that stepped back, a late duplicate's grant lets no fill from before an invalidate in (R3)."""
    ahead = Floor(str(int(time.time() * 1e6) + AHEAD_US), ask(store).floor.incarnation)
    store.invalidate(who="", host="", reason="")
    overtaken = ask(store, "b" * 32, now=True, resolved=ahead)
    store.invalidate(who="", host="", reason="")
    late = ask(store, "b" * 32, now=True, resolved=ahead)
    assert late.grant.granted_at == overtaken.grant.granted_at
    assert publish(store, overtaken) is None
    assert publish(store, late) is not None


def test_an_entry_with_a_time_that_a_double_does_not_hold_is_a_miss(store: Store, backend: Backend) -> None:
    """Though it has no more digits than one that a double holds (R1)."""
    fill(store)
    backend.client.hset(backend.keys.entry, "loaded_at", "9007199254740993")
    answer = ask(store)
    assert isinstance(answer, Fill)
    assert answer.note == "malformed"


def test_the_age_of_an_entry_is_told_on_the_servers_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the time is on this host (R1)."""
    fill(store)
    run = store._run

    def seven_seconds_later(name: str, values: Any, understood: Any) -> Any:
        return run(
            name,
            values,
            lambda reply: understood(reply | {"time": str(int(reply["loaded_at"]) + 7_000_000).encode()}),
        )

    monkeypatch.setattr(store, "_run", seven_seconds_later)
    assert ask(store).entry.age == 7.0


def test_an_entry_is_fresh_for_its_ttl_however_long_its_key_lives(store: Store, backend: Backend) -> None:
    """Its writer may have another stale_if_error than its reader (R2)."""
    granted = fill(store)
    backend.client.hset(backend.keys.entry, "loaded_at", str(int(granted.grant.granted_at) - 301_000_000))
    assert isinstance(ask(store), Fill)


@pytest.mark.parametrize("stale_if_error", [0, 60])
def test_an_entry_past_a_readers_ttl_is_offered_for_that_readers_stale_if_error_only(
    store: Store, backend: Backend, stale_if_error: float
) -> None:
    """Though its key, by another one's settings, lives longer (R15)."""
    fill(store)
    backend.client.hset(backend.keys.entry, "loaded_at", str(int(time.time() * 1e6) - 40_000_000))
    short = Store(backend.client, "numbers", backend.settings.replace(ttl=10, stale_if_error=stale_if_error))
    answer = ask(short)
    assert isinstance(answer, Fill)
    assert (answer.fallback is not None) == (stale_if_error > 0)
    if answer.fallback is not None:
        assert 20 < answer.fallback.life <= 30
        assert answer.fallback.fresh < 0


def test_the_time_of_an_entry_that_was_rejected_counts_for_nothing(store: Store, backend: Backend) -> None:
    """The fill that replaces it is as old as it is, and its entry is one (R14)."""
    fill(store)
    ahead = str(int(time.time() * 1e6) + AHEAD_US)
    backend.client.hset(backend.keys.entry, "loaded_at", ahead)
    answer = ask(store, rejected=f"{PAYLOAD.digest}:{ahead}")
    assert isinstance(answer, Fill)
    assert answer.note == "rejected"
    assert answer.grant.granted_at == answer.grant.granted_when
    publish(store, answer)
    assert isinstance(ask(store, "b" * 32), Current)


@pytest.mark.parametrize("now", [False, True], ids=["plain", "forced"])
def test_an_entry_or_a_lock_far_ahead_is_none_and_hands_its_time_on_to_nobody(
    store: Store, backend: Backend, *, now: bool
) -> None:
    """A fill would take over a time that anyone could have written, and sign it: valid for ever (R2)."""
    fill(store)
    backend.client.hset(backend.keys.entry, "loaded_at", "7999999999999999")
    answer = ask(store, now=now)
    assert isinstance(answer, Fill)
    assert (answer.note, answer.fallback) == ("ahead", None)
    assert answer.grant.granted_at == answer.grant.granted_when
    lock = answer.grant._replace(granted_at="8999999999999998")
    backend.client.set(backend.keys.lock, lock.value, px=3000)
    after = ask(store, "b" * 32, now=now)
    assert isinstance(after, Fill)
    assert after.grant.granted_at == after.grant.granted_when
    assert after.floor.value <= after.grant.granted_at


def test_the_holder_of_other_rows_is_sent_the_current_ones(store: Store) -> None:
    """SAME is for the holder of the very digest (R2)."""
    fill(store)
    assert ask(store, known="0" * 32).entry.payload == PAYLOAD.data


def test_a_fill_with_another_token_is_rejected(store: Store) -> None:
    """Though it was granted by the same script at the same time (R3)."""
    granted = ask(store)
    other = granted._replace(grant=granted.grant._replace(token="b" * 32))
    assert publish(store, other) is None
    assert publish(store, granted) is not None


def test_a_granted_lock_expires_by_itself(store: Store, backend: Backend) -> None:
    """From the start, and not only once somebody else has looked (R3)."""
    ask(store)
    assert 0 < backend.client.pttl(backend.keys.lock) <= 3_000


def test_an_entry_from_before_a_failover_is_a_miss(store: Store, backend: Backend) -> None:
    """The run_id is the same, as when a master steps down and is made one again (R10)."""
    fill(store)
    if backend.name == "fakeredis":
        testing.restart(backend.client, failover=True)
    else:
        backend.client.replicaof("127.0.0.1", "1")
        backend.client.replicaof("NO", "ONE")
    answer = ask(store)
    assert isinstance(answer, Fill)
    assert answer.note == "incarnation"


def test_a_stream_that_is_none_is_made_anew(store: Store, backend: Backend) -> None:
    """By whoever has something to tell, so that waiters are woken and operators find their log (R7, R11)."""
    backend.client.set(backend.keys.events, "no stream")
    fill(store)
    assert backend.client.type(backend.keys.events) == b"stream"
    for key in (backend.keys.events, backend.keys.invalidations):
        backend.client.set(key, "no stream")
    assert store.invalidate(who="", host="", reason="").logged
    assert backend.client.type(backend.keys.events) == b"stream"
    assert backend.client.type(backend.keys.invalidations) == b"stream"


def test_an_entry_is_kept_for_stale_if_error_past_its_ttl(backend: Backend) -> None:
    """Else there would be nothing to serve when a load fails (R15)."""
    fill(Store(backend.client, "numbers", backend.settings.replace(stale_if_error=60)))
    assert 300_000 < backend.client.pttl(backend.keys.entry) <= 360_000


def test_one_watcher_has_the_watch_until_it_gives_it_back_or_is_silent(store: Store, backend: Backend) -> None:
    """Whoever has it keeps it by asking again; nobody takes it from another, or gives another's back."""
    assert [store.watch(holder, 60_000) for holder in ("a", "b", "a")] == [True, False, True]
    assert 0 < backend.client.pttl(backend.keys.watch) <= 60_000
    assert [store.unwatch("b"), store.watch("b", 60_000), store.unwatch("a")] == [False, False, True]
    assert [store.unwatch("a"), store.watch("b", 1)] == [False, True]
    assert eventually(lambda: store.watch("a", 60_000))


def test_a_watch_outlives_its_holder_by_no_more_than_is_asked_for(store: Store, backend: Backend) -> None:
    """After a Redis clock that stepped back it would keep everybody else from watching (R2)."""
    for most in (None, 3_600_000):
        backend.client.set(backend.keys.watch, "gone", px=most)
        assert not store.watch("a", 60_000)
        assert 0 < backend.client.pttl(backend.keys.watch) <= 60_000


def test_a_foreign_type_in_the_watch_s_place_is_nobody_s(store: Store, backend: Backend) -> None:
    """It would keep every watcher from watching."""
    backend.client.hset(backend.keys.watch, "a", "b")
    assert not store.unwatch("a")
    assert store.watch("a", 60_000)
    assert backend.client.get(backend.keys.watch) == b"a"
