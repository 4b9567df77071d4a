"""Signing keys from what a setting says: text, hex, base64, or a file that holds them. No key is ever shown."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from pathlib import Path

from kcg_cache.errors import SettingsError

#: What BLAKE2b takes at most, and what no one guesses at least; 32 random bytes are what docs/signing.md makes.
LEAST, MOST = 16, 64
ALLOWED = (
    f"keys of {LEAST} to {MOST} bytes, each as text, hex:…, base64:… or file:/path, separated by commas; "
    "make one with: openssl rand -hex 32"
)
#: Of a file, in bytes: whatever is larger holds something else.
_LARGEST_FILE = 64 * 1024


class SigningKey(bytes):
    """A key that does not show itself: in a repr, a dump of the settings, a traceback that tells variables."""

    def __repr__(self) -> str:
        return "<signing key>"

    __str__ = __repr__


def parsed(value: object) -> tuple[SigningKey, ...]:
    """Read keys from a text (see `ALLOWED`) or from a list of texts and bytes; the first signs.

    Raises `SettingsError`, which names the place of a wrong key, or its file, and nothing of the key.
    """
    if isinstance(value, str):
        parts: Sequence[object] = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, (tuple, list)):
        parts = value
    else:
        raise SettingsError("neither text nor a list of keys")
    return tuple(key for place, part in enumerate(parts, 1) for key in _keys_of(part, f"key {place} of {len(parts)}"))


def _keys_of(part: object, which: str) -> Iterator[SigningKey]:
    if isinstance(part, str) and part.startswith("file:"):
        path = part.removeprefix("file:")
        lines = _lines(path, which)
        for number, line in enumerate(lines, 1):
            yield _key(line, f"{which}, line {number} of {path!r}")
        if not lines:
            raise SettingsError(f"{which}: {path!r} holds no key")
    else:
        yield _key(part, which)


def _key(part: object, which: str) -> SigningKey:
    if isinstance(part, bytes):
        raw = bytes(part)
    elif not isinstance(part, str):
        raise SettingsError(f"{which} is {type(part).__name__}")
    else:
        form, colon, rest = part.partition(":")
        try:
            if colon and form == "hex":
                raw = bytes.fromhex(rest)
            elif colon and form == "base64":
                raw = base64.b64decode(rest, validate=True)
            else:
                raw = part.encode()
        except (ValueError, binascii.Error):
            # Without the cause: it may show what it could not read.
            raise SettingsError(f"{which} is not what its form says") from None
    if not LEAST <= len(raw) <= MOST:
        raise SettingsError(f"{which} has {len(raw)} bytes")
    return SigningKey(raw)


def _lines(path: str, which: str) -> list[str]:
    """Read a file's keys: one a line, in the forms of a setting; empty lines and lines after # are none."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST_FILE + 1).decode()
    except UnicodeError:
        raise SettingsError(f"{which}: {path!r} is no text; put the key there as hex:… or base64:…") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{which}: {path!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > _LARGEST_FILE:
        raise SettingsError(f"{which}: {path!r} is over {_LARGEST_FILE} bytes")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
