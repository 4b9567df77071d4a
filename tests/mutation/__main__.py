"""The command: scripts/mutmut."""

import argparse
import sys
import time
from collections.abc import Sequence

from tests.mutation import explained, report, tool
from tests.mutation.mutants import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if every survivor is explained and every explanation fits, 1 if not, 2 if it could not be run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    modules = options.module or list(tool.MODULES)
    if options.record and options.module:
        sys.stderr.write("scripts/mutmut: --record is of all modules\n")
        return 2
    began = time.monotonic()
    try:
        explanations = [one for one in explained.load() if one.change.module in modules]
        found = tool.run(modules, jobs=options.jobs, tell=_tell)
    except (explained.ListError, tool.ToolError) as error:
        _tell(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    seconds = time.monotonic() - began
    survivors = [one.mutant.change for one in found if one.mutant.outcome in (Outcome.SURVIVED, Outcome.UNTESTED)]
    comparison = explained.compare(survivors, explanations)
    _say(found, comparison)
    if options.record:
        report.record(found, comparison, arguments=given, seconds=seconds)
    _tell(f"{report.summary(found, comparison)}, {seconds:.0f} s")
    broken = any(one.mutant.outcome is Outcome.BROKEN for one in found)
    return 1 if comparison.unexplained or comparison.stale or broken else 0


def _say(found: Sequence[tool.Found], comparison: explained.Comparison) -> None:
    for one in found:
        if one.mutant.outcome in (Outcome.BROKEN, Outcome.TIMEOUT):
            change = one.mutant.change
            _tell(f"{one.mutant.outcome.value}: {change.where}: {change.old!r} -> {change.new!r}")
    for stale in comparison.stale:
        _tell(f"explained and not seen to survive, under [{stale.reason}]:\n{explained.as_entry(stale.change)}")
    if comparison.unexplained:
        _tell("not explained, as they would stand in tests/mutation/explained.toml:")
    for change in comparison.unexplained:
        sys.stdout.write(f"{explained.as_entry(change)}\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/mutmut",
        description="Mutate the modules where the logic is, in a copy, and see that a test fails for every mutant.",
    )
    parser.add_argument(
        "--module", action="append", choices=tool.MODULES, help="this module alone; may be repeated (all of them)"
    )
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="how many at a time (1)")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/mutation.md")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
