"""What came out, as a document and as tables; pure but for writing into docs/failover.md between its markers."""

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.soak.crew import ROOT
from tests.topology.play import Seen, Watched

PAGE = ROOT / "docs" / "failover.md"
_COLUMNS = (
    ("outage", "outage"),
    ("another master after", "named_s"),
    ("the old one took writes until", "old_until_s"),
    ("both took writes", "both_s"),
    ("stale findings", "stale"),
    ("stale for", "stale_for_s"),
    ("private loads until", "private_until_s"),
    ("invalidate refused until", "refused_until_s"),
    ("one invalidate repeated for", "refused_for_s"),
    ("slowest read", "slowest_read_s"),
)


def of_outage(tally: Watched, number: int) -> dict[str, Any]:
    """Give what one outage came to; seconds are since its beginning, or lengths."""
    applied, seen = tally.applied[number], tally.seen[number]
    return {
        "outage": applied.name,
        "named_s": _rounded(seen.named),
        "old_until_s": _rounded(_old_until(seen)),
        "both_s": _rounded(seen.both_took),
        "stale": len(seen.stale),
        "stale_for_s": _rounded(max((age for _, age, _ in seen.stale), default=0.0)),
        "stale_from_s": _rounded(min((at for at, _, _ in seen.stale), default=None)),
        "stale_until_s": _rounded(max((at for at, _, _ in seen.stale), default=None)),
        "private_loads": applied.total("private_loads"),
        "private_until_s": _rounded(max(seen.private, default=None)),
        "invalidates_refused": len(seen.refused),
        "refused_until_s": _rounded(max(seen.refused, default=None)),
        "refused_for_s": _rounded(seen.longest_refusal),
        "longest_refused_call_s": _rounded(applied.told_after),
        "refusals": dict(applied.told),
        "slowest_read_s": _rounded(applied.slowest),
        "ended_s": _rounded(seen.ended),
        "took_writes": {
            node: [[_rounded(began), _rounded(ended)] for began, ended in spans] for node, spans in seen.taken.items()
        },
    }


def document(tally: Watched) -> dict[str, Any]:
    """Give all of it as one JSON-able document."""
    return {
        "good": tally.good,
        "reads": tally.reads,
        "violation_count": tally.violation_count,
        "violations": tally.violations,
        "troubles": tally.troubles,
        "invalidations": tally.invalidations,
        "confirmed": tally.confirmed,
        "unlogged": tally.unlogged,
        "left_out": tally.left_out,
        "versions": tally.versions,
        "seconds": round(tally.seconds, 1),
        "outages": [of_outage(tally, number) for number in tally.seen if number in tally.applied],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Give a document of `document` for people, in Markdown."""
    versions = found["versions"]
    facts = (
        f"{found['reads']:,} audited reads, {found['violation_count']:,} violations; "
        f"{found['invalidations']:,} invalidates returned, {found['unlogged']:,} of them not in the last master's log; "
        f"Valkey or Redis {versions.get('server', '?')}, {found['seconds']:.0f} s"
    )
    rows = [[_cell(outage[key]) for _, key in _COLUMNS] for outage in found["outages"]]
    table = [
        "| " + " | ".join(title for title, _ in _COLUMNS) + " |",
        "|---|" + "---:|" * (len(_COLUMNS) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    notes = [f"- trouble: {trouble}" for trouble in found["troubles"]]
    notes += [f"- left out: {name}: {why}" for name, why in found["left_out"].items()]
    return [facts, "", *table, *([""] if notes else []), *notes]


def record(found: dict[str, Any], name: str, arguments: Sequence[str]) -> None:
    """Write it into the page, between the markers of this name; raises `LookupError` where there are none."""
    page = PAGE.read_text()
    marks = re.compile(rf"(<!-- run: {re.escape(name)} -->\n).*?(<!-- /run -->)", re.DOTALL)
    command = shlex.join(["scripts/failover", *arguments])
    text = "\n".join([f"`{command}`, {datetime.now(UTC):%Y-%m-%d}:", "", *lines(found)])
    changed, count = marks.subn(lambda match: f"{match[1]}{text}\n{match[2]}", page)
    if count != 1:
        raise LookupError(f"{PAGE.name} has {count} places for {name!r}")
    PAGE.write_text(changed)


def _old_until(seen: Seen) -> float | None:
    """Give until when the node that took writes first went on to: what it takes later, it takes as another."""
    firsts = [spans[0] for spans in seen.taken.values() if spans and spans[0][0] <= 0.0]
    return firsts[0][1] if firsts else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.2f} s" if value else "–"
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"
