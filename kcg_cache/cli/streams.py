"""The two streams of a program: results on stdout, everything else on stderr."""

import contextlib
import os
import select
import sys

from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop


def say(text: str) -> None:
    """Write one line on stderr, under our name; a stderr that is gone is nobody's loss."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"kcg-cache: {text}\n")
        sys.stderr.flush()


def write(data: bytes) -> None:
    """Write to stdout, at once. Raises `Stop` when it cannot be written."""
    if sys.stdout is None:  # closed by whoever started us: nobody wants it
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        _abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise Stop(ExitCode.CLOSED_PIPE) from None
        raise Stop(ExitCode.OUTPUT, f"stdout cannot be written: {error.strerror}") from None


def check_reader() -> None:
    """Raise `Stop` when whoever read stdout through a pipe has gone: nothing that is written would tell us sooner."""
    if sys.stdout is None:
        return
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        gone = any(happened & select.POLLERR for _, happened in poll.poll(0))
    except (OSError, ValueError):  # a stdout that is no file at all
        return
    if gone:
        _abandon_stdout()
        raise Stop(ExitCode.CLOSED_PIPE)


def _abandon_stdout() -> None:
    """See to it that the interpreter's own last flush of what could not be written does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
