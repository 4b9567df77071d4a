"""Rows are shared, immutable, equal to plain dicts, and give private copies on request."""

import copy
import json
import pickle
from collections.abc import Callable, MutableMapping, MutableSequence
from typing import Any

import orjson
import pytest

from kcg_cache import VersionRow
from kcg_cache.rows import FrozenDict, FrozenList, freeze, thawed

PLAIN: dict[str, Any] = {"id": 1, "params": {"a": [1, 2.5, None, {"b": "가"}], "c": {"d": []}}}


#: To the type checker a VersionRow is no class to ask about: it is a TypedDict.
ROW_TYPE: Any = VersionRow


@pytest.fixture
def row() -> Any:
    """Give one frozen row."""
    return freeze([copy.deepcopy(PLAIN)], ROW_TYPE)[0]


def test_a_row_equals_the_plain_dict_and_is_a_dict(row: Any) -> None:
    """To ==, isinstance, json and orjson it is one."""
    assert row == PLAIN
    assert PLAIN.__eq__(row) is True
    assert isinstance(row, dict)
    assert isinstance(row["params"]["a"], list)
    assert type(row) is ROW_TYPE
    assert json.loads(json.dumps(row)) == PLAIN
    assert orjson.loads(orjson.dumps(row)) == PLAIN
    assert repr(row) == repr(PLAIN)


DICT_CHANGES: dict[str, Callable[[Any], Any]] = {
    "__setitem__": lambda d: d.__setitem__("x", 1),
    "__delitem__": lambda d: d.__delitem__("id"),
    "__ior__": lambda d: d.__ior__({"x": 1}),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("id"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("x", 1),
    "update": lambda d: d.update(x=1),
}
LIST_CHANGES: dict[str, Callable[[Any], Any]] = {
    "__setitem__": lambda x: x.__setitem__(0, 1),
    "__delitem__": lambda x: x.__delitem__(0),
    "__iadd__": lambda x: x.__iadd__([1]),
    "__imul__": lambda x: x.__imul__(2),
    "append": lambda x: x.append(1),
    "extend": lambda x: x.extend([1]),
    "insert": lambda x: x.insert(0, 1),
    "pop": lambda x: x.pop(),
    "remove": lambda x: x.remove(1),
    "clear": lambda x: x.clear(),
    "sort": lambda x: x.sort(),
    "reverse": lambda x: x.reverse(),
}


@pytest.mark.parametrize("change", DICT_CHANGES.values(), ids=DICT_CHANGES)
def test_no_dict_method_changes_a_row(row: Any, change: Callable[[Any], Any]) -> None:
    """The error says what to do instead."""
    for target in (row, row["params"], row["params"]["a"][3]):
        with pytest.raises(TypeError, match=r"copy\.deepcopy"):
            change(target)
    assert row == PLAIN


@pytest.mark.parametrize("change", LIST_CHANGES.values(), ids=LIST_CHANGES)
def test_no_list_method_changes_a_row(row: Any, change: Callable[[Any], Any]) -> None:
    """Nested lists are as immutable."""
    with pytest.raises(TypeError, match=r"copy\.deepcopy"):
        change(row["params"]["a"])
    assert row == PLAIN


def test_every_mutator_that_python_knows_is_refused() -> None:
    """The list above is complete: what a mutable mapping or sequence adds to a readable one."""
    dict_mutators = {n for n in dir(MutableMapping) if n not in dir(__import__("collections.abc").abc.Mapping)}
    list_mutators = {n for n in dir(MutableSequence) if n not in dir(__import__("collections.abc").abc.Sequence)}
    assert {n for n in dict_mutators if hasattr(dict, n)} <= set(DICT_CHANGES)
    assert {n for n in list_mutators if hasattr(list, n)} <= set(LIST_CHANGES)
    changed_by_dict = {n for n in vars(dict) if n.startswith("__i") and n not in ("__init__", "__iter__")}
    assert changed_by_dict <= set(DICT_CHANGES)


def test_initialising_a_row_again_changes_nothing(row: Any) -> None:
    """Not even that way."""
    row.__init__(x=1)
    row["params"]["a"].__init__([1])
    with pytest.raises(AttributeError):
        row.attribute = 1
    assert row == PLAIN


def test_rows_pickle_into_plain_dicts_and_lists(row: Any) -> None:
    """So they cross process pools, also to a process without the library."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(row, protocol))  # noqa: S301 - our own
        assert back == PLAIN
        assert type(back) is dict
        assert type(back["params"]["a"]) is list
        assert type(back["params"]["a"][3]) is dict


def test_a_nested_list_pickles_and_copies_by_itself_too(row: Any) -> None:
    """Whoever sends a part of a row on need not know that it is one."""
    inner = row["params"]["a"]
    for mine in (pickle.loads(pickle.dumps(inner)), copy.deepcopy(inner)):  # noqa: S301 - our own
        assert type(mine) is list
        assert type(mine[3]) is dict
        assert mine == inner == PLAIN["params"]["a"]


def test_a_deep_copy_is_private_mutable_and_plain(row: Any) -> None:
    """The remedy that the error names."""
    mine = copy.deepcopy(row)
    mine["params"]["a"].append("mine")
    mine["params"]["a"][3]["b"] = "changed"
    assert type(mine) is dict
    assert row == PLAIN


def test_a_shallow_copy_is_a_plain_dict_of_shared_values(row: Any) -> None:
    """As for any dict."""
    for mine in (copy.copy(row), dict(row), row.copy(), row | {}, {**row}):
        assert type(mine) is dict
        mine["x"] = 1
        assert mine["params"] is row["params"]
    for mine in (copy.copy(row["params"]["a"]), row["params"]["a"][:], row["params"]["a"] + []):
        assert type(mine) is list


def test_thawed_rows_are_plain_through_and_through(row: Any) -> None:
    """copy_rows gives these."""
    mine = thawed(row)
    assert mine == PLAIN
    mine["params"]["a"][3]["b"] = "changed"
    mine["params"]["c"]["d"].append(1)
    assert row == PLAIN
    assert type(mine["params"]["c"]["d"]) is list


def test_a_row_can_be_built_like_a_dict() -> None:
    """In a user's tests, say."""
    row = VersionRow(id=1, model_id="m", version="v", role="PRIMARY", params={})
    assert row == {"id": 1, "model_id": "m", "version": "v", "role": "PRIMARY", "params": {}}
    assert FrozenDict({"a": 1}, b=2) == {"a": 1, "b": 2}
    assert FrozenList([1, 2]) == [1, 2]


def test_any_depth_that_json_reads_can_be_frozen_and_thawed() -> None:
    """However deeply the caller's own calls are nested."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    (frozen,) = freeze([{"deep": deep}], FrozenDict)
    plain = thawed(frozen)
    depth = 0
    while plain:
        plain = plain["deep"] if isinstance(plain, dict) else plain[0]
        depth += 1
    assert depth == 5001
    # Containers this deep are taken apart from the outside, or their destructors would recurse.
    for outermost in (frozen["deep"], deep):
        inner = outermost
        while inner:
            inner = inner[0]
