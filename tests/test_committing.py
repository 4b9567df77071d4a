"""Commit, then invalidate, never otherwise: on a real PostgreSQL, and with both Redis backends."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from psycopg2 import errors
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

import kcg_cache
from kcg_cache import (
    CommittedNotInvalidated,
    ConfigurationError,
    Dataset,
    InvalidateError,
    Invalidation,
    SharedCache,
    api,
    postgres,
    testing,
)
from kcg_cache.cli import app, failures
from kcg_cache.cli.exits import ExitCode
from kcg_cache.errors import StoreUnreachable
from tests.conftest import Backend
from tests.doubles import TickedSystem

pytestmark = pytest.mark.operators

NUMBERS = Dataset("numbers", lambda conn: postgres.fetch(conn, "SELECT n FROM kcg_number"))

#: A number that is checked when the transaction ends: 13 is refused, and at 666 the server hangs up.
SCHEMA = """
CREATE TABLE kcg_number (n int);
INSERT INTO kcg_number VALUES (1);
CREATE FUNCTION kcg_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.n = 13 THEN RAISE EXCEPTION 'no 13 here'; END IF;
    IF NEW.n = 666 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON kcg_number DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION kcg_at_commit();
"""

#: The two ways to say it: a call after the change, and a block around it.
Change = Callable[[SharedCache, Any, int], Invalidation]


def by_call(cache: SharedCache, conn: Any, number: int) -> Invalidation:
    set_number(conn, number)
    return cache.commit_and_invalidate(conn, reason="promoted")


def by_block(cache: SharedCache, conn: Any, number: int) -> Invalidation:
    with cache.invalidating(conn, reason="promoted") as change:
        before = change.receipt
        set_number(conn, number)
    assert before is None
    assert change.receipt is not None
    return change.receipt


def block_that_ends_with(
    cache: SharedCache, conn: Any, error: BaseException | None, *, doing: Callable[[], object] = lambda: None
) -> None:
    """Change the number, do something, and raise an error, in a block."""
    with cache.invalidating(conn, reason="promoted"):
        set_number(conn, 2)
        doing()
        if error is not None:
            raise error


both_ways = pytest.mark.parametrize("change", [by_call, by_block])


@pytest.fixture
def conn(pg: Connection) -> Connection:
    """Give a connection to a database that holds one number, 1."""
    with pg, pg.cursor() as cursor:
        cursor.execute(SCHEMA)
    return pg


@pytest.fixture
def committed(conn: Connection, pg_connect: Callable[[], Connection]) -> Callable[[], int]:
    """Give a function that reads the number as another session sees it."""
    other = pg_connect()
    other.autocommit = True
    return lambda: int(postgres.fetch(other, "SELECT n FROM kcg_number")[0]["n"])


@pytest.fixture
def cache(backend: Backend, conn: Connection) -> SharedCache:
    """Give an operator's cache, with the rows of before the change in Redis."""
    worker = backend.worker(NUMBERS)
    worker.read(conn)
    return worker


def set_number(conn: Any, value: int) -> None:
    with contextlib.closing(conn.cursor()) as cursor:
        cursor.execute("UPDATE kcg_number SET n = %s", (value,))


def break_transaction(conn: Any) -> None:
    with contextlib.closing(conn.cursor()) as cursor, pytest.raises(errors.DivisionByZero):
        cursor.execute("SELECT 1/0")


def invalidations(cache: SharedCache) -> list[str]:
    return [event["reason"] for event in cache.inspect().invalidations]


def assert_nothing_invalidated(cache: SharedCache) -> None:
    assert invalidations(cache) == []
    assert cache.inspect().entry


def notes(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", ()))


def command_in(text: str) -> list[str]:
    """Give the words of the one command that a message tells to run."""
    (command,) = [part for part in text.split("`") if part.startswith("kcg-cache invalidate")]
    return shlex.split(command)


# --- it goes well ---------------------------------------------------------------------------------------------------


@both_ways
def test_the_change_is_committed_then_invalidated_and_in_force(
    backend: Backend, cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """The receipt is that of an invalidate, and every reader has the new rows."""
    reader = backend.worker(NUMBERS)
    assert reader.read(conn).rows == ({"n": 1},)
    conn.rollback()
    receipt = change(cache, conn, 2)
    assert (receipt.dataset, receipt.reason, receipt.existed, receipt.in_force) == ("numbers", "promoted", True, True)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert reader.read(conn).rows == ({"n": 2},)


def test_without_wait_the_receipt_says_from_when(backend: Backend, cache: SharedCache, conn: Connection) -> None:
    """Both ways take `wait`."""
    receipt = cache.commit_and_invalidate(conn, wait=False)
    assert not receipt.in_force
    with cache.invalidating(conn, wait=False) as change:
        set_number(conn, 2)
    assert change.receipt is not None
    assert not change.receipt.in_force
    assert backend.system.slept == []
    assert invalidations(cache) == ["", ""]


def test_nothing_is_invalidated_before_the_commit(cache: SharedCache, conn: Connection) -> None:
    """A reader that asked in between would load the old rows again."""
    order: list[str] = []

    class Watched(Proxy):
        def commit(self) -> None:
            order.append(f"invalidations before the commit: {len(invalidations(cache))}")
            super().commit()
            order.append(f"and right after it: {len(invalidations(cache))}")

    by_call(cache, Watched(conn), 2)
    assert order == ["invalidations before the commit: 0", "and right after it: 0"]
    assert invalidations(cache) == ["promoted"]


@both_ways
def test_what_autocommit_has_committed_is_invalidated(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """There is nothing left to commit."""
    conn.rollback()
    conn.autocommit = True
    change(cache, conn, 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


@both_ways
def test_a_transaction_begun_by_hand_in_autocommit_is_committed(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """psycopg2's commit() does nothing then, and says nothing."""
    conn.rollback()
    conn.autocommit = True
    postgres.execute(conn, "BEGIN")
    change(cache, conn, 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE


class Proxy:
    """What a pool hands out: a connection behind another object."""

    def __init__(self, inner: Any) -> None:
        self._connection = inner

    def cursor(self) -> Any:
        return self._connection.cursor()

    def commit(self) -> None:
        self._connection.commit()

    def rollback(self) -> None:
        self._connection.rollback()


class Opaque:
    """A wrapper that shows nothing of what it wraps."""

    def __init__(self, inner: Any) -> None:
        self.cursor = inner.cursor
        self.commit = inner.commit
        self.rollback = inner.rollback


wrapped = pytest.mark.parametrize(
    "wrap", [Proxy, lambda conn: Proxy(Proxy(conn)), Opaque], ids=["one", "two", "opaque"]
)


@both_ways
@wrapped
def test_wrapped_connections_work(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change, wrap: Callable[[Any], Any]
) -> None:
    """A pool's proxy commits as the connection does."""
    change(cache, wrap(conn), 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


def test_a_proxy_that_lets_go_of_its_connection_at_the_commit_works(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """A connection that is closed by then has no transaction open."""

    class Returning(Proxy):
        def commit(self) -> None:
            super().commit()
            self._connection.close()

    by_call(cache, Returning(conn), 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


# --- nothing is done ------------------------------------------------------------------------------------------------


class NotAwaited:
    """An asyncio connection's look."""

    def cursor(self) -> None: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


@pytest.mark.parametrize(
    "wrong",
    [None, "dbname=kcg", lambda: None, NotAwaited(), lambda conn: conn.cursor(), lambda conn: lambda: conn],
    ids=["none", "dsn", "function", "asyncio", "cursor", "pool"],
)
def test_what_is_no_connection_is_refused_before_anything_is_done(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], wrong: Any
) -> None:
    """The transaction is as it was, and the block is not entered."""
    set_number(conn, 2)
    given = wrong(conn) if callable(wrong) and wrong.__code__.co_argcount else wrong
    with pytest.raises(ConfigurationError, match="conn is "):
        cache.commit_and_invalidate(given)
    with pytest.raises(ConfigurationError, match="conn is "), cache.invalidating(given):
        pytest.fail("entered")
    assert conn.get_transaction_status() == TRANSACTION_STATUS_INTRANS
    assert committed() == 1
    assert_nothing_invalidated(cache)


def test_a_reason_that_is_no_text_is_refused_before_the_commit(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """The invalidate would refuse it after."""
    set_number(conn, 2)
    wrong: Any = 3.2
    with pytest.raises(ConfigurationError, match="reason is float"):
        cache.commit_and_invalidate(conn, reason=wrong)
    with pytest.raises(ConfigurationError, match="reason is float"), cache.invalidating(conn, reason=wrong):
        pytest.fail("entered")
    assert committed() == 1
    assert_nothing_invalidated(cache)


@wrapped
def test_a_failed_transaction_is_refused_before_the_commit(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], wrap: Callable[[Any], Any]
) -> None:
    """psycopg2's commit() of one rolls back and says nothing."""
    set_number(conn, 2)
    break_transaction(conn)
    for given in (conn, wrap(conn)):
        with pytest.raises(ConfigurationError, match="Nothing is committed, nothing is invalidated") as raised:
            cache.commit_and_invalidate(given)
        assert not notes(raised.value)
    conn.rollback()
    assert committed() == 1
    assert_nothing_invalidated(cache)


def test_a_failure_that_a_block_swallowed_is_refused_and_rolled_back(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """The connection can be used again."""
    with pytest.raises(ConfigurationError, match="the transaction has failed"):
        block_that_ends_with(cache, conn, None, doing=lambda: break_transaction(conn))
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert committed() == 1
    assert_nothing_invalidated(cache)


@pytest.mark.parametrize("error", [LookupError("the block's own"), KeyboardInterrupt()])
def test_an_error_in_a_block_rolls_back_and_invalidates_nothing(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], error: BaseException
) -> None:
    """It reaches the caller as it was."""
    with pytest.raises(type(error)) as raised:
        block_that_ends_with(cache, conn, error)
    assert raised.value is error
    assert not notes(error)
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert committed() == 1
    assert_nothing_invalidated(cache)


def test_a_block_that_failed_has_no_receipt(cache: SharedCache, conn: Connection) -> None:
    """Whoever goes on after its error can tell."""
    with contextlib.suppress(LookupError), cache.invalidating(conn) as change:
        raise LookupError
    assert change.receipt is None


def test_an_error_in_a_block_rolls_back_what_was_begun_by_hand_in_autocommit(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """psycopg2's rollback() does nothing then either."""
    conn.rollback()
    conn.autocommit = True
    postgres.execute(conn, "BEGIN")
    with pytest.raises(LookupError) as raised:
        block_that_ends_with(cache, conn, LookupError())
    assert not notes(raised.value)
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert committed() == 1
    assert_nothing_invalidated(cache)


@pytest.mark.parametrize("wrap", [lambda conn: conn, Proxy])
def test_an_error_in_a_block_in_autocommit_tells_that_nothing_could_be_rolled_back(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], wrap: Callable[[Any], Any]
) -> None:
    """What it changed is in force in the database, and known to nobody."""
    conn.rollback()
    conn.autocommit = True
    with pytest.raises(LookupError) as raised:
        block_that_ends_with(cache, wrap(conn), LookupError())
    assert "autocommit: what was done before the error is committed" in notes(raised.value)
    assert command_in(notes(raised.value))[:4] == ["kcg-cache", "invalidate", "--reason", "promoted"]
    assert committed() == 2
    assert_nothing_invalidated(cache)


def test_a_rollback_that_fails_is_told_on_the_error_of_the_block(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """Not in its place."""
    with pytest.raises(LookupError) as raised:
        block_that_ends_with(cache, conn, LookupError(), doing=conn.close)
    assert "the rollback failed too (connection already closed)" in notes(raised.value)
    assert committed() == 1
    assert_nothing_invalidated(cache)


# --- the commit fails -----------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("wrap", [lambda conn: conn, Opaque])
def test_a_commit_that_is_refused_raises_the_drivers_error_as_it_was(
    cache: SharedCache,
    conn: Connection,
    committed: Callable[[], int],
    change: Change,
    wrap: Callable[[Any], Any],
) -> None:
    """A deferred constraint, say: nothing is invalidated."""
    with pytest.raises(errors.RaiseException, match="no 13 here") as raised:
        change(cache, wrap(conn), 13)
    assert not notes(raised.value)
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert committed() == 1
    assert_nothing_invalidated(cache)
    change(cache, wrap(conn), 2)
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


@both_ways
def test_a_transaction_begun_by_hand_that_is_refused_raises_too(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """As any commit."""
    conn.rollback()
    conn.autocommit = True
    postgres.execute(conn, "BEGIN")
    with pytest.raises(errors.RaiseException, match="no 13 here") as raised:
        change(cache, conn, 13)
    assert not notes(raised.value)
    assert committed() == 1
    assert_nothing_invalidated(cache)


def test_a_serialization_failure_at_the_commit_invalidates_nothing(
    cache: SharedCache, conn: Connection, pg_connect: Callable[[], Connection]
) -> None:
    """It is to be begun again."""
    conn.rollback()
    other = pg_connect()
    for each in (conn, other):
        each.set_session(isolation_level="SERIALIZABLE")
        assert postgres.fetch(each, "SELECT count(*) FROM kcg_number") == [{"count": 1}]
    for each in (conn, other):
        postgres.execute(each, "INSERT INTO kcg_number VALUES (2)")
    other.commit()
    with pytest.raises(errors.SerializationFailure) as raised:
        cache.commit_and_invalidate(conn)
    assert not notes(raised.value)
    assert_nothing_invalidated(cache)


@both_ways
@pytest.mark.parametrize("wrap", [lambda conn: conn, Proxy, Opaque])
def test_a_connection_lost_in_the_commit_leaves_it_open_and_says_so(
    backend: Backend, cache: SharedCache, conn: Connection, change: Change, wrap: Callable[[Any], Any]
) -> None:
    """The driver's error, with what to do; nobody invalidates what may not be committed."""
    with pytest.raises(psycopg2.OperationalError) as raised:
        change(cache, wrap(conn), 666)
    told = notes(raised.value)
    assert told.startswith("whether the change is committed is not known, and nothing is invalidated: look at the rows")
    assert told.count("whether the change") == 1
    namespace = backend.settings.namespace
    words = ["--reason", "promoted", "--namespace", namespace, "--dataset", "numbers"]
    assert command_in(told) == ["kcg-cache", "invalidate", *words]
    assert_nothing_invalidated(cache)


@pytest.mark.parametrize("wrap", [lambda conn: conn, Proxy, Opaque])
def test_a_connection_that_was_lost_before_leaves_nothing_open(
    cache: SharedCache,
    conn: Connection,
    pg_connect: Callable[[], Connection],
    committed: Callable[[], int],
    wrap: Callable[[Any], Any],
) -> None:
    """The server has rolled back: the driver's error says enough."""
    set_number(conn, 2)
    postgres.execute(pg_connect(), "SELECT pg_terminate_backend(%s, 30000)", conn.info.backend_pid)
    with pytest.raises(psycopg2.OperationalError):
        postgres.fetch(conn, "SELECT 1")
    for _ in range(2):
        with pytest.raises(psycopg2.InterfaceError) as raised:
            cache.commit_and_invalidate(wrap(conn))
        assert not notes(raised.value)
        conn.close()
    assert committed() == 1
    assert_nothing_invalidated(cache)


def test_an_interrupt_in_the_commit_says_that_its_outcome_is_not_known(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """The driver lets go of it only when the server has answered."""

    class Interrupted(Proxy):
        def commit(self) -> None:
            super().commit()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        by_call(cache, Interrupted(conn), 2)
    assert notes(raised.value).startswith("whether the change is committed is not known")
    assert committed() == 2
    assert_nothing_invalidated(cache)


def test_a_wrapper_that_fails_after_its_commit_leaves_it_open(cache: SharedCache, conn: Connection) -> None:
    """It is not the server that says no."""

    class Failing(Proxy):
        def commit(self) -> None:
            super().commit()
            raise LookupError

    with pytest.raises(LookupError) as raised:
        by_call(cache, Failing(conn), 2)
    assert notes(raised.value).startswith("whether the change is committed is not known")
    assert_nothing_invalidated(cache)


@pytest.mark.parametrize("name", ["pgcode", "sqlstate"])
@pytest.mark.parametrize(
    ("code", "lost", "known"),
    [
        ("08007", False, False),
        ("40003", False, False),
        ("57P02", False, False),
        ("XX000", True, False),
        ("XX000", False, True),
        ("40001", False, True),
    ],
)
def test_the_code_of_an_error_tells_whether_its_outcome_is_known(
    cache: SharedCache, conn: Connection, name: str, code: str, *, lost: bool, known: bool
) -> None:
    """A server's error is its answer, unless it says otherwise or the connection went with it (a crash)."""

    class Refused(Proxy):
        def commit(self) -> None:
            super().rollback()
            if lost:
                self._connection.close()
            error = LookupError(code)
            setattr(error, name, code)
            raise error

    with pytest.raises(LookupError) as raised:
        by_call(cache, Refused(conn), 2)
    assert (notes(raised.value) == "") == known
    assert_nothing_invalidated(cache)


def test_a_wrapper_that_does_not_commit_is_found_out(
    cache: SharedCache, conn: Connection, committed: Callable[[], int]
) -> None:
    """As those do that undo a test's changes."""

    class Idle(Proxy):
        def commit(self) -> None:
            pass

    with pytest.raises(ConfigurationError, match="commit\\(\\) of Idle left its transaction open") as raised:
        by_call(cache, Idle(conn), 2)
    assert "nothing is invalidated" in notes(raised.value)
    assert committed() == 1
    assert_nothing_invalidated(cache)


def test_a_commit_that_the_driver_forbids_leaves_nothing_open(cache: SharedCache, conn: Connection) -> None:
    """The transaction is still there."""
    conn.rollback()
    conn.tpc_begin("kcg")
    set_number(conn, 2)
    with pytest.raises(psycopg2.ProgrammingError, match="two-phase") as raised:
        cache.commit_and_invalidate(conn)
    assert not notes(raised.value)
    conn.tpc_rollback()
    assert_nothing_invalidated(cache)


# --- committed, not yet invalidated ---------------------------------------------------------------------------------


@both_ways
def test_an_invalidate_that_fails_after_the_commit_says_exactly_that(
    backend: Backend, cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """And what to run."""
    backend.down()
    try:
        with pytest.raises(CommittedNotInvalidated) as raised:
            change(cache, conn, 2)
    finally:
        backend.up()
    error = raised.value
    assert isinstance(error, InvalidateError)
    assert str(error).startswith("committed, not yet invalidated: run `kcg-cache invalidate --reason promoted ")
    assert "at most for their TTL (300 s here), or until `kcg-cache watch` sees the change" in str(error)
    assert error.command in str(error)
    assert command_in(str(error)) == shlex.split(error.command)
    assert isinstance(error.__cause__, InvalidateError)
    assert isinstance(error.__cause__.__cause__, StoreUnreachable)
    assert failures.code_of(error) is ExitCode.REDIS
    assert committed() == 2
    assert invalidations(cache) == []
    assert conn.get_transaction_status() == TRANSACTION_STATUS_IDLE
    assert backend.system.slept == []


@both_ways
def test_whatever_else_stops_the_invalidate_is_told_so_too(
    cache: SharedCache, conn: Connection, committed: Callable[[], int], change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect after the commit does not hide it."""

    def fail(**_: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(cache._store, "invalidate", fail)
    with pytest.raises(CommittedNotInvalidated, match=r"^committed, not yet invalidated: .* a defect$") as raised:
        change(cache, conn, 2)
    assert isinstance(raised.value.__cause__, LookupError)
    assert committed() == 2


class Impatient(TickedSystem):
    """A host whose user presses Ctrl-C at a given moment."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.moment = moment

    def user(self) -> str:
        """Say who, which is asked between the commit and the deletion."""
        if self.moment == "before the deletion":
            raise KeyboardInterrupt
        return super().user()

    def sleep(self, seconds: float) -> None:
        """Wait until no lease covers the old rows."""
        if self.moment == "after the deletion":
            raise KeyboardInterrupt
        super().sleep(seconds)


@both_ways
def test_an_interrupt_between_commit_and_invalidate_says_the_same(
    backend: Backend, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """In a note, as it is nobody's to catch."""
    cache = backend.worker(NUMBERS, system=Impatient("before the deletion"))
    with pytest.raises(KeyboardInterrupt) as raised:
        change(cache, conn, 2)
    assert notes(raised.value).startswith(
        "committed, not yet invalidated: run `kcg-cache invalidate --reason promoted "
    )
    assert failures.lines_of(raised.value) == [f"KeyboardInterrupt: {notes(raised.value)}"]
    assert committed() == 2
    assert invalidations(cache) == []


@both_ways
def test_an_interrupt_of_the_wait_says_from_when_it_is_in_force(
    backend: Backend, conn: Connection, committed: Callable[[], int], change: Change
) -> None:
    """Nothing is to be repeated."""
    cache = backend.worker(NUMBERS, system=Impatient("after the deletion"))
    with pytest.raises(KeyboardInterrupt) as raised:
        change(cache, conn, 2)
    told = notes(raised.value)
    assert told.startswith("committed and invalidated, but in force only from 2")
    assert "not yet" not in told
    assert (committed(), invalidations(cache)) == (2, ["promoted"])


REASONS = {
    "dark-vessel 3.2 promoted; it's $(here)": "dark-vessel 3.2 promoted; it's $(here)",
    "--dataset": "--dataset",
    "two\nlines\x1b[2J \udc80": "two lines [2J",
    " ": "repeated after a commit",
    None: "repeated after a commit",
}


@pytest.mark.parametrize(("reason", "told"), REASONS.items(), ids=map(repr, REASONS))
def test_the_command_does_what_was_left_undone(
    conn: Connection,
    redis_url: str,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    reason: str | None,
    told: str,
) -> None:
    """It is one line that a shell reads as it was meant, and it shows no password."""
    unreachable = "redis://operator:hush-hush@127.0.0.1:1/0"
    with contextlib.closing(SharedCache(unreachable, NUMBERS, kcg_cache.Settings(namespace=namespace))) as cache:
        set_number(conn, 2)
        with pytest.raises(CommittedNotInvalidated) as raised:
            cache.commit_and_invalidate(conn, reason=reason)
    assert "hush-hush" not in str(raised.value)
    assert raised.value.command.isprintable()
    program, *arguments = shlex.split(raised.value.command)
    assert program == "kcg-cache"
    monkeypatch.setenv("KCG_CACHE_REDIS_URL", redis_url)
    assert app.run([*arguments, "--no-wait"]) == ExitCode.OK
    with contextlib.closing(SharedCache(redis_url, NUMBERS, kcg_cache.Settings(namespace=namespace))) as cache:
        assert invalidations(cache) == [told]


# --- the module API -------------------------------------------------------------------------------------------------


@pytest.fixture
def _default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(api, "_default", None)
    redis = testing.fake_redis()
    with contextlib.closing(kcg_cache.configure(redis)):
        yield
    redis.close()


@pytest.mark.usefixtures("_default")
def test_the_module_has_both_over_the_default_cache(conn: Connection, committed: Callable[[], int]) -> None:
    """With the same arguments."""
    set_number(conn, 2)
    receipt = kcg_cache.commit_and_invalidate(conn, reason="the call", wait=False)
    assert (receipt.dataset, receipt.reason, receipt.in_force) == ("active_versions", "the call", False)
    assert committed() == 2
    with kcg_cache.invalidating(conn, reason="the block", wait=False) as change:
        set_number(conn, 3)
    assert change.receipt is not None
    assert (change.receipt.reason, change.receipt.in_force) == ("the block", False)
    assert committed() == 3
    assert invalidations(api.default_cache()) == ["the block", "the call"]
