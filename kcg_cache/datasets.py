"""What is cached: a `Dataset` names its rows and says how to load them. `ACTIVE_VERSIONS` is just one."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from kcg_cache import codec, keys, postgres, queries
from kcg_cache.errors import ConfigurationError, DatasetError
from kcg_cache.rows import FrozenDict, VersionRow

#: Told about a row that was mended: which one and why. It is logged and counted.
Report = Callable[[str], None]


def _as_loaded(row: Mapping[str, Any], _report: Report) -> Mapping[str, Any]:
    return row


@dataclass(frozen=True, slots=True)
class Dataset:
    """One set of rows that a fleet shares.

    `load(conn)` returns a list of JSON-able dicts. It gets what `read` was given, or what the context of a callable
    yields. It only reads: a transaction that it opens is rolled back after it (PROTOCOL R13). It may run in any
    process, and its rows must depend on nothing but the database.
    """

    #: Part of the key: 1 to 100 letters, digits, '_', '.', '-'.
    name: str
    load: Callable[[Any], Iterable[Mapping[str, Any]]]
    #: False for a source that is no PostgreSQL transaction: `conn` may be anything, None included; it is asked nothing.
    transactional: bool = True
    #: What is done with each loaded row before it is shared; what it mends it reports.
    decode_row: Callable[[Mapping[str, Any], Report], Mapping[str, Any]] = _as_loaded
    #: The immutable dict that a row is read as: `FrozenDict`, or a subclass to tell rows apart.
    row_type: type[Mapping[str, Any]] = FrozenDict

    def __post_init__(self) -> None:
        keys.checked_name("dataset", self.name)
        if not callable(self.load):
            raise ConfigurationError(f"dataset {self.name!r}: load must be callable as load(conn), not {self.load!r}")
        if not issubclass(self.row_type, FrozenDict):
            raise ConfigurationError(f"dataset {self.name!r}: row_type must be a FrozenDict, not {self.row_type!r}")

    def loaded(self, conn: Any) -> list[Any]:
        """Load the rows as they come. Raises what the loader raises, and `DatasetError` for what is no rows."""
        loaded = self.load(conn)
        if isinstance(loaded, (str, bytes, Mapping)) or not isinstance(loaded, Iterable):
            raise DatasetError(f"dataset {self.name!r}: load gave {type(loaded).__name__}, not a list of dicts")
        return list(loaded)

    def decoded(self, loaded: list[Any], report: Report) -> Iterator[Mapping[str, Any]]:
        """Decode what `loaded` gave, one row at a time, and empty it; raise `DatasetError` for a row that is none."""
        loaded.reverse()
        number = 0
        while loaded:
            row = loaded.pop()
            if not isinstance(row, Mapping):
                raise DatasetError(f"dataset {self.name!r}: row {number} is {type(row).__name__}, not a dict")
            yield self.decode_row(row, report)
            number += 1


def version_row(row: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Decode one row of detection_model_versions: `params` as text, bytes (UTF-8), dict or None becomes a dict.

    What is no JSON object, or what Python cannot hold, becomes {} and is reported with the row's id; the row stays.
    """
    try:
        params = json_object(row["params"])
    except DatasetError as error:
        report(f"params of row id={row['id']} became {{}}: {error}")
        params = {}
    return {**row, "params": params}


def json_object(value: object) -> dict[str, Any]:
    """Read a JSON object from text, bytes, a dict, or None (an empty one); raise `DatasetError` that says why not."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return _checked_object(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            value = bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(f"no UTF-8: {error}") from error
    if not isinstance(value, str):
        raise DatasetError(f"{type(value).__name__} is no JSON object")
    parsed = _parsed(value)
    if not isinstance(parsed, dict):
        raise DatasetError(f"JSON, but {type(parsed).__name__} and no object")
    return parsed


def _checked_object(value: Mapping[str, Any]) -> dict[str, Any]:
    if codec.says_as_it_is(value):
        return dict(value)
    # Something rare, or nothing that JSON has, though orjson may write it (a UUID): the slow way tells.
    return dict(codec.plain(value, path="params", depth=_DEPTH))


# A number too large for a float needs 309 digits or an exponent of three; where text has neither, none overflows.
_MAY_OVERFLOW = re.compile(r"[0-9]{309}|[eE]\+?[0-9]{3}")
#: Every digit as 0, an exponent's letter as e, its sign as it is: so that what follows is found without a regular
#: expression, which took longer than to read the JSON.
_SHAPES = bytes(
    ord("0") if chr(c).isdecimal() else ord("e") if chr(c) in "eE" else c if c in b"+" else 32 for c in range(256)
)
#: orjson reads an integer of more than 64 bits as a float, and what these shapes are not in has none, and nothing that
#: overflows.
_NOT_FOR_ORJSON = (b"0" * 19, b"e000", b"e+000")
#: How deep in its row the object stands. What is accepted here must fit into the row, or it would cost all the others.
_DEPTH = 1
#: Fewer brackets than this cannot nest deep enough to matter for anyone's stack.
_SHALLOW = 200


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"a number of {len(text)} characters is larger than Python's floats")
    return number


# The standard library's own reading of numbers.
_FAST = json.JSONDecoder(parse_constant=_no_json)
_CAREFUL = json.JSONDecoder(parse_constant=_no_json, parse_float=_finite)


def _parsed(text: str) -> Any:
    parsed = _read_by_orjson(text)
    return parsed if parsed is not None else _read_carefully(text)


def _read_by_orjson(text: str) -> Any:
    """Read what orjson reads as the standard library does; None for all else, and for what is no JSON."""
    try:
        data = text.encode()
        shapes = data.translate(_SHAPES)
        if any(shape in shapes for shape in _NOT_FOR_ORJSON) or data.count(b"[") + data.count(b"{") >= _SHALLOW:
            return None
        return orjson.loads(data)
    except ValueError:  # a lone surrogate, or no JSON: the careful way says which, and why
        return None


def _read_carefully(text: str) -> Any:
    decoder = _CAREFUL if _MAY_OVERFLOW.search(text) else _FAST
    try:
        if text.count("[") + text.count("{") < _SHALLOW:
            try:
                return decoder.decode(text)
            except RecursionError:
                pass  # the caller's own stack is nearly full: on an empty one it will do
        parsed = codec.on_own_stack(lambda: decoder.decode(text))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"no JSON that Python can hold: {error}") from error
    return codec.plain(parsed, path="params", depth=_DEPTH)  # says no beyond MAX_DEPTH


def _load_active_versions(conn: Any) -> list[dict[str, Any]]:
    return postgres.fetch(conn, queries.load("active_versions"))


#: The ACTIVE versions of every enabled model, as CONTRACT.md orders them.
ACTIVE_VERSIONS = Dataset(
    "active_versions",
    _load_active_versions,
    decode_row=version_row,
    row_type=VersionRow,
)
