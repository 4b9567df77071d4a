"""A commit that was not answered: PostgreSQL is asked what became of its transaction."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console

from kcg_cache import postgres
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop

#: How often, and how many seconds apart, a server that may be restarting is asked.
_TRIES, _PAUSE = 60, 0.5
#: NULL on a standby, which may not know yet, and for a transaction so old that nobody remembers it.
_STATUS = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_xact_status(%s::xid8) END AS status"
#: SQLSTATE of a server that has not given out that id: what it knew of the transaction went with a crash.
_IN_THE_FUTURE = "22023"


def transaction_of(conn: Any) -> str:
    """Give the id of the transaction that is open on `conn`; one that has written has one."""
    (answer,) = postgres.fetch(conn, "SELECT pg_current_xact_id()::text AS id")
    return str(answer["id"])


def is_unknown(error: Exception) -> bool:
    """Tell whether a commit that failed may have happened all the same: `postgres.commit` has noted its doubt."""
    return bool(getattr(error, "__notes__", ()))


def settled(dsn: str, transaction: str, error: Exception, is_so: Callable[[Any], bool]) -> bool:
    """Return when `transaction` is known to be committed, and tell whether the rows are as it left them.

    They are not when they were changed again, or when a crash or a failover lost it: another one may then have its id.
    `is_so` looks, on a connection. Raises `error`, with a note, when it was rolled back; `Stop` with what to do when
    nobody can tell.
    """
    look = f"look with SELECT pg_xact_status('{transaction}')"
    try:
        with _progress():
            status, so = _asked(dsn, transaction, is_so)
    except KeyboardInterrupt as interrupt:
        # What else there is to say, and what to run, has been noted on the error.
        interrupt.add_note(" ".join([*getattr(error, "__notes__", ()), f"({look})"]))
        raise
    if status == "committed":
        return so
    if status == "aborted":
        del getattr(error, "__notes__", [])[:]  # there is no doubt any more
        error.add_note("(it was rolled back: nothing was changed, nothing was withdrawn; it may be repeated)")
        raise error
    raise Stop(
        ExitCode.POSTGRES,
        f"what became of the change is not known ({status or 'PostgreSQL cannot be asked'}): {look}",
    ) from error


def _progress() -> AbstractContextManager[object]:
    """Show a person at a terminal that it is still asked."""
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext()
    return Console(stderr=True).status("asking PostgreSQL what became of it")


def _asked(dsn: str, transaction: str, is_so: Callable[[Any], bool]) -> tuple[str | None, bool]:
    """Ask until it has ended or the tries are used up; None when there was no answer."""
    status: str | None = None
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE)
        try:
            with postgres.connect(dsn) as conn:
                (answer,) = postgres.fetch(conn, _STATUS, transaction)
                status = answer["status"]
                if status == "committed":
                    return status, is_so(conn)
        except postgres.ERRORS as error:
            if getattr(error, "pgcode", None) == _IN_THE_FUTURE:
                return "aborted", False
        if status == "aborted":
            break
    return status, False
