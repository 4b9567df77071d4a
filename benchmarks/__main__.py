"""The command: scripts/bench."""

import argparse
import datetime as dt
import gc
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import machine, report
from benchmarks.catalogue import BENCHMARKS
from benchmarks.results import Result
from benchmarks.rig import Effort, raised

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks; 0 when they ran, 2 for a wrong command line, 130 after Ctrl-C. A missed goal is no error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(given)
    if options.list:
        sys.stdout.writelines(f"{name:12} {module.TITLE}\n" for name, module in BENCHMARKS.items())
        return 0
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    if options.record and options.smoke:
        parser.error("a smoke measures nothing: it is not recorded")
    try:
        results, about = _run(
            options.names or list(BENCHMARKS), Effort(smoke=options.smoke), given, record=options.record
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    if options.json:
        sys.stdout.write(report.as_json(results, about))
    return 0


def _run(
    names: Sequence[str], effort: Effort, given: Sequence[str], *, record: bool
) -> tuple[list[Result], dict[str, Any]]:
    results: list[Result] = []
    seconds: dict[str, float] = {}
    with raised() as rig:
        about = {
            "command": shlex.join(["scripts/bench", *given]),
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": machine.describe(rig),
            "seconds": seconds,
        }
        sys.stderr.writelines(f"{what}: {how}\n" for what, how in machine.describe(rig).items())
        for name in names:
            began = time.monotonic()
            result = BENCHMARKS[name].run(rig, effort)
            seconds[name] = round(time.monotonic() - began, 1)
            results.append(result)
            sys.stderr.write(f"\n{report.text(result)}\n({seconds[name]} s)\n")
            sys.stderr.flush()
            if record:
                report.record([result], about)  # at once: what comes after it may take half an hour, or fail
            gc.collect()
    return results, about


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure kcg_cache beside every peer, on real servers (docs/performance.md).",
        epilog="Tables go to standard error. Exit codes: 0 it ran, 2 wrong usage, 130 Ctrl-C.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="these benchmarks alone, in this order (all)")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and do nothing")
    parser.add_argument("--smoke", action="store_true", help="the least that goes through every line; measures nothing")
    parser.add_argument("--record", action="store_true", help="keep what comes out: results.json, docs, pictures")
    parser.add_argument("--json", action="store_true", help="give what comes out as JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
