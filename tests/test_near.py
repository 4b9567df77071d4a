"""The near copy, its lease and its debts, with a ticked clock and no cache around them (PROTOCOL R6, R8)."""

import threading

import pytest

from kcg_cache.answers import Floor
from kcg_cache.near import Near, NearCopy
from kcg_cache.outage import TABLE, Behaviour, Breaker, Operation
from kcg_cache.snapshot import Snapshot
from tests.doubles import TickedSystem

pytestmark = pytest.mark.once


@pytest.fixture
def system() -> TickedSystem:
    return TickedSystem()


@pytest.fixture
def near(system: TickedSystem) -> Near:
    return Near(system)


def copy_of(system: TickedSystem, identity: str | None, lease: float = 1.0) -> NearCopy:
    snapshot = Snapshot((), identity or "private", 1, "near", False, True, 0.0, system.time, system.now)
    return NearCopy(snapshot, "orjson", system.time + lease, identity)


def test_a_reply_to_a_request_that_was_sent_after_the_copy_arrived_replaces_it(
    near: Near, system: TickedSystem
) -> None:
    """The ordinary case."""
    first, second = copy_of(system, "1"), copy_of(system, "2")
    start = near.start()
    system.tick(1)
    assert near.keep(first, start.sent_at, meets=None)
    system.tick(1)
    start = near.start()
    assert near.keep(second, start.sent_at, meets=None)
    assert near.copy is second


def test_a_reply_to_an_older_request_drops_the_copy_and_owes_a_floor(near: Near, system: TickedSystem) -> None:
    """Which of the two is newer cannot be told."""
    start = near.start()
    system.tick(1)
    near.keep(copy_of(system, "2"), near.start().sent_at + 0.5, meets=None)
    assert not near.keep(copy_of(system, "1"), start.sent_at, meets=None)
    assert near.copy is None
    assert near.debt is not None


def test_after_a_drop_a_reply_from_before_it_is_not_kept_either(near: Near, system: TickedSystem) -> None:
    """There is no copy to compare with, but a reader has been given one (Promise 4)."""
    start = near.start()
    system.tick(1)
    near.drop()
    assert not near.keep(copy_of(system, "1"), start.sent_at, meets=None)
    assert near.copy is None


def test_a_request_and_an_arrival_of_the_same_moment_do_not_count_as_sent_after(
    near: Near, system: TickedSystem
) -> None:
    """A clock tells no order within one tick."""
    system.tick(1)
    near.keep(copy_of(system, "1"), near.start().sent_at, meets=None)
    near.keep(copy_of(system, "2"), near.start().sent_at, meets=None)
    assert near.copy is None


def test_the_very_same_entry_extends_the_lease_whenever_it_was_asked_for(near: Near, system: TickedSystem) -> None:
    """Nobody can have been given anything newer in between; and a late reply shortens no lease."""
    start = near.start()
    system.tick(1)
    near.keep(copy_of(system, "1"), near.start().sent_at, meets=None)
    longer = copy_of(system, "1", lease=5)
    assert near.keep(longer, start.sent_at, meets=None)
    assert near.copy is longer
    assert near.keep(copy_of(system, "1", lease=2), start.sent_at, meets=None)
    assert near.copy is longer


def test_a_refreshed_entry_replaces_the_one_that_it_refreshes(near: Near, system: TickedSystem) -> None:
    """Though other threads confirmed that one meanwhile (R16); any other copy it does not."""
    start = near.start()
    system.tick(1)
    near.keep(copy_of(system, "1"), near.start().sent_at, meets=None)
    system.tick(1)
    assert near.keep(copy_of(system, "2"), start.sent_at, meets=None, replaces="1")
    assert not near.keep(copy_of(system, "3"), start.sent_at, meets=None, replaces="1")


def test_a_debt_is_met_only_by_a_request_that_took_it_into_account(near: Near, system: TickedSystem) -> None:
    """It keeps the floor that the first script resolved, until then (R8)."""
    near.drop()
    system.tick(1)
    old = near.start()
    assert old.debt is not None
    near.resolve(old.debt, Floor("5", "a"))
    near.resolve(old.debt, Floor("9", "a"))
    assert old.debt.floor == Floor("5", "a")
    near.resolve(old.debt, Floor("1", "b"))
    assert old.debt.floor == Floor("1", "b")
    near.keep_private(copy_of(system, None), system.time)
    system.tick(1)
    assert near.keep(copy_of(system, "2"), near.start().sent_at, meets=old.debt)
    assert near.debt is not None
    assert near.keep(copy_of(system, "2"), near.start().sent_at, meets=near.debt)
    assert near.debt is None


def test_private_rows_are_kept_only_when_they_were_read_after_the_copy_arrived(
    near: Near, system: TickedSystem
) -> None:
    """Counted from their first statement; a floor is owed either way."""
    first_statement_at = system.time
    system.tick(1)
    near.keep(copy_of(system, "1"), near.start().sent_at, meets=None)
    near.keep_private(copy_of(system, None), first_statement_at)
    assert near.copy is None
    assert near.debt is not None
    system.tick(1)
    private = copy_of(system, None)
    near.keep_private(private, system.time)
    assert near.copy is private


def test_private_rows_of_the_moment_that_the_copy_arrived_are_not_kept(near: Near, system: TickedSystem) -> None:
    """A clock tells no order within one tick."""
    near.keep_private(copy_of(system, None), system.time)
    near.keep_private(copy_of(system, None), system.time)
    assert near.copy is None


def test_forgetting_owes_nothing_and_keeps_older_replies_out(near: Near, system: TickedSystem) -> None:
    """After an invalidate of one's own."""
    start = near.start()
    system.tick(1)
    near.forget()
    assert near.copy is None
    assert near.debt is None
    assert not near.keep(copy_of(system, "1"), start.sent_at, meets=None)


# --- the breaker and the table --------------------------------------------------------------------------------------


def test_the_breaker_lets_one_caller_try_per_window(system: TickedSystem) -> None:
    """The others stay out until it succeeded."""
    breaker = Breaker(2.0, system)
    assert breaker.allows()
    assert breaker.failed()
    assert not breaker.failed()
    assert not breaker.allows()
    system.tick(1.99)
    assert not breaker.allows()
    system.time = 1002.0  # the window is over
    assert breaker.allows()
    assert not breaker.allows()
    system.tick(2.0)
    assert breaker.allows()
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()
    assert not breaker.open


def test_of_many_threads_one_tries(system: TickedSystem) -> None:
    """Two would pay two deadlines in one window (R8)."""
    breaker = Breaker(2.0, system)
    breaker.failed()
    system.tick(3)
    together, allowed = threading.Barrier(8), []

    def ask() -> None:
        together.wait()
        allowed.append(breaker.allows())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 1


def test_the_table_decides_every_symptom_of_every_operation() -> None:
    """And never lets an invalidate pass in silence (R9), nor a read reach its caller as an error (R8)."""
    for (symptom, operation), behaviour in TABLE.items():
        if operation is Operation.INVALIDATE:
            assert behaviour is Behaviour.RAISE, symptom
        if operation is Operation.READ:
            assert behaviour is Behaviour.PRIVATE_AND_OPEN, symptom
    assert len(TABLE) == len({symptom for symptom, _ in TABLE}) * len(Operation)


@pytest.mark.parametrize("rows", ["private", "dropped"])
def test_a_fork_in_the_middle_of_keeping_private_rows_keeps_their_debt(rows: str) -> None:
    """Whoever forks while another thread is in there gets a copy of all that is written by then, and no lock."""
    system = TickedSystem()
    debts = []

    def now() -> float:  # called by the code under test, right after the near copy was replaced
        debts.append(under_test.debt)
        return system.time

    system.now = now
    under_test = Near(system)
    if rows == "private":
        under_test.keep_private(copy_of(system, None), system.time)
    else:
        under_test.drop()
    assert len(debts) == 1
    assert debts[0] is under_test.debt is not None
