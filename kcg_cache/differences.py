"""The difference of two lists of rows: which rows came, went or changed, and in which parameter. Pure."""

import enum
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple


class _Absent(enum.Enum):
    ABSENT = enum.auto()

    def __repr__(self) -> str:
        return "ABSENT"


#: In place of a value that is not there: JSON's null is one that is.
ABSENT: Final = _Absent.ABSENT
#: A key that stands in a path as it is; any other is quoted.
_PLAIN = re.compile(r"[^\W\d][\w-]*")
#: What rows are told apart by, the first that all of them have.
_KEYS = (("model_id", "version"), ("id",), ("name",))


class Field(NamedTuple):
    """One value that differs; `old` or `new` is `ABSENT` where there is none."""

    #: ``role``, ``params.areas.west-sea.enabled``, ``params.score_bands[2].from``.
    path: str
    old: Any
    new: Any


class Change(NamedTuple):
    """One row that differs."""

    kind: Literal["added", "removed", "changed"]
    #: Which row: ``dark-vessel 3.3.0``, ``id 7``.
    label: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    #: Of a changed row: what differs, in the order of the row before.
    fields: tuple[Field, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON-able values; of a value that is not there, there is no key."""
        return {
            "kind": self.kind,
            "row": self.label,
            "before": self.before if self.kind == "removed" else None,
            "after": self.after if self.kind == "added" else None,
            "fields": [
                {"path": field.path}
                | ({} if field.old is ABSENT else {"old": field.old})
                | ({} if field.new is ABSENT else {"new": field.new})
                for field in self.fields
            ],
        }


def difference(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[Change, ...]:
    """Tell what made `after` of `before`: changed and removed rows in their order before, then added ones in theirs.

    The order of the rows, and that of keys, is no difference. Values differ when JSON would spell them otherwise:
    ``1`` is neither ``1.0`` nor ``true``.
    """
    names = _told_apart_by([*before, *after])
    old, new = _keyed(before, names), _keyed(after, names)
    return tuple(_changes(names, old, new))


def _changes(names: Sequence[str], old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[Change]:
    for key, row in old.items():
        if key not in new:
            yield Change("removed", _label(names, key), row, None, ())
        elif fields := tuple(_fields(row, new[key])):
            yield Change("changed", _label(names, key), row, new[key], fields)
    for key, row in new.items():
        if key not in old:
            yield Change("added", _label(names, key), None, row, ())


def _told_apart_by(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return next((names for names in _KEYS if all(name in row for row in rows for name in names)), ())


def _keyed(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[Any, Mapping[str, Any]]:
    """Give the rows by what tells them apart; several of one name by their number among those, too."""
    keyed: dict[Any, Mapping[str, Any]] = {}
    met: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in names)
        number = met[key] = met.get(key, 0) + 1
        keyed[*key, number] = row
    return keyed


def _label(names: Sequence[str], key: Sequence[Any]) -> str:
    *values, number = key
    label = " ".join([*names[:1], *values] if names == ("id",) else values) or "row"
    return label if number == 1 and values else f"{label} #{number}"


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Field]:
    # A stack of our own: params may be nested deeper than calls may be.
    left: list[tuple[str, Any, Any]] = [("", old, new)]
    while left:
        path, one, other = left.pop()
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            inner = [
                (_member(path, key), one.get(key, ABSENT), other.get(key, ABSENT))
                for key in dict.fromkeys([*one, *other])
            ]
        elif isinstance(one, list) and isinstance(other, list):
            length = max(len(one), len(other))
            inner = [(f"{path}[{number}]", _at(one, number), _at(other, number)) for number in range(length)]
        else:
            if not _same(one, other):
                yield Field(path, one, other)
            continue
        left.extend(reversed(inner))


def _member(path: str, key: str) -> str:
    if not _PLAIN.fullmatch(key):
        return f"{path}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{path}.{key}" if path else key


def _at(values: Sequence[Any], number: int) -> Any:
    return values[number] if number < len(values) else ABSENT


def _same(one: Any, other: Any) -> bool:
    # Of one kind, a number is told by its spelling: 0.0 equals -0.0, and another payload comes of it.
    return type(one) is type(other) and (repr(one) == repr(other) if isinstance(one, float) else bool(one == other))
