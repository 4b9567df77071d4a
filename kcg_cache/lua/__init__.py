"""The Redis scripts: one ``.lua`` file each, whose header is the contract that the call site is built from.

A header's ``KEYS``, ``ARGV`` and ``REPLY`` lines name what goes in and comes out, in order. `Script.arguments` and
`Script.reply` go by those names, so a header that says something else than the script does fails at once.
"""

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kcg_cache.errors import StoreReplyError

_HERE = Path(__file__).parent
_PRELUDE = "_prelude.lua"
#: A script that another language's client runs as it stands (PROTOCOL R7): it brings along all that it needs.
_STANDALONE = frozenset({"invalidate"})
_HEADER = re.compile(r"^-- (KEYS|ARGV|REPLY) +(.*(?:\n--  +\S.*)*)", re.MULTILINE)


class Script(NamedTuple):
    """One script: its text as sent, the SHA-1 that Redis knows it by, and the names in its header."""

    name: str
    text: str
    sha: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    replies: tuple[str, ...]

    def named(self, keys: Any) -> list[bytes]:
        """Give KEYS: attributes of `keys`, in the header's order."""
        return [getattr(keys, key).encode() for key in self.keys]

    def arguments(self, values: Mapping[str, str | bytes | int]) -> list[bytes | int]:
        """Give ARGV from `values` in the header's order.

        Raises `TypeError` when `values` are not exactly the names that the header lists.
        """
        if len(values) != len(self.args) or not all(name in values for name in self.args):
            raise TypeError(f"{self.name}.lua takes {self.args}, not {tuple(values)}")
        # What came from Redis as no UTF-8 goes back as the bytes that it was.
        return [
            value.encode(errors="surrogateescape") if isinstance(value, str) else value
            for value in map(values.__getitem__, self.args)
        ]

    def reply(self, answer: object) -> dict[str, Any]:
        """Name the parts of the answer; raise `StoreReplyError` when they are not as many as the header says."""
        if not isinstance(answer, (list, tuple)) or len(answer) != len(self.replies):
            raise StoreReplyError(f"{self.name}.lua gave {type(answer).__name__}, not {self.replies}", symptom="reply")
        return dict(zip(self.replies, answer, strict=True))


def names() -> tuple[str, ...]:
    """Name every script."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.lua") if path.name != _PRELUDE))


def path(name: str) -> Path:
    """Tell where a script's own file is, without what is put before it."""
    return _HERE / f"{name}.lua"


@functools.cache
def load(name: str) -> Script:
    """Read a script and its header."""
    body = path(name).read_text(encoding="utf-8")
    header = {kind: tuple(listed.replace("--", " ").split()) for kind, listed in _HEADER.findall(body)}
    text = body if name in _STANDALONE else (_HERE / _PRELUDE).read_text(encoding="utf-8") + "\n" + body
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, sha, header["KEYS"], header["ARGV"], header["REPLY"])
