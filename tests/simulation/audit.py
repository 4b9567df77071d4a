"""What must hold in every run: PROTOCOL's promises, checked with what only the simulation knows.

It sees when each statement really read the database and when each script really ran, so the promises are checked as
they are worded, and not only by the inequality that real processes have to do with.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from kcg_cache import Settings, Snapshot, lua
from tests.simulation.database import Connection, Database, Load
from tests.simulation.world import World

#: What host clocks may gain or lose against each other, and then some, for ages that are compared across hosts.
_DRIFT = 1.03
#: Seconds by which times may differ that a coarse clock or whole milliseconds tell.
_SLACK = 0.003


@dataclass(frozen=True)
class Began:
    """What held when a read began."""

    time: float
    #: The newest version that was committed before an invalidate began that has returned, and when that was.
    floor: int
    invalidated: float
    #: The newest version that a read of the same process had returned.
    returned: int
    #: The newest committed version.
    committed: int


@dataclass(frozen=True)
class _Fill:
    granted: float
    published: float


class Audit:
    """The auditor of one run."""

    def __init__(self, world: World, database: Database, settings: Settings) -> None:
        self._world = world
        self._database = database
        self._settings = settings
        self._floor = 0
        self._invalidated = float("-inf")
        self._returned: dict[str, int] = {}
        self._grants: dict[str, float] = {}
        self._fills: list[_Fill] = []
        self._invalidates: list[float] = []
        #: When the rows of which load were published, and with which `loaded_at`.
        self._published_at: dict[int, float] = {}
        self._loaded_at: dict[int, int] = {}
        #: Whether the Redis clock was stepped, or a time in an entry changed: then nobody tells true ages.
        self.times_doubtful = False
        #: What happened, by name.
        self.counts: Counter[str] = Counter()

    # --- the operator ---------------------------------------------------------------------------------------------

    def invalidated(self, *, version: int, began: float) -> None:
        """Note that an invalidate that began then, with that version committed, has returned."""
        self.counts["invalidates"] += 1
        self._floor = max(self._floor, version)
        self._invalidated = max(self._invalidated, began)

    # --- readers --------------------------------------------------------------------------------------------------

    def begins(self, process: str) -> Began:
        """Note what holds before a read."""
        return Began(
            self._world.now, self._floor, self._invalidated, self._returned.get(process, 0), self._database.version
        )

    def returned(
        self, process: str, began: Began, snapshot: Snapshot, conn: Any, *, force: bool, max_age: float | None
    ) -> None:
        """Check what a read returned."""
        row = snapshot.rows[0]
        version, number, dirty = row["version"], row["load"], row["dirty"]
        self.counts[f"reads {snapshot.source}"] += 1
        own = snapshot.source == "database" and not snapshot.shared and isinstance(conn, Connection) and conn.tainted
        if own:
            # The one exception: on a miss such a caller gets what its own transaction sees, and this is nobody else's.
            self.counts["reads tainted"] += 1
            self._must(dirty in (0, conn.dirty), f"{process} got the uncommitted rows of another transaction")
            return
        load = self._database.loads[number] if number >= 0 else None
        where = f"{process} read version {version} ({snapshot.source}{', forced' if force else ''})"
        self._must(dirty == 0, f"Promise 6: {where}: rows of somebody's uncommitted transaction")
        self._must(load is None or not load.tainted, f"Promise 6: {where}: rows of a snapshot that may not be shared")
        self._must(version <= self._database.version, f"{where}, and no such version is committed")
        self._must(version >= began.floor, f"Promise 1: {where}, withdrawn by version {began.floor}'s invalidate")
        self._must(
            load is None or load.executed >= began.invalidated,
            f"Promise 1: {where}, read from the database before an invalidate that had returned",
        )
        self._must(version >= began.returned, f"Promise 4: {where}, after version {began.returned} had been returned")
        if force:
            self._must(version >= began.committed, f"Promise 2: {where}, and {began.committed} was committed before")
            self._must(
                load is None or load.executed >= began.time, f"Promise 2: {where}, read before the call had begun"
            )
        if load is not None:
            self._old(where, began, snapshot, number, load, max_age)
        self._returned[process] = max(version, self._returned.get(process, 0))

    def _old(
        self, where: str, began: Began, snapshot: Snapshot, number: int, load: Load, max_age: float | None
    ) -> None:
        """Check how old rows are that were returned, against every bound that there is."""
        settings = self._settings
        age = began.time - load.executed
        if not snapshot.shared:
            self._must(age <= settings.lease * _DRIFT, f"R8: {where}, private rows of {age:.3f} s")
        elif number in self._loaded_at:
            said, granted = snapshot.loaded_at_us, self._loaded_at[number]
            self._must(said == granted, f"R5: {where}, loaded at {said}, and the lock was granted at {granted}")
        if self.times_doubtful:
            return
        if max_age is not None:
            self._must(age <= max_age * _DRIFT + _SLACK, f"max_age: {where} of {age:.3f} s with max_age={max_age:g}")
        told = snapshot.age_then + snapshot.clock.__self__.read_clock() - snapshot.as_of  # type: ignore[attr-defined]
        real = self._world.now - load.began
        self._must(told * _DRIFT + _SLACK >= real, f"age: {where}, {real:.3f} s old, and says {told:.3f} s")
        if snapshot.shared and number in self._published_at:
            kept = began.time - self._published_at[number]
            most = settings.ttl + (settings.stale_if_error if snapshot.stale else 0.0)
            self._must(kept <= most * _DRIFT + _SLACK, f"TTL: {where}, published {kept:.3f} s before, of {most:g} s")

    def ended(self, process: str, began: Began, *, bound: float) -> None:
        """Check that a read took no longer than the rules allow: nobody waits for ever."""
        seconds = self._world.now - began.time
        self._must(seconds <= bound, f"{process}: a read took {seconds:.1f} s, more than {bound:.1f} s")

    def covered(self, process: str, *, requests: int, source: str) -> None:
        """Check a read that began within its lease: no socket (Promise 5)."""
        self.counts["reads covered"] += 1
        self._must(requests == 0 and source == "near", f"Promise 5: {process}: a covered read sent {requests} requests")

    # --- the scripts ------------------------------------------------------------------------------------------------

    def script(self, name: str, words: tuple[Any, ...], reply: Any) -> None:
        """Look at a script that ran."""
        if isinstance(reply, Exception):
            return
        script = lua.load(name)
        arguments = dict(zip(script.args, words[len(script.keys) :], strict=True))
        answer = dict(zip(script.replies, reply, strict=True))
        self.counts[f"scripts {name}"] += 1
        if name == "read" and answer["kind"] == b"FILL":
            parts = _text(arguments["token"]), answer["grant"], answer["incarnation"], answer["granted_when"]
            self._grants.setdefault("|".join(map(_text, parts)), self._world.now)
        elif name == "invalidate":
            self._invalidates.append(self._world.now)
        elif name == "publish" and answer["status"] == b"PUBLISHED":
            self._published(_text(arguments["expected"]), arguments["payload"])

    def _published(self, lock: str, payload: bytes) -> None:
        now = self._world.now
        self.counts["fills"] += 1
        granted = self._grants.get(lock)
        if granted is None:
            self._must(False, f"R3: a fill was published under a lock that was never granted: {lock}")
            return
        overlapping = [fill for fill in self._fills if fill.published > granted]
        self._must(not overlapping, f"Promise 3: fills overlap: granted at {granted:.6f}, and {overlapping} in between")
        between = [at for at in self._invalidates if granted < at <= now]
        self._must(not between, f"R3: a fill granted at {granted:.6f} was published after invalidates at {between}")
        self._fills.append(_Fill(granted, now))
        row = json.loads(payload)[0]
        self._must(row["dirty"] == 0, "Promise 6: uncommitted rows were published")
        if row["load"] >= 0:
            load = self._database.loads[row["load"]]
            self._published_at[row["load"]] = now
            self._loaded_at[row["load"]] = int(lock.split("|")[1])
            self._must(not load.tainted, "Promise 6: rows of a snapshot that may not be shared were published")
            self._must(load.executed >= granted, "R5: rows were published that were read before the lock was granted")

    def _must(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 - it is what must hold
        if not holds:
            self._world.violation(otherwise)


def _text(raw: Any) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
