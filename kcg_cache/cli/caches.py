"""Options → a cache; a connection that is opened when it is needed and that Ctrl-C interrupts."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from kcg_cache import postgres
from kcg_cache.cache import SharedCache
from kcg_cache.datasets import ACTIVE_VERSIONS, Dataset
from kcg_cache.errors import InvalidateError, StoreError
from kcg_cache.settings import Settings, without_password

_Result = TypeVar("_Result")
#: Seconds that an interrupted read is given to end in order.
_GRACE = 2.0


@contextlib.contextmanager
def opened(
    redis: str | None, namespace: str | None, dataset: str = ACTIVE_VERSIONS.name, *, role: str
) -> Iterator[SharedCache]:
    """Give a cache with the settings of the environment and these on top; close it in the end.

    It leaves no presence in the fleet: a command that reads once is no process that reads. `role`: whose work the
    command does ("viewer", …): where its user is refused, the error names the rights of it that are lacking.
    """
    options: dict[str, Any] = {"redis_url": redis, "namespace": namespace}
    settings = Settings.from_env(None, **{name: value for name, value in options.items() if value is not None})
    cache = SharedCache(None, named(dataset), settings, present=False)
    try:
        yield cache
    except (StoreError, InvalidateError) as error:
        error.add_note(f"[{without_password(settings.redis_url)}]")
        note_lacking(cache, error, role)
        raise
    finally:
        cache.close()


#: Rights that an error names at most.
_NAMED = 8


def note_lacking(cache: SharedCache, error: BaseException, role: str) -> None:
    """Where Redis refused this user, note on the error which of a role's rights it has not, and what prints them."""
    refused = error if isinstance(error, StoreError) else error.__cause__
    if not isinstance(refused, StoreError) or refused.symptom != "denied":
        return
    try:
        lacking = cache.lacking(role)
    except StoreError:
        return  # the password, most likely: the error says so
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        article = "an" if role == "operator" else "a"
        error.add_note(
            f"(of what {article} {role} needs, this user may not: {', '.join(lacking[:_NAMED])}{more}; "
            f"`kcg-cache acl {role}` prints it)"
        )


def named(dataset: str) -> Dataset:
    """Give the dataset of a name; of one that only its own service can load, no more than the keys are needed."""
    if dataset == ACTIVE_VERSIONS.name:
        return ACTIVE_VERSIONS
    return Dataset(dataset, _not_ours_to_load, transactional=False)


def _not_ours_to_load(_conn: object) -> NoReturn:
    raise NotImplementedError("this program knows the dataset's name, and not how to load it")


class Database:
    """PostgreSQL as the options and libpq's environment name it; connected only when a cache has to load."""

    def __init__(self, dsn: str, **defaults: int | str) -> None:
        self._dsn = dsn
        self._defaults = defaults
        self._lent: Any = None

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """Open a connection, lend and close it: what `SharedCache.read` takes as its `conn`."""
        before = self._lent
        with contextlib.ExitStack() as stack:
            try:
                self._lent = stack.enter_context(postgres.connect(self._dsn, **self._defaults))
            except postgres.ERRORS as error:
                if not self._dsn:
                    error.add_note("(without --dsn, libpq's environment decides: PGSERVICE, PGHOST, PGDATABASE …)")
                raise
            try:
                yield self._lent
            finally:
                self._lent = before

    def cancel(self) -> None:
        """Cancel the statement that runs on the connection that is lent, if any."""
        if (lent := self._lent) is not None:
            with contextlib.suppress(Exception):
                lent.cancel()

    def hang_up(self) -> None:
        """Hang up on the server in the middle of a statement, if any: also on one that does not answer any more."""
        if (lent := self._lent) is not None:
            with contextlib.suppress(Exception):
                postgres.hang_up(lent)

    def interruptible(self, work: Callable[[], _Result]) -> _Result:
        """Give what `work` gives. On Ctrl-C the statement that runs is cancelled, so that a fill lock is released.

        The driver does not come back to Python before PostgreSQL has answered: work that may wait for that is done
        on a thread of its own, while this one listens to signals.
        """
        results: list[_Result] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001 - raised on the caller's thread, below
                errors.append(error)
            finally:
                done.set()

        threading.Thread(target=run, name="kcg_cache-command", daemon=True).start()
        try:
            done.wait()
        except KeyboardInterrupt:
            self.cancel()
            done.wait(_GRACE)
            raise
        if errors:
            raise errors[0]
        return results[0]
