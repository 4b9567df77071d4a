"""`Watcher`: what it finds, when it looks, and who is on duty; on a real Redis and a real PostgreSQL."""

import contextlib
import dataclasses
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from kcg_cache import ACTIVE_VERSIONS, Settings, SharedCache, postgres, queries
from kcg_cache.backoff import Backoff
from kcg_cache.embedded import start_postgres, start_replica, start_valkey
from kcg_cache.errors import ConfigurationError, StandbyError
from kcg_cache.listening import Stop
from kcg_cache.watcher import Event, Health, Watcher
from tests.doubles import TickedSystem
from tests.pooling import PGBOUNCER, pgbouncer
from tests.waiting import eventually

pytestmark = pytest.mark.operators

#: An interval that no test lives to see the end of.
NEVER = 3600.0


class Quick(Watcher):
    """A watcher whose watch is over soon when it dies."""

    ttl = 1.5


class Watching:
    """A watcher on a thread of its own, and what it told."""

    def __init__(self, cache: SharedCache, connect: Any, interval: float = NEVER) -> None:
        self.events: list[Event] = []
        self.beats: list[Health] = []
        self.error: BaseException | None = None
        self.cache = cache
        self.closed = False
        self.stop = Stop()
        self.watcher = Quick(
            cache,
            connect,
            interval=interval,
            stop=self.stop,
            on_event=self.events.append,
            on_beat=self.beats.append,
        )
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.watcher.run()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def told(self, name: str) -> list[Event]:
        """Give every event of a name."""
        return [event for event in list(self.events) if event.name == name]

    def await_event(self, name: str, count: int = 1) -> Event:
        """Wait for so many events of a name, and give the last of these."""

        def there() -> list[Event]:
            assert self.error is None, self.error
            return self.told(name)[count - 1 : count]

        return eventually(there, seconds=60)[0]

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return self.beats[-1].rounds if self.beats else 0

    def close(self) -> None:
        """Stop it, once."""
        if self.closed:
            return
        self.closed = True
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        self.stop.close()
        self.cache.close()


Start = Callable[..., Watching]


@pytest.fixture
def dsn(pg_dsn: str) -> str:
    """Give a database with the sample data and no triggers."""
    change(pg_dsn, queries.load("sample_data"))
    return pg_dsn


@pytest.fixture
def start(redis_url: str, namespace: str) -> Iterator[Start]:
    """Give a function that starts a watcher; all are stopped in the end."""
    started: list[Watching] = []

    def begin(dsn: str, interval: float = NEVER, *, redis: str = redis_url, connect: Any = None) -> Watching:
        cache = SharedCache(None, ACTIVE_VERSIONS, Settings(redis_url=redis, namespace=namespace), present=False)
        started.append(Watching(cache, connect or partial(postgres.connect, dsn), interval))
        return started[-1]

    yield begin
    for each in started:
        each.close()


@pytest.fixture
def reader(redis_url: str, namespace: str) -> Iterator[SharedCache]:
    """Give a process that reads."""
    with worker(redis_url, namespace) as cache:
        yield cache


@contextlib.contextmanager
def worker(url: str, namespace: str) -> Iterator[SharedCache]:
    cache = SharedCache(None, ACTIVE_VERSIONS, Settings(redis_url=url, namespace=namespace))
    try:
        yield cache
    finally:
        cache.close()


def change(dsn: str, statement: str = "UPDATE kcg.detection_model_versions SET params = params || '{}'") -> None:
    """Run and commit."""
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(statement)


def promote(dsn: str, number: int = 1) -> None:
    """Change what every reader sees, and tell nobody."""
    change(dsn, f"UPDATE kcg.detection_model_versions SET params = '{{\"changed\": {number}}}'")


def digest_of(cache: SharedCache, dsn: str) -> str:
    """Read as a worker does."""
    return cache.read(partial(postgres.connect, dsn)).digest


def shared(cache: SharedCache) -> str | None:
    """Give the digest of what is in Redis."""
    return cache.inspect(1).entry.get("digest")


def test_a_change_that_nobody_told_of_is_found_at_the_interval(start: Start, dsn: str, reader: SharedCache) -> None:
    """No trigger, no invalidate: the truth is the content."""
    before = digest_of(reader, dsn)
    watching = start(dsn, 0.3)
    assert watching.await_event("equal").details["digest"] == before
    promote(dsn)
    found = watching.await_event("invalidated")
    assert found.details["replaced"] == before
    assert found.details["causes"] == ["interval"]
    assert eventually(lambda: digest_of(reader, dsn) != before)
    assert watching.await_event("equal", 2).details["digest"] == digest_of(reader, dsn)
    assert len(watching.told("invalidated")) == 1


def test_a_notification_is_reason_to_look_at_once(start: Start, dsn: str, reader: SharedCache) -> None:
    """The interval is an hour; the log of invalidations says which statement it was."""
    change(dsn, queries.load("notify"))
    digest_of(reader, dsn)
    watching = start(dsn)
    watching.await_event("listening")
    watching.await_event("equal")
    promote(dsn)
    assert watching.await_event("invalidated").details["causes"] == ["notification"]
    (logged, *_) = reader.inspect(10).invalidations
    assert logged["reason"].startswith("watch: the rows are not the shared ones (notification ")
    assert "UPDATE kcg.detection_model_versions" in logged["reason"]


def test_a_burst_of_notifications_is_one_reason_and_equal_rows_are_left_alone(
    start: Start, dsn: str, reader: SharedCache
) -> None:
    """A service that notifies a hundred times at once costs a round or two, and no invalidate."""
    digest_of(reader, dsn)
    watching = start(dsn)
    watching.await_event("equal")
    rounds = watching.rounds
    with contextlib.closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cursor:
        for number in range(100):
            cursor.execute("SELECT pg_notify('kcg_changes', %s)", (str(number),))
    eventually(lambda: watching.rounds > rounds)
    assert watching.rounds <= rounds + 2
    assert not watching.told("invalidated")


def test_a_fill_in_flight_is_cancelled_after_a_notification_and_left_alone_at_the_interval(
    start: Start, dsn: str, reader: SharedCache, client: Any
) -> None:
    """Its snapshot may be older than the change; at the interval a slow load would never be shared."""
    lock = reader._store.keys.lock
    watching = start(dsn, 0.2)
    watching.await_event("nothing_shared")
    client.set(lock, "a fill", px=60_000)
    rounds = watching.rounds
    eventually(lambda: watching.rounds >= rounds + 2)
    assert client.exists(lock)
    change(dsn, "NOTIFY kcg_changes")
    assert watching.await_event("invalidated").details["fill_cancelled"]
    assert not client.exists(lock)


def test_a_database_that_refuses_the_query_is_told_once_until_it_gives_rows(start: Start, dsn: str) -> None:
    """It lets the watcher in each time: that alone is no reason to say that it is back."""
    change(dsn, "ALTER TABLE kcg.detection_models RENAME TO gone")
    watching = start(dsn)
    assert "does not exist" in watching.await_event("postgres_lost").details["error"]
    eventually(lambda: len([health for health in list(watching.beats) if health.state == "postgres_lost"]) >= 4)
    assert [event.name for event in watching.events] == ["listening", "on_duty", "postgres_lost"]
    change(dsn, "ALTER TABLE kcg.gone RENAME TO detection_models")
    watching.await_event("postgres_back")
    assert [event.name for event in watching.events[3:]] == ["nothing_shared", "postgres_back"]


def test_rows_that_cannot_be_shared_are_told_once_and_watched_on(
    redis_url: str, namespace: str, dsn: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the database's to mend; the watcher finds when they are."""
    bad = [True]
    decode = ACTIVE_VERSIONS.decode_row

    def decode_row(row: Any, report: Any) -> Any:
        return {**decode(row, report), **({"odd": object()} if bad else {})}

    watching = start(dsn, 0.1)
    watching.await_event("nothing_shared")
    monkeypatch.setattr(watching.cache, "dataset", dataclasses.replace(ACTIVE_VERSIONS, decode_row=decode_row))
    watching.await_event("rows_refused")
    rounds = watching.rounds
    eventually(lambda: watching.rounds > rounds + 1)
    bad.clear()
    with worker(redis_url, namespace) as reader:
        digest_of(reader, dsn)
    watching.await_event("equal")
    assert len(watching.told("rows_refused")) == 1


def test_a_change_while_redis_did_not_answer_is_found_when_it_does(start: Start, dsn: str, namespace: str) -> None:
    """It still has the old entry then; the notification came in the meantime, and nothing could be done about it."""
    with start_valkey() as redis, worker(redis.url, namespace) as reader:
        before = digest_of(reader, dsn)
        watching = start(dsn, redis=redis.url)
        watching.await_event("equal")
        redis.pause()
        promote(dsn)
        change(dsn, "NOTIFY kcg_changes")
        watching.await_event("redis_lost")
        redis.resume()
        watching.await_event("redis_back")
        found = watching.await_event("invalidated")
        assert found.details["replaced"] == before
        assert {"Redis is back"} <= set(found.details["causes"]) <= {"Redis is back", "notification", "takeover"}
        assert len(watching.told("redis_lost")) == 1


class Gate:
    """Connects, once it is open: what happens while a watcher is away is then the test's to say."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        assert self._open.wait(60)
        with postgres.connect(f"{self._dsn} application_name=watcher") as connection:
            yield connection


def cut(dsn: str) -> None:
    """End the watcher's session, as an operator may."""
    change(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'watcher'")


@pytest.mark.slow
@pytest.mark.parametrize("down", [("redis", "postgres"), ("postgres", "redis")], ids="-".join)
@pytest.mark.parametrize("up", [("redis", "postgres"), ("postgres", "redis")], ids="-".join)
def test_both_servers_restarted_under_it_in_any_order_miss_no_change(
    start: Start, namespace: str, down: tuple[str, str], up: tuple[str, str]
) -> None:
    """Before it is back, workers share the old rows anew, and they are changed: its notification is lost."""
    with start_valkey() as redis, start_postgres() as database, worker(redis.url, namespace) as reader:
        servers, dsn, gate = {"redis": redis, "postgres": database}, database.dsn, Gate(database.dsn)
        for part in ("schema", "sample_data", "notify"):
            change(dsn, queries.load(part))
        before = digest_of(reader, dsn)
        watching = start(dsn, redis=redis.url, connect=gate)
        watching.await_event("equal")
        gate.close()
        servers[down[0]].kill()
        watching.await_event(f"{down[0]}_lost")
        servers[down[1]].kill()
        watching.await_event("postgres_lost")
        for name in up:
            servers[name].restart()
        eventually(lambda: digest_of(reader, dsn) == before == shared(reader))
        promote(dsn)
        gate.open()
        assert watching.await_event("invalidated").details["replaced"] == before
        eventually(lambda: digest_of(reader, dsn) != before)
        watching.await_event("postgres_back")
        assert [len(watching.told(name)) for name in ("postgres_lost", "postgres_back")] == [1, 1]


def test_a_change_whose_notification_is_lost_with_the_connection_is_found(
    start: Start, dsn: str, reader: SharedCache
) -> None:
    """The session is ended by an operator; the change is made before the watcher is back."""
    change(dsn, queries.load("notify"))
    before = digest_of(reader, dsn)
    gate = Gate(dsn)
    watching = start(dsn, connect=gate)
    watching.await_event("equal")
    gate.close()
    cut(dsn)
    watching.await_event("postgres_lost")
    promote(dsn)
    gate.open()
    found = watching.await_event("invalidated")
    assert found.details["replaced"] == before
    assert "PostgreSQL is back" in found.details["causes"]
    assert len(watching.told("postgres_lost")) == 1


def test_of_two_side_by_side_one_is_on_duty_and_the_other_takes_over(
    start: Start, dsn: str, reader: SharedCache
) -> None:
    """The rounds are not doubled; whoever stops in order is followed at once, and begins with a round."""
    digest_of(reader, dsn)
    first = start(dsn, 0.2)
    first.await_event("on_duty")
    second = start(dsn, 0.2)
    second.await_event("standing_by")
    rounds = first.rounds
    eventually(lambda: first.rounds >= rounds + 3)
    assert second.rounds == 0
    first.stop.set()
    second.await_event("on_duty")
    second.await_event("equal")
    assert second.rounds >= 1


def test_a_database_that_one_cannot_reach_is_left_to_the_other(start: Start, dsn: str, reader: SharedCache) -> None:
    """It gives the watch back when it loses its connection, and does not wait until its time is up."""
    gate = Gate(dsn)
    first = start(dsn, connect=gate)
    first.await_event("on_duty")
    second = start(dsn)
    second.await_event("standing_by")
    gate.close()
    cut(dsn)
    first.await_event("postgres_lost")
    second.await_event("on_duty")
    gate.open()
    first.await_event("standing_by")


@pytest.mark.slow
def test_a_standby_is_refused(start: Start, redis_url: str, namespace: str) -> None:
    """Its rows may be old: what it would call a change may be the past."""
    with start_postgres() as primary, start_replica(primary) as standby:
        watching = start(standby.dsn)
        watching.thread.join(60)
        assert isinstance(watching.error, StandbyError)
        assert "give the primary's address" in str(watching.error)
        assert not watching.events


@pytest.mark.parametrize("interval", [0, 0.05, 86_401, "5s"])
def test_an_interval_that_is_none_is_refused(reader: SharedCache, interval: Any) -> None:
    """With what is allowed."""
    with contextlib.closing(Stop()) as stop, pytest.raises(ConfigurationError, match=r"allowed: 0\.1 to 86400 s"):
        Watcher(reader, contextlib.nullcontext, interval=interval, stop=stop, on_event=print)


def test_tries_are_spread_and_further_apart_each_time() -> None:
    """Half of each wait is by chance; the first after a success is short again."""
    system = TickedSystem()
    retry = Backoff(system)
    longest = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    waits = [retry.next() for _ in longest]
    chances = [int(token[:8], 16) / 2**32 for token in system.tokens]
    assert waits == [most * (1 + chance) / 2 for most, chance in zip(longest, chances, strict=True)]
    assert [retry.over(), retry.over()] == [True, False]
    assert retry.next() <= 0.2


@pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer on this machine")
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_behind_a_pooler_that_pools_transactions_it_polls_and_warns(
    start: Start, dsn: str, reader: SharedCache, mode: str
) -> None:
    """A notification goes to whichever server process listens, and that one is nobody's between two transactions."""
    change(dsn, queries.load("notify"))
    before = digest_of(reader, dsn)
    # Not pytest's own directory, which is its user's alone.
    with tempfile.TemporaryDirectory(prefix="kcg-pgbouncer-") as place, pgbouncer(dsn, mode, Path(place)) as address:
        watching = start(address, 0.3 if mode == "transaction" else NEVER)
        watching.await_event("equal")
        promote(dsn)
        found = watching.await_event("invalidated")
        assert found.details["replaced"] == before
        if mode == "session":
            assert (len(watching.told("listening")), watching.told("polling")) == (1, [])
            assert found.details["causes"] == ["notification"]
        else:
            assert "give the server's own address" in watching.await_event("polling").text
            assert found.details["causes"] == ["interval"]
            assert watching.told("listening") == []
        watching.close()
