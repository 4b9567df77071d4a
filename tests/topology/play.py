"""One scenario from start to end: raise a topology and a fleet, let it fail, see how everybody came through."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kcg_cache.demo import signals
from kcg_cache.embedded import start_postgres
from kcg_cache.keys import Keys
from kcg_cache.system import SYSTEM
from tests.soak.board import Board
from tests.soak.crew import Crew
from tests.soak.faults import Fault
from tests.soak.plan import Options
from tests.soak.servers import Database
from tests.soak.stage import GaveUpError, Stage
from tests.soak.tally import Applied, Tally
from tests.topology.nodes import FAR, NEAR, Node
from tests.topology.probe import Probe

#: Covered reads between two pauses: findings need no more, and servers are to have the processors.
_BATCH = 20
#: Findings that a process tells: all of a master's that goes on beside another.
_FINDINGS = 5000
_LOG = Keys.of("soak", "active_versions").invalidations


@dataclass(frozen=True)
class Fleet(Options):
    """What a fleet on a topology is told: who is beside a master that is cut off reads plainly, and asks or leases.

    A forced read there, or one ahead of expiry, would load rows anew, and hide for how long old ones are served.
    """

    def settings(self) -> dict[str, Any]:
        """Give the settings that the whole fleet shares.

        In a quick run a machine that is busy with other tests shall not look like a master that does not answer.
        """
        return super().settings() | ({"redis_timeout": 1.0} if self.quick else {})

    def worker(self, number: int) -> dict[str, Any]:
        """Give what is peculiar to one worker."""
        own = super().worker(number)
        if side_of(number) == NEAR:
            own |= {"plain_only": True, "threads": 1, "settings": {"lease": 1.0 if number else 0}}
        return own | {"keeps_connection": True, "batch": min(own["batch"], _BATCH)}


def side_of(number: int) -> str:
    """Give the side of a worker: every other one is beside the master that will be cut off."""
    return (NEAR, FAR)[number % 2]


@dataclass
class Seen:
    """What one outage came to, beside what `tests.soak.tally` counts. Seconds are since its beginning."""

    began: float
    ended: float = 0.0
    #: When the others named another master; None where nobody is asked.
    named: float | None = None
    #: Spans in which each node took writes, and for how long two did.
    taken: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    both_took: float = 0.0
    #: Findings of an old version: when, how long after its withdrawal, whose.
    stale: list[tuple[float, float, str]] = field(default_factory=list)
    #: When a worker's loads were shared with nobody, to half a second.
    private: list[float] = field(default_factory=list)
    #: When an invalidate was refused, and for how long one operator had to repeat it at most.
    refused: list[float] = field(default_factory=list)
    longest_refusal: float = 0.0


class Watched(Tally):
    """The tally, with the times at which things were told."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, Seen] = {}
        #: Invalidates that were confirmed, and of these such as the last master's log does not have.
        self.confirmed = 0
        self.unlogged = 0
        self._withdrawn: dict[tuple[str, int], float] = {}
        self._private: dict[str, int] = {}
        self._refused_since: dict[tuple[str, int], float] = {}

    def note_log(self, master: Node) -> None:
        """Hold the log of invalidations, as the last master has it, against those that were confirmed."""
        logged = master.ask("XRANGE", _LOG, "-", "+")
        reasons = {fields[b"reason"].decode() for _, fields in logged}
        self.confirmed = len(self._withdrawn)
        self.unlogged = sum(f"version {version} of {model}" not in reasons for model, version in self._withdrawn)

    def hear(self, who: str, message: dict[str, Any]) -> None:
        """Take one message, and note when."""
        super().hear(who, message)
        now = SYSTEM.now()
        latest = self.seen.get(max(self.seen, default=0))
        match message["event"]:
            case "invalidated":
                key = (f"soak-{message['operator']:02}", message["version"])
                self._withdrawn[key] = now
                since = self._refused_since.pop((who, message["operator"]), None)
                if since is not None and latest is not None:
                    latest.longest_refusal = max(latest.longest_refusal, now - since)
            case "invalidate_failed":
                self._refused_since.setdefault((who, message["operator"]), now - message["seconds"])
                if latest is not None:
                    latest.refused.append(now - latest.began)
            case "report" if "metrics" in message:
                count = message["metrics"].get("private_loads", 0)
                if count > self._private.get(who, 0) and latest is not None:
                    latest.private.append(now - latest.began)
                self._private[who] = count
            case "violation" if message["kind"] in ("stale", "backward", "forced_old") and latest is not None:
                since = self._withdrawn.get((message["model"], message["version"] + 1), message["at"])
                latest.stale.append((message["at"] - latest.began, message["at"] - since, message["reader"]))


class Place(Database):
    """The database, and the addresses that a fleet on a topology is told."""

    def __init__(self, dsn: str, topology: Any, *, operators: Sequence[str], plain: bool) -> None:
        super().__init__(dsn)
        self._topology = topology
        self._operators = operators
        self._prefix = "plain:" if plain else ""

    def redis_of_worker(self, number: int) -> str:
        """Give every other worker the near side of a partition."""
        return self._prefix + str(self._topology.url(side_of(number)))

    def redis_of_operators(self) -> list[str]:
        """Give the operators their sides, in turn."""
        return [self._prefix + str(self._topology.url(side)) for side in self._operators]


class Scene(Stage):
    """The stage of a topology."""

    findings = _FINDINGS

    def __init__(
        self,
        options: Options,
        place: Place,
        topology: Any,
        crew: Crew,
        board: Board,
        tally: Watched,
        probe: Probe,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(options, place, crew, board, tally, say)  # type: ignore[arg-type]
        self.topology = topology
        self.watched = tally
        self.old: Node | None = None
        #: Whether nothing comes after this outage.
        self.last = False
        #: Where a slot goes.
        self.target: Node | None = None
        self.named_at: float | None = None
        self._probe = probe

    @staticmethod
    def now() -> float:
        """Give the time of the tally and of the probe."""
        return SYSTEM.now()

    def until_whole(self) -> None:
        """Wait until every server is in its place again; after the last outage of a quick run nobody needs that."""
        if self.last and self.options.quick:
            return
        self.until(self.topology.is_whole, "the servers do not come to be whole")

    def apply(self, fault: Fault) -> Applied:
        """Let it happen, and note what only the servers' operator sees."""
        began = self.now()
        self.named_at = None
        seen = self.watched.seen[self._number + 1] = Seen(began)
        try:
            return super().apply(fault)
        finally:
            seen.ended = self.now() - began
            named_at: float | None = self.named_at
            seen.named = None if named_at is None else named_at - began
            for number in range(len(self.topology.nodes)):
                spans = self._probe.taken(number, began, self.now())
                seen.taken[number] = [(start - began, end - began) for start, end in spans]
            seen.both_took = self._probe.both_took(began, self.now())


def run(
    options: Options,
    topology_of: Callable[[Crew], Any],
    faults: Sequence[Fault],
    say: Callable[[str], None],
    *,
    operators: Sequence[str] = (FAR,),
    plain: bool = False,
    dsn: str | None = None,
) -> Watched:
    """Do it and give what came out; nothing is left behind, however it ends.

    `operators` says on which sides of a partition they are, `plain` that clients are redis-py's own, `dsn` where there
    is an empty database with the schema in it; without it a server is started.
    """
    tally = Watched()
    with (
        signals.raising(),
        contextlib.closing(Board.make(options.operators)) as board,
        contextlib.ExitStack() as stack,
        Crew() as crew,
        topology_of(crew) as topology,
    ):
        address = stack.enter_context(start_postgres()).dsn if dsn is None else dsn
        place = Place(address, topology, operators=operators, plain=plain)
        place.fill(options.operators, schema=dsn is None)
        tally.versions = {"server": topology.nodes[0].server.version}
        with Probe(topology.nodes) as probe:
            scene = Scene(options, place, topology, crew, board, tally, probe, say)
            try:
                scene.until_whole()
                scene.raise_crew()
                scene.listen_for(1.0)
                lacking = {fault.name: fault.lacks(scene) for fault in faults}
                tally.left_out = {name: why for name, why in lacking.items() if why is not None}
                possible = [fault for fault in faults if fault.name not in tally.left_out]
                for number, fault in enumerate(possible):
                    scene.last = number == len(possible) - 1
                    scene.apply(fault)
                    scene.listen_for(0.5)
                scene.dismiss_crew()
                tally.note_log(topology.master())
            except GaveUpError as error:
                tally.trouble(str(error))
    return tally
