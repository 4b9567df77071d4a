"""Does the simulation find what is broken? Mutations of `tests/mutants` are planted, and seeds run until one finds it.

`seeds.toml` keeps, for each mutation that was found, the first seed that found it: the regression cases. A test plants
some of them again on every run, so a seed that has lost its meaning is noticed.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.runner import Checkout
from tests.mutants.table import Mutation

SEEDS = Path(__file__).with_name("seeds.toml")
#: Seconds after which a mutated simulation counts as hanging.
_TIMEOUT = 300.0
_HEADER = """\
# The first seed, of those that were tried, in which a mutation of tests/mutants breaks a promise. Written by
# `scripts/simulate --mutations --record` (or `--mutation NAME`). A change of what a seed draws makes another run
# necessary.

"""


@dataclass(frozen=True)
class Found:
    """What became of one planted mutation."""

    mutation: Mutation
    #: The seed that broke a promise; None if none did.
    seed: int | None
    #: What it broke, or how it ended.
    what: str


def recorded() -> dict[str, int]:
    """Give the seed of each mutation that was found."""
    return {name: int(seed) for name, seed in tomllib.loads(SEEDS.read_text(encoding="utf-8")).items()}


def record(found: Iterable[Found]) -> None:
    """Write the seeds down; those of mutations that were not run stay."""
    known: dict[str, int | None] = {**recorded(), **{one.mutation.name: one.seed for one in found}}
    lines = [f"{name} = {seed}" for name, seed in sorted(known.items()) if seed is not None]
    SEEDS.write_text(_HEADER + "\n".join(lines) + "\n", encoding="utf-8")


def plant(mutations: Iterable[Mutation], *, seeds: int, tell: Callable[[Found], None] = lambda _: None) -> list[Found]:
    """Plant each mutation in a private copy and run up to so many seeds, the recorded one first."""
    known = recorded()
    found = []
    with tempfile.TemporaryDirectory(prefix="kcg-planted-") as directory:
        checkout = Checkout(Path(directory))
        for mutation in mutations:
            with checkout.mutated(mutation) as root:
                one = Found(mutation, None, "")
                if mutation.name in known:
                    one = _run(root, mutation, first=known[mutation.name], seeds=1)
                if one.seed is None and seeds:
                    one = _run(root, mutation, first=0, seeds=seeds)
            found.append(one)
            tell(one)
    return found


def _run(root: Path, mutation: Mutation, *, first: int, seeds: int) -> Found:
    command = [sys.executable, "-m", "tests.simulation", "--json", "--stop"]
    try:
        done = subprocess.run(
            [*command, "--first", str(first), "--seeds", str(seeds)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Found(mutation, None, "hangs")
    try:
        facts = json.loads(done.stdout)
    except ValueError:
        return Found(mutation, None, f"crashes: {done.stderr.strip().rpartition(chr(10))[2]}")
    if not facts["broken"]:
        return Found(mutation, None, "")
    seed, violations = facts["broken"][0]
    return Found(mutation, seed, violations[0])
