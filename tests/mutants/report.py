"""The table of docs/mutants.md: written by a run, and read by the next one, which tries the same test first."""

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.mutants.runner import Result, Verdict
from tests.mutants.table import ROOT, Mutation

PAGE = ROOT / "docs" / "mutants.md"
_START, _END = "<!-- the last run: written by scripts/mutants --record -->\n", "<!-- the end of the last run -->\n"
_HEAD = "| rule | mutation | what is missing | first test that fails | s |\n|---|---|---|---|---|\n"
_ROW = re.compile(r"^\| (R\d+) \| `([\w-]+)` \| .* \| (.*) \| [\d.]+ \|$")
_TEST = re.compile(r"`(tests/[^`]+)`")


def hints(page: Path = PAGE) -> dict[str, str]:
    """Give, by the name of the mutation, the test that failed first in the last run."""
    if not page.exists():
        return {}
    rows = map(_ROW.match, page.read_text(encoding="utf-8").splitlines())
    return {row[2]: test[1] for row in rows if row and (test := _TEST.search(row[3]))}


def record(
    results: Sequence[Result],
    table: Sequence[Mutation],
    *,
    arguments: Sequence[str],
    seconds: float,
    page: Path = PAGE,
) -> None:
    """Write the results into the page. A run of a part replaces its rows and is named beside the run of all."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_START)
    last, _, after = rest.partition(_END)
    kept = {row[2]: row[0] for row in map(_ROW.match, last.splitlines()) if row}
    new = {result.mutation.name: _row(result) for result in results}
    rows = [row for mutation in table if (row := new.get(mutation.name) or kept.get(mutation.name))]
    command = shlex.join(["scripts/mutants", *arguments])
    run = f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`: {summary(results)}, {seconds:.0f} s"
    runs = [] if len(new) == len(table) else [line for line in last.splitlines() if line.startswith("- ")]
    lines = "\n".join([*runs, run])
    page.write_text(f"{before}{_START}\n{lines}\n\n{_HEAD}" + "\n".join(rows) + f"\n\n{_END}{after}", encoding="utf-8")


def summary(results: Sequence[Result]) -> str:
    """Count what came out."""
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    explained = sum(result.verdict is Verdict.SURVIVED and result.good for result in results)
    parts = [f"{len(results)} mutations"]
    parts += [f"{count} {verdict.value}" for verdict, count in counts.items() if count]
    return ", ".join(parts) + (f" ({explained} explained)" if counts[Verdict.SURVIVED] else "")


def _row(result: Result) -> str:
    mutation = result.mutation
    if result.verdict is Verdict.CAUGHT:
        outcome = f"`{result.test}`".replace("|", "¦")
    elif result.verdict is Verdict.SURVIVED and mutation.equivalent:
        outcome = f"none can: {mutation.equivalent}"
    else:
        outcome = f"**{result.verdict.value}**"
    return f"| {mutation.rule} | `{mutation.name}` | {mutation.removes} | {outcome} | {result.seconds:.1f} |"
