"""The difference of rows → a screen: what came in green, what went in red, what changed from what to what."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rich.text import Text

from kcg_cache import codec
from kcg_cache.cli.failures import one_line
from kcg_cache.cli.output import Output
from kcg_cache.differences import ABSENT, Change

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
#: Characters of a value; the whole of it is in the JSON document.
_SHOWN = 60


def parts(output: Output, changes: Iterable[Change]) -> Iterator[Any]:
    """Give a line for each row that differs, and below it one for each value."""
    for change in changes:
        sign, style = _SIGNS[change.kind]
        yield Text.assemble((f"{sign} ", style), (one_line(change.label), "bold"), _about(change))
        if change.fields:
            rows = [(one_line(field.path), _value(field.old), "→", _value(field.new)) for field in change.fields]
            yield output.indented(output.grid(rows), 4)


def _about(change: Change) -> str:
    row = change.after if change.after is not None else change.before
    role = (row or {}).get("role")
    words = {"added": "", "removed": "no longer read", "changed": ""}[change.kind]
    return "".join(f"  {one_line(str(word))}" for word in (role, words) if word)


def _value(value: object) -> Text:
    if value is ABSENT:
        return Text("(none)", style="dim")
    spelt = one_line(codec.on_own_stack(lambda: json.dumps(value, ensure_ascii=False)))
    return Text(spelt if len(spelt) <= _SHOWN else f"{spelt[: _SHOWN - 1]}…")
