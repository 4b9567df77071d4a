"""Where a soak plays: the servers, the crew, and what a fault may do with them."""

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import redis

from kcg_cache.system import SYSTEM
from tests.soak.audit import MOST_TOLD
from tests.soak.board import DATABASE_FAULT, ENDED, ENDED_AT, FAULT, Board
from tests.soak.children import KINDS
from tests.soak.crew import Crew, Member
from tests.soak.faults import Fault
from tests.soak.plan import Options
from tests.soak.plants import EVERYWHERE
from tests.soak.servers import Servers
from tests.soak.tally import Applied, Tally
from tests.topology import clients

_STEP = 0.1
#: What libpq itself writes when a server sends its client away; the driver raises it too.
_LIBPQ = re.compile(r"(FATAL|WARNING|NOTICE|DETAIL|HINT):  ")
#: Bounds, in seconds, that are met only when something is wrong.
_PATIENCE = 60.0
_HOLDING_WITHIN = 6.0
_TRIES = 5
#: Seconds after a database fault in which its last errors may still arrive.
_SETTLE = 0.3


class GaveUpError(RuntimeError):
    """Something that has to come about did not."""


class Stage:
    """The servers, the crew and the tally of one soak."""

    #: How many findings a process tells in full.
    findings = MOST_TOLD

    def __init__(
        self, options: Options, servers: Servers, crew: Crew, board: Board, tally: Tally, say: Callable[[str], None]
    ) -> None:
        self.options = options
        self.servers = servers
        self.tally = tally
        self.random = random.Random(options.seed)  # noqa: S311 - a seeded run, no secret
        self._crew = crew
        self._board = board
        self._say = say
        self._workers: dict[int, Member] = {}
        self._promoter: Member | None = None
        self._born = 0
        self._ready: set[Member] = set()
        self._holding: set[Member] = set()
        self._with_child: set[Member] = set()
        self._began = time.monotonic()
        self._number = 0

    # --- the crew -----------------------------------------------------------------------------------------------------

    @property
    def promoter(self) -> Member:
        """The process of the operators."""
        assert self._promoter is not None
        return self._promoter

    @property
    def lock_ttl(self) -> float:
        """How long a fill lock outlives its holder."""
        return float(self.options.settings().get("lock_ttl", 3.0))

    def raise_crew(self) -> None:
        """Start everybody, and wait until they are ready."""
        self._start_promoter()
        for number in range(self.options.workers):
            self._start_worker(number)
        self._await_ready()
        self._began = time.monotonic()

    def living_workers(self) -> list[Member]:
        """Give the workers that run."""
        return [member for member in self._workers.values() if not member.gone and not member.expected_to_end]

    def holding_filler(self) -> Member:
        """Have a worker read by force, and give it while it stands between its SELECT and its publish."""
        for _ in range(_TRIES):
            # Not the first, which asks on every read: it is the one that sees at once what a filler does.
            member = self.random.choice([one for one in self.living_workers() if one is not self._workers[0]])
            self._holding.discard(member)
            member.tell(hold=True)
            until = time.monotonic() + _HOLDING_WITHIN
            while member not in self._holding and time.monotonic() < until:
                self._hear(_STEP)
            if member in self._holding:
                return member
        raise GaveUpError(f"no worker came to hold a fill in {_TRIES} tries")

    def until_invalidated(self) -> None:
        """Wait until an invalidate has returned that began after this."""
        # One more than there are operators: one of them has returned twice.
        enough = self.tally.invalidations + self.options.operators + 1
        self.until(lambda: self.tally.invalidations >= enough, "no invalidate returned")

    @contextlib.contextmanager
    def everybody_stopped(self) -> Iterator[None]:
        """Stop all of the crew for the block, and let the operators go on last."""
        members = [*self.living_workers(), self.promoter]
        for member in members:
            member.stop()
        try:
            yield
        finally:
            for member in members[:-1]:
                member.go_on()
            self.listen_for(_STEP)
            members[-1].go_on()

    def make_children(self, kind: str) -> None:
        """Have every worker make a child, and wait until they are being made."""
        assert kind in KINDS
        for member in self.living_workers():
            member.tell(child=kind)
            self._with_child.add(member)

    def until_childless(self) -> None:
        """Wait until every child has ended."""
        self.until(lambda: not any(member in self._with_child for member in self.living_workers()), "children hang")
        self._with_child.clear()

    def replace_the_dead(self) -> None:
        """Start a new process for each that was killed."""
        for number, member in list(self._workers.items()):
            if member.expected_to_end:
                self._bury(member)
                self._start_worker(number)
        if self.promoter.expected_to_end:
            self._bury(self.promoter)
            self._start_promoter()
        self._await_ready()

    def _bury(self, member: Member) -> None:
        self.until(lambda: member.gone, f"{member.name} does not die")
        self._crew.let_go(member)

    def dismiss_crew(self) -> None:
        """Let everybody end in order."""
        members = [*self._workers.values(), self.promoter]
        for member in members:
            member.expected_to_end = True
            member.tell(stop=True)
        self.until(lambda: all(member.gone for member in members), "not everybody ended when told to")
        self.tally.seconds = time.monotonic() - self._began
        for member in self._crew.members:
            lines = member.complaints.decode(errors="replace").splitlines()
            complaints = [line for line in lines if line and not _LIBPQ.match(line)]
            if complaints:
                self.tally.trouble(f"{member.name} wrote: {' | '.join(complaints)[-2000:]}")

    def _start_worker(self, number: int) -> None:
        self._born += 1
        options, own = self.options, self.options.worker(number)
        plant, address = options.plant, self.servers.redis_of_worker(number)
        told: dict[str, Any] = {
            **own,
            "settings": options.settings() | own["settings"] | clients.settings_of(address),
            "redis": address,
            "findings": self.findings,
            "dsn": self.servers.proxied_dsn,
            "operators": options.operators,
            "seed": options.seed * 100_000 + self._born,
            "plant": plant if plant in EVERYWHERE or number == min(2, options.workers - 1) else None,
        }
        self._workers[number] = self._crew.start(f"w{number}#{self._born}", "worker", told, self._board.descriptor)

    def _start_promoter(self) -> None:
        self._born += 1
        # Half of the operators by the proxies, half directly; which half is the seed's choice.
        redis_urls = list(self.servers.redis_of_operators())
        dsns = [self.servers.proxied_dsn, self.servers.dsn]
        if self.options.prices:
            # All see what befalls Redis; but the change of one comes about, so that readers have to load.
            redis_urls = redis_urls[:1]
        elif self.options.seed % 2:
            redis_urls.reverse()
            dsns.reverse()
        told: dict[str, Any] = {
            "settings": self.options.settings(),
            "redis": redis_urls,
            "dsn": dsns,
            "operators": self.options.operators,
            "seed": self.options.seed * 100_000 + self._born,
            "plant": self.options.plant,
            "patience": _PATIENCE / 2,
        }
        self._promoter = self._crew.start(f"promoters#{self._born}", "promoter", told, self._board.descriptor)

    def _await_ready(self) -> None:
        members = [*self._workers.values(), self.promoter]
        self.until(
            lambda: all(member in self._ready or member.expected_to_end for member in members), "not all are ready"
        )

    # --- hearing ------------------------------------------------------------------------------------------------------

    def listen_for(self, seconds: float) -> None:
        """Hear everybody for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._hear(min(_STEP, left))

    def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Hear everybody until something is true; raise `GaveUpError` when it is not for very long."""
        until = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > until:
                raise GaveUpError(otherwise)
            self._hear(_STEP)

    def _hear(self, seconds: float) -> None:
        for member, message in self._crew.listen(seconds):
            match message["event"]:
                case "ready":
                    self._ready.add(member)
                case "holding":
                    self._holding.add(member)
                case "child_ended":
                    self._with_child.discard(member)
                case "gone" if not member.expected_to_end:
                    said = member.complaints.decode(errors="replace")[-2000:]
                    raise GaveUpError(f"{member.name} ended with status {message['status']}: {said}")
                case "violation":
                    self._say(f"VIOLATION {message}")
            self.tally.hear(member.name, message)

    # --- faults -------------------------------------------------------------------------------------------------------

    def apply(self, fault: Fault) -> Applied:
        """Let a fault happen, last, end, and the fleet recover; give what was seen."""
        self._number += 1
        applied = Applied(self._number, fault.name, time.monotonic() - self._began)
        self.tally.applied[self._number] = applied
        self._say(f"{applied.at:7.1f} s  {self._number:4}  {fault.name}")
        words = self._board.words
        if fault.database:
            words[DATABASE_FAULT] += 1
        words[FAULT] = self._number
        began = time.monotonic()
        try:
            fault.begin(self)
            until = time.monotonic() + self.random.uniform(*fault.lasts) * self.options.scale
            while (left := until - time.monotonic()) > 0:
                fault.again(self)
                self._hear(min(_STEP, left))
        finally:
            fault.end(self)
        applied.seconds = time.monotonic() - began
        words[ENDED_AT] = round(SYSTEM.now() * 1e9)
        words[ENDED] = self._number
        words[FAULT] = 0
        if fault.database:
            self._await_database()
            self.listen_for(_SETTLE)
            words[DATABASE_FAULT] += 1
        self.until_shared()
        return applied

    def until_shared(self) -> None:
        """Wait until every worker has had rows that are the fleet's, since the last fault."""
        applied = self.tally.applied.get(self._board.words[ENDED])
        if applied is None:
            return

        def all_have() -> bool:
            # One that was started since has its first rows by an answer of after the fault anyway.
            return all(member.name in applied.recovered for member in self.living_workers())

        self.until(all_have, f"not everybody had shared rows again after {applied.name}")

    def hits(self, count: int) -> None:
        """Note how often the present fault has hit somebody: one that hits nobody shows nothing."""
        self.tally.applied[self._number].hits += count

    def redis_refuses(self, *command: Any) -> bool:
        """Send a command to Redis; tell whether it was refused."""
        try:
            self.servers.redis(*command)
        except redis.exceptions.ResponseError:
            return True
        return False

    def _await_database(self) -> None:
        """Wait until the database answers by the way that the workers go."""

        def answers() -> bool:
            try:
                with self.servers.database(by_proxy=True) as conn, conn.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except psycopg2.OperationalError:
                return False
            return True

        self.until(answers, "the database is not back")
