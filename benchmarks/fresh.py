"""Reads older than the last returned invalidate: in plain operation, with a Redis that hangs, for a reader cut off."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import auditing
from benchmarks.auditing import Audit, Withdrawals
from benchmarks.candidates import CATALOGUE, Candidate, Place, few
from benchmarks.crew import Member
from benchmarks.database import Database, make_database
from benchmarks.results import Bar, Chart, Goal, Result, Table, duration
from benchmarks.rig import Effort, Rig
from benchmarks.rows import SIZES
from kcg_cache.embedded import start_valkey
from tests.soak.crew import Crew
from tests.soak.servers import Servers

NAME = "fresh"
TITLE = "Reads older than the last returned invalidate"

_READERS = 2
_MOST_READS = 10_000_000
#: Peers measured at once: it is counts that are compared, not times.
_TOGETHER = 3


@dataclass(frozen=True, slots=True)
class _Plan:
    """How much is done. `seconds` are before, during and after a fault."""

    rounds: int
    spots: int
    step: float
    our_rounds: int
    our_spots: int
    our_step: float
    seconds: tuple[float, float, float]


_FULL = _Plan(rounds=50, spots=10, step=0.4, our_rounds=40, our_spots=24, our_step=1.1, seconds=(2.0, 10.0, 4.0))
_SMOKE = _Plan(rounds=2, spots=2, step=0.2, our_rounds=1, our_spots=3, our_step=0.2, seconds=(0.1, 0.2, 0.1))


@dataclass(slots=True)
class _Found:
    """All that is known of one candidate: an audit, and what its operator did, for each trial."""

    kind: type[Candidate]
    audits: dict[str, Audit] = field(default_factory=dict)
    withdrawals: dict[str, Withdrawals] = field(default_factory=dict)

    @property
    def fresh(self) -> bool:
        return not any(audit.stale for audit in self.audits.values())

    def verdict(self) -> str:
        """Say "yes", or what was stale, and for how long."""
        if self.fresh:
            return "yes"
        failed = [f"{name} {duration(audit.longest)}" for name, audit in self.audits.items() if audit.stale]
        return f"no: {', '.join(failed)}"


def run(rig: Rig, effort: Effort) -> Result:
    """Put every candidate through all three."""
    plan = effort.of(_FULL, _SMOKE)
    kinds = effort.of(CATALOGUE, few())
    found = [_Found(kind) for kind in kinds]
    ours = [one for one in found if one.kind.ours]
    peers = [one for one in found if not one.kind.ours]
    databases = [make_database(rig.postgres.dsn, f"bench_fresh_{number}", SIZES["S"]) for number in range(len(found))]
    for database in databases:
        database.close()
    trial = _Trial(rig, plan, dict(zip(kinds, (database.dsn for database in databases), strict=True)))
    together = effort.of(_TOGETHER, len(peers))
    for start in range(0, len(peers), together):
        trial.plain(peers[start : start + together], plan.rounds, plan.spots, plan.step)
    trial.plain(ours, plan.our_rounds, plan.our_spots, plan.our_step)
    trial.hang(found)
    trial.cut_off(found)
    return _result(found, plan)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The three things that every candidate goes through, many of them side by side, each with rows of its own."""

    rig: Rig
    plan: _Plan
    dsns: dict[type[Candidate], str]

    def plain(self, found: Sequence[_Found], rounds: int, spots: int, step: float) -> None:
        """Withdraw many spots again and again while two processes read all of them."""
        url = self.rig.valkey.url
        with self._reading("plain", found, [url] * _READERS, spots, pause=0.0) as operators:
            for number, (one, operator, places) in enumerate(operators):
                operator.order(auditing.operate, one.kind, places(url), number * spots, rounds, step)
            for one, operator, _ in operators:
                one.withdrawals["plain"] = operator.answer()

    def hang(self, found: Sequence[_Found]) -> None:
        """Stop a Redis in mid-work while readers read and an operator changes the rows."""
        with start_valkey() as valkey:
            self.rig.pin_server(valkey.pid)
            urls = [valkey.url] * _READERS
            self._strike("hang", found, urls, valkey.url, lambda on: valkey.pause() if on else valkey.resume())

    def cut_off(self, found: Sequence[_Found]) -> None:
        """Let a reader's way to Redis go deaf while the operator's is whole."""
        with start_valkey() as valkey, Crew() as proxies:
            self.rig.pin_server(valkey.pid)
            with contextlib.closing(Servers(valkey, self.rig.postgres, None)) as servers:
                servers.start_proxies(proxies, 1)
                self._strike(
                    "cut off",
                    found,
                    [servers.proxied_redis],
                    valkey.url,
                    lambda on: servers.set_proxy("redis", "deaf" if on else "pass"),
                )

    def _strike(
        self, name: str, found: Sequence[_Found], readers: Sequence[str], url: str, blow: Callable[[bool], object]
    ) -> None:
        before, during, after = self.plan.seconds
        with self._reading(name, found, readers, 1, pause=0.002) as operators:
            for number, (one, operator, places) in enumerate(operators):
                operator.call(auditing.open_operator, one.kind, places(url)[0], number)
            for _, operator, _ in operators:
                operator.order(auditing.operate_on, 0.2)
            time.sleep(before)
            blow(True)
            try:
                time.sleep(during)
            finally:
                blow(False)
            time.sleep(after)
            self.rig.board.stop = True
            for one, operator, _ in operators:
                one.withdrawals[name] = operator.answer()

    @contextlib.contextmanager
    def _reading(
        self, name: str, found: Sequence[_Found], urls: Sequence[str], spots: int, *, pause: float
    ) -> Iterator[list[tuple[_Found, Member, Callable[[str], list[Place]]]]]:
        """Have readers read, one for each URL and candidate, until the block ends; give the operators."""
        board = self.rig.board
        board.clear()
        with self.rig.crew(len(found) * (1 + len(urls))) as members:
            free = iter(members)
            operators, readers = [], []
            for one in found:
                places = self._places(one.kind, spots)
                operators.append((one, next(free), places))
                readers.append([(next(free), places(url)) for url in urls])
            for one, group in zip(found, readers, strict=True):
                for member, its_places in group:
                    member.call(auditing.open_spots, one.kind, its_places)
            for number, group in enumerate(readers):
                for member, _ in group:
                    member.order(auditing.read_on, number * spots, pause)
            try:
                yield operators
            finally:
                board.stop = True
            for one, group in zip(found, readers, strict=True):
                audit = one.audits[name] = Audit()
                for member, _ in group:
                    audit.add(member.answer())

    def _places(self, kind: type[Candidate], spots: int) -> Callable[[str], list[Place]]:
        database = Database(self.dsns[kind])
        namespaces = [self.rig.namespace() for _ in range(spots)]
        return lambda url: [Place(url, database, namespace) for namespace in namespaces]


def _result(found: Sequence[_Found], plan: _Plan) -> Result:
    result = Result(NAME, TITLE)
    ours = [one for one in found if one.kind.ours]
    reads = sum(audit.reads for one in ours for audit in one.audits.values())
    stale = sum(audit.stale for one in ours for audit in one.audits.values())
    withdrawn = sum(withdrawals.done for one in ours for withdrawals in one.withdrawals.values())
    peers = [one for one in found if not one.kind.ours]
    result.goals.append(
        Goal(
            5,
            "reads older than the last returned invalidate",
            f"0 in {_MOST_READS:,}",
            f"{stale} in {reads:,} reads, {withdrawn:,} invalidates; of {len(peers)} others "
            f"{sum(not one.fresh for one in peers)} gave some",
            stale == 0 and reads >= _MOST_READS,
        )
    )
    result.tables.append(
        Table(
            "Fresh after invalidate?",
            (
                "candidate",
                "invalidates",
                "reads",
                "stale",
                "longest",
                "Redis hangs: stale",
                "longest",
                "cut off: stale",
                "longest",
                "fresh after invalidate?",
            ),
            tuple(
                (
                    one.kind.name,
                    f"{one.withdrawals['plain'].done:,}",
                    f"{one.audits['plain'].reads:,}",
                    *itertools.chain.from_iterable(_stale(audit) for audit in one.audits.values()),
                    one.verdict(),
                )
                for one in found
            ),
        )
    )
    result.tables.append(
        Table(
            "What was raised",
            ("candidate", "trial", "reads", "raised by reads", "invalidates", "raised by invalidates"),
            tuple(
                (
                    one.kind.name,
                    name,
                    f"{audit.reads:,}",
                    _errors(audit.errors),
                    f"{one.withdrawals[name].done:,}",
                    _errors(one.withdrawals[name].errors),
                )
                for one in found
                for name, audit in one.audits.items()
            ),
        )
    )
    result.pictures.append(
        Chart(
            "fresh",
            "Stale rows: the longest after an invalidate had returned",
            "s",
            tuple(
                Bar(one.kind.name, longest, longest, longest, ours=one.kind.ours)
                for one in found
                for longest in [max(audit.longest for audit in one.audits.values())]
            ),
            log=False,
        )
    )
    _before, during, _after = plan.seconds
    result.notes += [
        (
            "A read is stale when its rows are older than what was withdrawn before it began: the operator commits, "
            "calls invalidate, and writes the generation on a board in memory when that has returned; a reader looks "
            "there first, and then reads. An invalidate that raised has not returned, and is repeated until it does."
        ),
        (
            f"In plain operation two processes read {plan.spots} caches each ({plan.our_spots} of ours), and every "
            f"cache is withdrawn twice every {plan.step:g} s ({plan.our_step:g} s), every other time within 4 ms, so "
            "that loads race invalidates. The next invalidate ends what the last one left stale, so here the longest "
            "is no longer than that; how long it lasts without another is what the benchmark of the race shows."
        ),
        (
            f'"Redis hangs" is a server stopped (SIGSTOP) for {during:g} s; "cut off" is one reader whose connections '
            f"to Redis go deaf for {during:g} s while the operator's are whole. The TTL is 300 s in all of it."
        ),
        "Ours waits 1.02 s in every invalidate, others return at once: that second is the price of the zero.",
    ]
    result.figures = {
        one.kind.name: {
            "fresh": one.fresh,
            "verdict": one.verdict(),
            "trials": {
                name: {
                    "reads": audit.reads,
                    "stale": audit.stale,
                    "longest_s": audit.longest,
                    "read_errors": dict(audit.errors),
                    "invalidates": one.withdrawals[name].done,
                    "invalidate_errors": dict(one.withdrawals[name].errors),
                }
                for name, audit in one.audits.items()
            },
        }
        for one in found
    }
    return result


def _stale(audit: Audit) -> tuple[str, str]:
    return f"{audit.stale:,}", duration(audit.longest) if audit.stale else "-"


def _errors(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(errors.items())) or "-"
