"""The end of a demo, as lines of text for people."""

from typing import Any

from kcg_cache.demo.tally import VIOLATIONS, Tally


def lines_of(tally: Tally) -> list[str]:
    """Tell what was counted, and whether every promise held."""
    facts = tally.as_dict()
    readers = sum(worker.kind == "reader" for worker in tally.workers.values())
    schedulers = len(tally.workers) - readers
    who = ", ".join(
        (
            f"{_count(readers, 'reader')} at full speed",
            _count(schedulers, "scheduler"),
            f"{_count(len(tally.changes), 'change')} by the operator",
        )
    )
    lines = [
        "",
        f"{facts['seconds']:.1f} s on {' and '.join(tally.servers.values())}: {who}",
        "",
        _row("look-ups", facts["reads"], f"{facts['reads_per_second']:,} per second, every one audited"),
        _row("  from the near copy", facts["reads_near"], "no socket, no lock"),
        _row("  from Redis", facts["reads_redis"], "leases renewed, and rows fetched"),
        _row("  from PostgreSQL", facts["reads_database"]),
        _row(
            "database loads", facts["database_loads"], f"allowed {facts['database_loads_allowed']}: 1, and 1 per change"
        ),
    ]
    if facts["redis_errors"]:
        lines.append(_row("Redis errors", facts["redis_errors"], f"{facts['private_loads']} private loads for them"))
    lines += [_row(called, facts["violations"][kind]) for kind, called in VIOLATIONS.items()]
    lines += _took_lines(facts)
    lines += [f"note: {note}" for note in facts["notes"]]
    broken = facts["broken"]
    lines.append("")
    lines += [f"BROKEN: {what}" for what in broken] or ["Every promise held."]
    return lines


def _took_lines(facts: dict[str, Any]) -> list[str]:
    return [
        f"{called:<36}{took['median']:>11.2f} s median, {took['max']:.2f} s at most"
        for kind, called in (("reader", "commit to last reader"), ("scheduler", "commit to last scheduler's cycle"))
        if (took := facts[f"commit_to_last_{kind}_s"]) is not None
    ]


def _row(label: str, count: int, remark: str = "") -> str:
    return f"{label:<36}{count:>13,}  {remark}".rstrip()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
