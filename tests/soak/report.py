"""What came out, for people, and in docs/reliability.md between its markers."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import prices
from tests.soak.crew import ROOT
from tests.soak.tally import Tally, summary_of

PAGE = ROOT / "docs" / "reliability.md"


#: Counters that say whether a run went through the rare parts of the protocol at all.
_SHOWN = (
    "loads",
    "private_loads",
    "tainted_reads",
    "fills_published",
    "fills_rejected",
    "fills_given_up",
    "fills_unanswered",
    "locks_lost",
    "waits",
    "wait_timeouts",
    "breaker_opened",
    "store_errors",
    "near_dropped",
    "reads_handed_over",
    "refreshes",
    "stale_served",
    "entries_rejected",
)


def summary(tally: Tally) -> list[str]:
    """Give the result in lines: what was read, what is wrong, and a table of the faults."""
    found = totals(tally)
    found += [f"violation: {violation}" for violation in tally.violations]
    found += [f"trouble: {trouble}" for trouble in tally.troubles]
    found += [f"left out: {name}: {why}" for name, why in tally.left_out.items()]
    return [*found, "", *table(tally)]


def totals(tally: Tally) -> list[str]:
    """Give what was read and done."""
    under_faults, repeats = tally.invalidations_under_faults, tally.invalidate_repeats
    counts = [
        f"{tally.reads:,} audited reads",
        f"{tally.violation_count} violations",
        f"{tally.invalidations:,} invalidations ({under_faults:,} under faults, {repeats:,} repeats)",
        f"{len(tally.applied):,} faults",
        f"{tally.seconds:.0f} s",
    ]
    own, seen = tally.count("exempt"), tally.count("own_writes_seen")
    special = [
        f"{tally.count('special'):,} reads were forced, of a greatest age, or inside a transaction",
        f"{own:,} of them saw their own transaction ({seen:,} its uncommitted row)",
        f"{tally.children['processes']:,} forked and spawned children",
    ]
    metrics = [f"`{name}` {tally.metric(name):,}" for name in _SHOWN]
    return [
        f"{'good' if tally.good else 'NOT GOOD'}: {', '.join(counts)}",
        ", ".join(special),
        f"counters of those that were not killed: {', '.join(metrics)}",
    ]


def table(tally: Tally) -> list[str]:
    """Give the table of the faults as Markdown, which is readable as it is."""
    head = (
        f"| {'fault':30} | times | hits | first shared read after: median, worst | everybody: median, worst |"
        " slowest read | loads | of these private | reads that raised | invalidates refused |"
    )
    rows = []
    for name, times in sorted(tally.by_name().items()):
        facts = summary_of(times)
        rows.append(
            f"| {name:30} | {facts['times']} | {facts['hits'] or ''} | {_pair(facts, 'first_shared_read')}"
            f" | {_pair(facts, 'everybody')} | {facts['slowest_read_s']:.2f} s | {facts['loads']}"
            f" | {facts['private_loads']} | {facts['read_errors']} | {facts['invalidates_refused']} |"
        )
    return [head, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|", *rows]


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
    servers = f"Valkey {tally.versions['server']}, PostgreSQL {tally.versions['postgres']}"
    head = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`, {servers}:",
        "",
        *(f"- {line}" for line in totals(tally)),
        *(f"- violation: {violation}" for violation in tally.violations),
        *(f"- trouble: {trouble}" for trouble in tally.troubles),
        *(f"- left out: {name} ({why})" for name, why in tally.left_out.items()),
    ]
    body = prices.lines(tally) if of_prices else table(tally)
    page.write_text(f"{before}{start}\n" + "\n".join([*head, "", *body]) + f"\n\n{end}{after}", encoding="utf-8")
