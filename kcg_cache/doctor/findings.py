"""`Finding`, and the table of every check: its stable code, its area, its title and why it matters."""

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple


class Severity(enum.IntEnum):
    """How much a finding matters; the worst of all decides the exit code."""

    OK = 0
    #: Worth knowing; nothing is wrong.
    NOTE = 1
    #: It will bite under a fault, a load or a change that must be expected.
    WARNING = 2
    #: It bites now.
    ERROR = 3

    @property
    def word(self) -> str:
        """The name, as documents and screens have it."""
        return self.name.lower()


OK, NOTE, WARNING, ERROR = Severity


class Check(NamedTuple):
    """What one code stands for."""

    area: str
    title: str
    #: One line: what happens where it is not as it should be.
    why: str


#: Every check. A code never changes its meaning, and none is used twice. docs/doctor.md has a section for each.
CHECKS: dict[str, Check] = {
    "KCG-R01": Check(
        "Redis",
        "reachable",
        "without it every process loads for itself, once per lease, and no invalidate can be confirmed",
    ),
    "KCG-R02": Check("Redis", "version", "the scripts use what Redis 7.0 and every Valkey have"),
    "KCG-R03": Check("Redis", "latency", "every process asks once per lease, and waits that long for the answer"),
    "KCG-R04": Check("Redis", "role", "every script begins with a write, which a replica refuses"),
    "KCG-R05": Check(
        "Redis",
        "eviction policy",
        "a server that evicts the fill lock rejects the fill: each read then costs three database loads",
    ),
    "KCG-R06": Check(
        "Redis", "memory headroom", "a full server evicts entry and lock, or refuses writes and loses the log"
    ),
    "KCG-R07": Check(
        "Redis",
        "persistence",
        "harmless for what is read (a restart empties the cache by itself), but a fork or a full disk stops the server",
    ),
    "KCG-R08": Check(
        "Redis",
        "replicas",
        "after a failover the isolated old master can serve withdrawn rows to whoever still reaches it",
    ),
    "KCG-R09": Check("Redis", "timeout", "a connection that the server closed costs the next read a new one"),
    "KCG-R10": Check(
        "Redis", "tcp-keepalive", "connections of hosts that died are else kept for ever, until maxclients is reached"
    ),
    "KCG-R11": Check(
        "Redis",
        "clock",
        "the clocks need not agree, but receipts and logs show Redis's time, and you compare them with other logs",
    ),
    "KCG-R12": Check("Redis", "connections", "a server at maxclients refuses new processes, and whoever reconnects"),
    "KCG-A01": Check("Rights in Redis", "a worker's rights", "a worker that lacks one loads for itself, every lease"),
    "KCG-A02": Check("Rights in Redis", "an operator's rights", "an invalidate that lacks one is never confirmed"),
    "KCG-A03": Check("Rights in Redis", "a viewer's rights", "`kcg-cache status`, `log` and `fleet` fail without them"),
    "KCG-A04": Check(
        "Rights in Redis",
        "presence",
        "its processes are not in `kcg-cache fleet`, and nobody can see whether they have taken up a change",
    ),
    "KCG-A05": Check("Rights in Redis", "a watcher's rights", "`kcg-cache watch` fails without them"),
    "KCG-E01": Check("The entry", "taken by readers", "an entry that readers refuse is loaded anew by each of them"),
    "KCG-E02": Check("The entry", "size", "a payload over max_payload is not shared: every process loads for itself"),
    "KCG-E03": Check(
        "The entry", "signature", "processes with and without keys, or with other keys, refuse each other's entries"
    ),
    "KCG-E04": Check(
        "The entry", "one database", "two databases that fill one namespace give each environment the other's rows"
    ),
    "KCG-C01": Check(
        "Deadlines", "redis_timeout", "a call that takes longer counts as an outage: the process loads for itself"
    ),
    "KCG-C02": Check(
        "Deadlines",
        "wait_timeout and lock_ttl",
        "a load that outlasts wait_timeout lets all that wait for it load at once",
    ),
    "KCG-C03": Check("Deadlines", "ttl", "after it somebody loads again, and readers wait for that load"),
    "KCG-C04": Check("Deadlines", "mode", "in `bypass` every read goes to the database, and nothing is shared"),
    "KCG-C05": Check("Deadlines", "lease", "without a lease every single read asks Redis"),
    "KCG-C06": Check(
        "Deadlines",
        "addresses",
        "behind one address that is gone nobody tells where the master is; each that is named may cost a deadline",
    ),
    "KCG-P01": Check("PostgreSQL", "reachable", "a fill needs it; until the TTL the fleet reads on without"),
    "KCG-P02": Check("PostgreSQL", "version", "the queries use what PostgreSQL 13 and later have"),
    "KCG-P03": Check("PostgreSQL", "latency", "a load takes a few of these round trips"),
    "KCG-P04": Check(
        "PostgreSQL", "primary or standby", "a standby may lag behind: rows that it gives are shared with nobody"
    ),
    "KCG-P05": Check(
        "PostgreSQL",
        "pooling",
        "behind a pooler by transactions LISTEN hears nothing: what watches the tables has to poll",
    ),
    "KCG-P06": Check(
        "PostgreSQL",
        "default isolation",
        "above read committed, rows that are read inside an open transaction may be old, and are shared with nobody",
    ),
    "KCG-P07": Check("PostgreSQL", "tables and columns", "every load fails without what active_versions.sql reads"),
    "KCG-P08": Check("PostgreSQL", "privileges", "every load of this role fails without them"),
    "KCG-P09": Check(
        "PostgreSQL", "one ACTIVE PRIMARY", "without the unique index two promotions at once both succeed"
    ),
    "KCG-P10": Check("PostgreSQL", "plan", "archived versions pile up, and each load would read them all"),
    "KCG-P11": Check(
        "PostgreSQL", "triggers", "without them `kcg-cache watch` sees a change at its next interval, not at once"
    ),
    "KCG-P12": Check(
        "PostgreSQL",
        "identity",
        "without it two clusters whose databases have one name cannot be told apart (KCG-E04)",
    ),
    "KCG-P13": Check(
        "PostgreSQL", "clock", "the clocks need not agree, but you compare PostgreSQL's log with Redis's receipts"
    ),
    "KCG-D01": Check("The rows", "params", "workers read params that are no JSON object as {}: no parameter at all"),
    "KCG-D02": Check("The rows", "PRIMARY versions", "the PRIMARY decides: with none, or with two, nobody knows what"),
    "KCG-D03": Check("The rows", "dependencies", "a model whose input is not computed waits for it, or runs without"),
    "KCG-D04": Check("The rows", "cycles", "models that need each other's output can be run in no order"),
    "KCG-D05": Check("The rows", "size", "a payload over max_payload is not shared: every process loads for itself"),
    "KCG-F01": Check("The fleet", "settings", "processes with other settings expire, refuse or sign otherwise"),
    "KCG-F02": Check("The fleet", "versions of the library", "an older one may not read what a newer one writes"),
    "KCG-F03": Check("The fleet", "lagging processes", "a process that does not take up new rows has lost Redis"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what came of it."""

    code: str
    severity: Severity
    #: One line: what was seen, with its value.
    seen: str
    #: One line: the command or the setting that mends it; "" where nothing is to be mended.
    mend: str = ""

    @property
    def check(self) -> Check:
        """What the code stands for."""
        return CHECKS[self.code]

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON-able values."""
        area, title, why = self.check
        return {
            "code": self.code,
            "area": area,
            "title": title,
            "severity": self.severity.word,
            # What others wrote into Redis or a table may hold line breaks.
            "seen": " ".join(self.seen.split()),
            "why": why,
            "mend": " ".join(self.mend.split()) or None,
        }


def unchecked(code: str, why: str, mend: str = "") -> Finding:
    """Say that something could not be looked at, and why not: no fault, and no all-clear."""
    return Finding(code, NOTE, f"not checked: {why}", mend)
