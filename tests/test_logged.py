"""What an operator finds in the log: the name, level and details of every event, and how often it is said."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kcg_cache import Dataset, InvalidateError
from kcg_cache.answers import Question
from kcg_cache.errors import StoreRefused
from kcg_cache.outage import Operation
from kcg_cache.store import Store
from tests.conftest import Backend
from tests.doubles import EagerSystem, fail, once
from tests.journals import hearing
from tests.waiting import eventually

REFUSED = StoreRefused("may not", symptom="denied")


class Journal(logging.Handler):
    """The lines of kcg_cache since they were last taken."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)

    def taken(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """Give level, event, dataset and details of each line, and begin anew."""
        lines = []
        for record in self.records:
            event, dataset, details = (getattr(record, f"kcg_{name}") for name in ("event", "dataset", "details"))
            # One line for a human: it begins with event and dataset, says something, and ends with the details.
            begin, end = f"{event} {dataset}: ", "".join(f" {name}={value}" for name, value in details.items())
            line = record.getMessage()
            assert line.startswith(begin)
            assert line.endswith(end)
            assert line.removeprefix(begin).removesuffix(end) not in ("", "None")
            lines.append((record.levelname, event, dataset, details))
        self.records.clear()
        return lines

    def events(self) -> list[str]:
        """Give the names alone, and begin anew."""
        return [event for _, event, _, _ in self.taken()]


@pytest.fixture
def journal(caplog: pytest.LogCaptureFixture) -> Iterator[Journal]:
    """Give the lines that kcg_cache writes from INFO on."""
    with hearing(Journal(), caplog) as journal:
        yield journal


def refusing(*_arguments: Any, **_named: Any) -> Any:
    """Stand in for a call of the store that Redis refuses."""
    raise REFUSED


def refused(monkeypatch: pytest.MonkeyPatch, store: Store, name: str) -> Callable[[], None]:
    """Have Redis refuse one kind of call; give what ends that."""
    allowed = getattr(store, name)
    monkeypatch.setattr(store, name, refusing)
    return lambda: monkeypatch.setattr(store, name, allowed)


def test_an_invalidate_is_logged_with_who_where_why_and_what(backend: Backend, journal: Journal) -> None:
    """Beside the log of invalidations in Redis, which keeps the newest alone (R7)."""
    worker = backend.worker()
    digest = worker.read(None).digest
    receipt = worker.invalidate(reason="promotion")
    details = {"who": receipt.who, "host": receipt.host, "reason": "promotion", "existed": True, "digest": digest}
    assert journal.taken() == [("INFO", "invalidated", "numbers", details)]


def test_an_invalidate_that_is_not_confirmed_is_logged_with_its_reason_and_error(
    backend: Backend, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error: somebody has to repeat it (R9)."""
    worker = backend.worker()
    refused(monkeypatch, worker._store, "invalidate")
    with pytest.raises(InvalidateError):
        worker.invalidate(reason="promotion")
    details = {"reason": "promotion", "error": REFUSED}
    assert journal.taken() == [("ERROR", "invalidate_failed", "numbers", details)]
    assert worker.metrics["store_errors"] == worker.metrics["invalidate_errors"] == 1


def test_a_refused_read_is_logged_once_with_its_error_and_so_is_its_end(
    backend: Backend, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line of an outage says that it is over (R8)."""
    worker = backend.worker(lease=0)
    allow = refused(monkeypatch, worker._store, "read")
    worker.read(None)
    backend.system.tick(3)
    worker.read(None)
    assert journal.taken() == [("WARNING", "redis_failed", "numbers", {"error": REFUSED})]
    allow()
    backend.system.tick(3)
    worker.read(None)
    worker.read(None)
    assert journal.taken() == [("INFO", "redis_back", "numbers", {})]


def fault(backend: Backend, operations: list[Operation]) -> Any:
    """Make a worker to which each operation has failed; it may ask again at once."""
    worker = backend.worker(lease=0)
    for operation in operations:
        worker._on_error(operation, REFUSED)
    worker._breaker.succeeded()
    return worker


def test_a_fault_is_said_again_only_after_its_own_operation_has_worked(backend: Backend, journal: Journal) -> None:
    """One that lasts while others work is said once: a Redis that is full takes no rows, and answers every read."""
    operations = [Operation.READ, Operation.WAIT, Operation.PUBLISH]

    def said_again_after(work: Callable[[Any], object]) -> list[str]:
        worker = fault(backend, operations)
        assert journal.events() == ["redis_failed"] * 3
        work(worker)
        for operation in operations:
            worker._on_error(operation, REFUSED)
        return [record.getMessage().split()[2].rstrip(":") for record in journal.records]

    assert said_again_after(lambda worker: worker.read(None)) == ["read", "publish"]
    journal.records.clear()
    assert said_again_after(lambda worker: worker.read(None)) == ["read"]
    journal.records.clear()

    def wait(worker: Any) -> None:
        backend.client.delete(backend.keys.entry)
        worker._store.read(Question(token="f" * 32))
        await_event = worker._store.await_event

        def then_go_on(after: bytes, seconds: float) -> None:
            await_event(after, 0.001)
            backend.client.delete(backend.keys.lock)
            worker._store.publish = refusing

        worker._store.await_event = then_go_on
        worker.read(None)

    assert said_again_after(wait) == ["read", "wait"]


def test_a_load_that_failed_behind_stale_rows_is_logged_with_its_error(backend: Backend, journal: Journal) -> None:
    """Nobody else would hear of it (R15)."""
    worker = backend.worker(stale_if_error=60, lease=0)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    backend.source.before_read = fail
    assert worker.read(None).stale
    ((level, event, dataset, details),) = journal.taken()
    assert (level, event, dataset) == ("WARNING", "load_failed", "numbers")
    assert isinstance(details["error"], LookupError)


def test_a_private_load_that_failed_behind_stale_rows_is_logged_too(
    backend: Backend, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis offered them and went away (R8, R15)."""
    worker = backend.worker(stale_if_error=60, lease=0)
    worker.read(None)
    backend.client.pexpire(backend.keys.entry, 30_000)
    worker._store.read(Question(token="f" * 32))
    refused(monkeypatch, worker._store, "await_event")
    backend.source.before_read = fail
    monkeypatch.setattr(worker._breaker, "allows", iter([True, False]).__next__)
    assert worker.read(None).stale
    assert journal.events() == ["redis_failed", "load_failed"]


def test_a_payload_over_the_limit_is_logged_with_both_sizes(backend: Backend, journal: Journal) -> None:
    """Once, as an error: until somebody raises the limit every process loads for itself (R14)."""
    worker = backend.worker(max_payload=10, lease=0)
    worker.read(None)
    worker.read(None)
    size = len(b'[{"version":1,"nested":{"list":[1,{"x":"') + len('가"}]}}]'.encode())
    details = {"bytes": size, "max_payload": 10}
    assert "KCG_CACHE_MAX_PAYLOAD" in journal.records[0].getMessage()  # what to raise
    assert journal.taken() == [("ERROR", "oversized", "numbers", details)]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"payload": b"[]"}, "digest"),
        ({"format": "protobuf/9"}, "format"),
        ({"signature": "00"}, "signature"),
        ({"loaded_at": "soon"}, "malformed"),
        ({"payload": b"[" + b" " * 200 + b"]"}, "oversized"),
        (None, "type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_way_to_spoil_an_entry_is_counted_and_logged_once_under_its_own_reason(
    backend: Backend, journal: Journal, spoil: dict[str, Any] | None, reason: str
) -> None:
    """Whoever looks for the one who writes there needs to know what (R14)."""
    keys = (b"0123456789abcdef",) if reason == "signature" else ()
    filler, reader = backend.worker(signing_keys=keys), backend.worker(lease=0, signing_keys=keys, max_payload=150)
    for time in (1, 2):
        filler.read(None, force=True)
        if spoil is None:
            backend.client.delete(backend.keys.entry)
            backend.client.set(backend.keys.entry, "no hash")
        else:
            backend.client.hset(backend.keys.entry, mapping=spoil)
        reader._near.forget()  # one that holds the rows is not sent the payload, and does not see what is wrong with it
        backend.system.tick(0.01)
        assert reader.read(None).source == "database"
        assert reader.metrics["entries_rejected"] == time
    said = [(record.levelname, record.getMessage()) for record in journal.records]
    assert journal.events() == ["entry_rejected"]
    ((level, line),) = said
    assert level == "WARNING"
    assert reason.removesuffix("ature") in line
    # Once for each reason.
    reader._reject(reason, "once more")
    assert journal.events() == []
    reader._reject("another", "of another kind")
    assert journal.events() == ["entry_rejected"]


def test_an_entry_that_a_script_does_not_accept_counts_once_for_a_read_however_often_it_asks(backend: Backend) -> None:
    """A waiter asks again and again (R11, R14)."""
    worker = backend.worker()
    backend.client.set(backend.keys.entry, "no hash")
    backend.client.set(backend.keys.events, "no stream")
    worker._store.read(Question(token="f" * 32))
    worker.read(None)
    assert len(backend.system.slept) > 1
    assert worker.metrics["entries_rejected"] == 1


def test_a_lock_that_was_lost_is_an_event_and_an_expected_end_is_none(backend: Backend, journal: Journal) -> None:
    """An invalidate during a load is the ordinary cause (R3)."""
    worker = backend.worker(system=EagerSystem())

    def lose() -> None:
        backend.client.delete(backend.keys.lock)
        eventually(lambda: worker.metrics["locks_lost"] == 1, seconds=10)

    backend.source.after_read = once(lose)
    worker.read(None)
    assert journal.taken() == [("INFO", "lock_lost", "numbers", {})]


def test_renewals_that_fail_are_logged_once_until_one_is_answered(
    backend: Backend, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And counted each time (R3)."""
    worker = backend.worker(system=EagerSystem())
    renewed, calls = worker._store.renew, iter(["lost", "lost", "answered", "lost"])
    done: list[str] = []

    def renew(grant: Any) -> bool:
        call = next(calls, "answered")
        done.append(call)
        return bool(refusing() if call == "lost" else renewed(grant))

    monkeypatch.setattr(worker._store, "renew", renew)
    backend.source.after_read = once(lambda: eventually(lambda: len(done) > 4, seconds=10))
    worker.read(None)
    assert journal.taken() == [("WARNING", "renew_failed", "numbers", {"error": REFUSED})] * 2
    assert worker.metrics["renew_errors"] == worker.metrics["store_errors"] == 3


def test_a_renewing_thread_that_does_not_start_is_logged_with_the_reason(backend: Backend, journal: Journal) -> None:
    """Once: a process at its limit of threads stays there, and its renewals that were sent are another matter."""
    no_thread = RuntimeError("can't start new thread")

    class Full(EagerSystem):
        def start(self, work: Callable[[], None], name: str) -> None:
            raise no_thread

    worker = backend.worker(system=Full())
    worker._log.once("renew_failed", "", "of another kind")
    journal.records.clear()
    for _ in range(2):
        assert worker.read(None, force=True).shared
    assert journal.taken() == [("WARNING", "renew_failed", "numbers", {"error": no_thread})]
    assert worker.metrics["renew_errors"] == 2


def test_a_release_that_fails_is_counted_and_logged_each_time(
    backend: Backend, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fleet waits for that lock's end (R11)."""
    worker = backend.worker()
    refused(monkeypatch, worker._store, "release")
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        worker.read(None)
    assert journal.taken() == [("WARNING", "release_failed", "numbers", {"error": REFUSED})]
    assert worker.metrics["release_errors"] == worker.metrics["store_errors"] == 1


@pytest.mark.parametrize(
    ("mode", "lines"),
    [("shared", 2), ("bypass", 1)],
)
def test_a_row_that_was_mended_is_told_of_by_every_load_that_is_shared(
    backend: Backend, journal: Journal, mode: str, lines: int
) -> None:
    """In bypass mode every read loads, so there it is said once; it is counted either way."""

    def mend(row: Any, report: Callable[[str], None]) -> Any:
        report("id=7 is odd")
        return row

    worker = backend.worker(Dataset("numbers", backend.source.load, decode_row=mend, transactional=False), mode=mode)
    for _ in range(2):
        worker.read(None, force=True)
    told = [record.getMessage() for record in journal.records]
    assert journal.taken() == [("WARNING", "bad_params", "numbers", {})] * lines
    assert told == ["bad_params numbers: id=7 is odd"] * lines
    assert worker.metrics["bad_params"] == 2
    # Another row is another matter, and so is a fault of another kind about the same.
    worker._report("id=8 is odd")
    assert journal.events() == ["bad_params"]


@pytest.mark.parametrize(
    ("before", "now", "foreign"),
    [
        ("1/a", "1/a", False),
        ("", "1/a", False),
        ("1/a", "2/a", True),
        ("1/a", "1/b", True),
        ("unknown/a", "1/a", False),
        ("1/a", "unknown/a", False),
        ("unknown/a", "1/b", True),
        ("unknown/x/b", "1/b", True),
        ("1/b", "unknown/x/b", True),
        ("1/x/b", "unknown/x/b", False),
        ("1/x/b", "unknown/y/b", True),
    ],
)
def test_another_database_in_the_namespace_is_logged_with_both_names(
    backend: Backend, journal: Journal, before: str, now: str, *, foreign: bool
) -> None:
    """By the names alone where a user may not ask for the system identifier (R13)."""
    worker = backend.worker()
    worker._check_source(now, before)
    worker._check_source(now, before)
    lines = [("ERROR", "foreign_source", "numbers", {"before": before, "now": now})]
    assert journal.taken() == (lines if foreign else [])
    assert worker.metrics["foreign_sources"] == (2 if foreign else 0)
    if foreign:  # a third database is said too
        worker._check_source("9/z", before)
        assert journal.events() == ["foreign_source"]
