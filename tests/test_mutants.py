"""The list of mutations is true of the source as it is, and what runs them notices what it should."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

from tests.mutants import report, runner
from tests.mutants.__main__ import main
from tests.mutants.table import ROOT, RULES, Mutation, StaleError, load

pytestmark = pytest.mark.checkout

TABLE = load()
#: One that a test in test_near.py notices within a second.
CHEAP = "debt-met-by-anything"
#: One that no test can notice.
HARMLESS = Mutation(
    name="harmless",
    rule="R6",
    removes="nothing",
    why="it is a comment",
    file="kcg_cache/near.py",
    old="# The very same entry:",
    new="# The very same one:",
    tests=("tests/test_near.py",),
)


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.name)
def test_a_mutation_applies_to_one_place_and_is_still_a_program(mutation: Mutation) -> None:
    """Else it would test nothing, or be noticed for the wrong reason."""
    text = mutation.mutated()
    if mutation.file.endswith(".py"):
        ast.parse(text)
    elif mutation.file.endswith(".lua"):
        lua = pytest.importorskip("lupa.lua51").LuaRuntime()
        prelude = "" if mutation.file.endswith("_prelude.lua") else (ROOT / "kcg_cache/lua/_prelude.lua").read_text()
        lua.compile(f"{prelude}\n{text}")
    else:
        assert mutation.file.endswith(".sql")


def test_every_rule_is_mutated_under_names_of_their_own() -> None:
    """A rule that nothing takes out is a rule that nobody knows to be tested."""
    assert {mutation.rule for mutation in TABLE} == set(RULES)
    assert len({mutation.name for mutation in TABLE}) == len(TABLE)
    assert len({(mutation.file, mutation.old, mutation.new) for mutation in TABLE}) == len(TABLE)


def test_every_mutation_names_tests_that_there_are() -> None:
    """And says in a word what it removes and why that matters."""
    for mutation in TABLE:
        assert mutation.removes, mutation.name
        assert mutation.why, mutation.name
        for test in mutation.tests:
            path, _, name = test.partition("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not name or f"def {name}(" in text, test


def test_a_mutation_that_applies_no_more_says_which() -> None:
    """Nothing is run then."""
    stale = dataclasses.replace(HARMLESS, old="what is not there")
    with pytest.raises(StaleError, match=r"R6 harmless: what it replaces is 0 times in kcg_cache/near\.py"):
        runner.run([stale])
    with pytest.raises(StaleError, match="times in"):
        dataclasses.replace(HARMLESS, old="self").mutated()


def test_a_mutation_is_caught_and_the_test_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """End to end: a copy, the tests as things are, the mutation, the tests again."""
    assert main(["--only", CHEAP, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "caught"
    assert result["test"].startswith("tests/test_near.py::test_a_debt_is_met_only_by")


def test_a_survivor_is_no_success_unless_it_is_explained() -> None:
    """And a run that did not run any test is none either."""
    explained = dataclasses.replace(HARMLESS, equivalent="it is a comment")
    unrun = dataclasses.replace(HARMLESS, tests=("tests/test_no_such.py",))
    results = runner.run([HARMLESS, explained, unrun], baseline=False)
    assert [result.verdict.value for result in results] == ["survived", "survived", "broken"]
    assert [result.good for result in results] == [False, True, False]


def test_tests_that_hang_count_as_a_catch() -> None:
    """By timeout, and it says so."""
    (result,) = runner.run([dataclasses.replace(HARMLESS, timeout=0.01)], baseline=False)
    assert result.verdict is runner.Verdict.TIMEOUT
    assert result.good


def test_tests_that_fail_by_themselves_say_nothing() -> None:
    """The unmutated tests are run first."""
    with pytest.raises(runner.BaselineError, match="without a mutation"):
        runner.run([dataclasses.replace(HARMLESS, tests=("tests/test_no_such.py",))])


def test_names_can_be_asked_for_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is misspelt would run nothing, successfully."""
    assert main(["--list", "--only", "R9"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"R9"}
    with pytest.raises(SystemExit, match="no-such-mutation"):
        main(["--only", "no-such-mutation"])


def test_a_run_is_recorded_and_its_tests_go_first_in_the_next(tmp_path: Path) -> None:
    """A run of a part replaces its own rows."""
    page = tmp_path / "mutants.md"
    page.write_text(f"before\n{report._START}{report._END}after\n")
    one, other = TABLE[:2]
    caught = [runner.Result(mutation, runner.Verdict.CAUGHT, "tests/test_x.py::test_y[z]", 1.0) for mutation in TABLE]
    report.record(caught, TABLE, arguments=["--jobs", "2"], seconds=9, page=page)
    assert report.hints(page)[one.name] == "tests/test_x.py::test_y[z]"
    report.record(
        [dataclasses.replace(caught[0], test="tests/test_x.py::test_w")], TABLE, arguments=[], seconds=1, page=page
    )
    assert report.hints(page)[one.name] == "tests/test_x.py::test_w"
    assert report.hints(page)[other.name] == "tests/test_x.py::test_y[z]"
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert len(re.findall(r"^- ", text, re.MULTILINE)) == 2
