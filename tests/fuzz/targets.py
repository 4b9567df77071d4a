"""What is fuzzed, and what has to be true of every input. A target raises for an input that shows a defect."""

import copy
import json
from collections.abc import Callable
from typing import Any

import orjson

from kcg_cache import Settings, codec, lua
from kcg_cache.answers import Current, Entry, Fill, Grant, Question, Wait
from kcg_cache.cli.status import _document
from kcg_cache.compression import zstd
from kcg_cache.datasets import ACTIVE_VERSIONS, json_object, version_row
from kcg_cache.errors import DatasetError, EntryError, StoreReplyError
from kcg_cache.rows import FrozenDict, FrozenList
from kcg_cache.store import Store
from tests.frames import bomb, frame, skippable
from tests.fuzz.provider import Provider

_KEYS = (b"0123456789abcdef", b"fedcba9876543210")
_TOKEN = "a" * 32
#: The most that a payload may be unpacked to, and windows that a frame may ask for.
_MOST = 200_000
_WINDOWS = (10, 17, 19, 20, 31, 41)


def entry(data: bytes) -> None:
    """Decode an entry: signature, digest, format, payload (PROTOCOL R14)."""
    provider = Provider(data)
    payload = provider.json() if provider.byte() % 4 else provider.raw()
    if provider.byte() % 8:
        payload = b"[" + payload + b"]"
    fmt = provider.choice((codec.ORJSON, codec.STDLIB, provider.text()))
    # Behind the digest there is nothing to be found unless it matches.
    digest = codec.digest_of(payload) if provider.byte() % 8 else provider.text()
    source, loaded_at, load_us, incarnation = (provider.text() for _ in range(4))
    keys = provider.choice(((), _KEYS[:1], _KEYS))
    signed_with = provider.choice((keys, _KEYS[1:])) if provider.byte() % 4 else None
    signature = provider.text() if signed_with is None else ""
    if provider.byte() % 8:
        payload, fmt = _packed(provider, payload), fmt + "+zstd"
    claim = codec.Claim("n", "d", fmt, source, digest, loaded_at, load_us, incarnation)
    if signed_with is not None:
        signature = codec.sign(signed_with, claim)
    _check_entry(payload, claim, keys, signature)


def _packed(provider: Provider, payload: bytes) -> bytes:
    """Give a payload as a frame: ours, one by hand, one with more behind it, cut or changed, none at all, or a bomb."""
    ours: bytes = zstd.compress(payload, 1)
    match provider.byte() % 8:
        case 1:
            window, says, dictionary = provider.choice(_WINDOWS), provider.choice((None, len(payload))), None
            says = provider.integer() & 2**64 - 1 if provider.byte() % 4 == 1 else says
            dictionary = provider.byte() if provider.byte() % 4 == 1 else None
            return frame(payload, window_log=window, says=says, dictionary=dictionary)
        case 2:
            return ours + provider.choice((ours, skippable(), provider.raw()))
        case 3:
            return ours[: -1 - provider.byte()]
        case 4:
            changed, at = bytearray(ours), provider.byte() % len(ours)
            changed[at] = provider.byte()
            return bytes(changed)
        case 5:
            return provider.choice((bomb(_MOST + provider.integer() % _MOST), ours[:4] + provider.raw(), skippable()))
        case _:
            return ours


def _check_entry(payload: bytes, claim: codec.Claim, keys: tuple[bytes, ...], signature: str) -> None:
    refused = _refusal(lambda: codec.check_signature(keys, signature, claim))
    signed = signature in [codec.sign([key], claim) for key in keys]
    assert refused == ("" if signed or not keys else "signature")
    rows: list[tuple[Any, ...]] = []
    refused = _refusal(lambda: rows.append(codec.decode(payload, claim.format, claim.digest, max_payload=_MOST)))
    packed = claim.format.endswith("+zstd")
    assert refused in ("", "format", "digest", "payload") or (refused == "oversized" and packed)
    assert (refused == "format") == (claim.format not in codec.FORMATS)
    if packed and not refused:
        payload = zstd.decompress(payload)
        assert len(payload) <= _MOST
    if not refused or (refused == "payload" and not packed):
        assert claim.digest == codec.digest_of(payload)
    if not refused:
        _check_rows(payload, codec.meaning(claim.format), rows[0])


def _refusal(work: Callable[[], object]) -> str:
    """Give the reason of an `EntryError`, '' for none; its message is one that a log line can have."""
    try:
        work()
    except EntryError as error:
        message, reason = str(error), error.reason
    else:
        return ""
    assert message.isprintable()
    assert len(message) < 1000
    return reason


def _check_rows(payload: bytes, fmt: str, rows: tuple[Any, ...]) -> None:
    plain = orjson.loads(payload) if fmt == codec.ORJSON else codec.on_own_stack(lambda: json.loads(payload.decode()))
    assert _told(rows) == _told(tuple(plain))
    _check_frozen(rows)
    assert _told(copy.deepcopy(list(rows))) == _told(plain)
    try:
        again = codec.encode("d", list(rows))
    except DatasetError as error:
        if "levels deep" not in str(error):  # deeper than we share: no encoder of ours has written it
            raise
        return
    assert _told(codec.decode(again.data, again.format, again.digest, max_payload=again.size)) == _told(rows)


def reply(data: bytes) -> None:
    """Read what a script answers, with parts that no script gives."""
    provider = Provider(data)
    name = provider.choice(("read", "read", "publish", "renew", "release", "invalidate", "inspect"))
    answer: Any = [_part(provider, name, part) for part in lua.load(name).replies]
    match provider.byte() % 16:
        case 1:
            answer = answer[:-1]
        case 2:
            answer = provider.choice((None, b"OK", 5, "text", {}))
    store, client = _store()
    client.answer = answer
    # A payload of b"" is fetched: mostly with what the answer names; but any part may be none that an HMGET gives.
    client.fetched = [_part(provider, name, part) for part in ("digest", "loaded_at", "incarnation", "payload")]
    match provider.byte() % 8:
        case 0:
            client.fetched = provider.choice((None, b"OK", 5, "text", {}, client.fetched[:3]))
        case 1 | 2:
            pass
        case _:
            named = dict(zip(lua.load("read").replies, answer, strict=False)) if isinstance(answer, list) else {}
            client.fetched[:3] = [named.get(part) for part in ("digest", "loaded_at", "incarnation")]
    grant = Grant(_TOKEN, "1", "a/b", "1")
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: store.read(Question(token=_TOKEN)),
        "publish": lambda: store.publish(grant, _EMPTY, load_us=1, source="", signature="", by=""),
        "renew": lambda: store.renew(grant),
        "release": lambda: store.release(grant, "", by=""),
        "invalidate": lambda: store.invalidate(who="", host="", reason=""),
        "inspect": lambda: store.inspect(3),
    }
    before, client.asked = repr(answer), 0
    try:
        outcome = calls[name]()
    except StoreReplyError:
        return
    finally:
        assert repr(answer) == before
        assert client.asked <= 7
    if isinstance(outcome, (Current, Fill, Wait)):
        told = outcome.entry if isinstance(outcome, Current) else outcome.fallback
        if told is not None:
            _check_told(told)
    if name == "inspect":
        json.dumps(_document(_Watched(), outcome, {}, 3))  # type: ignore[arg-type]


def _check_told(told: Entry) -> None:
    # What the cache then does with it: see SharedCache._believed.
    int(told.loaded_at)
    assert told.age >= 0
    assert abs(told.fresh) + abs(told.life) < float("inf")
    _check_entry(told.payload or b"", told.claim("n", "d"), _KEYS[:1], told.signature)


def _part(provider: Provider, script: str, name: str) -> Any:
    """Give one part of an answer: mostly what the script could say, of which entries give the text of some."""
    kind = provider.byte()
    if kind >= 240:
        return provider.choice((None, 5, -1, [], [b"a"], [None], "text", 1.5))
    if script == "inspect" and name in ("entry", "events", "invalidations"):
        pairs = [provider.raw() for _ in range(provider.byte() % 8)] + [b"digest"] * (kind % 2)
        return pairs if name == "entry" else [[b"1-1", pairs]]
    if kind < 128 and name in _LIKELY:
        return provider.choice(_LIKELY[name])
    return provider.raw()


_NUMBERS = (b"1", b"0", b"-1", b"1700000000000000", b"9" * 400, b"-" + b"9" * 400, b"9" * 5000, b"", b"-inf", b" 5")
_LIKELY: dict[str, tuple[bytes, ...]] = {
    "asked": (_TOKEN.encode(),),
    "kind": (b"ROWS", b"SAME", b"FILL", b"WAIT"),
    "status": (b"PUBLISHED", b"RENEWED", b"RELEASED", b"REJECTED"),
    "copy": (b"rows", b"same", b""),
    "format": (b"orjson", b"json", b"orjson+zstd", b"json+zstd"),
    "payload": (b"[]", b'[{"a":1}]', b"", frame(b"[]"), frame(b'[{"a":1}]'), bomb(_MOST + 1)),
    "digest": tuple(codec.digest_of(payload).encode() for payload in (b"[]", b'[{"a":1}]')),
    "lock": (b"", b"a|1|a/b|1", b"a|" + b"9" * 5000 + b"|a/b|1"),
    **dict.fromkeys(
        ("time", "loaded_at", "fresh_ms", "life_ms", "lock_left_ms", "entry_ttl_ms", "lock_ttl_ms", "payload_bytes"),
        _NUMBERS,
    ),
}


class _Pool:
    connection_kwargs: dict[str, Any] = {"socket_timeout": 1.0}  # noqa: RUF012 - nobody changes it
    timeout = 0.0

    def disconnect(self, *, inuse_connections: bool) -> None:
        """Forget nothing."""


class _Client:
    """A client that gives one answer to every script, and one to whoever fetches a payload."""

    kcg_cache_in_process = True
    connection_pool = _Pool()
    answer: Any = None
    fetched: Any = None
    #: Commands so far.
    asked = 0

    def execute_command(self, *command: Any, **_options: Any) -> Any:
        """Give it."""
        self.asked += 1
        return self.fetched if command[0] == "HMGET" else self.answer


class _Watched:
    """As much of a cache as ``status`` looks at."""

    settings = Settings()
    dataset = ACTIVE_VERSIONS


_EMPTY = codec.encode("d", [])
_made: list[tuple[Store, _Client]] = []


def _store() -> tuple[Store, _Client]:
    if not _made:
        client = _Client()
        _made.append((Store(client, "d", Settings()), client))
    return _made[0]


def params(data: bytes) -> None:
    """Read params: text, bytes or a dict of a loader's (CONTRACT)."""
    provider = Provider(data)
    given: Any
    match provider.byte() % 6:
        case 0:
            given = provider.json()
        case 1:
            given = provider.json().decode(errors=provider.choice(("replace", "surrogateescape", "ignore")))
        case 2:
            given = bytearray(provider.raw())
        case 3:
            given = provider.text()
        case _:
            given = provider.value()
    before = _told(given)
    complaints: list[str] = []
    row = version_row({"id": 7, "model_id": "m", "params": given}, complaints.append)
    assert _told(given) == before
    try:
        read = json_object(given)
    except DatasetError:
        assert row["params"] == {}
        assert len(complaints) == 1
        assert complaints[0].startswith("params of row id=7 became {}: ")
    else:
        assert not complaints
        assert _told(read) == _told(row["params"])
        if isinstance(given, (str, bytes, bytearray)):
            text = given if isinstance(given, str) else given.decode()
            assert _told(read) == _told(codec.on_own_stack(lambda: json.loads(text)))
    # One bad row never costs the others: whatever came out of it can be shared.
    shared = codec.encode("d", [row])
    rows = codec.decode(shared.data, shared.format, shared.digest, max_payload=shared.size)
    # Of two lone surrogates in a row JSON makes one character; of everything else what it was.
    told = _told([row])
    assert _told(list(rows)) == told or "\\ud" in repr(told)
    again = codec.encode("d", list(rows))
    assert _told(codec.decode(again.data, again.format, again.digest, max_payload=again.size)) == _told(rows)


def _check_frozen(rows: tuple[Any, ...]) -> None:
    pending: list[Any] = list(rows)
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            assert type(value) is FrozenDict
            pending.extend(value.values())
        elif isinstance(value, list):
            assert type(value) is FrozenList
            pending.extend(value)


def _told(value: Any) -> list[Any]:
    """Give what tells a value from every other, however deep: 1, 1.0, True, 0.0, -0.0 and NaN are six values."""
    told: list[Any] = []
    pending = [value]
    while pending:
        here = pending.pop()
        if isinstance(here, dict):
            told.append(("dict", len(here)))
            for key, inner in here.items():
                told.append(repr(key))
                pending.append(inner)
        elif isinstance(here, (list, tuple)):
            told.append((isinstance(here, tuple) and not told, len(here)))
            pending.extend(here)
        else:
            told.append((type(here), here if isinstance(here, (int, str)) else repr(here)))
    return told


TARGETS: dict[str, Callable[[bytes], None]] = {"entry": entry, "reply": reply, "params": params}
