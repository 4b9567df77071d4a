"""``python -m kcg_cache.demo``: the demo without the rest of the command line, with the same exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence

from kcg_cache import postgres
from kcg_cache.demo import play
from kcg_cache.errors import CacheError, ConfigurationError, EmbeddedError, StoreError

_FORESEEN: tuple[type[Exception], ...] = (CacheError, OSError, *postgres.ERRORS)
_USAGE, _REDIS, _POSTGRES, _CONFIGURATION, _OUTPUT, _INTERRUPTED, _CLOSED_PIPE = 2, 3, 4, 5, 74, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo as the command line says and give its exit code; what went wrong is one line on stderr."""
    given = _parser().parse_args(arguments)
    try:
        options = play.Options(given.workers, given.seconds, given.redis, given.dsn, given.plant_stale_read)
        return play.perform(options, as_json=given.json, plain=given.plain)
    except KeyboardInterrupt:
        sys.stderr.write("kcg_cache.demo: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read stdout went away. What is still in the buffer must not complain at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except _FORESEEN as error:
        sys.stderr.write(f"kcg_cache.demo: {' '.join(str(error).split())}\n")
        return _code_of(error)


def _code_of(error: Exception) -> int:
    if isinstance(error, play.UsageError):
        return _USAGE
    if isinstance(error, StoreError):
        return _REDIS
    if isinstance(error, (ConfigurationError, EmbeddedError)):
        return _CONFIGURATION
    return _POSTGRES if isinstance(error, postgres.ERRORS) else _OUTPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Watch a fleet of worker processes look up while an operator promotes and archives versions. "
        "Every look-up is audited. Real servers are started for it, and nothing is left behind.",
        epilog="Exit codes: 0 every promise held, 1 one was broken, 2 wrong command line, 3 Redis, 4 PostgreSQL, "
        "5 a wrong setting or an incomplete installation, 130 Ctrl-C.",
    )
    parser.add_argument("--workers", metavar="N", type=int, default=6, help="worker processes (6)")
    parser.add_argument("--seconds", metavar="S", type=float, default=20.0, help="for how long (20)")
    parser.add_argument("--json", action="store_true", help="write one JSON document at the end, and nothing else")
    parser.add_argument("--plain", action="store_true", help="write lines, on a terminal too")
    parser.add_argument("--redis", metavar="URL", help="use this Redis or Valkey; needs --dsn too")
    parser.add_argument(
        "--dsn",
        metavar="DSN",
        help="use this PostgreSQL, of a user who may create databases; needs --redis too. The demo makes a database "
        "kcg_cache_demo_… and keys of that name, and removes them; it touches nothing else",
    )
    # For the test that proves that the audit is no decoration.
    parser.add_argument("--plant-stale-read", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
