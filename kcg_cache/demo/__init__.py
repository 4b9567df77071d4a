"""The demo: a fleet of real processes looks up as fast as it can while an operator promotes and archives versions.

Every look-up is audited, with one inequality: the newest generation whose invalidate had returned before
the look-up began <= the generation that was read <= the newest generation whose commit had begun.

============  =======================================================================================
module        its one job
============  =======================================================================================
``play``      `run`: raise the servers and the crew, let them play, decide whether all promises held
``servers``   the two servers: private ones, or a database and a namespace of its own on the user's
``signals``   what asks the demo to end, raises
``crew``      the processes: start, listen to, end
``wire``      one JSON object per line between the play and its crew
``board``     the shared memory that the operator writes and the readers hold each look-up against
``worker``    one process that looks up (``python -m``); ``audit`` is what it checks
``operate``   the process of the operator (``python -m``); ``changes`` is what it plays
``tally``     what the crew reported, and which promises that breaks
``screen``    the live table (rich); ``lines``: the same in plain lines; ``summary``: the end of both
============  =======================================================================================

Importing the package imports none of them: a worker needs few.
"""


def run(
    *,
    workers: int = 6,
    seconds: float = 20.0,
    as_json: bool = False,
    plain: bool = False,
    redis: str | None = None,
    dsn: str | None = None,
) -> int:
    """Play for so long with so many worker processes; give 0 when every promise held, 1 when one was broken.

    With `redis` and `dsn` (both, or neither) it uses these servers, in a database and a namespace that it makes and
    removes; else it starts servers of its own. `as_json` writes one JSON document to stdout and nothing else; `plain`
    writes lines on a terminal too.

    Nothing is left behind, also after Ctrl-C, which raises `KeyboardInterrupt`, and SIGTERM and SIGHUP, which raise
    `SystemExit`. Raises `ConfigurationError` for wrong arguments, `EmbeddedError` when a server does not start, and
    what Redis (`StoreError`) and the database raise.
    """
    from kcg_cache.demo.play import Options, perform  # noqa: PLC0415 - see above

    return perform(Options(workers, seconds, redis, dsn), as_json=as_json, plain=plain)
