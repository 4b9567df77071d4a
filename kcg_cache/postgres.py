"""The only import of psycopg2: whose transaction is this, may its rows be shared, and queries on it."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
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


def _transaction_status(conn: Any, depth: int = 0) -> int | None:
    getter = getattr(conn, "get_transaction_status", None)
    if callable(getter):
        status = getter()
        return status if isinstance(status, int) else None
    # psycopg 3 and look-alikes: an IntEnum with libpq's numbers.
    status = getattr(getattr(conn, "info", None), "transaction_status", None)
    if isinstance(status, int):
        return int(status)
    if depth < len(_WRAPPED):
        for name in _WRAPPED:
            inner = getattr(conn, name, None)
            if inner is not None and inner is not conn:
                status = _transaction_status(inner, depth + 1)
                if status is not None:
                    return status
    return None


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


def fetch(conn: Any, sql: str) -> list[dict[str, Any]]:
    """Run one query on a DB-API connection and give its rows by column name, whatever the cursor's row type is."""
    cursor = conn.cursor()
    try:
        cursor.execute(sql)
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
    # A bare '@' in a URL's password makes the rest of the password part of the host, which errors name.
    if given is None or "@" in given.get("host", "")[1:]:
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
        cursor.execute(sql, values or None)
        return int(cursor.rowcount)


def hang_up(conn: Any) -> None:
    """End a connection under whoever waits for an answer on it, from another thread; that one gets an error at once.

    The driver's `cancel` asks the server, and stops the whole process until that answers: one that hangs never does.
    """
    with socket.socket(fileno=os.dup(conn.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


def dsn_of_database(dsn: str, name: str) -> str:
    """Give the connection string of another database of the same server."""
    return str(extensions.make_dsn(dsn, dbname=name))
