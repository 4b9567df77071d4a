"""Payloads made smaller with zstd where that pays, and back within a bound. Pure: no I/O.

What is packed is never compared: the same bytes may be packed otherwise by another release of zstd.
"""

import sys

from kcg_cache.errors import EntryError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["THRESHOLD", "packed", "unpacked", "zstd"]

#: From so many bytes on it pays. Below, it takes a reader a good part of what decoding does, to save a packet or two.
THRESHOLD = 4096

# How far back a frame may refer, which is what its decoder has to keep beside what it makes: 512 KB. That is what level
# 1 has in today's zstd. Of a frame with a larger one a reader with a small max_payload could not tell what is wrong.
_WINDOW_LOG = 19

_PACKING: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,  # the next ones take twice as long, and save nothing more of rows
    zstd.CompressionParameter.window_log: _WINDOW_LOG,
}
_UNPACKING: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}

# What every frame of zstd begins with. A libzstd may be built to read others too: skippable ones, and those of its
# first releases, whose windows `window_log_max` does not bound.
_MAGIC = b"\x28\xb5\x2f\xfd"


def packed(data: bytes) -> bytes | None:
    """Give `data` as one zstd frame, or None where that does not pay: less than an eighth would be saved."""
    if len(data) < THRESHOLD:
        return None
    frame: bytes = zstd.compress(data, options=_PACKING)
    return frame if len(frame) * 8 <= len(data) * 7 else None


def unpacked(frame: bytes, bound: int) -> bytes:
    """Give what is in the one frame that `frame` is, of at most `bound` bytes.

    Raises `EntryError` whose `reason` is "oversized" for more (PROTOCOL R14), "payload" for no such frame. However
    hostile it is: of what is in it never more than a byte over the bound is made, and no window that is larger than
    ours is. What the frame says of its own size is not asked.
    """
    if not frame.startswith(_MAGIC):
        raise EntryError("the payload is no zstd frame", reason="payload")
    decompressor = zstd.ZstdDecompressor(options=_UNPACKING)
    try:
        data: bytes = decompressor.decompress(frame, max_length=bound + 1)
    except zstd.ZstdError as error:
        raise EntryError(f"the payload is no zstd frame: {error}", reason="payload") from error
    if len(data) > bound:
        raise EntryError(f"the payload is over max_payload ({bound} bytes) when it is unpacked", reason="oversized")
    if not decompressor.eof:
        raise EntryError("the payload is no whole zstd frame", reason="payload")
    if decompressor.unused_data:
        raise EntryError("the payload is no single zstd frame: there is more behind it", reason="payload")
    return data
