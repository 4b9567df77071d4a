"""A commit that was not answered: PostgreSQL is asked what became of its transaction."""

import time
from typing import Any

from kcg_cache import postgres
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop

#: How often, and how many seconds apart, a server that may be restarting is asked.
_TRIES, _PAUSE = 20, 0.5
#: NULL on a standby, which may not know yet, and for a transaction so old that nobody remembers it.
_STATUS = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_xact_status(%s::xid8) END AS status"


def transaction_of(conn: Any) -> str:
    """Give the id of the transaction that is open on `conn`; one that has written has one."""
    (answer,) = postgres.fetch(conn, "SELECT pg_current_xact_id()::text AS id")
    return str(answer["id"])


def is_unknown(error: Exception) -> bool:
    """Tell whether a commit that failed may have happened all the same: `postgres.commit` has noted its doubt."""
    return bool(getattr(error, "__notes__", ()))


def settled(dsn: str, transaction: str, error: Exception) -> None:
    """Return when `transaction` is known to be committed.

    Raises `error`, with a note, when it was rolled back; `Stop` with what to do when that cannot be found out.
    """
    look = f"look with SELECT pg_xact_status('{transaction}')"
    try:
        status = _asked(dsn, transaction)
    except KeyboardInterrupt as interrupt:
        # What else there is to say, and what to run, has been noted on the error.
        interrupt.add_note(" ".join([*getattr(error, "__notes__", ()), f"({look})"]))
        raise
    if status == "committed":
        return
    if status == "aborted":
        _no_doubt(error)
        error.add_note("(it was rolled back: nothing was changed, nothing was withdrawn; it may be repeated)")
        raise error
    raise Stop(
        ExitCode.POSTGRES,
        f"what became of the change is not known ({status or 'PostgreSQL cannot be asked'}): {look}",
    ) from error


def _asked(dsn: str, transaction: str) -> str | None:
    """Ask until it has ended or the tries are used up; None when there was no answer."""
    status: str | None = None
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE)
        try:
            with postgres.connect(dsn) as conn:
                (answer,) = postgres.fetch(conn, _STATUS, transaction)
        except postgres.ERRORS:
            continue
        status = answer["status"]
        if status in ("committed", "aborted"):
            break
    return status


def _no_doubt(error: Exception) -> None:
    del getattr(error, "__notes__", [])[:]
