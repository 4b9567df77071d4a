"""The command: scripts/soak."""

import argparse
import json
import sys
from collections.abc import Sequence

from tests.soak import nemesis, report
from tests.soak.faults import all_faults
from tests.soak.plan import Options, UsageError
from tests.soak.plants import PLANTS

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; 0 if every read was right, 1 if not, 2 for a wrong command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(given)
    if options.list:
        for name, fault in all_faults().items():
            sys.stdout.write(f"{name:32} {fault.area:9} {fault.what}\n")
        return 0
    try:
        plan = Options(
            minutes=options.minutes,
            rounds=options.rounds,
            workers=options.workers or (4 if options.prices else 8),
            operators=options.operators or (2 if options.prices else 4),
            seed=options.seed,
            faults=tuple(name.strip() for name in options.faults.split(",") if name.strip()),
            pairs=not options.no_pairs,
            scale=options.scale,
            quick=options.quick,
            prices=options.prices,
            plant=options.plant,
        )
        tally = nemesis.run(plan, _say)
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        _say("interrupted")
        return _INTERRUPTED
    if options.record:
        report.record(tally, given, of_prices=options.prices)
    if options.json:
        sys.stdout.write(json.dumps(tally.as_dict(), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(report.summary(tally)) + "\n")
    return 0 if tally.good else 1


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Let a fleet of real processes read while real servers fail in every way, and audit every read.",
        epilog="Exit codes: 0 every read was right, 1 one was not, or something hung, 2 wrong usage, 130 Ctrl-C.",
    )
    parser.add_argument("--minutes", metavar="M", type=float, help="for how long (until every fault has come)")
    parser.add_argument("--rounds", metavar="N", type=int, default=1, help="without --minutes: each fault so often (1)")
    parser.add_argument("--workers", metavar="N", type=int, help="worker processes (8)")
    parser.add_argument("--operators", metavar="N", type=int, help="operators, each with a model of its own (4)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="which order of faults, among others (1)")
    parser.add_argument("--faults", metavar="A,B", default="", help="these faults alone")
    parser.add_argument("--no-pairs", action="store_true", help="never two faults at once")
    parser.add_argument("--scale", metavar="X", type=float, default=1.0, help="faults last so many times as long (1)")
    parser.add_argument("--quick", action="store_true", help="short leases, locks and breaker windows")
    parser.add_argument("--prices", action="store_true", help="each fault once, with default settings: the price list")
    parser.add_argument("--record", action="store_true", help="write what came out into docs/reliability.md")
    parser.add_argument("--json", action="store_true", help="give what came out as JSON on standard output")
    parser.add_argument("--list", action="store_true", help="list the faults and do nothing")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="break the cache in this way: the audit must find it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
