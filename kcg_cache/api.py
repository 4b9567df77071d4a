"""The module API: functions over one default cache."""

import os
import threading
from contextlib import AbstractContextManager
from typing import Any, cast

from kcg_cache import postgres, queries
from kcg_cache.cache import SharedCache
from kcg_cache.committing import Change
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.errors import ConfigurationError
from kcg_cache.receipt import Invalidation
from kcg_cache.rows import Dependency, VersionRow
from kcg_cache.settings import Settings

_default: SharedCache | None = None
_making = threading.Lock()


def configure(redis: Any = None, *, settings: Settings | None = None, **arguments: Any) -> SharedCache:
    """Make the default cache anew, from a client or URL, and `Settings` or single settings on top of the environment's.

    Optional: without it the first call makes one from the environment. Readers go over to the new one at their next
    read. Raises `ConfigurationError` for what is not allowed, and then keeps the present one.
    """
    global _default  # noqa: PLW0603 - the module API has one default cache, by contract
    if settings is not None and arguments:
        raise ConfigurationError("give settings, or single settings as arguments, not both")
    cache = SharedCache(redis, ACTIVE_VERSIONS, settings or Settings.from_env(**arguments))
    with _making:
        _default = cache
    return cache


def default_cache() -> SharedCache:
    """Give the default cache; the first call makes it from the environment."""
    global _default  # noqa: PLW0603 - as above
    if _default is None:
        with _making:
            # Two threads that make the first call at once share one: each would else keep a copy and a pool.
            if _default is None:
                _default = SharedCache(None, ACTIVE_VERSIONS, Settings.from_env())
    return _default


def load_active_versions(conn: Any, *, force_reload: bool = False, max_age: float | None = None) -> list[VersionRow]:
    """Give every ACTIVE version of every enabled model, ordered by model, role (PRIMARY, CHALLENGER, SHADOW), id.

    `conn` is an open psycopg2 connection, or a callable that returns a context manager of one (a hit does not call it).
    `force_reload` reads the database and refreshes the shared copy. `max_age`, in seconds, is the oldest that the rows
    may be. The list is the caller's own; the rows in it are shared and immutable.

    Raises what the connection raises; a Redis that fails raises nothing.
    """
    cache = _default or default_cache()
    return list(cache.read(conn, force=force_reload, max_age=max_age).rows)


def load_dependencies(conn: Any) -> list[Dependency]:
    """Give every edge between models as ``(model_id, depends_on, input_key)``, ordered by the three. Not cached.

    `conn` is as for `load_active_versions`. A transaction that the caller has open is left alone; one that this opens
    is ended. Raises what the connection raises.
    """
    with postgres.lent(conn) as connection, postgres.own_transaction_ended(connection):
        rows = postgres.fetch(connection, queries.load("dependencies"))
    return [Dependency(**cast("dict[str, str]", row)) for row in rows]


def invalidate_cache(*, reason: str | None = None, wait: bool = True) -> Invalidation:
    """Withdraw the shared rows, right after the commit: the next look-up in every process reads the database.

    See `SharedCache.invalidate`. Raises `InvalidateError` when it is not confirmed: repeat it.
    """
    return default_cache().invalidate(reason=reason, wait=wait)


def commit_and_invalidate(conn: Any, *, reason: str | None = None, wait: bool = True) -> Invalidation:
    """Commit the transaction that is open on `conn`, then withdraw the shared rows; give the receipt.

    See `SharedCache.commit_and_invalidate`. Raises `CommittedNotInvalidated` when only the first is done, and what the
    connection raises when neither is.
    """
    return default_cache().commit_and_invalidate(conn, reason=reason, wait=wait)


def invalidating(conn: Any, *, reason: str | None = None, wait: bool = True) -> AbstractContextManager[Change]:
    """Commit and withdraw the shared rows at the end of a ``with`` block, roll back at its error.

    See `SharedCache.invalidating`. It yields an object whose `receipt` is there after the block.
    """
    return default_cache().invalidating(conn, reason=reason, wait=wait)


def _after_fork_in_child() -> None:
    global _making  # noqa: PLW0603 - another thread of the parent may have held it at the fork
    _making = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
