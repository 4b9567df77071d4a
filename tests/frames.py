"""Frames of zstd, written by hand: what no compressor of ours would write, but whoever can write to Redis could."""

from kcg_cache.compression import zstd

_MAGIC = b"\x28\xb5\x2f\xfd"
_LARGEST_BLOCK = 128 * 1024
_RAW, _REPEATED = 0, 1
_SIZE_IN_8_BYTES = 0xC0
_DICTIONARY_IN_1_BYTE = 0x01


def _block(kind: int, size: int, content: bytes, *, last: bool) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little") + content


def _head(window_log: int, says: int | None, dictionary: int | None) -> bytes:
    descriptor = (_SIZE_IN_8_BYTES if says is not None else 0) | (_DICTIONARY_IN_1_BYTE if dictionary else 0)
    head = _MAGIC + bytes([descriptor, window_log - 10 << 3])
    head += bytes([dictionary]) if dictionary else b""
    return head + (says.to_bytes(8, "little") if says is not None else b"")


def frame(data: bytes, *, window_log: int = 17, says: int | None = None, dictionary: int | None = None) -> bytes:
    """Give `data` as one frame, as it is, with a window of any size, and whatever size and dictionary it says."""
    most = min(_LARGEST_BLOCK, 1 << window_log)
    parts = [data[start : start + most] for start in range(0, len(data), most)] or [b""]
    blocks = [_block(_RAW, len(part), part, last=part is parts[-1]) for part in parts]
    return _head(window_log, says, dictionary) + b"".join(blocks)


def bomb(size: int, *, says: int | None = None) -> bytes:
    """Give a frame that is unpacked to so many zeros, 4 bytes for each 128 KB; it need not say how many."""
    whole, rest = divmod(size, _LARGEST_BLOCK)
    blocks = [_block(_REPEATED, _LARGEST_BLOCK, b"\0", last=False)] * whole
    return _head(17, says, None) + b"".join(blocks) + _block(_REPEATED, rest, b"\0", last=True)


def skippable(content: bytes = b"skip me") -> bytes:
    """Give a frame with nothing in it, which decoders of zstd jump over."""
    return b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def with_a_dictionary(data: bytes) -> bytes:
    """Give `data` as a frame that needs a dictionary, and does not say so."""
    made: bytes = zstd.compress(data, zstd_dict=zstd.ZstdDict(data, is_raw=True))
    return made
