"""What the tests of programs share: how a process ended, and a server that is not there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kcg_cache
from tests.secret_words import checked

#: Where a new process finds the very package that this one tests.
SOURCE = str(Path(kcg_cache.__file__).parent.parent)
#: A port that nobody listens on, and that only root could take.
NOBODY = "redis://:hush-hush@127.0.0.1:1/0"


@dataclass(frozen=True)
class Ended:
    """What a process left."""

    code: int
    out: str
    err: str


def ended(process: Any) -> Ended:
    """Wait for a process with both streams captured, and give what it left: no secret."""
    with process:
        out, err = process.communicate()
    return Ended(process.returncode, checked(out.decode()), checked(err.decode()))
