"""`Watcher` on servers that answer and refuse, and `Listener` and `Stop` by themselves; on real servers."""

import contextlib
import dataclasses
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from psycopg2.extensions import make_dsn

from kcg_cache import ACTIVE_VERSIONS, Dataset, Settings, SharedCache, postgres, queries
from kcg_cache.keys import Keys
from kcg_cache.listening import Stop, listening
from kcg_cache.system import SYSTEM
from kcg_cache.watcher import Event, Watcher
from tests.test_watch import NEVER, Watching, change, digest_of, promote, shared, worker
from tests.waiting import eventually

pytestmark = pytest.mark.operators


@pytest.fixture
def sampled(pg_dsn: str) -> str:
    """Give a database with the sample data and no triggers."""
    change(pg_dsn, queries.load("sample_data"))
    return pg_dsn


@pytest.fixture
def begin(redis_url: str, namespace: str) -> Iterator[Callable[..., Watching]]:
    """Give a function that starts a watcher; all are stopped in the end."""
    with contextlib.ExitStack() as stack:

        def started(connect: Any, interval: float = NEVER, *, redis: str = redis_url) -> Watching:
            cache = SharedCache(None, ACTIVE_VERSIONS, Settings(redis_url=redis, namespace=namespace), present=False)
            watching = Watching(cache, connect, interval)
            stack.callback(watching.close)
            return watching

        yield started


def test_a_redis_that_answers_and_refuses_the_rest_is_lost_once(
    begin: Callable[..., Watching], sampled: str, redis_url: str, namespace: str, client: Any
) -> None:
    """It may claim the watch, but not look at the entry. What was due stays due until it is done."""
    user = f"watch-{secrets.token_hex(4)}"
    rights = ("+@all", "~*", "&*", "nopass", "on")
    client.execute_command("ACL", "SETUSER", user, *rights, "-pttl")
    try:
        with worker(redis_url, namespace) as reader:
            before = digest_of(reader, sampled)
            promote(sampled)
            address = f"redis://{user}:any@{redis_url.rpartition('@')[2]}"
            watching = begin(partial(postgres.connect, sampled), redis=address)
            watching.await_event("redis_lost")
            eventually(lambda: watching.watcher._redis_retry._tries >= 3)
            assert (len(watching.told("redis_lost")), watching.told("redis_back")) == (1, [])
            client.execute_command("ACL", "SETUSER", user, "+pttl")
            found = watching.await_event("invalidated")
            assert found.details["replaced"] in (before, None)
            assert found.details["causes"][0] == "start"
            assert (len(watching.told("redis_lost")), len(watching.told("redis_back"))) == (1, 1)
    finally:
        client.execute_command("ACL", "DELUSER", user)


def test_rows_that_cannot_be_shared_any_more_withdraw_those_that_are(
    begin: Callable[..., Watching], sampled: str, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rows are now, they are not the shared ones; once is enough."""
    with worker(redis_url, namespace) as reader:
        before = digest_of(reader, sampled)
        watching = begin(partial(postgres.connect, sampled), 0.1)
        watching.await_event("equal")
        bad = dataclasses.replace(ACTIVE_VERSIONS, decode_row=lambda row, _report: {**row, "odd": object()})
        monkeypatch.setattr(watching.cache, "dataset", bad)
        found = watching.await_event("invalidated")
        assert (found.details["digest"], found.details["replaced"]) == (None, before)
        assert "cannot be shared any more" in found.text
        assert shared(reader) is None
        rounds = watching.rounds
        eventually(lambda: watching.rounds > rounds + 2)
        assert (len(watching.told("invalidated")), len(watching.told("rows_refused"))) == (1, 1)


def test_without_room_for_a_second_connection_it_polls(
    begin: Callable[..., Watching], sampled: str, redis_url: str, namespace: str
) -> None:
    """Whether notifications come through cannot be tried then, and is no reason not to watch."""
    role = f"kcg_role_{secrets.token_hex(4)}"
    change(
        sampled,
        f"CREATE ROLE {role} LOGIN PASSWORD '{role}' CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA kcg TO {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA kcg TO {role}",
    )
    try:
        with worker(redis_url, namespace) as reader:
            before = digest_of(reader, sampled)
            watching = begin(partial(postgres.connect, make_dsn(sampled, user=role, password=role)), 0.2)
            watching.await_event("polling")
            watching.await_event("equal")
            promote(sampled)
            assert watching.await_event("invalidated").details["replaced"] == before
            watching.close()
    finally:
        change(sampled, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(("options", "bound"), [("", "30s"), ("-c statement_timeout=7s", "7s")])
def test_a_read_that_hangs_has_an_end_unless_it_was_given_one(sampled: str, options: str, bound: str) -> None:
    """Behind somebody's lock it would wait without end, and nobody would be told."""
    connect = partial(postgres.connect, make_dsn(sampled, options=options) if options else sampled)
    with contextlib.closing(Stop()) as stop, listening(connect, stop, SYSTEM) as listener:
        assert listener.hears
        (answer,) = postgres.fetch(listener.connection, "SELECT current_setting('statement_timeout') AS bound")
        assert answer["bound"] == bound


def test_a_stop_ends_a_wait_at_once_and_may_be_set_by_the_signal_that_interrupts_it() -> None:
    """Also by one that comes while an earlier one is handled: there is no lock that could be held."""
    with contextlib.closing(Stop()) as stop:
        assert not stop.wait(0.0)

        def handle(number: int, _frame: Any) -> None:
            stop.set()
            if number == signal.SIGUSR1:
                signal.raise_signal(signal.SIGUSR2)

        numbers = (signal.SIGUSR1, signal.SIGUSR2)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            main = threading.get_ident()
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)).start()
            assert stop.wait(60.0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        assert stop.is_set()
        assert stop.wait(60.0)


@pytest.fixture
def watcher(redis_url: str, namespace: str, sampled: str) -> Iterator[Callable[..., Watcher]]:
    """Give a function that makes a watcher of a dataset, to make single rounds."""
    with contextlib.ExitStack() as stack:

        def made(dataset: Dataset, events: list[Event]) -> Watcher:
            cache = SharedCache(None, dataset, Settings(redis_url=redis_url, namespace=namespace), present=False)
            stack.callback(cache.close)
            stop = stack.enter_context(contextlib.closing(Stop()))
            connect = partial(postgres.connect, sampled)
            return Watcher(cache, connect, interval=NEVER, stop=stop, on_event=events.append)

        yield made


def test_an_entry_that_comes_while_the_rows_are_read_is_looked_at_after_them(
    watcher: Callable[..., Watcher], sampled: str, redis_url: str, namespace: str
) -> None:
    """It was filled with what the rows were before: looked at first, it would not have been seen in this round."""
    events: list[Event] = []
    with worker(redis_url, namespace) as reader:

        def load(conn: Any) -> Any:
            digest_of(reader, sampled)
            promote(sampled)
            return ACTIVE_VERSIONS.load(conn)

        watcher(dataclasses.replace(ACTIVE_VERSIONS, load=load), events).once()
    assert [event.name for event in events] == ["invalidated"]


def test_an_entry_of_another_start_of_the_server_is_none(
    watcher: Callable[..., Watcher], sampled: str, redis_url: str, namespace: str, client: Any
) -> None:
    """No reader takes it (R10), so there is nothing to withdraw."""
    events: list[Event] = []
    with worker(redis_url, namespace) as reader:
        digest_of(reader, sampled)
    promote(sampled)
    client.hset(Keys.of(namespace, ACTIVE_VERSIONS.name).entry, "incarnation", "before/then")
    watcher(ACTIVE_VERSIONS, events).once()
    assert [event.name for event in events] == ["nothing_shared"]
