"""What came out, for people, and in docs/reliability.md between its markers."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import prices
from tests.soak.crew import ROOT
from tests.soak.tally import Tally, _summary

PAGE = ROOT / "docs" / "reliability.md"


def summary(tally: Tally) -> list[str]:
    """Give the result in lines: one of all, what is wrong, and a table of the faults."""
    facts = tally.as_dict()
    found = [
        f"{'good' if tally.good else 'NOT GOOD'}: {tally.reads:,} audited reads, {tally.invalidations:,} invalidations"
        f" ({tally.invalidations_under_faults:,} under faults, {tally.invalidate_repeats:,} repeated),"
        f" {len(tally.applied):,} faults, {tally.violation_count} violations, {tally.seconds:.0f} s",
        f"exempt reads {facts['exempt_reads']:,} (own uncommitted rows seen in {facts['own_uncommitted_rows_seen']:,}),"
        f" children {tally.children['processes']:,}, loads {tally.metric('loads'):,},"
        f" fills rejected {tally.metric('fills_rejected'):,}, given up {tally.metric('fills_given_up'):,},"
        f" locks lost {tally.metric('locks_lost'):,}, wait timeouts {tally.metric('wait_timeouts'):,},"
        f" entries rejected {tally.metric('entries_rejected'):,}, stale served {tally.metric('stale_served'):,},"
        f" refreshes {tally.metric('refreshes'):,}, handed over {tally.metric('reads_handed_over'):,}",
    ]
    found += [f"violation: {violation}" for violation in tally.violations]
    found += [f"trouble: {trouble}" for trouble in tally.troubles]
    found += [f"left out: {name}: {why}" for name, why in tally.left_out.items()]
    return [*found, "", *table(tally)]


def table(tally: Tally) -> list[str]:
    """Give the table of the faults as Markdown, which is readable as it is."""
    found = [
        f"| {'fault':30} | times | first shared read after: median, worst | everybody: median, worst | slowest read |"
        " loads | of these private | reads that raised | invalidates refused |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, times in sorted(tally.by_name().items()):
        facts = _summary(times)
        found.append(
            f"| {name:30} | {facts['times']} | {_pair(facts, 'first_shared_read')} | {_pair(facts, 'everybody')}"
            f" | {facts['slowest_read_s']:.2f} s | {facts['loads']} | {facts['private_loads']} | {facts['read_errors']}"
            f" | {facts['invalidates_refused']} |"
        )
    return found


def _pair(facts: dict[str, float | None], what: str) -> str:
    median, worst = facts[f"{what}_median_s"], facts[f"{what}_max_s"]
    return "" if median is None or worst is None else f"{median:.2f} s, {worst:.2f} s"


def record(tally: Tally, arguments: Sequence[str], *, of_prices: bool, page: Path = PAGE) -> None:
    """Write what came out into the page, between the markers of this kind of run."""
    kind = "price list" if of_prices else "soak"
    start, end = f"<!-- {kind}: written by scripts/soak -->\n", f"<!-- end of the {kind} -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"{page.name} has no place for the {kind}: {start!r} and {end!r}")
    command = shlex.join(["scripts/soak", *arguments])
    said, versions = summary(tally)[:2], tally.versions
    head = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`, Valkey {versions['server']}, PostgreSQL"
        f" {versions['postgres']}:",
        "",
        *(f"- {line}" for line in said),
        *(f"- left out: {name} ({why})" for name, why in tally.left_out.items()),
    ]
    body = prices.lines(tally) if of_prices else table(tally)
    page.write_text(f"{before}{start}\n" + "\n".join([*head, "", *body]) + f"\n\n{end}{after}", encoding="utf-8")
