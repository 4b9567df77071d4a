"""An exception → its exit code, and one line on stderr for each of its causes."""

from collections.abc import Iterator

from kcg_cache import postgres
from kcg_cache.cli.exits import ExitCode
from kcg_cache.errors import (
    CacheError,
    ChangeRefused,
    ConfigurationError,
    DatasetError,
    EmbeddedError,
    InvalidateError,
    StandbyError,
    StoreError,
)

#: Whose errors mean what; the first that fits.
_CODES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (ChangeRefused, ExitCode.FINDING),
    ((ConfigurationError, EmbeddedError), ExitCode.CONFIGURATION),
    ((StoreError, InvalidateError), ExitCode.REDIS),
    ((*postgres.ERRORS, DatasetError, StandbyError), ExitCode.POSTGRES),
)


class Stop(Exception):  # noqa: N818 - an end, and not always an error
    """A command ends before its end, with `code`; the text says why, and is empty when all has been said."""

    def __init__(self, code: ExitCode, message: str = "") -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException) -> ExitCode:
    """Give the exit code that an exception stands for; what nobody foresaw is a defect of ours."""
    if isinstance(error, Stop):
        return error.code
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), ExitCode.INTERNAL)


def lines_of(error: BaseException) -> list[str]:
    """Tell the chain of causes, one line each; a cause that a line before it tells in full has none of its own."""
    lines: list[str] = []
    for cause in _chain(error):
        said = one_line(str(cause))
        if not said and isinstance(cause, (Stop, KeyboardInterrupt)) and not hasattr(cause, "__notes__"):
            continue
        if lines and any(said in line for line in lines):
            continue
        lines.append(f"  because of {_text_of(cause)}" if lines else _text_of(cause))
    if lines and code_of(error) is ExitCode.INTERNAL:
        lines[0] = f"internal error: {lines[0]}"
    return lines


def one_line(text: str) -> str:
    """Give text as one line that a terminal shows as it is: control characters, which may command it, are spelt."""
    return visible(" ".join(text.split()))


def visible(text: str, *, keep: str = "") -> str:
    """Spell every character that has no shape of its own (controls, direction marks, lone surrogates) but `keep`."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _text_of(error: BaseException) -> str:
    text = one_line(" ".join([str(error), *getattr(error, "__notes__", ())]))
    if isinstance(error, (CacheError, Stop)):
        return text
    if isinstance(error, postgres.ERRORS):
        return f"PostgreSQL: {text}"
    return f"{type(error).__name__}: {text}"
