"""Commit, then invalidate, never otherwise: one transaction's change, made known to every reader or not made at all.

An invalidate before the commit is worth nothing: a reader loads the old rows again at once. One that is forgotten
after it leaves them in use for up to the TTL. So both are one call here, and every way in which it can stop half-way
says what is done, what is not, and what to run.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from kcg_cache import postgres
from kcg_cache.errors import CommittedNotInvalidated, ConfigurationError
from kcg_cache.receipt import Invalidation
from kcg_cache.settings import Settings

#: The reason in a command for a caller that gave none: the command line wants one.
_NO_REASON = "repeated after a commit"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Invalidates(Protocol):
    """What is needed of a cache."""

    settings: Settings

    @property
    def dataset(self) -> _Named:
        """What is cached; only its name is used."""

    def invalidate(self, *, reason: str | None = None, wait: bool = True) -> Invalidation:
        """Withdraw the shared rows; raises what is not confirmed."""


@dataclass(slots=True, eq=False)
class Change:
    """What `invalidating` yields; `receipt` is there once its block has ended well, None before."""

    receipt: Invalidation | None = None


def commit_and_invalidate(
    cache: Invalidates, conn: Any, *, reason: str | None = None, wait: bool = True
) -> Invalidation:
    """Commit `conn`'s transaction, then invalidate; see `SharedCache.commit_and_invalidate`."""
    check(conn, reason)
    doubt = (
        "whether the change is committed is not known, and nothing is invalidated: look at the rows, and if they are "
        f"changed, {_run(command_for(cache, reason))}"
    )
    return _made_known(cache, conn, doubt, reason=reason, wait=wait)


def invalidate_committed(cache: Invalidates, *, reason: str | None = None, wait: bool = True) -> Invalidation:
    """Invalidate after a commit that is known to be done; raises `CommittedNotInvalidated` for what stops it."""
    return _made_known(cache, None, "", reason=reason, wait=wait)


def _made_known(cache: Invalidates, conn: Any, doubt: str, *, reason: str | None, wait: bool) -> Invalidation:
    """Commit `conn`'s transaction, unless it is None, and invalidate."""
    command = command_for(cache, reason)
    committed, receipt = conn is None, None
    # One block, so that an interrupt between two of its lines is told too.
    try:
        if not committed:
            postgres.commit(conn, doubt=doubt)
            committed = True
        receipt = cache.invalidate(reason=reason, wait=False)
        return receipt.wait() if wait else receipt
    except BaseException as error:
        if receipt is not None:
            error.add_note(
                f"committed and invalidated, but in force only from {receipt.in_force_at.isoformat()} on: until then "
                "old rows may be read"
            )
        elif committed:
            unfinished = _unfinished(cache, command)
            if isinstance(error, Exception):
                raise CommittedNotInvalidated(f"{unfinished} {error}", command=command) from error
            error.add_note(unfinished)
        elif not isinstance(error, Exception):
            error.add_note(doubt)
        raise


@contextlib.contextmanager
def invalidating(cache: Invalidates, conn: Any, *, reason: str | None = None, wait: bool = True) -> Iterator[Change]:
    """Commit and invalidate at the block's end, roll back at its error; see `SharedCache.invalidating`."""
    check(conn, reason)
    change = Change()
    try:
        yield change
        postgres.check_not_failed(conn)
    except BaseException as error:
        _roll_back(conn, error, command_for(cache, reason))
        raise
    change.receipt = commit_and_invalidate(cache, conn, reason=reason, wait=wait)


def check(conn: Any, reason: object) -> None:
    """Raise `ConfigurationError` for arguments that could fail after the commit."""
    postgres.check_connection(conn)
    if reason is not None and not isinstance(reason, str):
        raise ConfigurationError(f"reason is {type(reason).__name__}; allowed: text, or None")


def command_for(cache: Invalidates, reason: str | None) -> str:
    """Give the shell command that invalidates what `cache` holds. It names no server: a URL may hold a password."""
    import shlex  # noqa: PLC0415 - a worker never commits, and would pay for it at import

    said = "".join(char if char.isprintable() else " " for char in reason or "").strip()
    words = ["kcg-cache", "invalidate", "--reason", said or _NO_REASON]
    words += ["--namespace", cache.settings.namespace, "--dataset", cache.dataset.name]
    return shlex.join(words)


def _unfinished(cache: Invalidates, command: str) -> str:
    return (
        f"committed, not yet invalidated: {_run(command)} Until then readers may use the old rows of "
        f"{cache.dataset.name!r}, at most for their TTL ({cache.settings.ttl:g} s here), or until `kcg-cache watch` "
        "sees the change."
    )


def _run(command: str) -> str:
    return f"run `{command}` (with KCG_CACHE_REDIS_URL of this Redis) until it succeeds."


def _roll_back(conn: Any, error: BaseException, command: str) -> None:
    """Roll back for `error`, which is the one to tell; note on it what the rollback could not do."""
    if postgres.kept_by_autocommit(conn):
        error.add_note(
            "the connection is in autocommit: what was done before the error is committed, and nothing is invalidated. "
            f"If rows were changed, {_run(command)}"
        )
    try:
        postgres.roll_back(conn)
    except Exception as failure:  # noqa: BLE001 - the block's own error is on its way, and tells of this one
        error.add_note(f"the rollback failed too ({failure}); the server rolls back when the connection ends")
