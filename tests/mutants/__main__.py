"""The command: scripts/mutants."""

import argparse
import json
import sys
import time
from collections.abc import Sequence

from tests.mutants import report, runner
from tests.mutants.table import RULES, Mutation, StaleError, load

_WIDTH = 46


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutations; 0 if every one was noticed or is explained, 1 if not, 2 if they could not be run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    table = load()
    chosen = _chosen(table, options.only)
    if options.list:
        for mutation in chosen:
            sys.stdout.write(f"{mutation.rule:4} {mutation.name:{_WIDTH}} {mutation.removes}\n")
        return 0
    began = time.monotonic()
    try:
        results = runner.run(chosen, jobs=options.jobs, hints=report.hints(), tell=_tell)
    except (StaleError, runner.BaselineError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    seconds = time.monotonic() - began
    if options.record:
        report.record(results, table, arguments=given, seconds=seconds)
    if options.json:
        sys.stdout.write(json.dumps([_as_dict(result) for result in results], indent=2) + "\n")
    sys.stderr.write(f"{report.summary(results)}, {seconds:.0f} s\n")
    return 0 if all(result.good for result in results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/mutants",
        description="Take each part of each rule of the protocol out of a copy of the code, and see that a test fails.",
    )
    parser.add_argument("--only", action="append", metavar="NAME|RULE", help="these mutations alone; may be repeated")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="how many at a time (1)")
    parser.add_argument("--list", action="store_true", help="show the mutations and run nothing")
    parser.add_argument("--json", action="store_true", help="give the results as JSON on standard output")
    parser.add_argument("--record", action="store_true", help="write the results into docs/mutants.md")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _chosen(table: Sequence[Mutation], only: Sequence[str] | None) -> list[Mutation]:
    if only is None:
        return list(table)
    unknown = set(only) - {mutation.name for mutation in table} - set(RULES)
    if unknown:
        raise SystemExit(f"scripts/mutants: no mutation and no rule is called {', '.join(sorted(unknown))}")
    return [mutation for mutation in table if mutation.name in only or mutation.rule in only]


def _tell(result: runner.Result) -> None:
    mutation = result.mutation
    said = f" ({mutation.equivalent})" if result.verdict is runner.Verdict.SURVIVED and mutation.equivalent else ""
    sys.stderr.write(
        f"{result.verdict.value:9} {mutation.rule:4} {mutation.name:{_WIDTH}} {result.seconds:5.1f} s  "
        f"{result.test}{said}\n"
    )
    sys.stderr.flush()


def _as_dict(result: runner.Result) -> dict[str, str | float]:
    mutation = result.mutation
    return {
        "name": mutation.name,
        "rule": mutation.rule,
        "removes": mutation.removes,
        "why": mutation.why,
        "file": mutation.file,
        "verdict": result.verdict.value,
        "test": result.test,
        "equivalent": mutation.equivalent,
        "seconds": round(result.seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
