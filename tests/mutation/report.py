"""The figures of docs/mutation.md: written by a run."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.mutants.table import ROOT
from tests.mutation.explained import Comparison, Explanation
from tests.mutation.mutants import Outcome
from tests.mutation.tool import Found

PAGE = ROOT / "docs" / "mutation.md"
_START, _END = "<!-- the last run: written by scripts/mutmut --record -->\n", "<!-- the end of the last run -->\n"
_HEAD = (
    "| module | mutants | killed by the quick tests | killed by those with servers | timed out | survived |\n"
    "|---|--:|--:|--:|--:|--:|\n"
)


def record(
    found: Sequence[Found],
    comparison: Comparison,
    *,
    arguments: Sequence[str],
    seconds: float,
    page: Path = PAGE,
) -> None:
    """Write the figures of a run of all modules into the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_START)
    _, _, after = rest.partition(_END)
    command = shlex.join(["scripts/mutmut", *arguments])
    run = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`: {summary(found, comparison)}, {seconds:.0f} s."
    modules = list(dict.fromkeys(one.mutant.change.module for one in found))
    rows = [_row(module, [one for one in found if one.mutant.change.module == module]) for module in modules]
    table = _HEAD + "\n".join([*rows, _row("**all**", found)])
    page.write_text(
        f"{before}{_START}\n{run}\n\n{table}\n\n{_reasons(comparison.explained)}\n\n{_END}{after}", encoding="utf-8"
    )


def summary(found: Sequence[Found], comparison: Comparison) -> str:
    """Count what came out."""
    counts = Counter(one.mutant.outcome for one in found)
    parts = [f"{len(found)} mutants"]
    parts += [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
    explained = sum(comparison.explained.values())
    return ", ".join(parts) + f" ({explained} of those that no test noticed are explained)"


def _row(name: str, found: Sequence[Found]) -> str:
    quickly = sum(one.mutant.outcome is Outcome.KILLED and not one.needed_servers for one in found)
    slowly = sum(one.mutant.outcome is Outcome.KILLED and one.needed_servers for one in found)
    timed_out = sum(one.mutant.outcome is Outcome.TIMEOUT for one in found)
    left = len(found) - quickly - slowly - timed_out
    return f"| {name} | {len(found)} | {quickly} | {slowly} | {timed_out} | {left} |"


def _reasons(explained: dict[Explanation, int]) -> str:
    why = {explanation.reason: explanation.why for explanation in explained}
    count = Counter[str]()
    for explanation, number in explained.items():
        count[explanation.reason] += number
    rows: Iterable[str] = (f"| {count[reason]} | {reason} | {text} |" for reason, text in why.items())
    return "| survivors | reason | why no test notices |\n|--:|---|---|\n" + "\n".join(rows)
