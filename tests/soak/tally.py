"""What the processes of a soak reported, and what that breaks. Pure."""

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

#: How many findings and troubles are kept in full.
_KEPT = 200


@dataclass
class Applied:
    """One application of a fault."""

    number: int
    name: str
    #: Seconds since the start, and how long it lasted.
    at: float
    seconds: float = 0.0
    #: By worker: seconds from its end to the first rows that are the fleet's again.
    recovered: dict[str, float] = field(default_factory=dict)
    #: What each worker met while it was on, and after it until it had recovered.
    windows: list[dict[str, Any]] = field(default_factory=list)
    #: What operators were told, and how often.
    told: Counter[str] = field(default_factory=Counter)
    #: The longest that one call of invalidate took to fail.
    told_after: float = 0.0
    change_errors: Counter[str] = field(default_factory=Counter)
    #: How often it hit somebody, where that can be counted.
    hits: int = 0
    #: Invalidates that returned while it was on.
    invalidations: int = 0

    def total(self, count: str, part: str | None = None) -> int:
        """Add one of the counters of `kcg_cache.metrics` up."""
        return sum(window["counts"].get(count, 0) for window in self.windows if part in (None, window["part"]))

    @property
    def slowest(self) -> float:
        """The longest that one read took."""
        return max((window["slowest"] for window in self.windows), default=0.0)

    @property
    def errors(self) -> int:
        """Reads that raised an error of the database."""
        return sum(window["errors"] for window in self.windows)


@dataclass
class Tally:
    """All of it."""

    applied: dict[int, Applied] = field(default_factory=dict)
    violations: list[dict[str, Any]] = field(default_factory=list)
    violation_count: int = 0
    troubles: list[str] = field(default_factory=list)
    invalidations: int = 0
    #: Of these: those that began, were repeated or returned while a fault was on.
    invalidations_under_faults: int = 0
    invalidate_repeats: int = 0
    #: The last report of each process; of those that were killed, the last that came.
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Those of children, added up.
    children: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def hear(self, who: str, message: dict[str, Any]) -> None:
        """Take one message; `who` is a process, and new for each that is started."""
        applied = self.applied.get(message.get("fault", 0))
        match message["event"]:
            case "report" | "final" if "reads" in message:
                self.reports[who] = message
            case "child":
                self.children["processes"] += 1
                for name in ("reads", "special", "exempt", "own_writes_seen"):
                    self.children[name] += message[name]
            case "violation":
                self.violation_count += 1
                if len(self.violations) < _KEPT:
                    details = {name: value for name, value in message.items() if name not in ("event", "fault")}
                    self.violations.append(details | {"fault": "none" if applied is None else applied.name})
            case "recovered" if applied is not None:
                applied.recovered[who] = message["seconds"]
            case "window" if applied is not None:
                applied.windows.append(message | {"worker": who})
            case "trouble":
                self.trouble(message["what"])
            case "invalidated" | "invalidate_failed" | "change_failed":
                self._hear_operator(applied, message)

    def _hear_operator(self, applied: Applied | None, message: dict[str, Any]) -> None:
        if message["event"] == "invalidated":
            self.invalidations += 1
            faults = [number for number in message["faults"] if number]
            self.invalidations_under_faults += bool(faults)
            self.invalidate_repeats += message["repeats"]
            for number in faults:
                if number in self.applied:
                    self.applied[number].invalidations += 1
        elif message["event"] == "change_failed" and not message["allowed"]:
            self.trouble(f"operator {message['operator']}: {message['what']}, and no database fault was on")
        elif applied is None:
            return
        elif message["event"] == "change_failed":
            applied.change_errors[message["what"]] += 1
        else:
            applied.told[message["what"]] += 1
            applied.told_after = max(applied.told_after, message["seconds"])

    def trouble(self, what: str) -> None:
        """Note what should not have happened, and is no wrong read."""
        if len(self.troubles) < _KEPT:
            self.troubles.append(what)

    @property
    def reads(self) -> int:
        """Audited reads."""
        return self.count("reads")

    def count(self, name: str) -> int:
        """Add up one of the counts of the reports."""
        return sum(int(report[name]) for report in self.reports.values()) + self.children[name]

    def metric(self, name: str) -> int:
        """Add up one of the counters of `kcg_cache.metrics`."""
        return sum(int(report["metrics"].get(name, 0)) for report in self.reports.values())

    @property
    def good(self) -> bool:
        """Whether every read was right and all else went as it should."""
        return not self.violation_count and not self.troubles and self.reads > 0 and self.invalidations > 0

    def by_name(self) -> dict[str, list[Applied]]:
        """Give the applications of each fault."""
        found: defaultdict[str, list[Applied]] = defaultdict(list)
        for applied in self.applied.values():
            found["two at once" if " + " in applied.name else applied.name].append(applied)
        return dict(found)

    def as_dict(self) -> dict[str, Any]:
        """Give all facts as one JSON-able document."""
        return {
            "good": self.good,
            "seconds": round(self.seconds, 1),
            "reads": self.reads,
            "special_reads": self.count("special"),
            "exempt_reads": self.count("exempt"),
            "own_uncommitted_rows_seen": self.count("own_writes_seen"),
            "children": dict(self.children),
            "invalidations": self.invalidations,
            "invalidations_under_faults": self.invalidations_under_faults,
            "invalidate_repeats": self.invalidate_repeats,
            "faults_applied": len(self.applied),
            "violation_count": self.violation_count,
            "violations": self.violations,
            "troubles": self.troubles,
            "versions": self.versions,
            "left_out": self.left_out,
            "faults": {name: summary_of(times) for name, times in sorted(self.by_name().items())},
            "schedule": [applied.name for applied in self.applied.values()],
        }


def summary_of(times: list[Applied]) -> dict[str, Any]:
    """Give what all applications of one fault came to."""
    firsts = [min(applied.recovered.values()) for applied in times if applied.recovered]
    lasts = [max(applied.recovered.values()) for applied in times if applied.recovered]
    return {
        "times": len(times),
        "seconds": round(sum(applied.seconds for applied in times), 2),
        "first_shared_read_median_s": _rounded(statistics.median(firsts) if firsts else None),
        "first_shared_read_max_s": _rounded(max(firsts, default=None)),
        "everybody_median_s": _rounded(statistics.median(lasts) if lasts else None),
        "everybody_max_s": _rounded(max(lasts, default=None)),
        "slowest_read_s": _rounded(max(applied.slowest for applied in times)),
        "hits": sum(applied.hits for applied in times),
        "loads": sum(applied.total("loads") for applied in times),
        "private_loads": sum(applied.total("private_loads") for applied in times),
        "read_errors": sum(applied.errors for applied in times),
        "invalidations": sum(applied.invalidations for applied in times),
        "invalidates_refused": sum(applied.told.total() for applied in times),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
