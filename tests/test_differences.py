"""The difference of two lists of rows."""

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcg_cache.differences import ABSENT, Change, Field, difference

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_PARAMS = st.dictionaries(st.text(max_size=3), _VALUES, max_size=3)


def _row(version: str, role: str = "PRIMARY", **params: Any) -> dict[str, Any]:
    return {"id": int(version), "model_id": "drift", "version": version, "role": role, "params": params}


def test_equal_rows_give_no_difference_whatever_their_order() -> None:
    """Of keys, too."""
    rows = [_row("1", a=1, b=2), _row("2")]
    other = [_row("2"), _row("1", b=2, a=1)]
    assert difference(rows, other) == ()


def test_a_row_that_came_or_went_is_told_whole() -> None:
    """With its label, after what changed."""
    came, went = _row("2"), _row("1")
    assert difference([went], [came]) == (
        Change("removed", "drift 1", went, None, ()),
        Change("added", "drift 2", None, came, ()),
    )


def test_a_change_is_told_by_its_path() -> None:
    """Into objects and lists; keys that are no plain words are quoted."""
    before = _row("1", areas={"west-sea": {"on": True}}, bands=[{"from": 1}], gone=None)
    after = _row("1", "SHADOW", areas={"west-sea": {"on": False}}, bands=[{"from": 2}, 3])
    before["params"] |= {"a.b": 1, "": 2}
    after["params"] |= {"a.b": 2, "": 3, "선박": 1}
    (change,) = difference([before], [after])
    assert set(change.fields) == {
        Field("role", "PRIMARY", "SHADOW"),
        Field("params.areas.west-sea.on", True, False),
        Field("params.bands[0].from", 1, 2),
        Field("params.bands[1]", ABSENT, 3),
        Field("params.gone", None, ABSENT),
        Field('params["a.b"]', 1, 2),
        Field('params[""]', 2, 3),
        Field("params.선박", ABSENT, 1),
    }


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0.0, -0.0), (0, False), (None, ABSENT), ("1", 1)])
def test_values_that_json_spells_otherwise_differ(one: Any, other: Any) -> None:
    """Python's == would call some of them the same."""
    after = _row("1") if other is ABSENT else _row("1", a=other)
    (change,) = difference([_row("1", a=one)], [after])
    assert [field.path for field in change.fields] == ["params.a"]


def test_rows_are_told_apart_by_what_all_of_them_have() -> None:
    """By model and version, else by id, else by name, else by their place; twins by their number."""
    assert [c.label for c in difference([], [{"id": 7}])] == ["id 7"]
    assert [c.label for c in difference([], [{"name": "west"}])] == ["west"]
    assert [c.label for c in difference([], [{"a": 1}, {"a": 2}])] == ["row #1", "row #2"]
    assert [c.label for c in difference([{"id": 7}], [{"id": 7}, {"id": 7}])] == ["id 7 #2"]


def test_nesting_as_deep_as_rows_may_be_is_no_trouble() -> None:
    """Deeper than the interpreter's stack."""
    one: Any = 1
    other: Any = 2
    for _ in range(5000):
        one, other = [one], [other]
    (change,) = difference([_row("1", a=one)], [_row("1", a=other)])
    assert change.fields[0].new == 2


@given(st.lists(_PARAMS, max_size=4), st.lists(_PARAMS, max_size=4))
def test_what_is_told_makes_the_rows_after_of_those_before(one: list[Any], other: list[Any]) -> None:
    """Whatever the rows are."""
    before = [_row(str(number), p=params) for number, params in enumerate(one)]
    after = [_row(str(number), p=params) for number, params in enumerate(other, 1)]
    rows = {row["version"]: row for row in copy.deepcopy(before)}
    for change in difference(before, after):
        if change.kind == "removed":
            assert change.before is not None
            del rows[change.before["version"]]
        elif change.kind == "added":
            assert change.after is not None
            rows[change.after["version"]] = dict(change.after)
        else:
            assert change.after is not None
            assert change.fields
            went = [field for field in change.fields if field.new is ABSENT]
            row = rows[change.after["version"]]
            for field in [*(field for field in change.fields if field.new is not ABSENT), *reversed(went)]:
                _apply(row, field)
        json.dumps(change.as_dict())
    spelt = sorted(json.dumps(row, sort_keys=True) for row in rows.values())
    assert spelt == sorted(json.dumps(row, sort_keys=True) for row in after)


_STEP = re.compile(r'\.?([^\W\d][\w-]*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')


def _apply(row: Any, field: Field) -> None:
    """Do what a field tells, by its path."""
    steps = [word or (int(number) if number else json.loads(key)) for word, number, key in _STEP.findall(field.path)]
    for step in steps[:-1]:
        row = row[step]
    if field.new is ABSENT:
        del row[steps[-1]]
    elif isinstance(row, list) and steps[-1] == len(row):
        row.append(field.new)
    else:
        row[steps[-1]] = field.new
