"""The price list: what each fault costs, measured one at a time in a fleet of default settings that only reads."""

import math
import re
from dataclasses import dataclass

from kcg_cache.settings import Settings
from tests.soak.faults import Fault
from tests.soak.stage import Stage
from tests.soak.tally import Applied, Tally

_PORT = re.compile(r"(127\.0\.0\.1:|port )\d+")
#: Seconds of peace before a fault.
_CALM = 2.5
_DATABASE = 4.0
_MOST_SHOWN = 170
#: How long the faults last in which Redis does not answer: some breaker windows.
SILENT = {
    "redis_killed": 7.0,
    "redis_stopped": 7.0,
    "redis_is_deaf": 7.0,
    "redis_drops_replies": 7.0,
    "redis_is_too_late": 7.0,
    "redis_refuses": 7.0,
}


@dataclass(frozen=True)
class Budget:
    """What one process did while Redis did not answer, and what it may have done at most."""

    fault: str
    worker: str
    seconds: float
    #: Redis calls of readers that failed: each costs one redis_timeout at most.
    deadlines: int
    deadlines_allowed: int
    #: Queries to the database.
    loads: int
    loads_allowed: int
    #: Reads that took longer than half of a redis_timeout, of whatever cause.
    slow_reads: int

    @property
    def kept(self) -> bool:
        """Whether it did no more than it may."""
        return self.deadlines <= self.deadlines_allowed and self.loads <= self.loads_allowed


def apply(stage: Stage, fault: Fault) -> None:
    """Apply one fault after a time of peace, and hold it to its price."""
    stage.listen_for(_CALM)
    if fault.name in SILENT:
        fault.lasts = (SILENT[fault.name],) * 2
    elif fault.area == "database":
        # Readers meet it when they load, which is after the operators' changes.
        fault.lasts = (max(_DATABASE, fault.lasts[0]),) * 2
    applied = stage.apply(fault)
    for budget in budgets(applied):
        if not budget.kept:
            stage.tally.trouble(f"a process cost more than it may: {budget}")


def budgets(applied: Applied) -> list[Budget]:
    """Give what each process did in a fault in which Redis does not answer."""
    if applied.name not in SILENT:
        return []
    settings = Settings()
    found = []
    for window in applied.windows:
        if window["part"] != "during":
            continue
        seconds, counts = window["seconds"], window["counts"]
        found.append(
            Budget(
                applied.name,
                window["worker"],
                round(seconds, 2),
                # A renewal is not the reader's: its thread waits for the answer beside the load.
                counts["store_errors"] - counts["renew_errors"],
                math.floor(seconds / settings.breaker_window) + 1,
                counts["loads"],
                math.floor(seconds / settings.lease) + 1,
                window["slow"],
            )
        )
    return found


_HEAD = (
    "| fault | lasted | a reader gets | slowest read | database loads | first shared read after | everybody | "
    "what the operator sees |\n"
    "|---|---:|---|---:|---:|---:|---:|---|"
)
_HEAD_OF_BUDGETS = (
    "| fault | seconds | failed Redis calls | at most | database loads | at most | reads over ½ `redis_timeout` |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


def lines(tally: Tally) -> list[str]:
    """Give the two tables as Markdown."""
    applied = list(tally.applied.values())
    return [
        _HEAD,
        *map(_row, applied),
        "",
        "While Redis did not answer: the most that any one process did, and what it may do at most.",
        "",
        _HEAD_OF_BUDGETS,
        *[_row_of_budgets(budgets(one)) for one in applied if budgets(one)],
    ]


def _row(applied: Applied) -> str:
    recovered = sorted(applied.recovered.values())
    first, last = (f"{recovered[0]:.2f} s", f"{recovered[-1]:.2f} s") if recovered else ("", "")
    return (
        f"| `{applied.name}` | {applied.seconds:.1f} s | {_given(applied)} | {applied.slowest:.2f} s"
        f" | {applied.total('loads')} | {first} | {last} | {_told(applied)} |"
    )


def _row_of_budgets(each: list[Budget]) -> str:
    worst = max(each, key=lambda budget: (budget.deadlines, budget.loads))
    return (
        f"| `{worst.fault}` | {worst.seconds:.1f} | {worst.deadlines} | {worst.deadlines_allowed}"
        f" | {max(budget.loads for budget in each)} | {worst.loads_allowed}"
        f" | {max(budget.slow_reads for budget in each)} |"
    )


def _given(applied: Applied) -> str:
    """Tell what readers got, as their counters have it."""
    private, shared = applied.total("private_loads", "during"), applied.total("fills_published", "during")
    given_up = applied.total("fills_given_up", "during")
    own = [f"{private} private loads"] * bool(private) + [f"{given_up} fills given up"] * bool(given_up)
    parts = [f"rows of its own ({', '.join(own)})"] if own else ["the fleet's rows"]
    if own and shared:
        parts.append("the fleet's rows")
    if applied.errors:
        parts.append(f"its connection's own error ({applied.errors} reads)")
    return ", or ".join(parts)


def _told(applied: Applied) -> str:
    """Tell what the operator's calls raised, in their own words."""
    parts = []
    if applied.told:
        text, _ = applied.told.most_common(1)[0]
        parts.append(
            f"`invalidate` raises ({applied.told.total()} ×, {applied.told_after:.2f} s at most): {_short(text)}"
        )
    if applied.change_errors:
        text, _ = applied.change_errors.most_common(1)[0]
        parts.append(f"the change itself fails ({applied.change_errors.total()} ×): {_short(text)}")
    return "; ".join(parts) or "nothing"


def _short(text: str) -> str:
    text = _PORT.sub(r"\1…", text.rpartition("repeat it until it succeeds. ")[2])
    return f"“{text[:_MOST_SHOWN]}{'…' if len(text) > _MOST_SHOWN else ''}”".replace("|", "¦")
