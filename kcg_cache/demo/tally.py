"""What the crew reported, and which promises that breaks. Pure: times come with the messages."""

import statistics
from dataclasses import dataclass, field
from typing import Any

#: A read that breaks a promise, and what it is called.
VIOLATIONS = {
    "stale": "stale reads",
    "backward": "reads that went backward",
    "uncommitted": "reads of what was not committed",
    "torn": "reads of rows of several generations",
}


@dataclass(slots=True)
class WorkerTally:
    """What is known of one worker."""

    name: str
    kind: str
    pid: int
    facts: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.0
    generation: int = 0
    primaries: dict[str, str] = field(default_factory=dict)
    #: When it first saw each generation, or a newer one.
    seen_at: dict[int, float] = field(default_factory=dict)
    ready: bool = False
    finished: bool = False
    gone: bool = False
    died: str | None = None

    def hear(self, message: dict[str, Any]) -> None:
        """Take one message of the worker."""
        match message["event"]:
            case "seen":
                for generation in range(self.generation + 1, message["generation"] + 1):
                    self.seen_at[generation] = message["at"]
                self.generation = message["generation"]
                self.primaries = message["primaries"]
            case "ready" | "report" | "final":
                before, self.facts = self.facts, message
                if before and message["event"] == "report":
                    self.rate = (message["reads"] - before["reads"]) / (message["at"] - before["at"])
                self.ready = True
                self.finished = message["event"] == "final"
            case "gone":
                self.gone = True
                self.died = _death(message, finished=self.finished)

    def count(self, name: str) -> int:
        """Give one of the reported counts; 0 before the first report."""
        return int(self.facts.get(name, 0))


@dataclass(slots=True)
class ChangeTally:
    """One change of the operator, on the clock of this host."""

    generation: int
    what: str
    model: str
    promotes: bool
    commit_sent_at: float
    committed_at: float
    returned_at: float | None = None
    repeats: int = 0


@dataclass(slots=True)
class Tally:
    """All of it."""

    workers: dict[str, WorkerTally] = field(default_factory=dict)
    changes: list[ChangeTally] = field(default_factory=list)
    servers: dict[str, str] = field(default_factory=dict)
    #: The model whose versions are shown: the one that was promoted last.
    model: str = "dark-vessel"
    began: float = 0.0
    ended: float = 0.0
    operator_ready: bool = False
    operator_finished: bool = False
    operator_gone: bool = False
    operator_died: str | None = None
    #: What did not come about in time.
    troubles: list[str] = field(default_factory=list)
    #: What the processes wrote to standard error: log lines of the library, mostly.
    notes: list[str] = field(default_factory=list)

    def hear_operator(self, message: dict[str, Any]) -> None:
        """Take one message of the operator."""
        match message["event"]:
            case "ready":
                self.operator_ready = True
                self.servers = {"redis": message["redis"], "postgres": message["postgres"]}
            case "committed":
                known = ("generation", "what", "model", "promotes", "commit_sent_at", "committed_at")
                self.changes.append(ChangeTally(**{name: message[name] for name in known}))
                if message["promotes"]:
                    self.model = message["model"]
            case "invalidated":
                self.changes[-1].returned_at = message["returned_at"]
                self.changes[-1].repeats = message["repeats"]
            case "final":
                self.operator_finished = True
            case "gone":
                self.operator_gone = True
                self.operator_died = _death(message, finished=self.operator_finished)

    # --- sums -------------------------------------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """Give one count over all workers."""
        return sum(worker.count(name) for worker in self.workers.values())

    def not_ready(self) -> list[str]:
        """Name the processes that have not begun."""
        names = [worker.name for worker in self.workers.values() if not worker.ready]
        return names if self.operator_ready else [*names, "the operator"]

    @property
    def all_gone(self) -> bool:
        """Whether every process has ended, in whatever way."""
        return self.operator_gone and all(worker.gone for worker in self.workers.values())

    @property
    def someone_died(self) -> bool:
        """Whether a process ended before its time."""
        return self.operator_died is not None or any(worker.died for worker in self.workers.values())

    @property
    def generation(self) -> int:
        """The newest that was committed."""
        return self.changes[-1].generation if self.changes else 1

    @property
    def loads_allowed(self) -> int:
        """One at the start, and one for each change (Promise 3)."""
        return 1 + len(self.changes)

    def behind(self) -> list[str]:
        """Name the workers that have not yet seen the newest generation."""
        return [worker.name for worker in self.workers.values() if worker.generation < self.generation]

    def took(self, change: ChangeTally, kind: str) -> float | None:
        """Give the seconds from the commit to the last worker of a kind on the new version; None while one is not."""
        seen = [worker.seen_at.get(change.generation) for worker in self.workers.values() if worker.kind == kind]
        times = [at for at in seen if at is not None]
        return max(times) - change.commit_sent_at if times and len(times) == len(seen) else None

    def all_took(self, kind: str) -> list[float]:
        """Give `took` of every change that reached everyone."""
        return [took for change in self.changes if (took := self.took(change, kind)) is not None]

    # --- the end ----------------------------------------------------------------------------------------------------

    def broken(self) -> list[str]:
        """Tell every promise that was broken, and what else went wrong."""
        found = [
            f"{worker.name}: {worker.count(kind):,} {called}"
            for worker in self.workers.values()
            for kind, called in VIOLATIONS.items()
            if worker.count(kind)
        ]
        found += [
            f"{worker.name}: {example}"
            for worker in self.workers.values()
            for example in worker.facts.get("examples", ())
        ]
        if self.total("loads") > self.loads_allowed:
            found.append(f"{self.total('loads')} database loads; allowed are {self.loads_allowed}")
        found += [f"{worker.name} {worker.died}" for worker in self.workers.values() if worker.died]
        if self.operator_died:
            found.append(f"the operator {self.operator_died}")
        found += self.troubles
        if not self.changes and not found:
            found.append("the operator changed nothing")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Give all facts as one JSON-able document."""
        seconds = self.ended - self.began if self.began else 0.0
        reads = self.total("reads")
        broken = self.broken()
        return {
            "ok": not broken,
            "broken": broken,
            "seconds": round(seconds, 3),
            "servers": self.servers,
            "reads": reads,
            "reads_per_second": round(reads / seconds) if seconds > 0 else 0,
            "reads_near": self.total("near"),
            "reads_redis": self.total("redis"),
            "reads_database": self.total("database"),
            "read_scripts": self.total("scripts"),
            "database_loads": self.total("loads"),
            "database_loads_allowed": self.loads_allowed,
            "private_loads": self.total("private_loads"),
            "redis_errors": self.total("store_errors"),
            "violations": {kind: self.total(kind) for kind in VIOLATIONS},
            "commit_to_last_reader_s": _spread(self.all_took("reader")),
            "commit_to_last_scheduler_s": _spread(self.all_took("scheduler")),
            "notes": self.notes,
            "changes": [self._change_as_dict(change) for change in self.changes],
            "workers": [self._worker_as_dict(worker) for worker in self.workers.values()],
        }

    def _change_as_dict(self, change: ChangeTally) -> dict[str, Any]:
        returned = change.returned_at
        return {
            "generation": change.generation,
            "what": change.what,
            "at_s": round(change.commit_sent_at - self.began, 3),
            "commit_s": round(change.committed_at - change.commit_sent_at, 4),
            "invalidate_s": None if returned is None else round(returned - change.committed_at, 3),
            "invalidate_repeats": change.repeats,
            "commit_to_last_reader_s": _rounded(self.took(change, "reader")),
            "commit_to_last_scheduler_s": _rounded(self.took(change, "scheduler")),
        }

    @staticmethod
    def _worker_as_dict(worker: WorkerTally) -> dict[str, Any]:
        names = ("reads", "near", "redis", "database", "loads", "scripts", *VIOLATIONS)
        return {
            "name": worker.name,
            "kind": worker.kind,
            "pid": worker.pid,
            "generation": worker.generation,
            "died": worker.died,
            **{name: worker.count(name) for name in names},
        }


def _death(gone: dict[str, Any], *, finished: bool) -> str | None:
    """Tell how a process died; None for one that ended in order."""
    if finished and gone["status"] == 0:
        return None
    return f"ended with status {gone['status']}" + (f": {gone['said']}" if gone["said"] else "")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"median": round(statistics.median(seconds), 3), "max": round(max(seconds), 3)}
