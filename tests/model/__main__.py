"""Explore the model: ``scripts/model``; see docs/model.md."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from tests.model.checker import Result, explore
from tests.model.configurations import FULL, QUICK, RECURRING_LOCK
from tests.model.mutations import MUTATIONS, VARIANTS


def readable(result: Result) -> str:
    """Give a result as text: one line, and one more for each step to what was broken."""
    end = result.broken or ("no violation" if result.complete else "no violation so far, cut off")
    lines = [f"{result.config.name}: {result.states} states, {result.seconds:.1f} s: {end}"]
    width = max((len(who) for who, _, _ in result.trace), default=0)
    lines += [f"  {number:2}  {who:{width}}  {what}" for number, (who, what, _) in enumerate(result.trace, 1)]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _listed() -> None:
    _say("configurations of every test run:")
    for config in QUICK:
        _say(f"  {config.name}")
    _say("configurations of --full:")
    for config in FULL:
        _say(f"  {config.name}")
    _say("mutations:")
    for name, mutation in MUTATIONS.items():
        _say(f"  {name:28}  {mutation.rule:8}  {mutation.what}")
    _say("what --without leaves out:")
    for name, what in VARIANTS.items():
        _say(f"  {name:28}  {what}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore; 1 if something was broken, or if a mutation was not caught."""
    parser = argparse.ArgumentParser(prog="scripts/model", description="Explore the model of the protocol.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--full", action="store_true", help="the larger configurations too")
    which.add_argument("--only", metavar="NAME", help="one configuration")
    which.add_argument("--mutation", metavar="NAME", choices=sorted(MUTATIONS), help="show what a broken rule leads to")
    which.add_argument(
        "--recurring-lock", action="store_true", help="show how a lock's value can recur (docs/model.md)"
    )
    which.add_argument("--list", action="store_true", help="list configurations, mutations and variants")
    parser.add_argument("--without", metavar="NAME", choices=sorted(VARIANTS), action="append", default=[])
    parser.add_argument("--unique-grants", action="store_true", help="no two grants of the lock have the same value")
    parser.add_argument("--most-states", type=int, help="cut each exploration off")
    options = parser.parse_args(arguments)
    if options.list:
        _listed()
        return 0
    if options.mutation:
        result = explore(MUTATIONS[options.mutation].config, most_states=options.most_states)
        _say(f"{MUTATIONS[options.mutation].rule}: {MUTATIONS[options.mutation].what}")
        _say(readable(result))
        return 0 if result.broken else 1
    configs = (RECURRING_LOCK,) if options.recurring_lock else QUICK + FULL if options.full or options.only else QUICK
    if options.only:
        configs = tuple(config for config in configs if config.name == options.only)
        if not configs:
            parser.error(f"no configuration {options.only!r}: see --list")
    status = 0
    for config in configs:
        unique = options.unique_grants or config.unique_grants
        explored = replace(config, unique_grants=unique, without=frozenset(options.without))
        result = explore(explored, most_states=options.most_states)
        _say(readable(result))
        status |= bool(result.broken)
    return status


if __name__ == "__main__":
    sys.exit(main())
