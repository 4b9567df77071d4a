"""Cold rows, warm rows and plain rows are the same, for everything that JSON can say."""

import enum
import json
import math
import uuid
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kcg_cache import DatasetError, Settings, codec
from kcg_cache.codec import MAX_DEPTH, Claim, check_signature, decode, digest_of, encode, on_own_stack, sign
from kcg_cache.compression import THRESHOLD, zstd
from kcg_cache.errors import EntryError
from tests.frames import bomb, frame

MOST = Settings().max_payload

# Two lone surrogates in a row are one character as soon as JSON has said them: no JSON text gives such a str.
texts = st.text() | st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010)).filter(
    lambda text: text == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
integers_of_any_size = st.integers(min_value=-(10**400), max_value=10**400)
values = st.recursive(
    scalars | integers_of_any_size,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
rows_of_json = st.lists(st.dictionaries(texts, values, max_size=4), max_size=4)


def exactly(value: Any) -> str:
    """Give what tells a value apart from every other: 1, 1.0, True, 0.0 and -0.0 are five values."""
    return repr(value)


@given(rows_of_json)
@example([{"n": 2**63, "m": -(2**63) - 1, "x": 10**23}])
@example([{"z": -0.0, "tiny": 5e-324, "big": 1.7976931348623157e308, "inf": math.inf}])
@example([{"\ud800": "\udfff", "": "\x00"}])
@example([{"plain": 1}, {"odd": 2**64, "가": "é"}, {"plain": 2.0}])
@example([])
@example([{}])
def test_what_is_read_back_is_exactly_what_was_loaded(rows: list[dict[str, Any]]) -> None:
    """Through whichever format; numbers keep their type and sign."""
    payload = encode("d", rows)
    read = decode(payload.data, payload.format, payload.digest, max_payload=MOST)
    assert exactly(list(read)) == exactly(rows)
    assert exactly(payload.rows) == exactly(read)  # whoever encoded them has the same ones, without decoding


@given(rows_of_json, st.integers(min_value=0, max_value=3))
@example([{"a": "x" * (THRESHOLD - 11)}], 0)  # a byte below the threshold, on it, and one above
@example([{"a": "x" * (THRESHOLD - 10)}], 0)
@example([{"a": "x" * (THRESHOLD - 9)}], 0)
@example([{"n": 2**64}], 3)
def test_it_is_so_on_either_side_of_the_threshold(rows: list[dict[str, Any]], power: int) -> None:
    """What is packed says so, and its digest and size are those of what is in it."""
    rows = [*rows, {"filler": "ab" * 1000}] * 2**power
    payload = encode("d", rows)
    read = decode(payload.data, payload.format, payload.digest, max_payload=payload.size)
    assert exactly(list(read)) == exactly(rows)
    assert exactly(payload.rows) == exactly(read)
    raw = payload.data
    if payload.format.endswith("+zstd"):
        raw = zstd.decompress(payload.data)
        assert len(payload.data) <= len(raw) * 7 / 8
    assert payload.format.endswith("+zstd") == (len(raw) >= THRESHOLD)
    assert (payload.size, payload.digest) == (len(raw), digest_of(raw))


@pytest.mark.parametrize(
    ("fmt", "means"),
    [
        ("orjson", "orjson"),
        ("json", "json"),
        ("orjson+zstd", "orjson"),
        ("json+zstd", "json"),
        ("orjson+zstd+zstd", "orjson+zstd"),
        ("protobuf/9", "protobuf/9"),
        ("", ""),
    ],
)
def test_how_a_payload_is_packed_is_no_part_of_what_its_format_means(fmt: str, means: str) -> None:
    """A near copy is confirmed by the same rows, packed otherwise."""
    assert codec.meaning(fmt) == means


@pytest.mark.parametrize(("numbers", "fmt"), [(2**63, "orjson+zstd"), (2**64, "json+zstd")])
def test_a_packed_payload_means_what_its_format_says(numbers: int, fmt: str) -> None:
    """The standard library's format has integers that orjson's has not."""
    rows = [{"n": numbers}] * 1000
    payload = encode("d", rows)
    assert payload.format == fmt
    assert exactly(list(decode(payload.data, fmt, payload.digest, max_payload=MOST))) == exactly(rows)


def test_of_a_packed_payload_no_more_than_the_limit_is_read() -> None:
    """A host that may hold less than the one that wrote it refuses it (R14)."""
    payload = encode("d", [{"a": 1}] * 1000)
    assert decode(payload.data, payload.format, payload.digest, max_payload=payload.size)
    for data, most in ((payload.data, payload.size - 1), (bomb(2**30), MOST)):
        with pytest.raises(EntryError, match="over max_payload") as refused:
            decode(data, payload.format, payload.digest, max_payload=most)
        assert refused.value.reason == "oversized"


def test_rows_are_asked_for_one_at_a_time_and_not_kept() -> None:
    """Of a large dataset there is never a second tree of plain containers, which the collector would walk."""

    class Row(dict[str, Any]):
        """A row that can be watched going away."""

    born: list[weakref.ref[Row]] = []

    def rows() -> Iterator[Row]:
        for number in range(5):
            row = Row(number=number)
            born.append(weakref.ref(row))
            yield row
            del row
            assert sum(ref() is not None for ref in born) <= 1

    assert encode("d", rows()).rows == tuple({"number": number} for number in range(5))


@pytest.mark.parametrize(
    ("value", "fmt"),
    [
        (2**63 - 1, "orjson"),
        (2**64 - 1, "orjson"),
        (2**64, "json"),
        (-(2**63), "orjson"),
        (-(2**63) - 1, "json"),
        (math.inf, "json"),
        (1.5, "orjson"),
        ("\ud800", "json"),
        ((1, (2,)), "orjson"),
    ],
)
def test_what_orjson_cannot_say_goes_through_the_standard_library(value: Any, fmt: str) -> None:
    """And the format says so."""
    assert encode("d", [{"v": value}]).format == fmt


def test_not_a_number_comes_back_as_such() -> None:
    """Orjson would have written null."""
    payload = encode("d", [{"v": math.nan}])
    assert payload.format == "json"
    assert math.isnan(decode(payload.data, payload.format, payload.digest, max_payload=MOST)[0]["v"])


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def at_depth_of(frames: int, work: Any) -> Any:
    return work() if frames == 0 else at_depth_of(frames - 1, work)


@pytest.mark.parametrize("levels", [252, 253, 254, 255])
def test_what_orjson_writes_is_left_to_it(levels: int) -> None:
    """It writes 254 levels, of which the row is one."""
    payload = encode("d", [{"v": nested(levels)}])
    assert payload.format == ("orjson" if levels <= 253 else "json")
    assert payload.rows == ({"v": nested(levels)},)


@pytest.mark.parametrize("levels", [200, 254, 255, 256, 500, MAX_DEPTH - 1])
def test_any_depth_up_to_the_limit_is_shared_however_deep_the_callers_stack_is(levels: int) -> None:
    """A host whose calls are nested deeper reads the same entry."""
    rows = [{"v": nested(levels)}]
    payload = encode("d", rows)
    assert at_depth_of(700, lambda: decode(payload.data, payload.format, payload.digest, max_payload=MOST))
    assert at_depth_of(700, lambda: encode("d", rows)) == payload


def nested_in_dicts(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"in": value}
    return value


def test_beyond_the_limit_a_row_is_refused_in_words() -> None:
    """It says which, and the limit is the same for lists and dicts: the row is the first level."""
    for nest in (nested, nested_in_dicts):
        payload = encode("d", [{"v": nest(MAX_DEPTH - 1)}])
        assert decode(payload.data, payload.format, payload.digest, max_payload=MOST)
        with pytest.raises(DatasetError, match=r"row 0 is nested more than 950 levels"):
            encode("d", [{"v": nest(MAX_DEPTH)}])


def test_what_json_does_not_have_is_refused_however_deep_the_callers_stack_is() -> None:
    """Where no stack is left to compare what was written with what was given, it does not pass for the same."""
    rows = [{"v": nested(240), "id": None}]
    rows[0]["v"].append(uuid.UUID(int=1))
    for frames in (0, 700, 800):
        with pytest.raises(DatasetError, match=r"row 0\['v'\]\[1\] is UUID"):
            at_depth_of(frames, lambda: encode("d", rows))


def test_rows_that_orjson_can_say_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way, one object at a time, is for the rest."""
    monkeypatch.setattr(codec, "plain", None)
    assert encode("d", [{"a": [1, 2.5, "x", {"b": None}]}, {}]).format == "orjson"


@pytest.mark.parametrize("row", [1, [1], None, "text"])
def test_a_row_that_is_no_dict_is_refused_with_dataset_and_number(row: Any) -> None:
    """A dataset's own decode_row may give one."""
    with pytest.raises(DatasetError, match=rf"dataset 'd': row 1 is {type(row).__name__}, not a dict"):
        encode("d", [{}, row])


def test_a_row_may_be_any_mapping() -> None:
    """Drivers have row types of their own."""
    payload = encode("d", [MappingProxyType({"a": MappingProxyType({"b": 1})})])
    assert (payload.data, payload.format) == (b'[{"a":{"b":1}}]', "orjson")


def test_work_on_a_stack_of_its_own_gives_and_raises_what_it_would() -> None:
    """The caller sees no difference."""
    assert on_own_stack(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        on_own_stack(lambda: 1 // 0)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [datetime(2026, 1, 1, tzinfo=UTC), uuid.UUID(int=1), Decimal("1.5"), Colour.RED, b"bytes", {1, 2}, object()],
)
def test_what_json_does_not_have_is_refused_with_the_path_to_it(value: Any) -> None:
    """Nothing is turned into text silently: every reader would get another value than the loader's."""
    with pytest.raises(DatasetError, match=r"row 1\['a'\]\[1\] is \w+, which JSON does not have"):
        encode("d", [{}, {"a": [0, value]}])


def test_a_key_that_is_no_text_is_refused() -> None:
    """The standard library would have written it as text."""
    with pytest.raises(DatasetError, match=r"has the key 1, which is no text"):
        encode("d", [{"a": {1: 2}}])


def test_an_integer_that_python_does_not_read_from_text_is_refused() -> None:
    """More than 4300 digits."""
    for number in (10**5000, 10**4300, -(10**4300)):
        with pytest.raises(DatasetError, match=r"row 0\['a'\] is an integer of more digits"):
            encode("d", [{"a": number}])
    payload = encode("d", [{"a": 10**4300 - 1}])
    assert decode(payload.data, payload.format, payload.digest, max_payload=MOST)[0]["a"] == 10**4300 - 1


@pytest.mark.parametrize(
    ("data", "fmt", "digest", "reason"),
    [
        (b"[]", "orjson+lz4", digest_of(b"[]"), "format"),
        (b"[]", "orjson+zstd+zstd", digest_of(b"[]"), "format"),
        (b"[]", "orjson+zstd", digest_of(b"[]"), "payload"),
        (b"[]", "json+zstd", digest_of(b"[]"), "payload"),
        (frame(b"[]"), "orjson", digest_of(frame(b"[]")), "payload"),
        (frame(b"[]"), "orjson+zstd", digest_of(frame(b"[]")), "digest"),
        (frame(b"[]")[:-1], "orjson+zstd", digest_of(b"[]"), "payload"),
        (frame(b"[]") + b"]", "orjson+zstd", digest_of(b"[]"), "payload"),
        (frame(b"{}"), "orjson+zstd", digest_of(b"{}"), "payload"),
        (frame(b"["), "json+zstd", digest_of(b"["), "payload"),
        (frame(b'[{"a": NaN}]'), "orjson+zstd", digest_of(b'[{"a": NaN}]'), "payload"),
        (b"[]", "orjson", "0" * 32, "digest"),
        (b"[", "orjson", digest_of(b"["), "payload"),
        (b"[", "json", digest_of(b"["), "payload"),
        (b"{}", "orjson", digest_of(b"{}"), "payload"),
        (b"[1]", "orjson", digest_of(b"[1]"), "payload"),
        (b"[" * 100_000, "json", digest_of(b"[" * 100_000), "payload"),
        (b"[" * 100_000, "orjson", digest_of(b"[" * 100_000), "payload"),
        (b"\xff", "json", digest_of(b"\xff"), "payload"),
        *[
            (data, "json", digest_of(data), "payload")
            for data in ("[]".encode("utf-16"), b"\xef\xbb\xbf[]", b'[{"a": "\xed\xa0\x80\xed\xb0\x80"}]')
        ],
        (b'[{"a": ' + b"9" * 5000 + b"}]", "json", digest_of(b'[{"a": ' + b"9" * 5000 + b"}]"), "payload"),
        (b'[{"a": NaN}]', "orjson", digest_of(b'[{"a": NaN}]'), "payload"),  # that would be another format's
    ],
)
def test_a_payload_that_is_not_what_it_says_is_an_entry_error(data: bytes, fmt: str, digest: str, reason: str) -> None:
    """With the reason by which it is counted (R14)."""
    with pytest.raises(EntryError) as refused:
        decode(data, fmt, digest, max_payload=MOST)
    assert refused.value.reason == reason
    assert reason in str(refused.value)


CLAIM = Claim("n", "d", "orjson", "1/db", "0" * 32, "5", "6", "a/b")
KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
#: BLAKE2b of 32 bytes over each part behind its length in 8 bytes, with KEY and the person "kcg_cache.sig.v1".
SIGNATURE = "08c41aa9da6ecfe822b46ed0647796f15aaf49c4145dcd2cb3c0aa9f69e97bea"
#: With the one byte 0xff as source.
SIGNATURE_OF_FOREIGN_BYTES = "521c4473f24bdf766d90688f0e82509d5776c94cc98e20f929b3e3a9650c8edb"


def test_a_signature_vouches_for_every_part_of_the_claim() -> None:
    """Dataset, format, source, digest, loaded_at and incarnation; and for where one ends and the next begins."""
    signature = sign([KEY], CLAIM)
    check_signature([KEY], signature, CLAIM)
    for field in CLAIM._fields:
        with pytest.raises(EntryError):
            check_signature([KEY], signature, CLAIM._replace(**{field: "x"}))
    with pytest.raises(EntryError):
        check_signature([KEY], sign([KEY], CLAIM._replace(dataset="do", format="rjson")), CLAIM)


def test_keys_rotate() -> None:
    """The first signs, all are accepted; without keys everything is."""
    assert sign([], CLAIM) == ""
    check_signature([], "anything", CLAIM)
    check_signature([OTHER, KEY], sign([KEY, OTHER], CLAIM), CLAIM)
    for wrong in ("", "\udcff", sign([OTHER], CLAIM)):
        with pytest.raises(EntryError, match="signing key") as refused:
            check_signature([KEY], wrong, CLAIM)
        assert refused.value.reason == "signature"


def test_where_unsigned_entries_are_accepted_a_wrong_signature_is_not() -> None:
    """While a fleet rolls to keys (docs/signing.md)."""
    check_signature([KEY], "", CLAIM, unsigned=True)
    check_signature([KEY], sign([KEY], CLAIM), CLAIM, unsigned=True)
    for wrong in ("00", sign([OTHER], CLAIM)):
        with pytest.raises(EntryError, match="signing key"):
            check_signature([KEY], wrong, CLAIM, unsigned=True)


def test_the_digest_is_blake2b_128_of_the_payload() -> None:
    """The same on every host and across key rotations."""
    assert digest_of(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert json.loads(encode("d", [{"a": 1}]).data) == [{"a": 1}]


def test_payloads_and_signatures_are_the_same_bytes_on_every_host_and_in_every_release() -> None:
    """Else a fleet of two releases would reload for ever, each rejecting or replacing the other's."""
    assert encode("d", [{"a": 1, "가": [True, None]}]).data == '[{"a":1,"가":[true,null]}]'.encode()
    assert encode("d", [{"a": 2**64, "가": [True, None]}]).data == rb'[{"a":18446744073709551616,"\uac00":[true,null]}]'
    assert sign([KEY], CLAIM) == SIGNATURE
    assert sign([KEY], CLAIM._replace(source="\udcff")) == SIGNATURE_OF_FOREIGN_BYTES


def test_the_first_key_signs() -> None:
    """So that every host can accept a new key before any host signs with it (R14)."""
    assert sign([KEY, OTHER], CLAIM) == sign([KEY], CLAIM) != sign([OTHER], CLAIM)


@pytest.mark.parametrize("value", [{}, {"a": [1, 1.5, None, "가", {"b": True}]}])
def test_what_orjson_reads_back_as_it_was_is_shared_as_it_is(value: object) -> None:
    """No slow way is needed for it."""
    assert codec.says_as_it_is(value)


@pytest.mark.parametrize("value", [{"a": 2**70}, {"a": uuid.UUID(int=0)}, {"a": (1, 2)}, {"a": float("nan")}, {1: 2}])
def test_what_orjson_does_not_say_or_says_as_something_else_is_told(value: object) -> None:
    """Integers beyond 64 bits, what becomes text, what becomes a list, what becomes null, and keys that are no text."""
    assert not codec.says_as_it_is(value)
