"""The real code under a seeded scheduler (docs/simulation.md): no seed breaks a promise; planted faults are found."""

import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kcg_cache import SharedCache
from tests.mutants.table import RULES, load
from tests.simulation import planted
from tests.simulation.__main__ import described, main
from tests.simulation.faults import FAULTS
from tests.simulation.host import SimulatedHost
from tests.simulation.plan import SCENARIOS, drawn
from tests.simulation.run import Outcome, Run, simulate
from tests.simulation.world import TIMED_OUT, Process, StuckError, World

# What it simulates is the code, wherever that is installed: once is enough.
pytestmark = pytest.mark.checkout

#: Seeds of every test run, and how many of them one test does.
SEEDS, BATCH = 3000, 100
#: Of these another test asks, too.
LOOKED_AT = 400
TABLE = {mutation.name: mutation for mutation in load()}
RECORDED = planted.recorded()


def _sample() -> list[str]:
    """Give, for each rule of which mutations were found, the one whose name comes first."""
    found: dict[str, str] = {}
    for name in sorted(RECORDED):
        found.setdefault(TABLE[name].rule, name)
    return [found[rule] for rule in RULES if rule in found]


@functools.cache
def _outcome(seed: int) -> Outcome:
    """Simulate what two tests look at once: a seed is one schedule."""
    assert seed < LOOKED_AT
    return simulate(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Every read, invalidate, fill and statement is audited; of a seed that breaks something the schedule is shown."""
    for seed in range(first, first + BATCH):
        outcome = _outcome(seed) if seed < LOOKED_AT else simulate(seed)
        if outcome.violations:
            schedule = "\n".join(described(simulate(seed, trace=True)))
            pytest.fail(f"{schedule}\nthe same again: scripts/simulate --seed {seed}", pytrace=False)


def test_the_seeds_come_to_whatever_can_happen() -> None:
    """Every fault strikes, and every kind of read, fill and failure that the rules speak of occurs."""
    seen: Counter[str] = Counter()
    scenarios = set()
    for seed in range(LOOKED_AT):
        outcome = _outcome(seed)
        scenarios.add(outcome.plan.scenario)
        seen.update(outcome.counts)
        seen.update({f"metric {name}": count for name, count in outcome.metrics.items()})
    assert scenarios == set(SCENARIOS)
    expected = [f"fault {name}" for name in FAULTS]
    expected += ["reads near", "reads redis", "reads database", "reads tainted", "reads covered", "fills"]
    expected += ["invalidates", "invalidates not confirmed", "reads failed by the database"]
    expected += ["payloads fetched", "payloads changed before they were fetched"]
    expected += [
        f"metric {name}"
        for name in (
            "fills_rejected",
            "fills_given_up",
            "fills_oversized",
            "fills_unanswered",
            "lease_renewals",
            "locks_lost",
            "private_loads",
            "reads_handed_over",
            "wait_timeouts",
            "near_dropped",
            "entries_rejected",
            "refreshes",
            "stale_served",
            "tainted_reads",
        )
    ]
    assert [name for name in expected if not seen[name]] == []


def test_a_seed_is_one_schedule_in_every_process() -> None:
    """Step by step, also where Python's own hashes are others: a failing seed can be replayed."""
    seed = next(seed for seed in range(100) if len(drawn(seed).faults) > 3)
    here = simulate(seed, trace=True)
    assert here.trace == simulate(seed, trace=True).trace
    assert here.trace[:50] != simulate(seed + 1, trace=True).trace[:50]
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(seed)],
        cwd=Path(__file__).parent.parent,
        env={"PYTHONHASHSEED": "7", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    schedule = elsewhere.stdout.splitlines()
    assert schedule[-len(here.trace) - 2 : -2] == list(here.trace)


@pytest.mark.parametrize("name", _sample())
def test_a_seed_that_once_found_a_planted_fault_finds_it_again(name: str) -> None:
    """The regression cases: with the mutation the seed breaks a promise, and without it none."""
    seed = RECORDED[name]
    assert simulate(seed).violations == ()
    (found,) = planted.plant([TABLE[name]], seeds=0)
    assert found.seed == seed, TABLE[name].removes


def test_a_mutation_that_no_seed_finds_is_told_apart() -> None:
    """What cannot be seen from outside is not reported as found."""
    (found,) = planted.plant([TABLE["outage-uncounted"]], seeds=3)
    assert found.seed is None
    assert found.what == ""


def test_a_broken_seed_is_printed_with_the_command_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    """And its schedule has every request, statement and fault."""
    assert main(["--seeds", "20", "--json"]) == 0
    assert '"broken": []' in capsys.readouterr().out
    assert main(["--seed", "4"]) == 0
    printed = capsys.readouterr().out
    assert "read.lua" in printed
    assert "nothing broken" in printed


def _run_with(cache: Any, seed: int = 0) -> tuple[str, ...]:
    return Run(drawn(seed), make_cache=cache).go().violations


def test_an_error_that_escapes_a_read_is_a_violation() -> None:
    """Only the database's own errors may reach a reader."""

    class Escaping(SharedCache):
        def read(self, conn: Any, *, force: bool = False, max_age: float | None = None) -> Any:
            raise LookupError("not the database's")

    assert any("LookupError escaped" in violation for violation in _run_with(Escaping))


def test_a_read_that_never_ends_is_a_violation() -> None:
    """A wake-up that is lost does not end the simulation in silence."""

    class Hanging(SharedCache):
        def read(self, conn: Any, *, force: bool = False, max_age: float | None = None) -> Any:
            host: Any = self._system
            host._world.wait(None)

    assert any("never ends" in violation for violation in _run_with(Hanging))


def test_a_cache_that_keeps_rows_past_its_lease_is_found() -> None:
    """The audit sees what a five-minute copy in each process did."""

    class Forever(SharedCache):
        kept: Any = None

        def read(self, conn: Any, *, force: bool = False, max_age: float | None = None) -> Any:
            self.kept = self.kept or super().read(conn, force=force, max_age=max_age)
            return self.kept

    seed = next(seed for seed in range(100) if drawn(seed).scenario == "calm")
    assert any("Promise 1" in violation for violation in _run_with(Forever, seed))


# --- the world ------------------------------------------------------------------------------------------------------


def _host(world: World) -> tuple[Process, SimulatedHost]:
    process = Process(world, "p")
    return process, SimulatedHost(world, process, rate=1.0)


def test_a_lock_goes_to_one_at_a_time_and_a_wait_for_it_ends() -> None:
    """As `threading.Lock` does, in virtual time."""
    world = World(1)
    process, host = _host(world)
    lock, order = host.lock(), []

    def hold() -> None:
        with lock:
            order.append("held")
            host.sleep(5)
            order.append("given back")

    def impatient() -> None:
        host.sleep(1)
        order.append(f"impatient: {lock.acquire(timeout=1)}")
        order.append(f"patient: {lock.acquire(timeout=100)}")

    tasks = [world.spawn("holder", hold, process), world.spawn("waiter", impatient, process)]
    world.run(until=lambda: all(task.over for task in tasks))
    assert order == ["held", "impatient: False", "given back", "patient: True"]
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_killed_process_unwinds_and_finds_its_doors_shut() -> None:
    """What it does in a finally reaches nobody, and a task that had not begun never begins."""
    world = World(1)
    process, host = _host(world)
    seen = []

    def work() -> None:
        try:
            host.sleep(10)
        finally:
            seen.append("unwinds")
            host.sleep(1)
            seen.append("acts")

    task = world.spawn("t", work, process)
    world.after(1.0, process.kill)
    world.after(2.0, lambda: seen.append("later"))
    world.run(until=lambda: "later" in seen)
    assert task.over
    assert seen == ["unwinds", "later"]
    unborn = world.spawn("u", work, process)
    world.run(until=lambda: unborn.over)
    assert seen == ["unwinds", "later"]


def test_a_paused_process_does_nothing_and_its_clock_goes_on() -> None:
    """As under SIGSTOP, or on a host that is suspended."""
    world = World(1)
    process, host = _host(world)
    woke = []
    before = host.read_clock()

    def work() -> None:
        host.sleep(1)
        woke.append(host.read_clock() - before)

    world.spawn("t", work, process)
    world.after(0.5, lambda: process.pause(20))
    world.run(until=lambda: bool(woke))
    assert woke[0] > 20
    assert process.paused_for == 20


def test_a_wake_up_for_an_earlier_wait_comes_too_late() -> None:
    """A late answer to a request that was given up must not end the next wait."""
    world = World(1)
    process, _ = _host(world)
    got = []

    def work() -> None:
        task = world.current
        assert task is not None
        first = task.waiting
        world.after(5.0, lambda: task.wake(first, "late"))
        got.append(world.wait(1.0))
        got.append(world.wait(10.0))

    task = world.spawn("t", work, process)
    world.run(until=lambda: task.over)
    assert got == [TIMED_OUT, TIMED_OUT]


def test_a_world_in_which_nothing_happens_any_more_says_so() -> None:
    """Rather than wait for ever."""
    with pytest.raises(StuckError):
        World(1).run(until=lambda: False)
