"""What is packed is unpacked to the same bytes, and nobody's frame to more than the bound."""

import contextlib
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcg_cache.compression import THRESHOLD, packed, unpacked, zstd
from kcg_cache.errors import EntryError
from tests.frames import bomb, frame, skippable, with_a_dictionary

BOUND = 1_000_000
DATA = b'[{"model_id":"detector","threshold":0.5}]' * 100


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - to be repeated


def reason_of(work: Callable[[], object]) -> str:
    with pytest.raises(EntryError) as refused:
        work()
    assert str(refused.value).startswith("the payload is ")
    assert str(refused.value).isprintable()
    return refused.value.reason


@given(st.binary(min_size=1, max_size=200), st.integers(min_value=1, max_value=2000))
def test_what_is_unpacked_is_what_was_packed(part: bytes, times: int) -> None:
    """If it pays; and with a bound of exactly its size."""
    data = part * times
    frame_of_it = packed(data)
    if frame_of_it is not None:
        assert len(data) >= THRESHOLD
        assert len(frame_of_it) <= len(data) * 7 / 8
        assert unpacked(frame_of_it, len(data)) == data


@pytest.mark.parametrize("size", [4096, 4097, 10_000, 500_000, 524_288, 524_289, 5_000_000, 2**23 + 1])
def test_a_bound_of_exactly_the_size_is_enough_and_a_byte_less_is_not(size: int) -> None:
    """Whatever window the compressor chose for it; and it is never taken for a broken one."""
    data = ((noise(1000) + b"\0" * 10_000) * (size // 11_000 + 1))[:size]
    frame_of_it = packed(data)
    assert frame_of_it is not None
    assert unpacked(frame_of_it, size) == data
    for bound in (size - 1, size // 2, 10, 1):
        assert reason_of(lambda bound=bound: unpacked(frame_of_it, bound)) == "oversized"  # type: ignore[misc]


def test_from_the_threshold_on_it_is_packed() -> None:
    """Below it takes more than it gives."""
    assert packed(b"[" + b" " * (THRESHOLD - 2)) is None
    frame_of_it = packed(b"[" + b" " * (THRESHOLD - 1))
    assert frame_of_it is not None
    assert len(frame_of_it) < 100


def test_what_saves_less_than_an_eighth_is_left_as_it_is() -> None:
    """Every reader would unpack it for nothing."""
    assert packed(noise(100_000)) is None
    assert packed(noise(80_000) + b" " * 10_000) is None  # a ninth
    assert packed(noise(80_000) + b" " * 14_000) is not None  # a seventh


@pytest.mark.parametrize(
    "says",
    [None, BOUND, 2**30, 2**62],
    ids=["of a size that it does not say", "that says it fits", "that says its size", "that says another"],
)
def test_a_bomb_goes_off_within_the_bound(says: int | None) -> None:
    """A gigabyte in 32 KB: no more than the bound is ever held, with what it is put together from."""
    hostile = bomb(2**30, says=says)
    assert len(hostile) < 33_000
    tracemalloc.start()
    try:
        reason = reason_of(lambda: unpacked(hostile, BOUND))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reason in ("oversized", "payload")
    assert reason == "oversized" or says == BOUND  # that one is found to lie before it gets that far
    assert most < 3 * BOUND


def test_not_more_than_a_byte_over_the_bound_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder itself stops there; it is not that too much is thrown away."""
    made: list[int] = []
    real = zstd.ZstdDecompressor

    def watched(**options: Any) -> Any:
        decompressor = real(**options)

        class Watched:
            eof = False
            unused_data = b""

            def decompress(self, data: bytes, **limits: Any) -> bytes:
                out: bytes = decompressor.decompress(data, **limits)
                made.append(len(out))
                return out

        return Watched()

    monkeypatch.setattr(zstd, "ZstdDecompressor", watched)
    assert reason_of(lambda: unpacked(bomb(2**24), BOUND)) == "oversized"
    assert made == [BOUND + 1]


def test_as_much_as_the_bound_is_unpacked_and_no_byte_more() -> None:
    """Of what is repeated as of anything else."""
    assert unpacked(bomb(BOUND), BOUND) == b"\0" * BOUND
    assert reason_of(lambda: unpacked(bomb(BOUND + 1), BOUND)) == "oversized"


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(DATA, id="what is not packed"),
        pytest.param(zstd.compress(DATA)[:-1], id="a byte short"),
        pytest.param(zstd.compress(DATA)[:9], id="a head alone"),
        pytest.param(frame(DATA)[:-1], id="a byte of the content short"),
        pytest.param(zstd.compress(DATA) + b"\0", id="a byte behind it"),
        pytest.param(zstd.compress(DATA) + zstd.compress(DATA), id="two frames"),
        pytest.param(zstd.compress(DATA) + zstd.compress(b""), id="an empty frame behind it"),
        pytest.param(zstd.compress(DATA) + skippable(), id="a skippable frame behind it"),
        pytest.param(skippable() + zstd.compress(DATA), id="a skippable frame before it"),
        pytest.param(skippable(), id="a skippable frame"),
        pytest.param(frame(DATA, dictionary=7), id="a dictionary"),
        pytest.param(with_a_dictionary(DATA), id="a dictionary that it does not name"),
        pytest.param(frame(DATA, window_log=20), id="a window of twice ours"),
        pytest.param(frame(DATA, window_log=31), id="a window of 2 GB"),
        pytest.param(frame(DATA, window_log=41), id="a window of 2 TB"),
        pytest.param(frame(DATA, says=len(DATA) - 1), id="more than it says"),
        pytest.param(frame(DATA, says=len(DATA) + 1), id="less than it says"),
        pytest.param(frame(DATA, says=2**63), id="far less than it says"),
        *[pytest.param(b"\x28\xb5\x2f\xfd" + noise(size), id=f"noise, {size}") for size in (1, 2, 10, 1000)],
        pytest.param(b"\x27\xb5\x2f\xfd" + noise(1000), id="a frame of zstd 0.7"),
    ],
)
def test_what_is_no_single_whole_frame_is_no_payload(hostile: bytes) -> None:
    """Though its content be right: nothing of ours has written it."""
    assert reason_of(lambda: unpacked(hostile, BOUND)) == "payload"


def test_a_frame_by_hand_is_one() -> None:
    """Else the ones above would be refused for another reason."""
    assert unpacked(frame(DATA), BOUND) == DATA
    assert unpacked(frame(DATA, window_log=19), BOUND) == DATA
    assert unpacked(frame(DATA, says=len(DATA)), BOUND) == DATA
    assert unpacked(frame(DATA * 100, says=len(DATA) * 100), BOUND) == DATA * 100
    assert zstd.decompress(with_a_dictionary(DATA), zstd_dict=zstd.ZstdDict(DATA, is_raw=True)) == DATA
    assert zstd.decompress(skippable() + frame(DATA)) == DATA


def test_a_flipped_bit_gives_no_other_error() -> None:
    """What it gives is checked against the digest (PROTOCOL R14)."""
    good = zstd.compress(DATA, 1)
    for bit in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(EntryError):
            assert len(unpacked(bytes(flipped), BOUND)) <= BOUND
