"""The command line. Nothing of the extra ``cli`` (typer, rich) is imported before a command is run.

==============  =====================================================================================
module          its one job
==============  =====================================================================================
``exits``       the table of exit codes
``failures``    an exception → its exit code and its lines on stderr
``streams``     results → stdout, everything else → stderr
``journal``     log lines and warnings of the library → lines on stderr
``caches``      options → a cache; a connection that Ctrl-C interrupts
``app``         the commands; the only exit
``options``     options that several commands have
``output``      a result as tables for people, or as one JSON document
``shown``       values → text for people
``withdrawing`` what follows a deletion: the waits, and the receipt
``systemd``     what a service manager is told
``health``      the state file of watch: written, and judged
``show`` …      one command each
==============  =====================================================================================

The first five need only the library itself: ``scripts/invalidate_cache.py`` uses them too.
"""

import sys
from collections.abc import Sequence

from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.streams import say

_EXTRA = frozenset({"typer", "click", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and give its exit code."""
    try:
        from kcg_cache.cli import app  # noqa: PLC0415 - the extra may be missing

        return app.run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        say(f"the command line needs {missing}, which is not installed: pip install 'kcg-cache[cli]'")
        return ExitCode.CONFIGURATION
