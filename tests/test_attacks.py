"""An attacker who may do anything to Redis, against readers with signing keys: never a forged row (docs/signing.md).

Each attack is a change of what is in Redis: rows of version 1, signed by the fleet; the database has gone on to version
2; whoever believes the attacker reads version 666. What signing does not stop is here too, with its bound.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from kcg_cache import Settings, codec, compression
from kcg_cache.cache import SharedCache
from kcg_cache.compression import zstd
from kcg_cache.keys import Keys
from kcg_cache.refusal import refusal
from tests.conftest import Backend
from tests.doubles import Source, fail, version_of
from tests.frames import bomb

pytestmark = pytest.mark.once

KEY, OTHER_KEY = b"0123456789abcdef0123456789abcdef", b"fedcba9876543210fedcba9876543210"
FORGED = b'[{"version": 666, "nested": {}}]'
BIG = b'[{"version": 666, "text": "' + b"x" * 10_000 + b'"}]'

Attack = Callable[[Backend, dict[str, bytes]], object]


def write(backend: Backend, **fields: Any) -> None:
    backend.client.hset(backend.keys.entry, mapping=fields)


def claim_of(backend: Backend, entry: dict[str, bytes], **changes: str) -> codec.Claim:
    texts = {name: value.decode() for name, value in entry.items()} | changes
    return codec.Claim(backend.settings.namespace, "numbers", *(texts[name] for name in codec.Claim._fields[2:]))


def rows(data: bytes = FORGED, fmt: str = codec.ORJSON, **more: Any) -> Attack:
    """Put rows there with the digest that matches: it is unkeyed, so anyone can tell it."""
    sent = zstd.compress(data) if fmt.endswith("+zstd") else data
    return lambda backend, _: write(backend, payload=sent, format=fmt, digest=codec.digest_of(data), **more)


def swapped(namespace: str | None = None, dataset: str = "numbers") -> Attack:
    """Copy what the fleet itself has signed, for another dataset or in another namespace, over this entry."""

    def attack(backend: Backend, _entry: dict[str, bytes]) -> None:
        other, name = Source(), namespace or backend.settings.namespace
        other.version = 666
        backend.worker(other.dataset(dataset), signing_keys=(KEY,), namespace=name).read(None)
        copied = backend.client.hgetall(Keys.of(name, dataset).entry)
        assert backend.client.hset(backend.keys.entry, mapping=copied) == 0

    return attack


def signed_by(key: bytes) -> Attack:
    def attack(backend: Backend, entry: dict[str, bytes]) -> None:
        forged = entry | {"payload": FORGED, "digest": codec.digest_of(FORGED).encode()}
        write(backend, **forged | {"signature": codec.sign([key], claim_of(backend, forged)).encode()})

    return attack


def from_another_server(backend: Backend, entry: dict[str, bytes]) -> None:
    """Bring an entry that the fleet signed on another server, or before a restart, under this one's incarnation."""
    claim = claim_of(backend, entry, incarnation="an-old-run/an-old-replid")
    write(backend, signature=codec.sign([KEY], claim))


#: What is done, and the reason that is counted and logged.
FORGERIES: dict[str, tuple[Attack, str]] = {
    "forged rows, the signature left": (rows(), "signature"),
    "forged rows, no signature": (rows(signature=""), "signature"),
    "forged rows, a signature of nothing": (rows(signature="0" * 64), "signature"),
    "forged rows, packed": (rows(BIG, "orjson+zstd"), "signature"),
    "forged rows, signed by another key": (signed_by(OTHER_KEY), "signature"),
    "the rows of another dataset": (swapped(dataset="others"), "signature"),
    "the rows of another namespace": (swapped("staging"), "signature"),
    "the format of another reader": (lambda backend, _: write(backend, format="json"), "signature"),
    "a format that chooses no signature": (lambda backend, _: write(backend, format="orjson+none"), "signature"),
    "another source": (lambda backend, _: write(backend, source="1/production"), "signature"),
    "the signature stripped": (lambda backend, _: write(backend, signature=""), "signature"),
    "the signature's field removed": (
        lambda backend, _: backend.client.hdel(backend.keys.entry, "signature"),
        "malformed",
    ),
    "loaded just now": (lambda backend, _: write(backend, loaded_at=f"{time.time() * 1e6:.0f}"), "signature"),
    "a load of thirty years": (lambda backend, _: write(backend, load_us="999999999999999"), "signature"),
    "loaded in a hundred years": (lambda backend, _: write(backend, loaded_at="4900000000000000"), "ahead"),
    "signed on another server": (from_another_server, "signature"),
    "a bomb of 1 GB": (
        lambda backend, _: write(backend, payload=bomb(2**30), format="orjson+zstd", digest=codec.digest_of(FORGED)),
        "signature",
    ),
}


def attacked(backend: Backend, attack: Attack) -> None:
    backend.worker(signing_keys=(KEY,)).read(None)
    backend.source.version = 2
    attack(backend, backend.entry())


def reader(backend: Backend, **settings: Any) -> SharedCache:
    return backend.worker(**({"signing_keys": (KEY,)} | settings))


@pytest.mark.parametrize("force", [False, True], ids=["plain", "forced"])
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_entry_is_a_miss_that_is_counted_logged_once_and_replaced(
    backend: Backend, caplog: pytest.LogCaptureFixture, name: str, *, force: bool
) -> None:
    """The rows come from the database, once for the fleet; what `status` and `doctor` say agrees."""
    attack, reason = FORGERIES[name]
    attacked(backend, attack)
    first, second = reader(backend), reader(backend)
    refused = refusal(first.inspect(), "numbers", first.settings)
    assert refused is not None
    # By its format alone an unknown one is refused before its signature is looked at.
    assert refused.reason == ("format" if name.startswith("a format that") else reason)
    with caplog.at_level(logging.WARNING, "kcg_cache"):
        assert version_of(first.read(None, force=force)) == 2
    loads = backend.source.loads
    assert version_of(second.read(None)) == 2
    assert (backend.source.loads, second.metrics["entries_rejected"]) == (loads, 0)
    events = [record.getMessage() for record in caplog.records if "foreign_source" not in record.getMessage()]
    if force:  # it takes no entry at all, and tells of one only that the script itself did not accept
        assert first.metrics["entries_rejected"] == (reason in ("malformed", "ahead"))
        return
    assert first.metrics["entries_rejected"] == 1
    (line,) = events
    assert line.startswith("entry_rejected numbers: ")
    assert ("signing key" if reason == "signature" else f"not accepted: {reason}") in line
    assert not any(secret in caplog.text for secret in ("0123456789abcdef", "<signing key>"))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_entry_is_no_fallback_when_the_load_fails(backend: Backend, name: str) -> None:
    """Not even with stale-if-error: the database's error is the answer (R15)."""
    attacked(backend, FORGERIES[name][0])
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        reader(backend, stale_if_error=3600).read(None)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_under_rows_that_a_reader_holds_does_not_renew_its_lease(backend: Backend, name: str) -> None:
    """SAME carries what the signature is checked by, every time."""
    holder = reader(backend)
    holder.read(None)
    attacked(backend, FORGERIES[name][0])
    backend.system.tick(1.1)
    assert version_of(holder.read(None)) == 2


def test_the_attacks_work_where_there_are_no_keys(backend: Backend) -> None:
    """So it is the signature that stops them."""
    for name in ("forged rows, the signature left", "the rows of another dataset", "the rows of another namespace"):
        attacked(backend, FORGERIES[name][0])
        assert version_of(backend.worker().read(None)) == 666
        backend.client.delete(backend.keys.entry)
    attacked(backend, lambda backend, _: aged(backend, 10_000, load_us="999999999999999"))
    backend.source.version = 3
    assert version_of(backend.worker().read(None)) == 2
    assert version_of(reader(backend).read(None)) == 3


def test_a_bomb_is_not_even_unpacked(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is looked at first, so whoever holds no key feeds nothing to the decoder."""
    attacked(backend, FORGERIES["a bomb of 1 GB"][0])

    def unpacked(data: bytes, _limit: int) -> bytes:
        raise AssertionError(len(data))

    monkeypatch.setattr(compression, "unpacked", unpacked)
    assert version_of(reader(backend).read(None)) == 2


# --- old entries, which were signed once ------------------------------------------------------------------------------


def aged(backend: Backend, seconds: float, load_seconds: float = 0.0, **fields: Any) -> None:
    """Put the fleet's own entry there, as one that it has signed so long ago after a load of that length."""
    entry = backend.entry()
    entry["loaded_at"] = str(int(entry["loaded_at"]) - round(seconds * 1e6)).encode()
    entry["load_us"] = str(round(load_seconds * 1e6)).encode()
    entry["signature"] = codec.sign([KEY], claim_of(backend, entry)).encode()
    backend.client.hset(backend.keys.entry, mapping=entry | fields)
    backend.client.persist(backend.keys.entry)


def test_after_an_invalidate_an_old_entry_can_be_put_back_for_the_rest_of_its_ttl(backend: Backend) -> None:
    """What signing does not stop: it was signed, and it says so. The bound is its time, which is signed."""
    worker = reader(backend, ttl=60)
    worker.read(None)
    old = backend.client.hgetall(backend.keys.entry)
    worker.invalidate(wait=False)
    backend.source.version = 2
    assert version_of(reader(backend, ttl=60).read(None)) == 2
    backend.client.hset(backend.keys.entry, mapping=old)
    assert version_of(reader(backend, ttl=60).read(None)) == 1
    backend.client.hset(backend.keys.entry, mapping=old)
    aged(backend, 61)
    assert version_of(reader(backend, ttl=60).read(None)) == 2


@pytest.mark.parametrize(
    ("age", "load", "version"), [(290, 0, 1), (301, 0, 2), (400, 110, 1), (411, 110, 2), (10_000, 9_990, 1)]
)
def test_an_old_entry_counts_until_its_ttl_after_its_load_and_not_longer(
    backend: Backend, age: float, load: float, version: int
) -> None:
    """Also without any TTL of the key. A load may be slower than the TTL: who has signed it took that long."""
    reader(backend).read(None)
    backend.source.version = 2
    aged(backend, age, load)
    late = reader(backend)
    assert version_of(late.read(None)) == version
    assert late.metrics["entries_rejected"] == 0  # it is what every expiry leaves
    assert backend.source.loads == version


@pytest.mark.parametrize(("age", "version"), [(350, 1), (370, None)])
def test_an_old_entry_is_a_fallback_for_stale_if_error_and_not_longer(
    backend: Backend, age: float, version: int | None
) -> None:
    """Past that the database's error is the answer (R15)."""
    reader(backend).read(None)
    aged(backend, age)
    backend.source.before_read = fail
    late = reader(backend, stale_if_error=60)
    if version is None:
        with pytest.raises(LookupError):
            late.read(None)
    else:
        assert (late.read(None).stale, late.metrics["stale_served"]) == (True, 1)


def test_a_load_slower_than_the_ttl_is_shared_and_never_rejected(backend: Backend) -> None:
    """The time that it took is signed with it: its rows are fresh for a TTL from when they came."""
    slow = reader(backend, ttl=5)
    backend.source.before_read = lambda: backend.system.tick(60)
    slow.read(None)
    assert backend.entry()["load_us"] == b"60000000"
    backend.source.before_read = lambda: None
    late = reader(backend, ttl=5)
    assert late.read(None).source == "redis"
    assert (backend.source.loads, late.metrics["entries_rejected"]) == (1, 0)


def test_a_key_that_is_taken_away_voids_whatever_it_has_signed(backend: Backend) -> None:
    """The way to withdraw rows from an attacker who puts old entries back."""
    reader(backend).read(None)
    backend.source.version = 2
    assert version_of(reader(backend, signing_keys=(OTHER_KEY, KEY)).read(None)) == 1
    assert version_of(reader(backend, signing_keys=(OTHER_KEY,)).read(None)) == 2


@pytest.mark.parametrize("where", ["entry", "lock"])
def test_nobody_is_made_to_sign_a_time_of_the_future(backend: Backend, where: str) -> None:
    """It would be an entry to put back then. A forced read, whose fill is past all that is there, signs none."""
    worker = reader(backend)
    worker.read(None)
    entry = backend.entry()
    if where == "entry":
        write(backend, loaded_at="7999999999999999")
    else:
        incarnation = entry["incarnation"].decode()
        backend.client.set(backend.keys.lock, f"{'a' * 32}|8999999999999998|{incarnation}|1", px=60_000)
    assert reader(backend).read(None, force=True).source == "database"
    signed = backend.entry()
    assert int(entry["loaded_at"]) < int(signed["loaded_at"]) < time.time() * 1e6 + 60e6
    codec.check_signature([KEY], signed["signature"].decode(), claim_of(backend, signed))


# --- what only delays -------------------------------------------------------------------------------------------------


def test_a_lock_that_is_planted_again_and_again_costs_a_wait_and_a_load_of_ones_own(backend: Backend) -> None:
    """At most wait_timeout, and then rows of the database: denial, and no forgery."""
    worker = reader(backend, lock_ttl=1, wait_timeout=3)
    incarnation = worker.inspect().incarnation

    def plant(*_: object) -> None:
        value = f"{'a' * 32}|{time.time() * 1e6:.0f}|{incarnation}|1"
        backend.client.set(backend.keys.lock, value)  # without an end: the script gives it one
        backend.system.tick(0.5)

    plant()
    worker._store.await_event = plant  # type: ignore[method-assign,assignment]
    assert version_of(worker.read(None)) == 1
    assert (worker.metrics["wait_timeouts"], worker.metrics["private_loads"]) == (1, 1)
    assert worker.metrics["waits"] <= 3 / 0.5
    assert backend.client.pttl(backend.keys.lock) <= 1000 or backend.client.pttl(backend.keys.lock) == -1


def test_a_lock_that_is_stolen_during_every_load_ends_in_the_readers_own_rows(backend: Backend) -> None:
    """Three tries (R4)."""
    backend.source.after_read = lambda: backend.client.set(backend.keys.lock, "stolen")
    worker = reader(backend)
    assert version_of(worker.read(None)) == 1
    assert (backend.source.loads, worker.metrics["fills_rejected"]) == (3, 3)
    assert not backend.client.exists(backend.keys.entry)


def test_an_entry_that_is_forged_before_every_read_costs_a_load_each_and_no_row(backend: Backend) -> None:
    """One per lease and process at most; the log has one line."""
    worker = reader(backend)
    for version in range(1, 5):
        backend.source.version = version
        rows()(backend, {})
        write(backend, **dict.fromkeys(("loaded_at", "load_us", "incarnation", "source", "signature"), "1"))
        write(backend, incarnation=worker.inspect().incarnation, loaded_at=f"{time.time() * 1e6:.0f}")
        assert version_of(worker.read(None)) == version
        backend.system.tick(1.1)
    assert (backend.source.loads, worker.metrics["entries_rejected"]) == (4, 4)


@pytest.mark.parametrize("key", ["fleet", "events", "invalidations", "watch"])
def test_what_is_written_beside_the_entry_changes_no_row(backend: Backend, key: str) -> None:
    """Presence, events and log are told to people and prove nothing; whoever may write to Redis may forge them."""
    worker = reader(backend)
    worker.read(None)
    name = getattr(backend.keys, key)
    backend.client.delete(name)
    if key == "fleet":
        backend.client.hset(name, mapping={b"\xff": b"\xff|" * 99, "a" * 16: "9" * 16 + "|SAME|x|y|z|{}"})
    elif key == "watch":
        backend.client.set(name, b"\xff" * 999)
    else:
        backend.client.xadd(name, {"event": "filled", "source": b"\xff\n", "digest": "666", "who": "\x1b[2J"})
    backend.client.delete(backend.keys.entry)
    backend.source.version = 2
    late = reader(backend)
    assert version_of(late.read(None)) == 2
    late.fleet()
    late.history()
    assert late.invalidate(wait=False).existed


# --- while a fleet rolls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORGERIES)
def test_a_reader_that_still_accepts_unsigned_entries_rejects_every_wrong_signature(
    backend: Backend, name: str
) -> None:
    """Only what is not signed at all is believed, as it was before the roll began: that phase stops nobody yet."""
    attacked(backend, FORGERIES[name][0])
    version = version_of(reader(backend, accept_unsigned=True).read(None))
    assert version == {"forged rows, no signature": 666, "the signature stripped": 1}.get(name, 2)


def test_without_keys_nothing_is_demanded() -> None:
    """The setting says what is accepted beside signed entries; where all is accepted it says nothing."""
    claim = codec.Claim(*"abcdefgh")
    codec.check_signature(Settings(accept_unsigned=True).signing_keys, "any", claim, unsigned=True)
    codec.check_signature([KEY], "", claim, unsigned=True)
