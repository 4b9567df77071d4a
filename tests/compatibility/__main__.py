"""The command: scripts/compatibility."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.compatibility import page
from tests.compatibility.programs import Program, found, program
from tests.compatibility.runs import RunError, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Test every server; 0 if each holds what it is to, 1 if not, 2 for a wrong command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        given = [program("redis", path.absolute(), "given") for path in options.redis]
        given += [program("postgres", path.absolute(), "given") for path in options.postgres]
        programs = found(given)
    except (OSError, subprocess.CalledProcessError) as error:
        parser.error(f"a server cannot be run: {error}")
    chosen = [one for one in programs if not options.only or _named(one) & {word.lower() for word in options.only}]
    if options.list:
        for one in chosen:
            sys.stdout.write(f"{one.server + ' ' + one.version:18} {one.origin:26} {one.path}\n")
        return 0
    if not chosen:
        parser.error(f"no server is called {' or '.join(options.only)}; scripts/compatibility --list shows all")
    if options.record and options.pytest:
        parser.error("--record keeps runs of all tests: leave out what follows --")
    results = []
    for one in chosen:
        _say(f"{one.server} {one.version}, {one.origin} ...")
        started = time.monotonic()
        try:
            results.append(run(one, options.pytest, commands=options.commands))
        except (RunError, subprocess.TimeoutExpired) as error:
            _say(str(error))
            return 1
        last = results[-1]
        if options.record:
            page.record([last])
        counts = f"{last.passed} passed, {sum(last.skipped.values())} skipped, {len(last.failed)} failed"
        _say(f"  {counts} in {time.monotonic() - started:.0f} s")
        for test, line in last.failed.items():
            _say(f"  {test}: {line}")
    sys.stdout.write(page.table({"servers": [result.as_dict() for result in results]}))
    return 1 if any(result.failed for result in results) else 0


def _named(one: Program) -> set[str]:
    """Give the words by which a server may be chosen: redis, redis-7.0.15, redis-7.0, redis-7."""
    parts = one.version.split(".")
    name = one.server.lower()
    return {name, *(f"{name}-{'.'.join(parts[:length])}" for length in range(1, len(parts) + 1))}


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/compatibility",
        description="Run the tests that meet a real server, the commands and the demo among them, on every Redis, "
        "Valkey and PostgreSQL of this machine: the extra's, those of requirements/servers.lock, the system's. Print a "
        "table: what passed, was skipped or failed, and why. Minutes for each server.",
        epilog="Exit codes: 0 every server holds what it is to, 1 one does not, 2 a wrong command line.",
    )
    parser.add_argument("--list", action="store_true", help="show the servers that were found, and test none")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="redis, valkey-8.1, postgresql-15")
    parser.add_argument("--redis", action="append", default=[], type=Path, metavar="PROGRAM", help="one more server")
    parser.add_argument("--postgres", action="append", default=[], type=Path, metavar="DIRECTORY", help="one more: bin")
    parser.add_argument("--commands", action="store_true", help="the tests of all the operators' commands too; slow")
    parser.add_argument("--record", action="store_true", help="keep what came out in docs/servers.md and its record")
    parser.add_argument("pytest", nargs="*", help="after --: more arguments of pytest, to run fewer tests")
    return parser


if __name__ == "__main__":
    sys.exit(main())
