"""The one error tree of kcg_cache.

::

    CacheError
    ├── ConfigurationError        wrong use, found before anything was done (also a ValueError)
    │   └── SettingsError         a setting with a value that is not allowed
    ├── DatasetError              a loader gave something that is no list of JSON-able dicts
    ├── StoreError                Redis did not do what it was asked
    │   ├── StoreUnreachable      no answer: refused, reset, timed out, unresolvable
    │   ├── StoreNotReady         an answer that may pass: loading, failing over, replicas missing
    │   ├── StoreRefused          an answer that needs an operator: rights, password, memory
    │   └── StoreReplyError       an answer that is not what this library's scripts give
    ├── InvalidateError           an invalidate that nobody can vouch for (PROTOCOL R9): repeat it
    │   └── CommittedNotInvalidated   the change before it is committed all the same
    ├── ChangeRefused             a promotion or the like that the rows do not allow: nothing was changed
    ├── EntryError                a payload or an entry that is not what it says (PROTOCOL R14)
    ├── StandbyError              a watcher was given a PostgreSQL standby, whose rows may be old
    └── EmbeddedError             a server of the demo or the tests did not start

A reader meets `ConfigurationError`, `DatasetError` and whatever its own database connection raises; never a
`StoreError` or an `EntryError`, for as long as the database answers (PROTOCOL R8, R14). An operator who
invalidates meets `InvalidateError`, with the `StoreError` behind it as its cause; who commits
and invalidates in one call meets `CommittedNotInvalidated`, which says what to run.
"""


class CacheError(Exception):
    """Whatever kcg_cache raises of its own."""


class ConfigurationError(CacheError, ValueError):
    """Wrong use of the library, said before anything was done; the message says what to change."""


class SettingsError(ConfigurationError):
    """A setting's value is not allowed; the message names the variable, the value and what is allowed."""


class DatasetError(CacheError):
    """A loader returned something that cannot be shared; the message names the dataset, the row and the key."""


class StoreError(CacheError):
    """Redis did not do what it was asked; `symptom` is the row of the outage table (see `kcg_cache.outage`)."""

    def __init__(self, message: str, *, symptom: str) -> None:
        super().__init__(message)
        self.symptom = symptom


class StoreUnreachable(StoreError):  # noqa: N818 - the field's word for this state; the base class says Error
    """No answer came: whether the command ran is unknown."""


class StoreNotReady(StoreError):  # noqa: N818 - as above
    """Redis answered that it cannot serve now: loading, read-only, failing over, too few replicas."""


class StoreRefused(StoreError):  # noqa: N818 - as above
    """Redis answered that it will not: password, rights, memory. An operator has to act."""


class StoreReplyError(StoreError):
    """Redis answered with something that this library's scripts never give."""


class InvalidateError(CacheError):
    """The invalidate is not confirmed (PROTOCOL R9). It is idempotent: repeat it until it returns."""


class ChangeRefused(CacheError):  # noqa: N818 - it says what happened; the base class says Error
    """A change of versions or models that the rows do not allow, or that another got before: nothing was changed."""


class CommittedNotInvalidated(InvalidateError):  # noqa: N818 - says what is; the base class says Error
    """The change is committed, and readers may not know it yet; `command` is the shell command that ends this."""

    def __init__(self, message: str, *, command: str) -> None:
        super().__init__(message)
        self.command = command


class EntryError(CacheError):
    """A shared entry is corrupt, foreign, unsigned or of an unknown format: it counts as a miss (PROTOCOL R14)."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class StandbyError(CacheError):
    """A watcher was given a standby; the message says what to give instead."""


class EmbeddedError(CacheError):
    """A server of the demo or the tests did not start, or was not found; the message says what to do."""
