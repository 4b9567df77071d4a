"""One run: the real cache in several simulated processes, an operator, a nemesis, and at the end everybody recovers."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg2

from kcg_cache import InvalidateError, SharedCache, codec
from tests.simulation.audit import Audit
from tests.simulation.database import DATASET, Connection, Database, lending
from tests.simulation.faults import FAULTS
from tests.simulation.host import SimulatedHost
from tests.simulation.network import Client, Fates, Network
from tests.simulation.plan import Plan, drawn
from tests.simulation.redis_server import State
from tests.simulation.world import Process, StuckError, World

_TAINTS = ("old snapshot", "uncommitted writes", "standby")
#: How often the last readers may ask before the cache must be shared again.
_RECOVERY_TRIES = 12


@dataclass(frozen=True)
class Outcome:
    """What one run showed."""

    plan: Plan
    violations: tuple[str, ...]
    counts: dict[str, int]
    #: What every process counted, added up.
    metrics: dict[str, int]
    seconds: float
    steps: int
    trace: tuple[str, ...]


class Worker(Process):
    """A simulated process with a real cache."""

    def __init__(self, run: "Run", name: str, rate: float) -> None:
        super().__init__(run.world, name)
        self.host = SimulatedHost(run.world, self, rate=rate)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.cache = run.make_cache(
                Client(run.network, self), DATASET, run.plan.settings.replace(namespace="simulated"), system=self.host
            )
        store = self.cache._store
        store.inline = run.plan.inline
        fetch = store.payload

        def counted(entry: Any) -> Any:
            payload = fetch(entry)
            run.audit.counts["payloads fetched" if payload else "payloads changed before they were fetched"] += 1
            return payload

        store.payload = counted


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, *, trace: bool = False, make_cache: Callable[..., Any] = SharedCache) -> None:
        self.plan = plan
        self.make_cache = make_cache
        self.world = World(plan.seed, trace=trace)
        self.world.pace, self.world.hiccups = plan.pace, plan.hiccups
        rates = plan.rates
        self.network = Network(
            self.world, offset=self.world.random.uniform(0, 1e6), rate=rates[0], fates=plan.fates, tick=plan.tick
        )
        self.database = Database(self.world, stamped=plan.stamped, odd_rows=plan.odd_rows, slowness=plan.slowness)
        self.audit = Audit(self.world, self.database, plan.settings)
        self.network.observers.append(self.audit.script)
        self.operator = Worker(self, "operator", rates[1])
        self.workers = [Worker(self, f"w{number}", rate) for number, rate in enumerate(rates[2:], 1)]
        self.everyone = [self.operator, *self.workers]
        self._born = len(self.workers)
        #: At the end: no fault begins or passes any more.
        self._healed = False
        self._at_work = 0

    def go(self) -> Outcome:
        """Run it to its end."""
        plan = self.plan
        try:
            for worker, threads in zip(self.workers, plan.threads, strict=True):
                for _ in range(threads):
                    self._start(worker, plan.reads)
            for _ in range(plan.operators):
                self._task("operator", self._operate, self.operator)
            for at, name in plan.faults:
                self.world.after(at, lambda name=name: self._strike(name))  # type: ignore[misc]
            self.world.run(until=lambda: self._at_work == 0)
            self._check_loads()
            self._recover()
        except StuckError as error:
            self.world.violation(f"a read or an invalidate never ends: {error}")
        finally:
            for process in self.everyone:
                process.kill()
        totals: dict[str, int] = {}
        for worker in self.everyone:
            for name, count in worker.cache.metrics.as_dict().items():
                totals[name] = totals.get(name, 0) + count
        return Outcome(
            plan,
            tuple(self.world.violations),
            dict(self.audit.counts),
            totals,
            self.world.now,
            self.world.steps,
            tuple(self.world.trace or ()),
        )

    # --- readers ----------------------------------------------------------------------------------------------------

    def _task(self, name: str, work: Callable[[], None], process: Process) -> None:
        self._at_work += 1

        def counted() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - nothing may escape, so whatever does is a finding
                self.world.violation(f"{name}: {type(error).__name__} escaped: {error}")
            finally:
                self._at_work -= 1

        task = self.world.spawn(name, counted, process)
        task.unstarted = self._not_started  # a task that is killed before it begins is at work no more

    def _not_started(self) -> None:
        self._at_work -= 1

    def _start(self, worker: Worker, reads: int) -> None:
        def work() -> None:
            for _ in range(reads):
                self._read(worker)
                # At times at once: what a reader was given just now must not be older than what the next one is given.
                self.world.sleep(self.plan.think * max(0.0, self.world.random.uniform(-0.5, 1.0)))

        self._task(f"{worker.name}.{len(worker.tasks) + 1}", work, worker)

    def _read(self, worker: Worker) -> None:
        world, plan = self.world, self.plan
        force = world.chance(plan.forced)
        max_age = world.between(0.05, 3.0) if not force and world.chance(plan.aged) else None
        conn: Any = lending(self.database, worker)
        if world.chance(plan.tainted):
            conn = Connection(self.database, worker, world.random.choice(_TAINTS))
            # The caller's transaction was open for a while.
            world.sleep(plan.think * world.random.random())
        self.read_once(worker, conn, force=force, max_age=max_age)

    def read_once(self, worker: Worker, conn: Any, *, force: bool = False, max_age: float | None = None) -> Any:
        """Read and audit; None when the database failed."""
        world, task = self.world, self.world.current
        assert task is not None
        began = self.audit.begins(worker.name)
        paused = worker.paused_for
        copy = worker.cache._near.copy
        covered = not force and max_age is None and copy is not None and worker.host.read_clock() < copy.valid_until
        requests = task.requests
        world.note(lambda: f"reads{' forced' if force else ''}{'' if max_age is None else f' max_age={max_age:.3f}'}")
        try:
            snapshot = worker.cache.read(conn, force=force, max_age=max_age)
        except psycopg2.Error:
            self.audit.counts["reads failed by the database"] += 1
            snapshot = None
        else:
            world.note(lambda: f"returns version {snapshot.rows[0]['version']} ({snapshot.source})")
            self.audit.returned(worker.name, began, snapshot, conn, force=force, max_age=max_age)
        if covered:
            source = snapshot.source if snapshot is not None else "none"
            self.audit.covered(worker.name, requests=task.requests - requests, source=source)
        if paused == worker.paused_for:
            self.audit.ended(worker.name, began, bound=self._longest_read())
        return snapshot

    def _longest_read(self) -> float:
        """Give what no read may exceed: its patience, the loads of three tries, and its pauses at the doors."""
        pauses = 400 * self.plan.pace + (20.0 if self.plan.hiccups else 0.0)
        return self.plan.settings.wait_timeout + 8 * self.database.longest + 10 * self.network.timeout + pauses

    # --- the operator -----------------------------------------------------------------------------------------------

    def _operate(self) -> None:
        for _ in range(self.plan.changes):
            self.world.sleep(self.world.between(0.01, 3.0))
            self.database.commit()
            for _ in range(20):
                if self.invalidate():
                    break
                self.world.sleep(0.5 * self.world.random.random())

    def invalidate(self) -> bool:
        """Invalidate, now and then through a worker's cache or without waiting; tell whether it is confirmed."""
        world = self.world
        through = world.random.choice(self.workers) if world.chance(0.3) else self.operator
        if through.dead or through.name in self.network.cut:
            through = self.operator
        began, version = world.now, self.database.version
        world.note(lambda: f"invalidates through {through.name}")
        try:
            waits = world.chance(0.8)
            receipt = through.cache.invalidate(wait=waits)
            if not waits:
                receipt.wait()
        except InvalidateError as error:
            cause = error
            world.note(lambda: f"is told: {cause}")
            self.audit.counts["invalidates not confirmed"] += 1
            return False
        world.note(lambda: f"the invalidate of version {version} has returned")
        self.audit.invalidated(version=version, began=began)
        # The moment at which a lease that is too long would show.
        for worker in self.workers:
            self._start(worker, 1)
        return True

    # --- the nemesis --------------------------------------------------------------------------------------------------

    def _strike(self, name: str) -> None:
        if self._healed:
            return
        self.audit.counts[f"fault {name}"] += 1
        self.world.note(lambda: f"FAULT {name}")
        FAULTS[name](self)

    def later(self, seconds: float, what: str, action: Callable[[], None]) -> None:
        """Have a fault pass."""

        def passes() -> None:
            if not self._healed:
                self.world.note(lambda: what)
                action()

        self.world.after(seconds, passes)

    def someone(self) -> Worker:
        """Choose a worker."""
        return self.world.random.choice(self.workers)

    def old_state(self) -> State:
        """Give what a replica that lags, or an RDB file, has."""
        return self.world.random.choice(self.network.history) if self.network.history else {}

    def kill(self, worker: Worker) -> None:
        """Kill a worker; another process takes its place and does the rest."""
        threads = max(1, sum(not task.over for task in worker.tasks))
        worker.kill()
        self.workers.remove(worker)
        self._born += 1
        heir = Worker(self, f"w{self._born}", worker.host.rate)
        self.workers.append(heir)
        self.everyone.append(heir)
        for _ in range(min(threads, 3)):
            self._start(heir, max(1, self.plan.reads // 2))

    def kill_operator(self) -> None:
        """Kill the operator in the middle of whatever it does; another one begins anew."""
        self.operator.kill()
        self.operator = Worker(self, "operator", self.operator.host.rate)
        self.everyone.append(self.operator)
        if self.plan.operators:
            self._task("operator", self._operate, self.operator)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _check_loads(self) -> None:
        """Check how often the database was read where nothing went wrong (Promises 2 and 3)."""
        loads, scenario = len(self.database.loads), self.plan.scenario
        if scenario == "cold start" and loads != 1:
            self.world.violation(f"Promise 3: {loads} loads for one cold start")
        if scenario == "forced at once" and loads > 2:
            self.world.violation(f"Promise 2: {loads} loads for forced reads at once")

    def _recover(self) -> None:
        """Heal everything, change once more, and see that everybody shares the new rows."""
        network, world = self.network, self.world
        world.note(lambda: "everything is healed")
        self._healed = True
        network.mode, network.fates = "up", Fates()
        network.cut.clear()
        network.master.silent = False
        network.reachable_again()
        self.database.down, self.database.failing, self.database.slowness = False, 0.0, (0.001, 0.01)
        world.pace, world.hiccups = 0.0005, 0.0
        for process in self.everyone:
            process.paused_until = world.now
        self._task("operator", self._last_change, self.operator)
        world.run(until=lambda: self._at_work == 0)
        version = self.database.version
        shared: set[str] = set()
        for worker in self.workers:
            self._task(f"{worker.name} last", lambda worker=worker: self._last_reads(worker, shared), worker)  # type: ignore[misc]
        world.run(until=lambda: self._at_work == 0)
        for worker in self.workers:
            if worker.name not in shared:
                world.violation(f"{worker.name} does not share version {version} although everything is healed")

    def _last_change(self) -> None:
        while self.database.commit() and self.database.oversized:
            pass  # the last version has to be one that can be shared
        for _ in range(_RECOVERY_TRIES):
            if self.invalidate():
                return
            self.world.sleep(1.0)
        self.world.violation("the invalidate is not confirmed although everything is healed")

    def _last_reads(self, worker: Worker, shared: set[str]) -> None:
        for _ in range(_RECOVERY_TRIES):
            snapshot = self.read_once(worker, lending(self.database, worker))
            if snapshot is not None and snapshot.shared and snapshot.rows[0]["version"] == self.database.version:
                shared.add(worker.name)
                return
            self.world.sleep(1.0)


def simulate(seed: int, *, trace: bool = False, make_cache: Callable[..., Any] = SharedCache) -> Outcome:
    """Run one seed."""
    logger = logging.getLogger("kcg_cache")
    disabled, logger.disabled = logger.disabled, True
    # A thread for its empty stack alone: waiting for a real one would take longer than all the rest.
    own_stack, codec.on_own_stack = codec.on_own_stack, lambda work: work()
    try:
        return Run(drawn(seed), trace=trace, make_cache=make_cache).go()
    finally:
        logger.disabled = disabled
        codec.on_own_stack = own_stack
