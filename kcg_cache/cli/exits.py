"""The one table of exit codes: every program of kcg_cache ends with one of these."""

import enum
from typing import Self


class ExitCode(enum.IntEnum):
    """How a program ended. Each member's `meaning` is what ``--help`` says of it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Take the number and what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done; for an invalidate: the deletion is confirmed and, unless --no-wait, in force"
    FINDING = 1, "done, but the answer is no: a difference, a warning, a process behind, a change refused"
    USAGE = 2, "the command line is wrong; nothing was done"
    REDIS = 3, "Redis was not reachable or refused; an invalidate is not confirmed"
    POSTGRES = 4, "PostgreSQL was not reachable or refused, or its rows cannot be shared"
    CONFIGURATION = 5, "a setting, a name or the installation is wrong"
    INTERNAL = 70, "a defect of kcg_cache itself; --debug shows where"
    OUTPUT = 74, "the result could not be written to stdout"
    INTERRUPTED = 130, "interrupted (Ctrl-C)"
    CLOSED_PIPE = 141, "whoever read stdout went away, as in `kcg-cache … | head`"
