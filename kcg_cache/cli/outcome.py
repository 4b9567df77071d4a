"""A commit that was not answered: PostgreSQL is asked what became of its transaction."""

import time
from typing import Any

from kcg_cache import postgres
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop

#: How often, and how many seconds apart, a server that may be restarting is asked.
_TRIES, _PAUSE = 20, 0.5


def transaction_of(conn: Any) -> str:
    """Give the id of the transaction that is open on `conn`, and gives it one."""
    ((answer),) = postgres.fetch(conn, "SELECT pg_current_xact_id()::text AS id")
    return str(answer["id"])


def is_unknown(conn: Any) -> bool:
    """Tell whether a commit that failed may have happened all the same: the connection is gone."""
    return bool(conn.closed)


def settled(dsn: str, transaction: str, error: Exception) -> None:
    """Return when `transaction` is known to be committed.

    Raises `error`, with a note, when it was rolled back; `Stop` with what to do when that cannot be found out.
    """
    status: str | None = None
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE)
        try:
            with postgres.connect(dsn) as conn:
                (answer,) = postgres.fetch(conn, "SELECT pg_xact_status(%s::xid8) AS status", transaction)
        except postgres.ERRORS:
            continue
        status = answer["status"]
        if status == "committed":
            return
        if status == "aborted":
            error.add_note("(it was rolled back: nothing was changed, nothing was withdrawn)")
            raise error
    raise Stop(
        ExitCode.POSTGRES,
        f"whether the change was committed is not known ({status or 'PostgreSQL cannot be asked'}): look with "
        f"SELECT pg_xact_status('{transaction}'), and when it is committed run kcg-cache invalidate",
    ) from error
