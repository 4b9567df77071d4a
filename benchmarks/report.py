"""What came out: printed, and with ``--record`` kept as ``results.json``, in docs/performance.md, and as pictures.

docs/performance.md has one place for each benchmark, between two markers, and one for the table of all goals;
docs/scaling.md has that of `scaling`, and one for the table of limits. What stands around them is written by hand.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import beside, pictures
from benchmarks.limits import PLANNED, limits, readers_of_a_core
from benchmarks.results import Goal, Result, Table, widths

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
SCALING = ROOT / "docs" / "scaling.md"
PICTURES = ROOT / "docs" / "performance"
JSON = ROOT / "benchmarks" / "results.json"


def text(result: Result) -> str:
    """Write a result for a terminal."""
    parts = [f"== {result.name}: {result.title}"]
    for table in result.tables:
        rows = [table.head, *table.rows]
        wide = widths(rows)
        parts.append("\n".join([table.title, *("  ".join(map(str.ljust, row, wide)).rstrip() for row in rows)]))
    parts += result.notes
    parts += [
        f"goal {goal.number}, {goal.what}: {goal.goal}; measured: {goal.measured} [{_met(goal)}]"
        for goal in result.goals
    ]
    return "\n\n".join(parts)


def as_json(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Write all of it for programs."""
    return json.dumps({"about": about, "results": [dataclasses.asdict(result) for result in results]}, indent=1) + "\n"


def record(results: Sequence[Result], about: dict[str, Any]) -> None:
    """Keep what came out, and leave what other benchmarks found in an earlier run as it is.

    Raises `ValueError` when its page has no place for it.
    """
    kept: dict[str, Any] = json.loads(JSON.read_text())["runs"] if JSON.exists() else {}
    for result in results:
        kept[result.name] = {"about": about, "result": dataclasses.asdict(result)}
    pages = {PAGE: rendered(PAGE.read_text(), kept), SCALING: rendered_scaling(SCALING.read_text(), kept)}
    PICTURES.mkdir(exist_ok=True)
    for result in results:
        for picture in result.pictures:
            pictures.draw(picture, PICTURES)
    JSON.write_text(json.dumps({"runs": dict(sorted(kept.items()))}, indent=1, ensure_ascii=False) + "\n")
    for path, page in pages.items():
        path.write_text(page)


def rendered(page: str, kept: dict[str, Any]) -> str:
    """Give docs/performance.md with what `kept` says in its places.

    Raises `ValueError` when it has no place, or two, for something.
    """
    goals = [Goal(**goal) for run in kept.values() for goal in run["result"]["goals"]]
    if {"covered", "fresh"} <= kept.keys():
        goals.append(beside.beside_the_fresh(*(kept[name]["result"]["figures"] for name in ("covered", "fresh"))))
    for name in kept.keys() - {"scaling"}:
        page = _placed(page, name, _markdown(kept, name))
    page = _placed(page, "goals", _goals(sorted(goals, key=lambda goal: goal.number)))
    newest = max((run["about"] for run in kept.values()), key=lambda about: str(about["date"]))
    return _placed(page, "machine", _table(Table("", ("what", ""), tuple(newest["machine"].items()))).strip())


def rendered_scaling(page: str, kept: dict[str, Any]) -> str:
    """Give docs/scaling.md with what `kept` says in its places.

    Raises `ValueError` when it has no place, or two, for something.
    """
    if "scaling" in kept:
        page = _placed(page, "scaling", _markdown(kept, "scaling"))
    if {"fleet", "scaling", "wave"} <= kept.keys():
        figures = {name: kept[name]["result"]["figures"] for name in ("fleet", "scaling", "wave")}
        commands = sorted({f"`{kept[name]['about']['command']}`, {kept[name]['about']['date']}" for name in figures})
        said = f"{PLANNED:.0%} of one core is {readers_of_a_core(figures['fleet']):,} questions a second."
        page = _placed(page, "limits", f"{'; '.join(commands)}:\n\n{said}\n\n{_table(limits(**figures)).strip()}")
    return page


def _markdown(kept: dict[str, Any], name: str) -> str:
    about, result = kept[name]["about"], kept[name]["result"]
    tables = [Table(**table) for table in result["tables"]]
    if name == "covered" and "fresh" in kept:
        tables = [beside.with_freshness(table, kept["fresh"]["result"]["figures"]) for table in tables]
    parts = [f"`{about['command']}`, {about['date']}, {about['seconds'][name]:.0f} s:"]
    parts += [_table(table).strip() for table in tables]
    parts += [f"![{picture['title']}](performance/{picture['file']}.svg)" for picture in result["pictures"]]
    parts += result["notes"]
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    lines = [table.head, ("---",) * len(table.head), *table.rows]
    return f"{table.title}\n\n" + "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )


def _goals(goals: Sequence[Goal]) -> str:
    rows = tuple((str(goal.number), goal.what, goal.goal, goal.measured, _met(goal)) for goal in goals)
    return _table(Table("", ("#", "what", "goal", "measured", "met"), rows)).strip()


def _met(goal: Goal) -> str:
    return {True: "yes", False: "no", None: "measured"}[goal.met]


def _placed(page: str, name: str, body: str) -> str:
    pattern = re.compile(rf"(<!-- bench:{re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    page, count = pattern.subn(lambda match: f"{match[1]}\n{body}\n\n{match[2]}", page)
    if count != 1:
        raise ValueError(
            f"the page has {count} places for {name!r}, and must have one: <!-- bench:{name} --> … <!-- end -->"
        )
    return page
