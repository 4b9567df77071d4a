"""Bytes → decisions. It is not atheris's own provider, so that an input means the same where there is no atheris."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

T = TypeVar("T")

#: Pieces of which most inputs that get far are made; a fuzzer would take long to find them.
_WORDS = (
    b'[{"a":1}]',
    b'{"a":{"b":[]}}',
    b"-inf",
    b"nan",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-0.0",
    b"9" * 25,
    b"9" * 400,
    b"9" * 5000,
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b'"\xed\xa0\x80\xed\xb0\x80"',
    b"\xff\xfe[\x00]\x00",
    b"\\ud800",
    b"\xea\xb0\x80",
    b"|",
    b"",
)
_NUMBERS = ("0", "-0", "-0.0", "1.5", "1e400", "-1e999", "5e-324", "9" * 19, "9" * 23, "9" * 4400, "1e", "01", "NaN")
_DEEPEST = 12
_DEPTHS = (1, 2, 150, 199, 200, 252, 254, 255, 948, 949, 950, 951, 1022, 1200)


class Provider:
    """Takes one input apart, from the front. At its end everything is zero, empty, or the first choice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def byte(self) -> int:
        """Take one byte."""
        return self.taken(1)[0] if self.left else 0

    def choice(self, of: Sequence[T]) -> T:
        """Take one of these."""
        return of[self.byte() % len(of)]

    def taken(self, count: int) -> bytes:
        """Take so many bytes, or what is left."""
        start, self._at = self._at, min(len(self._data), self._at + count)
        return self._data[start : self._at]

    def raw(self) -> bytes:
        """Take some bytes: a few, a word that is known to matter, or all that is left."""
        kind = self.byte()
        if kind < 96:
            return self.taken(kind)
        return self.choice(_WORDS) if kind < 224 else self.taken(self.left)

    def text(self) -> str:
        """Take some text; it may have lone surrogates."""
        return self.raw().decode(errors=self.choice(("surrogateescape", "replace", "ignore")))

    def json(self, depth: int = 0) -> bytes:
        """Take a JSON value, as text: of any shape, nearly always valid."""
        makers = _JSON if depth < _DEEPEST else _JSON[-1:]
        return self.choice(makers)(self, depth + 1)

    def json_object(self, depth: int) -> bytes:
        """Take an object; names repeat, which JSON lets them do."""
        return b"{" + b",".join(b"%s:%s" % (self._string(), self.json(depth)) for _ in range(self.byte() % 5)) + b"}"

    def json_list(self, depth: int) -> bytes:
        """Take a list."""
        return b"[" + b",".join(self.json(depth) for _ in range(self.byte() % 5)) + b"]"

    def json_deep(self) -> bytes:
        """Take something that is nested, deeply."""
        levels, (start, end) = self.choice(_DEPTHS), self.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return start * levels + b"1" + end * levels

    def integer(self) -> int:
        """Take an integer of up to 88 bits."""
        return int.from_bytes(self.taken(self.byte() % 12), "big", signed=True)

    def _string(self) -> bytes:
        return (
            b'"'
            + self.choice((b"a", b"b", b"", b"\\ud800", b"\\udc00", b"\\u0000", b"\xea\xb0\x80", self.raw()))
            + b'"'
        )

    def value(self, depth: int = 0) -> Any:
        """Take a Python value such as a loader may give: mostly of the types that JSON has."""
        makers = _VALUES if depth < _DEEPEST else _VALUES[-1:]
        return self.choice(makers)(self, depth + 1)

    def several(self, depth: int) -> Iterator[Any]:
        """Take a few values."""
        return (self.value(depth) for _ in range(self.byte() % 4))

    def value_deep(self) -> Any:
        """Take lists in lists, deeply."""
        value: Any = 1
        for _ in range(self.choice(_DEPTHS)):
            value = [value]
        return value

    def odd(self) -> Any:
        """Take something that JSON does not have."""
        return self.choice(
            (datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), Decimal("1.5"), UUID(int=1), b"bytes", {1, 2}, object)
        )

    def _key(self) -> Any:
        return self.choice(("a", "b", "", "\ud800", 1, None, 1.5, True, self.text()))


#: What a JSON value may be, some more often than others; the last are those that have nothing in them.
_JSON: tuple[Callable[[Provider, int], bytes], ...] = (
    *[Provider.json_object] * 4,
    *[Provider.json_list] * 3,
    *[lambda provider, _: provider._string()] * 3,
    *[lambda provider, _: str(provider.integer()).encode()] * 2,
    lambda provider, _: provider.choice(_NUMBERS).encode(),
    lambda provider, _: provider.raw(),
    lambda provider, _: provider.json_deep(),
    lambda provider, _: provider.choice((b"null", b"true", b"false", b"0", b'""', b"[]", b"{}")),
)
_VALUES: tuple[Callable[[Provider, int], Any], ...] = (
    *[lambda provider, depth: {provider._key(): value for value in provider.several(depth)}] * 5,
    *[lambda provider, depth: list(provider.several(depth))] * 3,
    lambda provider, depth: tuple(provider.several(depth)),
    *[lambda provider, _: provider.text()] * 2,
    *[lambda provider, _: provider.integer()] * 2,
    lambda provider, _: provider.choice((0.0, -0.0, 1.5, float("inf"), float("nan"), 5e-324)),
    lambda provider, _: provider.choice((10**25, 10**4299, 10**4301, 2**64, -(2**63) - 1)),
    lambda provider, _: provider.odd(),
    lambda provider, _: provider.value_deep(),
    lambda provider, _: provider.choice((None, True, False)),
)
