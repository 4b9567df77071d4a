"""Simulate many seeds, replay one, or see which planted faults the simulation finds: ``scripts/simulate``."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tests.mutants.table import load
from tests.simulation import planted
from tests.simulation.run import Outcome, simulate

#: Seeds that one process does at a time: so many that starting it does not matter.
_BATCH = 100
#: Broken seeds that are shown.
_SHOWN = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate; 0 if nothing was broken, 1 if something was."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _replay(options.seed)
    if options.mutations or options.mutation:
        return _planted(options)
    began = time.monotonic()
    counts: Counter[str] = Counter()
    metrics: Counter[str] = Counter()
    broken: list[tuple[int, tuple[str, ...]]] = []
    done = 0
    for seed, violations, counted, measured in _outcomes(options):
        done += 1
        counts.update(counted)
        metrics.update(measured)
        if violations:
            broken.append((seed, violations))
            if len(broken) <= _SHOWN:
                _say(f"seed {seed}: {violations[0]}\n    its schedule: scripts/simulate --seed {seed}")
            if options.stop:
                break
    seconds = time.monotonic() - began
    if options.json:
        facts = {"seeds": done, "seconds": seconds, "broken": broken, "counts": counts, "metrics": metrics}
        sys.stdout.write(json.dumps(facts) + "\n")
    _say(f"{done} seeds in {seconds:.1f} s: {len(broken)} broken")
    if not options.json:
        _say("".join(f"\n  {name:32}{count:12,}" for name, count in sorted(counts.items())))
    return 1 if broken else 0


def _outcomes(options: argparse.Namespace) -> Iterator[tuple[int, tuple[str, ...], dict[str, int], dict[str, int]]]:
    seeds = range(options.first, options.first + options.seeds)
    if options.jobs == 1:
        yield from map(_summary, map(simulate, seeds))
        return
    batches = [seeds[start : start + _BATCH] for start in range(0, len(seeds), _BATCH)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for batch in pool.map(_batch, batches):
            yield from batch


def _batch(seeds: Iterable[int]) -> list[tuple[int, tuple[str, ...], dict[str, int], dict[str, int]]]:
    return [_summary(simulate(seed)) for seed in seeds]


def _summary(outcome: Outcome) -> tuple[int, tuple[str, ...], dict[str, int], dict[str, int]]:
    return outcome.plan.seed, outcome.violations, outcome.counts, outcome.metrics


def _replay(seed: int) -> int:
    outcome = simulate(seed, trace=True)
    for line in described(outcome):
        sys.stdout.write(f"{line}\n")
    return 1 if outcome.violations else 0


def _planted(options: argparse.Namespace) -> int:
    names = set(options.mutation or ())
    table = load()
    unknown = names - {mutation.name for mutation in table}
    if unknown:
        raise SystemExit(f"scripts/simulate: no mutation is called {', '.join(sorted(unknown))}")
    chosen = [mutation for mutation in table if not names or mutation.name in names]

    def tell(one: planted.Found) -> None:
        seed = "-" if one.seed is None else str(one.seed)
        _say(f"{one.mutation.rule:4} {one.mutation.name:46} {seed:>6}  {one.what}")

    found = planted.plant(chosen, seeds=options.seeds, tell=tell)
    if options.record:
        planted.record(found)
    caught = [one for one in found if one.seed is not None or one.what]
    _say(f"{len(caught)} of {len(found)} planted mutations found, each within {options.seeds} seeds")
    return 0 if len(caught) == len(found) else 1


def described(outcome: Outcome) -> list[str]:
    """Give a traced run in lines: what was drawn, the schedule step by step, what was broken."""
    plan: Any = outcome.plan
    lines = [f"{name:12}{getattr(plan, name)}" for name in plan.__dataclass_fields__]
    lines += ["", *outcome.trace, ""]
    lines += [f"broken {violation}" for violation in outcome.violations] or ["nothing broken"]
    return lines


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description="Run the real code under a seeded scheduler that owns every interleaving."
    )
    parser.add_argument("--seeds", type=int, default=2000, metavar="N", help="how many (2000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first one (0)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="replay one and print its schedule")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--stop", action="store_true", help="end at the first seed that breaks a promise")
    parser.add_argument("--mutations", action="store_true", help="plant every mutation of tests/mutants in turn")
    parser.add_argument("--mutation", action="append", metavar="NAME", help="plant this one; may be repeated")
    parser.add_argument("--record", action="store_true", help="with --mutations: write the seeds that found them down")
    parser.add_argument("--json", action="store_true", help="give the figures as JSON on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
