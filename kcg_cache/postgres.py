"""The only import of psycopg2: whose transaction is this, may its rows be shared, its end, and queries on it."""

import contextlib
import enum
import inspect
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import extensions

from kcg_cache import queries
from kcg_cache.errors import ConfigurationError

#: Isolation levels at which every statement has a snapshot of its own.
_STATEMENT_SNAPSHOTS = frozenset({"read committed", "read uncommitted"})
#: Where pools and ORMs keep the driver's connection.
_WRAPPED = ("driver_connection", "dbapi_connection", "connection", "_connection", "_conn", "_con", "_raw")

#: What PostgreSQL says to any statement in a transaction that has failed (in_failed_sql_transaction).
_FAILED = "25P02"
#: What PostgreSQL says to a role that lacks a right (insufficient_privilege), and who says which are needed. Its own
#: words name the table.
_PRIVILEGE = "42501"
_PRIVILEGE_HINT = "(`kcg-cache sql roles` grants what each role needs)"
#: How the codes begin of errors that leave open whether a commit was done: connection exceptions, statement completion
#: unknown, shutdown and crash.
_UNKNOWN = ("08", "40003", "57P")
_OPEN = frozenset(
    {
        extensions.TRANSACTION_STATUS_ACTIVE,
        extensions.TRANSACTION_STATUS_INTRANS,
        extensions.TRANSACTION_STATUS_INERROR,
    }
)


class Origin(NamedTuple):
    """Where rows that are about to be read come from (PROTOCOL R13)."""

    #: Why these rows may reach nobody else: "old snapshot", "uncommitted writes", "standby"; None if they may.
    taint: str | None
    #: System identifier and name of the database, ``7301234567890/kcg``.
    source: str


@contextlib.contextmanager
def lent(conn: Any, *, transactional: bool = True) -> Iterator[Any]:
    """Give the connection itself, or what the context manager of a callable yields.

    Raises `ConfigurationError` for a callable that gives no context manager, and, where a connection is needed
    (`transactional`), for anything else; what the callable raises comes as it is.
    """
    if hasattr(conn, "cursor") or not callable(conn):
        if transactional and not hasattr(conn, "cursor"):
            raise ConfigurationError(
                f"conn is {type(conn).__name__}: give an open psycopg2 connection, or a callable that returns a "
                "context manager of one (or declare the dataset transactional=False)"
            )
        yield conn
        return
    context = conn()
    if not isinstance(context, AbstractContextManager):
        raise ConfigurationError(
            f"the callable given as conn returned {type(context).__name__}, which is no context manager of a "
            "connection: give a connection, or something like a pool's .connection"
        )
    if hasattr(context, "cursor"):
        # A connection is a context manager too, but one that commits the caller's transaction and gives nothing back.
        raise ConfigurationError(
            f"the callable given as conn returned a connection itself ({type(context).__name__}): let it return a "
            "context manager that gives the connection back, such as contextlib.closing(connection)"
        )
    with context as connection:
        if transactional and not hasattr(connection, "cursor"):
            raise ConfigurationError(
                f"the context manager given as conn yielded {type(connection).__name__}, which is no connection"
            )
        yield connection


def transaction_open(conn: Any) -> bool | None:
    """Tell whether a transaction is open on `conn`; None when neither it nor what it wraps can tell."""
    status = _transaction_status(conn)
    return None if status is None else status != extensions.TRANSACTION_STATUS_IDLE


def _transaction_status(conn: Any) -> int | None:
    return _told(conn, _status_of)


def _status_of(conn: Any) -> int | None:
    getter = getattr(conn, "get_transaction_status", None)
    # psycopg 3 and look-alikes: an IntEnum with libpq's numbers.
    status = getter() if callable(getter) else getattr(getattr(conn, "info", None), "transaction_status", None)
    return int(status) if isinstance(status, int) else None


def _told(conn: Any, ask: Callable[[Any], int | None], depth: int = 0) -> int | None:
    """Ask a connection, and what it wraps until one of these tells."""
    told = ask(conn)
    if told is None and depth < len(_WRAPPED):
        for name in _WRAPPED:
            inner = getattr(conn, name, None)
            if inner is not None and inner is not conn:
                told = _told(inner, ask, depth + 1)
                if told is not None:
                    return told
    return told


@contextlib.contextmanager
def own_transaction_ended(conn: Any) -> Iterator[None]:
    """End the transaction that the block opened on `conn`; leave one that the caller had open alone (PROTOCOL R13).

    It is rolled back: a loader only reads. Where nothing tells whether a transaction was open, none is ended, since
    ending the caller's is the worse of the two.
    """
    before = transaction_open(conn)
    try:
        yield
    except BaseException:
        if before is False and transaction_open(conn):
            # The load's own error is the one to tell. A connection that cannot even roll back says so at its next use.
            with contextlib.suppress(Exception):
                conn.rollback()
        raise
    if before is False and transaction_open(conn):
        conn.rollback()


def check_connection(conn: Any) -> None:
    """Raise `ConfigurationError` for what has no transaction of its own to commit: before anything is done."""
    kind = type(conn).__name__
    if not all(callable(getattr(conn, name, None)) for name in ("cursor", "commit", "rollback")):
        raise ConfigurationError(
            f"conn is {kind}: give the open connection on which the change was made (psycopg2's own, or a pool's "
            "proxy of one), not what returns one"
        )
    if inspect.iscoroutinefunction(conn.commit):
        raise ConfigurationError(f"conn is {kind}, whose commit() is a coroutine: give a sync connection")


def commit(conn: Any, *, doubt: str) -> None:
    """Commit, and return only when it is committed; `doubt` is noted on an error that leaves open whether it is.

    Raises `ConfigurationError` for a transaction that has failed (a driver's commit() of one rolls back and says
    nothing), and for one that is still open afterwards; otherwise what the connection raises, as it is.
    """
    check_not_failed(conn)
    # Lost before: then the server has rolled back, and there is no doubt. What autocommit did is another matter.
    was_lost = _lost(conn) and not _autocommit(conn)
    try:
        _end(conn, conn.commit, "COMMIT")
    except Exception as error:
        if not was_lost and _outcome_unknown(conn, error):
            error.add_note(doubt)
        raise
    if _still_open(conn):
        failure = ConfigurationError(
            f"commit() of {type(conn).__name__} left its transaction open: commit on the driver's own connection"
        )
        failure.add_note(doubt)
        raise failure


def roll_back(conn: Any) -> None:
    """Roll back, also what was begun by hand on a connection in autocommit. Raises what the connection raises."""
    _end(conn, conn.rollback, "ROLLBACK")


def kept_by_autocommit(conn: Any) -> bool:
    """Tell whether what was done on `conn` is beyond a rollback, as each statement was committed by itself."""
    return _autocommit(conn) and _state(conn) == extensions.TRANSACTION_STATUS_IDLE


def _end(conn: Any, method: Callable[[], Any], statement: str) -> None:
    method()
    if _autocommit(conn) and _still_open(conn):
        # Begun by hand: psycopg2 knows of no transaction, and its methods have done nothing.
        execute(conn, statement)


def check_not_failed(conn: Any) -> None:
    """Raise `ConfigurationError` for a transaction in which a statement has failed; a driver's error as it is."""
    cause: Exception | None = None
    status = _transaction_status(conn)
    if status is None:
        # Nobody can tell, so it is asked: a failed transaction answers nothing else.
        try:
            execute(conn, "SELECT 1")
        except Exception as error:
            if _sqlstate(error) != _FAILED:
                raise
            cause = error
    if cause is not None or status == extensions.TRANSACTION_STATUS_INERROR:
        raise ConfigurationError(
            "the transaction has failed: after an error in it PostgreSQL can only roll it back. Nothing is committed, "
            "nothing is invalidated: roll back, mend the failing statement, and begin again"
        ) from cause


def _outcome_unknown(conn: Any, error: Exception) -> bool:
    """Tell whether a commit that ended with `error` may have been done all the same."""
    if _lost(conn):
        return True
    code = _sqlstate(error)
    if code is not None:
        return code.startswith(_UNKNOWN)
    # Not the server's words. Where the transaction is still there nothing has ended it.
    return not _still_open(conn)


def _still_open(conn: Any) -> bool:
    """Tell whether a transaction is known to be open: not on a connection that was closed with its commit."""
    return _state(conn) in _OPEN


def _lost(conn: Any) -> bool:
    return _state(conn) == extensions.TRANSACTION_STATUS_UNKNOWN


def _state(conn: Any) -> int | None:
    try:
        return _transaction_status(conn)
    except Exception:  # noqa: BLE001 - a driver's way to say that the connection is closed; the error itself is told
        return int(extensions.TRANSACTION_STATUS_UNKNOWN)


def _autocommit(conn: Any) -> bool:
    return bool(_told(conn, _autocommit_of))


def _autocommit_of(conn: Any) -> bool | None:
    value = getattr(conn, "autocommit", None)
    return value if isinstance(value, bool) else None


def _sqlstate(error: Exception) -> str | None:
    code = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None


def origin(conn: Any) -> Origin:
    """Ask, on the very connection and before the rows, whether they may be shared (PROTOCOL R13).

    Whether the transaction was already open is asked of the driver before the question opens one. Raises what the
    connection raises.
    """
    was_open = transaction_open(conn)
    (answer,) = fetch(conn, queries.load("snapshot_check"))
    source = f"{answer['system_identifier'] or 'unknown'}/{answer['database']}"
    if answer["in_recovery"]:
        return Origin("standby", source)
    if answer["has_xid"]:
        return Origin("uncommitted writes", source)
    if answer["isolation"] not in _STATEMENT_SNAPSHOTS and was_open is not False and not answer["alone"]:
        # Also where nobody can tell whether it was open: a snapshot that may be old is not shared.
        return Origin("old snapshot", source)
    return Origin(None, source)


def fetch(conn: Any, sql: str, *values: Any) -> list[dict[str, Any]]:
    """Run one query on a DB-API connection and give its rows by column name, whatever the cursor's row type is."""
    cursor = conn.cursor()
    try:
        # Without values nothing is passed: text that is no template may hold a '%'.
        with _rights_noted():
            cursor.execute(sql, *([values] if values else []))
        names = [column[0] for column in cursor.description]
        return [
            {name: row[name] for name in names} if isinstance(row, Mapping) else dict(zip(names, row, strict=True))
            for row in cursor.fetchall()
        ]
    finally:
        cursor.close()


#: What a connection raises: for programs that tell their user which side failed.
ERRORS: tuple[type[Exception], ...] = (psycopg2.Error,)
#: Seconds that `connect` tries one address of a server for, unless the caller or the environment names others.
CONNECT_TIMEOUT = 5
#: A port for each host, or for all of them.
_PORTS = r"[0-9, ]*"
#: A URL with a bare '@' behind its first '/'.
_IN_THE_DATABASE = r"\w+://[^/?]*/[^?]*@"


@contextlib.contextmanager
def connect(dsn: str = "", **defaults: int | str) -> Iterator[Any]:
    """Open a connection for a program of ours and close it; an empty `dsn` leaves all to libpq's environment.

    `defaults` are parameters of libpq that the `dsn` may say otherwise.

    Raises one of `ERRORS`, and `ConfigurationError` for what is no connection string. That is not shown: what
    stands in the wrong place of it may be the password.
    """
    try:
        given = extensions.parse_dsn(dsn)
    except psycopg2.Error:
        given = None
    # A bare '@' in a URL's password makes the rest of the password part of the host, and a bare '/' makes the beginning
    # of it the port and the rest the database: errors name them.
    if (
        given is None
        or "@" in given.get("host", "")[1:]
        or re.fullmatch(_PORTS, given.get("port", "")) is None
        or re.match(_IN_THE_DATABASE, dsn)
    ):
        raise ConfigurationError(
            "the connection string is none that libpq reads: give keyword=value pairs or postgresql://…, "
            "with special characters of a password quoted (it is not shown, as it may hold one)"
        )
    ours: dict[str, Any] = {"fallback_application_name": "kcg-cache"}
    ours |= {name: value for name, value in defaults.items() if name not in given}
    if "connect_timeout" not in given and "PGCONNECT_TIMEOUT" not in os.environ:
        ours["connect_timeout"] = CONNECT_TIMEOUT
    with contextlib.closing(psycopg2.connect(dsn, **ours)) as connection:
        yield connection


def execute(conn: Any, sql: str, *values: Any) -> int:
    """Run statements that give no rows; give how many rows the last of them changed."""
    with contextlib.closing(conn.cursor()) as cursor:
        # Without values None: text that is no template may hold a '%'.
        with _rights_noted():
            cursor.execute(sql, values or None)
        return int(cursor.rowcount)


@contextlib.contextmanager
def _rights_noted() -> Iterator[None]:
    """Note, where a right is lacking, what grants it."""
    try:
        yield
    except Exception as error:
        if _sqlstate(error) == _PRIVILEGE:
            error.add_note(_PRIVILEGE_HINT)
        raise


def hang_up(conn: Any) -> None:
    """End a connection under whoever waits for an answer on it, from another thread; that one gets an error at once.

    The driver's `cancel` asks the server, and stops the whole process until that answers: one that hangs never does.
    """
    with socket.socket(fileno=os.dup(conn.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def dsn_of_database(dsn: str, name: str) -> str:
    """Give the connection string of another database of the same server."""
    return str(extensions.make_dsn(dsn, dbname=name))


class Pooling(enum.Enum):
    """What stands between a client and its server process."""

    NONE = "none"
    #: A pooler that was not seen to give a server process to another client meanwhile: by sessions, most likely.
    SESSION = "session"
    TRANSACTION = "transaction"


def pooling(conn: Any, connect: Callable[[], AbstractContextManager[Any]]) -> Pooling:
    """Tell whether a pooler is in between, and whether it lends one server process to several clients at once.

    `conn` is one of psycopg2's, with no transaction open; `connect` opens others to the same address. A pooler tells
    its clients a process number of its own, and one that pools by transactions lends what an idle client has had.
    """
    mine = _server_process(conn)
    if mine == conn.info.backend_pid:
        return Pooling.NONE
    for _ in range(3):
        with connect() as other:
            other.autocommit = True
            theirs = _server_process(other)
        if theirs == mine or _server_process(conn) != mine:
            return Pooling.TRANSACTION
    return Pooling.SESSION


def _server_process(conn: Any) -> int:
    (row,) = fetch(conn, "SELECT pg_catalog.pg_backend_pid() AS pid")
    return int(row["pid"])
