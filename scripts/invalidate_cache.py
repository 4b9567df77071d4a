#!/usr/bin/env python3
"""Withdraw the shared rows of kcg_cache: the step of a deploy pipeline that follows the committed change.

    python scripts/invalidate_cache.py --reason "release 2026.11: params of dark-vessel"

It exits with 0 only when Redis confirmed the deletion and, unless --no-wait, no reader anywhere can use the old rows
any more. It is safe to repeat, and repeats itself when Redis does not answer. It runs from a checkout, or anywhere with
kcg_cache installed; typer and rich are not needed.
"""

import argparse
import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "kcg_cache" / "__init__.py").is_file():
    sys.path.insert(0, str(_CHECKOUT))  # this script's own release of the library, before any other that is installed
try:
    from kcg_cache import ACTIVE_VERSIONS, InvalidateError, Invalidation, SharedCache
    from kcg_cache.cli import caches, journal
    from kcg_cache.cli.exits import ExitCode
    from kcg_cache.cli.failures import code_of, lines_of, one_line
    from kcg_cache.cli.streams import say, write
    from kcg_cache.errors import StoreRefused
    from kcg_cache.settings import variable_of
except ImportError as missing:
    sys.stderr.write(f"kcg-cache: {missing}: pip install kcg-cache\n")
    sys.exit(5)  # ExitCode.CONFIGURATION, which could not be imported

_Number = TypeVar("_Number", int, float)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, on one line."""
        say(f"{one_line(message)} (see {self.prog} --help)")
        sys.exit(ExitCode.USAGE)


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Withdraw the rows and give the exit code; whatever fails is one line on stderr for each of its causes."""
    options = _parser().parse_args(arguments)
    receipt = None
    with journal.kept():
        try:
            with caches.opened(options.redis, options.namespace, options.dataset, role="operator") as cache:
                receipt = _withdrawn(cache, options.reason, options.retries, options.retry_delay)
                if not receipt.logged:
                    say("warning: the deletion is confirmed, but the server had no room to log it (maxmemory?)")
                if not options.no_wait:
                    receipt.wait()
            write(_told(receipt, as_json=options.json).encode("utf-8", "backslashreplace"))
        except KeyboardInterrupt:
            state = "not confirmed" if receipt is None else f"in force only from {receipt.in_force_at.isoformat()} on"
            say(f"interrupted: the deletion is {state}")
            return ExitCode.INTERRUPTED
        except Exception as error:  # noqa: BLE001 - the one exit
            for line in lines_of(error):
                say(line)
            return code_of(error)
    return ExitCode.OK


def _withdrawn(cache: SharedCache, reason: str, retries: int, delay: float) -> Invalidation:
    """Withdraw the rows; again where Redis did not answer, for it is idempotent (PROTOCOL R9)."""
    for attempt in itertools.count(1):
        try:
            return cache.invalidate(reason=reason, wait=False)
        except InvalidateError as error:
            # A wrong password or a missing right stays what it is.
            if attempt > retries or isinstance(error.__cause__, StoreRefused):
                error.add_note(f"({attempt} {'attempt' if attempt == 1 else 'attempts'})")
                raise
        time.sleep(delay)
    raise AssertionError


def _told(receipt: Invalidation, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(receipt.as_dict(), ensure_ascii=False, indent=2) + "\n"
    withdrew = f"the entry with digest {receipt.digest or '?'}" if receipt.existed else "nothing, there was no entry"
    in_force = f"in force {'since' if receipt.in_force else 'from'} {receipt.in_force_at.isoformat()}"
    return one_line(f"{receipt.dataset}: withdrew {withdrew}; {in_force}; reason: {receipt.reason}") + "\n"


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)
    parser = _Parser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"exit codes:\n{codes}\n\nEvery other setting comes from its KCG_CACHE_* variable.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    redis, namespace = variable_of("redis_url"), variable_of("namespace")
    parser.add_argument(
        "--reason", required=True, type=_not_blank, metavar="TEXT", help="why; it goes into the log of invalidations"
    )
    parser.add_argument("--redis", metavar="URL", help=f"Redis or Valkey (environment: {redis}, safer for a password)")
    parser.add_argument("--namespace", metavar="NAME", help=f"the fleet's part of every key (environment: {namespace})")
    parser.add_argument(
        "--dataset", default=ACTIVE_VERSIONS.name, metavar="NAME", help="which rows; without it, %(default)s"
    )
    parser.add_argument("--no-wait", action="store_true", help="return at once, and say from when it is in force")
    parser.add_argument(
        "--retries", type=_at_least_zero(int), default=3, metavar="N", help="further attempts; without it, %(default)s"
    )
    parser.add_argument(
        "--retry-delay",
        type=_at_least_zero(float),
        default=1.0,
        metavar="S",
        help="seconds between two attempts; without it, %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="write the receipt as one JSON document")
    return parser


def _not_blank(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("say why: it is what the log of invalidations is read for")
    return text


def _at_least_zero(kind: type[_Number]) -> Callable[[str], _Number]:
    def parse(text: str) -> _Number:
        with contextlib.suppress(ValueError):
            if 0 <= (number := kind(text)) < math.inf:
                return number
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")

    return parse


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
