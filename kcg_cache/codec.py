"""Rows to payload and back, its digest, and the signature of an entry. Pure: no I/O.

Two formats. `ORJSON` is orjson's, for all that it writes and reads back equal. `STDLIB` is the standard library's
json, for the rest that JSON of Python can hold: integers beyond 64 bits, depth over 254, numbers that are not finite,
lone surrogates. Which one it is stands in the entry's ``format``, so that a value means the same to whoever reads it.
Behind it ``+zstd`` says that the payload is packed (`kcg_cache.compression`); the digest is that of the unpacked one.
"""

import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from kcg_cache import compression
from kcg_cache.errors import DatasetError, EntryError
from kcg_cache.rows import FrozenDict, freeze, frozen_row

ORJSON = "orjson"
STDLIB = "json"
_PACKED = "+zstd"
FORMATS = (ORJSON, STDLIB, ORJSON + _PACKED, STDLIB + _PACKED)

#: The most levels of nesting that are shared. Every supported Python reads them, with an empty stack (`on_own_stack`)
#: and its default recursion limit: what one host could hold and another could not would be reloaded for ever.
MAX_DEPTH = 950

# Python reads and writes no more than 4300 digits at a time, by default.
_INT_BOUND = 10**4300

_DIGEST_BYTES = 16
_SIGNATURE_BYTES = 32
_PERSON = b"kcg_cache.sig.v1"  # 16 bytes, BLAKE2b's most: a signature of ours is no other use of the same key


class Payload(NamedTuple):
    """Encoded rows: the bytes that are shared, and the digest, format and size of what they say."""

    #: As they are sent: packed, if the format says so.
    data: bytes
    digest: str
    format: str
    #: In bytes, unpacked: what `max_payload` bounds, on every host alike.
    size: int
    #: What everybody reads from `data`, immutable: whoever encoded them need not decode them.
    rows: tuple[Any, ...]


def digest_of(data: bytes) -> str:
    """Give the unkeyed BLAKE2b-128 of an uncompressed payload, as hex: its identity and integrity everywhere."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def encode(dataset: str, rows: Iterable[Any], row_type: type[Mapping[str, Any]] = FrozenDict) -> Payload:
    """Encode JSON-able dicts; raise `DatasetError` naming row and key for anything else.

    One row at a time, each let go before the next is asked for: see `kcg_cache.rows.freeze`.
    """
    parts: list[bytes] = []
    frozen: list[Any] = []
    odd: list[tuple[int, dict[str, Any]]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DatasetError(f"dataset {dataset!r}: row {number} is {type(row).__name__}, not a dict")
        part, back = _orjson_round_trip(row)
        if part is None or not _identical(back, row):
            # Something that orjson cannot say, or turns into text on its own (a datetime), or something that merely
            # looks different (a tuple for a list).
            copy = plain(row, path=f"dataset {dataset!r}: row {number}")
            part, back = _orjson_round_trip(copy)
            if part is None or not _identical(back, copy):
                odd.append((number, copy))
                part, back = b"", {}
        parts.append(part)
        frozen.append(frozen_row(back, row_type))
    if odd:
        # The rest stays as orjson wrote it: JSON, whose values the standard library reads as the same.
        texts, backs = on_own_stack(lambda: _stdlib_round_trip([copy for _, copy in odd]))
        for (number, _), text, back in zip(odd, texts, backs, strict=True):
            parts[number], frozen[number] = text.encode(), frozen_row(back, row_type)
    data = b"[" + b",".join(parts) + b"]"
    fmt = STDLIB if odd else ORJSON
    packed = compression.packed(data)
    sent, sent_as = (data, fmt) if packed is None else (packed, fmt + _PACKED)
    return Payload(sent, digest_of(data), sent_as, len(data), tuple(frozen))


def meaning(fmt: str) -> str:
    """Give what a format says of the values alone: how the bytes are packed changes none of them."""
    return fmt.removesuffix(_PACKED)


def decode(
    data: bytes, fmt: str, digest: str, row_type: type[Mapping[str, Any]] = FrozenDict, *, max_payload: int
) -> tuple[Any, ...]:
    """Check a payload against its digest and give its rows, immutable (see `kcg_cache.rows`).

    Raises `EntryError` (PROTOCOL R14) whose `reason` is "format", "digest" or "payload", or "oversized" for one that is
    unpacked to more than `max_payload` bytes.
    """
    if fmt not in FORMATS:
        raise EntryError(f"format {fmt[:40]!r} is not known to this version, which reads {FORMATS}", reason="format")
    if fmt.endswith(_PACKED):
        data = compression.unpacked(data, max_payload)
    if digest_of(data) != digest:
        raise EntryError(f"the payload is not the one of digest {digest[:40]!r}", reason="digest")
    try:
        # Decoded here: by itself json guesses at UTF-16, and takes surrogates in UTF-8, which are then no JSON's text.
        rows = orjson.loads(data) if meaning(fmt) == ORJSON else on_own_stack(lambda: json.loads(data.decode()))
    except (ValueError, RecursionError) as error:  # orjson's and json's errors are ValueErrors
        raise EntryError(f"the payload is no JSON: {error}", reason="payload") from error
    if type(rows) is not list or not all(type(row) is dict for row in rows):
        raise EntryError("the payload is no list of objects", reason="payload")
    return freeze(rows, row_type)


class Claim(NamedTuple):
    """What a signature vouches for (PROTOCOL, Words: signature)."""

    namespace: str
    dataset: str
    format: str
    source: str
    digest: str
    loaded_at: str
    #: With `loaded_at` it says when the entry's TTL began: whoever could change it would keep an old entry for ever.
    load_us: str
    incarnation: str


def sign(keys: Sequence[bytes], claim: Claim) -> str:
    """Sign an entry with the first key, as hex; '' without keys."""
    return _signature(keys[0], claim) if keys else ""


def check_signature(keys: Sequence[bytes], signature: str, claim: Claim, *, unsigned: bool = False) -> None:
    """Raise `EntryError` (reason "signature") unless one of `keys` made `signature`; without keys, accept anything.

    With `unsigned` an empty signature is accepted too (`Settings.accept_unsigned`); a wrong one never is. How it is
    made is fixed here: nothing in an entry chooses it.
    """
    if not keys or (unsigned and not signature):
        return
    said = signature.encode(errors="replace")
    # Every key is tried, in constant time each, so that time tells nothing about which one matched.
    matches = [hmac.compare_digest(_signature(key, claim).encode(), said) for key in keys]
    if not any(matches):
        raise EntryError("the entry is not signed by a holder of a signing key", reason="signature")


def _signature(key: bytes, claim: Claim) -> str:
    keyed = hashlib.blake2b(key=key, digest_size=_SIGNATURE_BYTES, person=_PERSON)
    for part in claim:
        raw = part.encode(errors="surrogateescape")
        keyed.update(len(raw).to_bytes(8, "big") + raw)
    return keyed.hexdigest()


def says_as_it_is(value: object) -> bool:
    """Tell whether orjson's JSON of `value` is read back as the very same: then it can be shared as it is."""
    data, back = _orjson_round_trip(value)
    return data is not None and _identical(back, value)


def _orjson_round_trip(value: object) -> tuple[bytes | None, Any]:
    try:
        data = orjson.dumps(value)
        return data, orjson.loads(data)
    except (TypeError, ValueError):  # JSONEncodeError is a TypeError, JSONDecodeError a ValueError
        return None, None


def _stdlib_round_trip(rows: list[dict[str, Any]]) -> tuple[list[str], list[Any]]:
    texts = [json.dumps(row, separators=(",", ":")) for row in rows]
    return texts, [json.loads(text) for text in texts]


def _identical(back: object, value: object) -> bool:
    try:
        return back == value
    except RecursionError:
        return False


def plain(value: object, *, path: str, depth: int = 0) -> Any:
    """Copy `value` as exactly the types that JSON has; in the row it stands `depth` levels deep.

    Raises `DatasetError` with the path to what is none of them, or to what Python could not read back.
    """
    result: list[Any] = [None]
    # Where to put it, under which key, what it is, its depth, and the path to it.
    pending: list[tuple[Any, Any, Any, int, str]] = [(result, 0, value, depth, path)]
    while pending:
        target, slot, source, depth, here = pending.pop()
        if depth > MAX_DEPTH:
            raise DatasetError(f"{path} is nested more than {MAX_DEPTH} levels deep")
        copied: Any
        if isinstance(source, Mapping):
            copied = {}
            for key, child in source.items():
                if not isinstance(key, str):
                    raise DatasetError(f"{here[:200]} has the key {key!r}, which is no text")
                copied[str(key)] = None  # in the order of the source, before the stack turns it round
                pending.append((copied, str(key), child, depth + 1, f"{here}[{key!r}]"))
        elif isinstance(source, (list, tuple)):
            copied = [None] * len(source)
            pending.extend((copied, i, child, depth + 1, f"{here}[{i}]") for i, child in enumerate(source))
        elif source is None or isinstance(source, bool):
            copied = source
        elif isinstance(source, int):
            copied = int(source)
            if abs(copied) >= _INT_BOUND:
                raise DatasetError(f"{here[:200]} is an integer of more digits than Python reads from text")
        elif isinstance(source, float):
            copied = float(source)
        elif isinstance(source, str):
            copied = str.__str__(source)
        else:
            raise DatasetError(
                f"{here[:200]} is {type(source).__name__}, which JSON does not have: "
                "let load() turn it into text, number, list or dict"
            )
        target[slot] = copied
    return result[0]


class _Result:
    """What a piece of work gave, or raised."""

    value: Any = None
    error: BaseException | None = None


def on_own_stack(work: Callable[[], Any]) -> Any:
    """Run `work` on a thread of its own and give what it gives: json recurses, and an empty stack is the same for all.

    The depth that json can do is what the recursion limit leaves. On the caller's thread that would depend on how
    deeply the caller's calls are nested, so one host would accept an entry that the next one rejects.
    """
    result = _Result()

    def run() -> None:
        try:
            result.value = work()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, below
            result.error = error

    thread = threading.Thread(target=run, name="kcg_cache-json", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # a limit of threads, or the interpreter's end: the stack that is left must do
        return work()
    thread.join()
    if result.error is not None:
        raise result.error
    return result.value
