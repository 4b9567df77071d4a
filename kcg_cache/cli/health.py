"""The state file of ``kcg-cache watch``: written after each turn, read by ``--healthcheck``."""

import json
import os
from pathlib import Path
from typing import Any

from kcg_cache.errors import ConfigurationError
from kcg_cache.system import System

#: Seconds after which a file that was not written anew is one of a watcher that is gone or hangs. A turn takes two
#: seconds, or five where a server does not answer, and what the calls themselves take.
STALE_SECONDS = 30.0
#: States in which it does what it is there for.
_WELL = frozenset({"on_duty", "standing_by"})


def written(path: Path, document: dict[str, Any]) -> None:
    """Replace the file by this document, all at once. Raises `ConfigurationError` when it cannot be written."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(json.dumps(document) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise ConfigurationError(f"the state file {str(path)!r} cannot be written: {error.strerror}") from error


def judged(path: Path, system: System) -> tuple[bool, str]:
    """Tell whether the watcher that writes this file is well, and why or why not."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        state, beat, pid = str(document["state"]), float(document["beat"]), int(document["pid"])
    except FileNotFoundError:
        return False, f"no state file {str(path)!r}: no watcher has begun, or it ended in order"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return False, f"the state file {str(path)!r} cannot be read: {error}"
    silent = system.now() - beat
    if not 0 <= silent <= STALE_SECONDS:  # from the future: written before the host was started anew
        return False, f"pid {pid}: silent for {abs(silent):.0f} s, it was {said(state)}"
    return state in _WELL, f"pid {pid}: {said(state)}"


def said(state: str) -> str:
    """Give a state in words."""
    return {"postgres_lost": "PostgreSQL lost", "redis_lost": "Redis lost"}.get(state, state.replace("_", " "))
