"""What the runs came to: docs/compatibility/python.json, and the tables of docs/packaging.md from it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.matrix.pythons import PROJECT, supported
from tests.matrix.suites import Outcome

DATA = PROJECT / "docs" / "compatibility" / "python.json"
PAGE = PROJECT / "docs" / "packaging.md"
COLUMNS = (("wheel", "newest"), ("wheel", "oldest"), ("sdist", "newest"), ("sdist", "oldest"))

Cell = dict[str, Any]
_KEY = ("python", "artefact", "dependencies")


def cell(python: str, artefact: str, dependencies: str, *, suite: str, date: str, outcome: Outcome) -> Cell:
    """Give the record of one suite; `python` is the whole release, `suite` is "whole" or "smoke"."""
    of = {"python": python, "artefact": artefact, "dependencies": dependencies, "suite": suite, "date": date}
    return {**of, **outcome.as_dict()}


def load(data: Path = DATA) -> dict[str, Any]:
    """Read what is recorded; nothing is recorded in a file that is not there."""
    if not data.exists():
        return {"cells": [], "versions": {}, "sizes": {}}
    loaded: dict[str, Any] = json.loads(data.read_text(encoding="utf-8"))
    return loaded


def store(known: Mapping[str, Any], data: Path = DATA, page: Path = PAGE) -> None:
    """Write what is known, and the page's tables."""
    data.parent.mkdir(exist_ok=True)
    data.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    for name, table in tables(known).items():
        text = replaced(text, name, table)
    page.write_text(text, encoding="utf-8")


def merged(old: Iterable[Cell], new: Iterable[Cell]) -> list[Cell]:
    """Put new cells in the place of old ones of the same Python (by its minor version), artefact and dependencies."""
    kept = {_key(one): one for one in [*old, *new]}
    order = {version: place for place, version in enumerate(supported())}
    return [kept[key] for key in sorted(kept, key=lambda key: (order.get(key[0], -1), key[1] != "wheel", key[2]))]


def tables(known: Mapping[str, Any]) -> dict[str, str]:
    """Give the page's tables by the name that stands in their marks."""
    return {
        "pythons": matrix(known["cells"]),
        "versions": _versions(known["versions"]),
        "sizes": _sizes(known["sizes"]),
    }


def matrix(cells: Iterable[Cell]) -> str:
    """Draw the matrix: a row for every supported Python, whether or not it was run."""
    by_key = {_key(one): one for one in cells}
    lines = [
        "| Python | " + " | ".join(f"{artefact}, {which}" for artefact, which in COLUMNS) + " |",
        "|---|---|---|---|---|",
    ]
    for minor in supported():
        row = [by_key.get((minor, artefact, which)) for artefact, which in COLUMNS]
        releases = sorted({one["python"] for one in row if one is not None})
        lines.append(f"| {', '.join(releases) or minor} | " + " | ".join(map(_shown, row)) + " |")
    return "\n".join(lines)


def marks(name: str) -> tuple[str, str]:
    """Give the lines between which a table of the page stands."""
    return f"<!-- {name}: written by scripts/matrix --record -->\n", f"<!-- the end of {name} -->\n"


def replaced(text: str, name: str, table: str) -> str:
    """Put `table` between its marks; text without them raises ValueError."""
    start, end = marks(name)
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no place for {name}")
    return f"{before}{start}\n{table}\n\n{end}{after}"


def _key(one: Cell) -> tuple[str, str, str]:
    return one["python"].rpartition(".")[0], one["artefact"], one["dependencies"]


def _shown(one: Cell | None) -> str:
    if one is None:
        return "not run"
    failed = f", **{one['failed']} failed**" if one["failed"] else ""
    return f"{one['suite']}: {one['passed']} passed{failed}, {one['skipped']} skipped"


def _versions(versions: Mapping[str, Mapping[str, str]]) -> str:
    columns = sorted(versions)
    names = sorted({name for of in versions.values() for name in of})
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(versions[column].get(name, "–") for column in columns) + " |" for name in names
    ]
    return "\n".join(lines)


def _sizes(sizes: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| install | packages beside kcg-cache | installed | which |", "|---|--:|--:|---|"]
    for name, one in sizes.items():
        packages = one["packages"]
        which = ", ".join(packages)
        lines.append(f"| `{name}` | {len(packages)} | {one['bytes'] / 1e6:.1f} MB | {which} |")
    return "\n".join(lines)
