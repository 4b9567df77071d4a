"""`Watcher`: what it finds, when it looks, and who is on duty; on a real Redis and a real PostgreSQL."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg2
import pytest

from kcg_cache import ACTIVE_VERSIONS, Settings, SharedCache, postgres, queries
from kcg_cache.embedded import start_postgres, start_replica, start_valkey
from kcg_cache.errors import ConfigurationError, StandbyError
from kcg_cache.listening import Stop
from kcg_cache.watcher import Event, Health, Retry, Watcher
from tests.doubles import TickedSystem
from tests.waiting import eventually

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
