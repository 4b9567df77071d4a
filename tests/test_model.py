"""The protocol's model (docs/model.md): as built it breaks no promise, and each rule that is removed breaks one."""

import ast
import functools
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model.__main__ import main, readable
from tests.model.checker import Result, explore, ways_out
from tests.model.config import Config, budget
from tests.model.configurations import LIVE, QUICK, RECURRING_LOCK
from tests.model.mutations import MUTATIONS, VARIANTS

# It knows nothing of how the library is installed: once is enough.
pytestmark = [pytest.mark.checkout, pytest.mark.beside]

#: The set in which leaving an optimisation out makes a difference.
_SHOWS = {
    "same_entry_shortcut": "refresh ahead, threads",
    "replaces": "refresh ahead, threads",
    "forget": "operator in a worker",
    "handover": "threads, giving up",
    "debt_floor_taken_over": "threads, plain and forced",
}


@functools.cache
def _explored(config: Config, most_states: int | None = None) -> Result:
    """Explore what several tests ask about once; of the sets that show a mutation many are the same."""
    return explore(config, most_states=most_states)


@pytest.mark.parametrize("config", QUICK, ids=lambda config: config.name)
def test_the_protocol_as_built_breaks_no_promise(config: Config) -> None:
    """Every state is visited, and in none of them a promise is broken."""
    result = _explored(config)
    assert result.complete
    assert not result.broken, readable(result)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_breaks_a_promise(name: str) -> None:
    """A rule that the model could do without would be no rule, or the model would be blind."""
    assert explore(MUTATIONS[name].config).broken, MUTATIONS[name].what


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_set_that_shows_a_mutation_is_clean_without_it(name: str) -> None:
    """It is the broken rule that breaks the promise, and nothing else."""
    result = _explored(replace(MUTATIONS[name].config, mutation="", name=""), 5_000)
    assert not result.broken, readable(result)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_optimisation_may_be_left_out(name: str) -> None:
    """What the implementation adds to the rules is right, and so is its absence."""
    config = next(config for config in QUICK if config.name == _SHOWS[name])
    result = explore(replace(config, without=frozenset({name})))
    assert not result.broken, readable(result)
    assert result.states != _explored(config).states


@pytest.mark.parametrize("config", LIVE, ids=lambda config: config.name)
def test_every_waiting_read_can_finish(config: Config) -> None:
    """From every state all reads can end without another fault, and without a wait_timeout."""
    assert ways_out(config) == []


def test_a_counterexample_reads_one_step_per_line() -> None:
    """Who, what, and at the end the promise that it broke."""
    result = explore(MUTATIONS["now_is_the_clock"].config)
    lines = readable(result).splitlines()
    assert "Promise 2" in lines[0]
    assert len(lines) == 1 + len(result.trace)
    assert lines[-1].split() == ["8", "w2", "gets", "and", "returns", "v1"]


def test_an_unknown_budget_is_refused() -> None:
    """A fault that is misspelt would never happen."""
    with pytest.raises(ValueError, match="comit"):
        budget(comit=1)


def test_the_command_shows_a_mutation_and_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    """`--mutation` succeeds when the checker caught it."""
    assert main(["--mutation", "no_wait"]) == 0
    assert "Promise 1" in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert set(MUTATIONS) <= set(capsys.readouterr().out.split())


def test_the_model_knows_nothing_of_the_implementation() -> None:
    """It is a second opinion: what it says of the protocol is not what the code says."""
    for path in (Path(__file__).parent / "model").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "kcg_cache" for name in names), path.name


def test_a_lock_value_that_recurs_breaks_the_fence() -> None:
    """The one hole that was found, and closed: a late duplicate of `read` was granted its original's lock.

    The Redis clock has stepped back, so that the grant is the caller's resolved floor, both times.
    """
    result = explore(RECURRING_LOCK)
    assert "the fence" in result.broken
    assert result.trace[-2][1].startswith("a late duplicate of read runs")


def test_grants_that_are_told_apart_close_it() -> None:
    """With the server's own time in the lock's value no two grants are equal."""
    result = explore(replace(RECURRING_LOCK, unique_grants=True))
    assert result.complete
    assert not result.broken, readable(result)
