"""Whatever stands in Redis under our keys: a miss that is counted, logged in one line and replaced (PROTOCOL R14).

The tables name every way of damaging an entry and what has to follow. There are four outcomes, for a reader without
signing keys and for one with them:

REJECTED  the entry is not what it says: the rows come from the database, `entries_rejected` counts one, one line
          ``entry_rejected`` is logged, and the next process shares what this one published.
UNCOUNTED a miss as any other, replaced as well: an entry of another incarnation (what every restart leaves, R10) or
          past its TTL. Nobody can tell that it was damaged.
BELIEVED  what was changed is no part of what the digest vouches for, so the entry's own rows are served. Who has
          signing keys believes only what the signature does not cover: the key's TTL, and foreign fields.
WRONG ROWS are possible only where the digest is made to match, without signing keys: see the test of that name.
"""

import json
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from kcg_cache import Dataset, Settings, SharedCache, codec, testing
from kcg_cache.cli import status
from kcg_cache.cli.output import Output
from kcg_cache.codec import MAX_DEPTH
from kcg_cache.compression import zstd
from kcg_cache.embedded import EmbeddedValkey
from kcg_cache.keys import Keys
from tests.conftest import Backend, real_client
from tests.doubles import Source, TickedSystem, fail, version_of
from tests.frames import bomb, frame, skippable, with_a_dictionary

pytestmark = pytest.mark.once

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"
TYPES = ("string", "list", "set", "zset", "hash", "stream")
FIELDS = ("digest", "payload", "format", "loaded_at", "load_us", "incarnation", "source", "signature")

#: What hostile frames hold: rows that any reader would take.
ROWS = b'[{"version": 99}]'

REJECTED, UNCOUNTED, BELIEVED = "rejected", "uncounted", "believed"

#: Changes an entry, given what it holds.
Damage = Callable[[Backend, dict[str, bytes]], object]


def put_type(client: Any, key: str, kind: str) -> None:
    """Put a key of another type in the place of one of ours."""
    client.delete(key)
    match kind:
        case "string":
            client.set(key, b"\xffforeign")
        case "list":
            client.rpush(key, "foreign")
        case "set":
            client.sadd(key, "foreign")
        case "zset":
            client.zadd(key, {"foreign": 1})
        case "hash":
            client.hset(key, "foreign", "1")
        case "stream":
            client.xadd(key, {"foreign": "1"})


def with_type(kind: str) -> Damage:
    return lambda backend, _entry: put_type(backend.client, backend.keys.entry, kind)


def without(*fields: str) -> Damage:
    return lambda backend, _entry: backend.client.hdel(backend.keys.entry, *fields)


def with_fields(**fields: Any) -> Damage:
    return lambda backend, _entry: backend.client.hset(backend.keys.entry, mapping=fields)


def with_payload(data: bytes, fmt: str = codec.ORJSON) -> Damage:
    """Put another payload there whose digest matches, packed if the format says so."""
    return with_frame(zstd.compress(data), data, fmt) if fmt.endswith("+zstd") else with_frame(data, data, fmt)


def with_frame(sent: bytes, data: bytes = ROWS, fmt: str = "orjson+zstd") -> Damage:
    """Put a frame of zstd there, with the digest of what is in it."""
    return with_fields(payload=sent, format=fmt, digest=codec.digest_of(data))


def truncated(field: str, part: float) -> Damage:
    return lambda backend, entry: backend.client.hset(
        backend.keys.entry, field, entry[field][: int(len(entry[field]) * part)]
    )


def flipped(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def nested(levels: int, *, closed: bool = True) -> bytes:
    return b'[{"a":' + b"[" * levels + b"]" * (levels if closed else 0) + b"}]"


#: What is damaged, and the reason in the log line.
REJECTED_BY_ALL: dict[str, tuple[Damage, str]] = {
    **{f"the key is a {kind}": (with_type(kind), "type") for kind in TYPES if kind != "hash"},
    "the key is a hash of others": (with_type("hash"), "malformed"),
    **{f"no {field}": (without(field), "malformed") for field in FIELDS},
    "no digest, loaded_at, incarnation": (without("digest", "loaded_at", "incarnation"), "malformed"),
    "empty payload": (with_fields(payload=b""), "malformed"),
    **{
        f"{field} is {value!r}": (with_fields(**{field: value}), "malformed")
        for field in ("loaded_at", "load_us")
        for value in (b"", b"soon", b"-5", b"1e3", b"0x10", b"nan", b"inf", b"-inf", b"-1e309", b" 5", b"5\n", b"\xff")
    },
    "loaded_at that no double holds": (with_fields(loaded_at="99999999999999999"), "malformed"),
    "loaded_at of 10 kB": (with_fields(loaded_at="9" * 10_000), "malformed"),
    "load_us of 10 kB": (with_fields(load_us="9" * 10_000), "malformed"),
    "loaded in a hundred years": (with_fields(loaded_at="4900000000000000"), "ahead"),
    "loaded at the end of time": (with_fields(loaded_at="7999999999999999"), "ahead"),
    **{f"payload cut at {part:.0%}": (truncated("payload", part), "digest") for part in (0.1, 0.5, 0.99)},
    **{f"digest cut at {part:.0%}": (truncated("digest", part), "digest") for part in (0, 0.5, 0.99)},
    "payload with more behind it": (
        lambda backend, entry: backend.client.hset(backend.keys.entry, "payload", entry["payload"] + b" "),
        "digest",
    ),
    "payload of 4 MB": (with_fields(payload=b"x" * 4_000_000), "digest"),
    "digest of 1 MB": (with_fields(digest=b"\xff" * 1_000_000), "digest"),
    "digest in capitals": (
        lambda backend, entry: backend.client.hset(backend.keys.entry, "digest", entry["digest"].upper()),
        "digest",
    ),
    **{
        f"format {value!r:.20}": (with_fields(format=value), "format")
        for value in (b"", b"orjson/2", b"orjson+lz4", b"+zstd", b"ORJSON", b"\xff\xfe", b"x" * 100_000)
    },
    "a payload over max_payload": (with_payload(b"[" + b" " * 1000 + b"]"), "oversized"),
    "a packed payload over max_payload": (with_payload(b"[" + b" " * 1000 + b"]", "orjson+zstd"), "unpacked"),
    "a bomb of 1 GB": (with_frame(bomb(2**30)), "bomb"),
    "a bomb of 1 GB that says its size": (with_frame(bomb(2**30, says=2**30)), "bomb"),
    **{
        what: (with_frame(sent), "payload")
        for what, sent in {
            "a payload that is not packed, as one that is": ROWS,
            "a frame that is cut": zstd.compress(ROWS)[:-1],
            "a frame's head": zstd.compress(ROWS)[:5],
            "a frame with more behind it": zstd.compress(ROWS) + b"\0",
            "two frames": zstd.compress(ROWS[:5]) + zstd.compress(ROWS[5:]),
            "a frame behind a skippable one": skippable() + zstd.compress(ROWS),
            "a frame with a dictionary": frame(ROWS, dictionary=7),
            "a frame with a dictionary that it does not name": with_a_dictionary(ROWS),
            "a frame with a window of 2 GB": frame(ROWS, window_log=31),
            "a frame that says another size": frame(ROWS, says=len(ROWS) + 1),
            "a frame that says it is huge": frame(ROWS, says=2**60),
        }.items()
    },
    "a packed payload, as one that is not": (with_frame(zstd.compress(ROWS), fmt="orjson"), "digest"),
    "a frame of other rows": (with_frame(zstd.compress(b"[]")), "digest"),
    **{
        f"{what}, {fmt}": (with_payload(data, fmt), "payload")
        for what, data in {
            "no JSON": b"[{",
            "null": b"null",
            "an object": b"{}",
            "a list of numbers": b"[1]",
            "a list of lists": b"[[]]",
            "one row that is none": b'[{"version": 9}, null]',
            "two documents": b"[][]",
            "a zero byte": b"[]\x00",
            "no UTF-8": b'[{"a": "\xff"}]',
            "half a character": b'[{"a": "\xea\xb0"}]',
            "surrogates in UTF-8": b'[{"a": "\xed\xa0\x80\xed\xb0\x80"}]',
            "UTF-16": '[{"a": 1}]'.encode("utf-16"),
            "a byte order mark": b"\xef\xbb\xbf[]",
            "100000 levels": nested(100_000),
            "100000 levels, open": nested(100_000, closed=False),
        }.items()
        for fmt in codec.FORMATS
    },
    # The standard library's format has numbers that are not finite, since a loader may give them; orjson's has not.
    **{
        f"{word}, orjson": (with_payload(b'[{"a": ' + word.encode() + b"}]"), "payload")
        for word in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")
    },
    "a lone surrogate, orjson": (with_payload(b'[{"a": "\\ud800"}]'), "payload"),
}

#: A miss like any other, for whoever reads: nothing tells that these were damaged.
UNCOUNTED_BY_ALL: dict[str, Damage] = {
    "another incarnation": with_fields(incarnation="someone/else"),
    "an empty incarnation": with_fields(incarnation=""),
    "half an incarnation": truncated("incarnation", 0.5),
    "an incarnation of no UTF-8": with_fields(incarnation=b"\xff" * 1000),
    "loaded at the beginning of time": with_fields(loaded_at="0"),
    "no key": lambda backend, _entry: backend.client.delete(backend.keys.entry),
}

#: What the signature vouches for and the digest does not: who has keys rejects it.
REJECTED_WITH_KEYS: dict[str, Damage] = {
    "loaded a second later": lambda backend, entry: backend.client.hset(
        backend.keys.entry, "loaded_at", int(entry["loaded_at"]) + 1_000_000
    ),
    "another load_us": with_fields(load_us="1"),
    "a load of thirty years": with_fields(load_us="999999999999999"),
    "another source": with_fields(source="9/other"),
    "a source of no UTF-8": with_fields(source=b"\xff\xfe\n\x00"),
    "a source of 100 kB": with_fields(source="x" * 100_000),
    "an empty signature": with_fields(signature=b""),
    "half a signature": truncated("signature", 0.5),
    "a signature of no UTF-8": with_fields(signature=b"\xff" * 64),
    "a signature of 1 MB": with_fields(signature=b"0" * 1_000_000),
    "a signature in capitals": lambda backend, entry: backend.client.hset(
        backend.keys.entry, "signature", entry["signature"].upper()
    ),
    "another key's signature": lambda backend, entry: backend.client.hset(
        backend.keys.entry, "signature", codec.sign([OTHER_KEY], claim_of(backend.settings.namespace, entry))
    ),
    "another namespace's signature": lambda backend, entry: backend.client.hset(
        backend.keys.entry, "signature", signed_as(backend, entry, namespace="others")
    ),
    "another dataset's signature": lambda backend, entry: backend.client.hset(
        backend.keys.entry, "signature", signed_as(backend, entry, dataset="others")
    ),
}

#: What nobody vouches for. The rows are the entry's own, and it lives no longer than its TTL.
BELIEVED_BY_ALL: dict[str, Damage] = {
    "nothing": lambda _backend, _entry: None,
    "no TTL": lambda backend, _entry: backend.client.persist(backend.keys.entry),
    "a TTL of a year": lambda backend, _entry: backend.client.expire(backend.keys.entry, 31_536_000),
    "thousands of foreign fields": lambda backend, _entry: backend.client.hset(
        backend.keys.entry, mapping={b"\xff%d" % number: b"x" * 100 for number in range(5000)}
    ),
}


def claim_of(namespace: str, entry: dict[str, bytes]) -> codec.Claim:
    texts = {name: value.decode() for name, value in entry.items()}
    return codec.Claim(namespace, "numbers", *(texts[name] for name in codec.Claim._fields[2:]))


def signed_as(backend: Backend, entry: dict[str, bytes], **other: str) -> str:
    """Sign the entry as the one of another dataset or the like."""
    return codec.sign([KEY], claim_of(backend.settings.namespace, entry)._replace(**other))


def limit_for(reason: str) -> int:
    """Give a reader's max_payload: a small one for what is over it, which the fleet's own rows are not."""
    return 1000 if reason in ("oversized", "unpacked") else Settings().max_payload


# --- what has to follow ---------------------------------------------------------------------------------------------


def damage(backend: Backend, how: Damage) -> None:
    """Fill the entry with version 1, signed; damage it; and let the database go on to version 2."""
    backend.worker(signing_keys=(KEY,)).read(None)
    how(backend, backend.entry())
    backend.source.version = 2


def check(
    backend: Backend, outcome: str, caplog: pytest.LogCaptureFixture, *, reason: str = "", **settings: Any
) -> None:
    """Read what is there as two new processes do, one after the other."""
    caplog.clear()
    settings.setdefault("max_payload", limit_for(reason))
    reader, next_reader = (backend.worker(**settings) for _ in range(2))
    with caplog.at_level(logging.DEBUG, "kcg_cache"):
        snapshot, next_snapshot = reader.read(None), next_reader.read(None)
    right = 1 if outcome == BELIEVED else 2
    assert snapshot.rows == next_snapshot.rows == ({"version": right, "nested": {"list": [1, {"x": "가"}]}},)
    assert (snapshot.source, snapshot.shared) == ("redis" if outcome == BELIEVED else "database", True)
    assert (next_snapshot.source, next_snapshot.shared) == ("redis", True)
    assert backend.source.loads == right
    lines = [record.getMessage() for record in caplog.records]
    assert all(line.isprintable() and len(line) < 1200 for line in lines)
    # That a fill finds another database's name is an event of its own (R13); here the source is none at all.
    events = [line.partition(" ")[0] for line in lines if not line.startswith("foreign_source ")]
    assert events == (["entry_rejected"] if outcome == REJECTED else [])
    assert reader.metrics["entries_rejected"] == len(events)
    assert reader.metrics["foreign_sources"] == len(lines) - len(events)
    assert next_reader.metrics["entries_rejected"] == 0
    if outcome != BELIEVED:
        assert set(backend.entry()) == set(FIELDS)
    assert 0 < backend.client.pttl(backend.keys.entry) <= 300_000
    assert not backend.client.exists(backend.keys.lock, backend.keys.guard)


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["without keys", "with keys"])
@pytest.mark.parametrize("name", REJECTED_BY_ALL)
def test_an_entry_that_is_not_what_it_says_is_counted_logged_once_and_replaced(
    backend: Backend, caplog: pytest.LogCaptureFixture, name: str, keys: tuple[bytes, ...]
) -> None:
    """Wrong type, missing, truncated, foreign, huge, deep, no JSON: never rows and never an exception (R14)."""
    how, reason = REJECTED_BY_ALL[name]
    damage(backend, how)
    check(backend, REJECTED, caplog, reason=reason, signing_keys=keys)


@pytest.mark.parametrize("name", REJECTED_BY_ALL)
def test_the_log_line_names_the_reason(backend: Backend, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """To a reader without keys; with them, a signature that does not fit is told first."""
    how, reason = REJECTED_BY_ALL[name]
    damage(backend, how)
    reader = backend.worker(max_payload=limit_for(reason))
    with caplog.at_level(logging.WARNING, "kcg_cache"):
        reader.read(None)
    (line,) = [record.getMessage() for record in caplog.records]
    told = {
        "digest": "not the one of digest",
        "format": "is not known to this version",
        "payload": "the payload is no",
        "unpacked": "the payload is over max_payload (1000 bytes) when it is unpacked",
        "bomb": "the payload is over max_payload (33554432 bytes) when it is unpacked",
    }
    assert told.get(reason, f"not accepted: {reason}") in line


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["without keys", "with keys"])
@pytest.mark.parametrize("name", UNCOUNTED_BY_ALL)
def test_an_entry_of_another_server_or_past_its_ttl_is_a_miss_like_any_other(
    backend: Backend, caplog: pytest.LogCaptureFixture, name: str, keys: tuple[bytes, ...]
) -> None:
    """Each restart leaves one, and each expiry: that is no event (R10)."""
    damage(backend, UNCOUNTED_BY_ALL[name])
    check(backend, UNCOUNTED, caplog, signing_keys=keys)


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["without keys", "with keys"])
@pytest.mark.parametrize("name", REJECTED_WITH_KEYS)
def test_what_the_signature_vouches_for_is_rejected_by_whoever_has_keys(
    backend: Backend, caplog: pytest.LogCaptureFixture, name: str, keys: tuple[bytes, ...]
) -> None:
    """To the others the digest says that the rows are whole, and they are (PROTOCOL, Words: signature)."""
    damage(backend, REJECTED_WITH_KEYS[name])
    check(backend, REJECTED if keys else BELIEVED, caplog, signing_keys=keys)


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["without keys", "with keys"])
@pytest.mark.parametrize("name", BELIEVED_BY_ALL)
def test_what_nobody_vouches_for_changes_no_row_and_no_end(
    backend: Backend, caplog: pytest.LogCaptureFixture, name: str, keys: tuple[bytes, ...]
) -> None:
    """Any time that a load may have taken is one; a TTL that is missing or too long is set (R2)."""
    damage(backend, BELIEVED_BY_ALL[name])
    check(backend, BELIEVED, caplog, signing_keys=keys)


def test_an_unsigned_entry_is_rejected_by_whoever_has_keys(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Also when it is right in every other way."""
    backend.worker().read(None)
    backend.source.version = 2
    check(backend, REJECTED, caplog, signing_keys=(KEY,))


# --- one flipped bit ------------------------------------------------------------------------------------------------


def flips(entry: dict[str, bytes], per_field: int = 12) -> Iterator[tuple[str, bytes]]:
    """Give each field with one bit flipped at a few places; the same places in every run for values of one length."""
    for field in FIELDS:
        places = random.Random(field).sample(range(len(entry[field]) * 8), min(per_field, len(entry[field]) * 8))  # noqa: S311
        for bit in places:
            yield field, flipped(entry[field], bit)


def outcome_of_flip(field: str, value: bytes, entry: dict[str, bytes], *, keys: bool) -> str:
    """Say what has to follow from one changed field, by what vouches for it."""
    if field in ("digest", "payload", "format"):
        return REJECTED
    if field == "incarnation":
        return UNCOUNTED
    if field in ("source", "signature"):
        return REJECTED if keys else BELIEVED
    if not value.isdigit() or int(value) >= 8e15:
        return REJECTED
    now = int(entry["loaded_at"])
    times = {name: int(entry[name]) for name in ("loaded_at", "load_us")} | {field: int(value)}
    # Minutes away from the edge: no digit of less than a hundred seconds decides whether it is past its TTL.
    if sum(times.values()) < now - 200_000_000:
        return UNCOUNTED
    return REJECTED if keys or times["loaded_at"] > now + 400_000_000 else BELIEVED


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["without keys", "with keys"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_flipped_bit_is_noticed_where_something_vouches_for_it(
    backend: Backend, caplog: pytest.LogCaptureFixture, field: str, keys: tuple[bytes, ...]
) -> None:
    """In the rows always; in what is told about them with signing keys; in no case are the rows wrong."""
    damage(backend, lambda *_: None)
    backend.client.hset(backend.keys.entry, "source", "7301234567890/kcg")
    entry = backend.entry()
    entry["signature"] = codec.sign([KEY], claim_of(backend.settings.namespace, entry)).encode()
    seen = set()
    for flipped_field, value in flips(entry):
        if flipped_field != field:
            continue
        backend.client.delete(backend.keys.entry)
        backend.client.hset(backend.keys.entry, mapping=entry | {field: value})
        backend.source.loads = 1
        outcome = outcome_of_flip(field, value, entry, keys=bool(keys))
        check(backend, outcome, caplog, signing_keys=keys)
        seen.add(outcome)
    assert seen


# --- a digest that matches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["without keys", "with keys"])
def test_wrong_rows_need_a_digest_that_matches_and_no_signing_keys(
    backend: Backend, caplog: pytest.LogCaptureFixture, keys: tuple[bytes, ...]
) -> None:
    """Another dataset's whole entry, copied here: without keys nothing tells it from ours; with keys the name does.

    The digest is unkeyed: it shows damage, not malice. Who fears the latter sets signing keys.
    """
    backend.worker(signing_keys=(KEY,)).read(None)
    other = Source()
    other.version = 99
    backend.worker(other.dataset("others"), signing_keys=(KEY,)).read(None)
    copied = backend.client.hgetall(Keys.of(backend.settings.namespace, "others").entry)
    backend.client.hset(backend.keys.entry, mapping=copied)
    backend.source.version = 2
    if keys:
        check(backend, REJECTED, caplog, signing_keys=keys)
    else:
        assert version_of(backend.worker().read(None)) == 99


@pytest.mark.parametrize(
    ("data", "fmt", "rows"),
    [
        # Of a name that an object has twice the last counts, in both readers.
        (b'[{"a": 1, "b": 2, "a": 3}]', "orjson", [{"a": 3, "b": 2}]),
        (b'[{"a": 1, "b": 2, "a": 3}]', "json", [{"a": 3, "b": 2}]),
        (b'[{"a": {"x": 1, "x": {}}}]', "orjson", [{"a": {"x": {}}}]),
        (b'[{"a": {"x": 1, "x": {}}}]', "json", [{"a": {"x": {}}}]),
        # What this library would have written in its other format.
        (b'[{"a": 123456789012345678901234}]', "orjson", [{"a": 1.2345678901234569e23}]),
        (b'[{"a": 123456789012345678901234}]', "json", [{"a": 123456789012345678901234}]),
        (b'[{"a": 1e999, "b": -Infinity}]', "json", [{"a": float("inf"), "b": float("-inf")}]),
        (b'[{"a": "\\ud800"}]', "json", [{"a": "\ud800"}]),
        (b" [ ] ", "orjson", []),
        # Deeper than this library shares: what the host's reader holds is read.
        (nested(MAX_DEPTH), "orjson", json.loads(nested(MAX_DEPTH))),
        (nested(MAX_DEPTH), "json", json.loads(nested(MAX_DEPTH))),
    ],
)
def test_a_payload_that_we_would_not_have_written_means_what_its_format_says(
    backend: Backend, data: bytes, fmt: str, rows: list[Any]
) -> None:
    """With its digest it is an entry like any other, without signing keys; with them it is none."""
    damage(backend, with_payload(data, fmt))
    assert backend.worker(signing_keys=(KEY,), lease=0)._store.inspect(0).payload_bytes == len(data)
    read = list(backend.worker().read(None).rows)
    assert codec.on_own_stack(lambda: repr(read)) == codec.on_own_stack(lambda: repr(rows))
    assert version_of(backend.worker(signing_keys=(KEY,)).read(None)) == 2


# --- who holds the rows, who waits, and whose load fails ------------------------------------------------------------


def test_a_holder_of_the_rows_does_not_need_the_payload(backend: Backend) -> None:
    """Its copy is confirmed by the digest; whoever has none replaces the entry (R2)."""
    holder = backend.worker()
    holder.read(None)
    backend.client.hset(backend.keys.entry, "payload", b"junk")
    backend.system.tick(1)
    assert holder.read(None).source == "redis"
    assert holder.metrics["lease_renewals"] == 1
    stranger = backend.worker()
    assert stranger.read(None).source == "database"
    assert stranger.metrics["entries_rejected"] == 1
    assert backend.worker().read(None).source == "redis"


@pytest.mark.parametrize("settings", [{"stale_if_error": 60}, {"refresh_ahead": 0.5}])
def test_a_damaged_entry_is_no_fallback(backend: Backend, settings: dict[str, Any]) -> None:
    """The load's error is raised; the junk that was offered is not served (R15, R16)."""
    backend.worker(**settings).read(None)
    backend.client.hset(backend.keys.entry, "payload", b'[{"version": 99}]')
    backend.client.pexpire(backend.keys.entry, 30_000)
    worker = backend.worker(**settings)
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        worker.read(None)
    assert worker.metrics["entries_rejected"] == 1
    backend.source.before_read = lambda: None
    assert worker.read(None).source == "database"
    assert backend.worker().read(None).source == "redis"


def test_an_entry_past_this_readers_ttl_is_no_fallback_to_who_did_not_ask_for_one(backend: Backend) -> None:
    """The key may live longer, by another reader's settings or by a time that was changed (R15)."""
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, "loaded_at", "5")
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        backend.worker().read(None)
    with pytest.raises(LookupError):
        backend.worker(stale_if_error=60).read(None)


# --- the other keys -------------------------------------------------------------------------------------------------

LOCKS: dict[str, bytes] = {
    "empty": b"",
    "junk": b"junk",
    "no UTF-8": b"\xff\xfe|1|a/b|1",
    "10 MB of letters": b"a" * 10_000_000,
    "10 MB of bars": b"|" * 10_000_000,
    "10 MB of digits behind a token": b"a|" + b"1" * 10_000_000,
    "a zero byte in it": b"a\x00|1|a/b|1",
    "three parts": b"a|1|a/b",
    "five parts": b"a|1|a/b|1|1",
    "a grant time that no double holds": b"a|99999999999999999|a/b|1",
    "another incarnation": b"a|1|a/b|1",
}


def used_in_every_way(backend: Backend) -> None:
    """Read, look, force, withdraw and read again; nothing of it raises, and what is read is right."""
    worker, other = backend.worker(), backend.worker()
    assert version_of(worker.read(None)) == backend.source.version
    assert version_of(other.read(None)) == backend.source.version
    worker.inspect()
    backend.source.version += 1
    assert version_of(worker.read(None, force=True)) == backend.source.version
    backend.source.version += 1
    receipt = worker.invalidate()
    assert receipt.existed
    assert receipt.logged
    assert worker.read(None).source == "database"
    assert [version_of(one.read(None)) for one in (worker, other)] == [backend.source.version] * 2
    assert other.metrics["store_errors"] == worker.metrics["store_errors"] == 0
    assert not backend.client.exists(backend.keys.guard, backend.keys.lock)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_that_is_none_of_ours_blocks_nobody(backend: Backend, name: str) -> None:
    """It counts as absent, and the next fill's takes its place (R2); nothing was lost, so nothing is counted."""
    backend.client.set(backend.keys.lock, LOCKS[name])
    used_in_every_way(backend)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", ["entry", "lock", "events", "invalidations", "guard"])
def test_a_foreign_type_under_any_key_is_replaced(backend: Backend, key: str, kind: str) -> None:
    """Also where nothing but a history is lost by it; what never exists is deleted."""
    name = getattr(backend.keys, key)
    put_type(backend.client, name, kind)
    used_in_every_way(backend)
    ours = {"entry": b"hash", "events": b"stream", "invalidations": b"stream"}
    assert backend.client.type(name) == ours.get(key, b"none")


EVENTS: dict[str, dict[Any, Any]] = {
    "foreign fields": {"a": "b"},
    "no UTF-8": {b"\xff": b"\xfe", b"event": b"\xff", b"source": b"\xff\n"},
    "numbers that nobody holds": dict.fromkeys(
        ("time", "load_us", "bytes", "loaded_at", "existed", "digest"), "9" * 5000
    )
    | {"event": "filled"},
    "numbers beyond floats": dict.fromkeys(("time", "load_us", "bytes", "loaded_at"), "9" * 400) | {"event": "filled"},
    "digits of another script": dict.fromkeys(("time", "load_us", "bytes"), "٣" * 16) | {"event": "filled"},
    "negative numbers": dict.fromkeys(("time", "load_us", "bytes", "loaded_at"), "-1") | {"event": "filled"},
    "terminal commands": {"event": "\x1b[2J", "by": "\x1b]0;x\x07", "reason": "\r\n\u202e", "who": "\x9b"},
    "1 MB": {"event": "filled", "source": "x" * 1_000_000},
    "a thousand fields": {f"field{number}": "x" for number in range(1000)},
}


@pytest.mark.parametrize("name", EVENTS)
def test_foreign_events_disturb_nobody(backend: Backend, name: str) -> None:
    """The streams are no evidence: readers take nothing from them, and people are shown what is there."""
    for key in (backend.keys.events, backend.keys.invalidations):
        backend.client.xadd(key, EVENTS[name])
    used_in_every_way(backend)


def test_waiters_are_woken_by_foreign_events_and_ask_again(backend: Backend) -> None:
    """An event says nothing but that there may be news (R11)."""
    filler, waiter = backend.worker(), backend.worker()
    wait = waiter._store.await_event
    woken: list[bytes] = []

    def foreign(after: bytes, seconds: float) -> None:
        woken.append(after)
        if len(woken) < 4:
            backend.client.xadd(backend.keys.events, {b"\xff": b"\xff" * 1000})
        else:
            backend.source.after_read = lambda: None
            backend.client.delete(backend.keys.lock)
        wait(after, seconds)

    waiter._store.await_event = foreign  # type: ignore[method-assign]
    backend.source.after_read = lambda: None if woken else meanwhile()

    def meanwhile() -> None:
        assert version_of(waiter.read(None)) == 1

    assert version_of(filler.read(None)) == 1
    assert len(woken) == 4
    assert waiter.metrics["waits"] == 4


# --- what people are shown ------------------------------------------------------------------------------------------


def document(cache: SharedCache, *, draw: bool = True) -> dict[str, Any]:
    """Give what ``kcg-cache status`` shows, drawn as well."""
    shown = status._document(cache, cache.inspect(64), {}, 64)
    json.dumps(shown)
    if not draw:
        return shown
    output = Output(as_json=False)
    output.show(shown, *status._parts(output, shown))
    return shown


@pytest.mark.parametrize("name", EVENTS)
def test_status_shows_foreign_events(backend: Backend, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """What it cannot read it leaves out, and nothing commands the terminal."""
    for key in (backend.keys.events, backend.keys.invalidations):
        backend.client.xadd(key, EVENTS[name])
    shown = document(backend.worker())
    assert len(shown["events"]) == len(shown["invalidations"]) == 1
    assert not set("\x1b\x07\x9b\u202e") & set(capfd.readouterr().out)


@pytest.mark.parametrize("name", LOCKS)
def test_status_shows_foreign_locks(backend: Backend, name: str) -> None:
    """One that has the form of a lock is shown as such, and whether it counts; anything else is no lock."""
    backend.client.set(backend.keys.lock, LOCKS[name])
    lock = document(backend.worker())["lock"]
    assert lock is None or not lock["of_this_server"]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (_, reason) in REJECTED_BY_ALL.items()
        if reason not in ("digest", "payload", "oversized", "unpacked", "bomb")
    ]
    + ["another incarnation", "an empty incarnation", "half an incarnation", "an incarnation of no UTF-8"],
)
def test_status_says_why_readers_do_not_take_an_entry(backend: Backend, name: str) -> None:
    """As far as it can be told without the payload, which it does not fetch."""
    damage(backend, REJECTED_BY_ALL[name][0] if name in REJECTED_BY_ALL else UNCOUNTED_BY_ALL[name])
    assert document(backend.worker())["entry"]["refused_because"]


def copied(backend: Backend, times: int) -> Dataset:
    """Give a dataset of so many rows."""
    return Dataset("numbers", lambda conn: backend.source.load(conn) * times, transactional=False)


def test_status_tells_the_size_in_redis_and_that_it_is_compressed(
    backend: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not that of the rows, which only their payload could tell."""
    for copies, words in ((1, ["B"]), (500, ["B,", "compressed"])):
        worker = backend.worker(copied(backend, copies))
        worker.read(None, force=True)
        assert document(worker)["entry"]["payload_bytes"] == len(backend.entry()["payload"])
        (line,) = [line for line in capfd.readouterr().out.splitlines() if line.strip().startswith("size ")]
        assert line.split() == ["size", str(len(backend.entry()["payload"])), *words]


@pytest.mark.parametrize("name", [*REJECTED_WITH_KEYS, *BELIEVED_BY_ALL])
def test_status_shows_entries_that_were_changed(backend: Backend, name: str) -> None:
    """And to whoever has keys it says that the signature is none."""
    damage(backend, (REJECTED_WITH_KEYS | BELIEVED_BY_ALL)[name])
    assert document(backend.worker())["entry"]["refused_because"] is None
    refused = document(backend.worker(signing_keys=(KEY,)))["entry"]["refused_because"]
    assert bool(refused) == (name in REJECTED_WITH_KEYS)


# --- anything at all ------------------------------------------------------------------------------------------------

_numbers = st.sampled_from([b"0", b"-1", b"nan", b"inf", b"-inf", b"1e308", b"-1e309", b"9" * 16, b"9" * 400, b"+5"])
_bytes = st.binary(max_size=40) | _numbers | st.text(max_size=20).map(lambda text: text.encode(errors="replace"))
_keys = st.sampled_from(["entry", "lock", "events", "invalidations", "guard"])
#: What someone may do to our keys: a command, the key that it is for, and what follows.
_commands = st.one_of(
    st.tuples(st.just("HSET"), st.just("entry"), st.sampled_from(FIELDS), _bytes),
    st.tuples(st.just("HSET"), st.just("entry"), _bytes, _bytes),
    st.tuples(st.just("HDEL"), st.just("entry"), st.sampled_from(FIELDS)),
    st.tuples(st.just("SET"), _keys, _bytes),
    st.tuples(st.just("APPEND"), st.just("lock"), _bytes),
    st.tuples(st.just("DEL"), _keys),
    st.tuples(st.just("LPUSH"), _keys, _bytes),
    st.tuples(st.just("SADD"), _keys, _bytes),
    st.tuples(st.just("HSET"), _keys, _bytes, _bytes),
    st.tuples(st.just("XADD"), _keys, st.just("*"), _bytes, _bytes),
    st.tuples(st.just("XADD"), st.just("events"), st.just("*"), st.just("event"), st.just("filled"), _bytes, _bytes),
    st.tuples(st.just("PERSIST"), _keys),
)


def scribbled_and_read(client: Any, commands: list[tuple[Any, ...]], keys: tuple[bytes, ...]) -> None:
    """Fill, let someone scribble under our keys, and be two readers, an operator and a watcher of it."""
    client.flushall()
    source, chosen, system = Source(), Settings(signing_keys=keys), TickedSystem()
    ours = Keys.of(chosen.namespace, "numbers")

    def worker() -> SharedCache:
        return SharedCache(client, source.dataset(), chosen, system=system)

    worker().read(None)
    for command, key, *arguments in commands:
        try:
            client.execute_command(command, getattr(ours, key), *arguments)
        except redis.ResponseError:
            continue  # a key of another type by now
    first, second = worker(), worker()
    document(first, draw=False)
    for reader in (first, second):
        assert reader.read(None).rows == ({"version": 1, "nested": {"list": [1, {"x": "가"}]}},)
        assert reader.metrics["store_errors"] == 0
    assert second.read(None).source == "near"
    assert second.metrics["loads"] == 0
    assert first.metrics["entries_rejected"] <= 1
    assert second.invalidate().logged
    assert first.read(None).source == "database"


@hypothesis_settings(max_examples=200)
@given(commands=st.lists(_commands, min_size=1, max_size=6), keys=st.sampled_from([(), (KEY,)]))
def test_nothing_that_anyone_writes_under_our_keys_gives_wrong_rows_or_an_error(
    commands: list[tuple[Any, ...]], keys: tuple[bytes, ...]
) -> None:
    """For as long as nobody makes a digest match; and what is there afterwards is right for everyone."""
    client = testing.fake_redis()
    scribbled_and_read(client, commands, keys)
    client.close()


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(_commands, min_size=1, max_size=6), keys=st.sampled_from([(), (KEY,)]))
def test_nor_does_it_on_a_real_server(
    valkey_server: EmbeddedValkey, commands: list[tuple[Any, ...]], keys: tuple[bytes, ...]
) -> None:
    """Whose types, streams and numbers are the real ones."""
    with real_client(valkey_server.url) as bounded:
        scribbled_and_read(bounded, commands, keys)
