"""The list of explained survivors is true of the source as it is, and survivors are held against it both ways."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.mutants.table import ROOT
from tests.mutation import explained, mutants, report, tool
from tests.mutation.__main__ import main
from tests.mutation.explained import Explanation, ListError, compare
from tests.mutation.mutants import Change, Mutant, Outcome
from tests.mutation.tool import Found

pytestmark = pytest.mark.checkout

EXPLANATIONS = explained.load()

ONE = Change("near.Near.keep", "if a > b:", "if a >= b:")
OTHER = Change("near.Near.keep", "if a > b:", "if a < b:")


def explanation(change: Change, count: int = 1) -> Explanation:
    return Explanation("equal", "it is the same", change, count)


@pytest.mark.parametrize(
    "entry", EXPLANATIONS, ids=[f"{number}-{entry.change.where}" for number, entry in enumerate(EXPLANATIONS)]
)
def test_what_is_explained_stands_in_the_function_that_is_named(entry: Explanation) -> None:
    """Else the explanation is of what was there once."""
    change = entry.change
    assert change.module in tool.MODULES
    source = (ROOT / "kcg_cache" / f"{change.module}.py").read_text(encoding="utf-8")
    text = mutants.function_text(source, change.where.partition(".")[2])
    assert text.count(change.old) >= entry.count > 0
    assert change.old != change.new
    assert change.old


def test_a_list_that_is_not_well_formed_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    """A reason without a why explains nothing."""
    path = tmp_path / "explained.toml"
    entry = "{in = 'a.b', old = 'x', new = 'y'}"
    for text, message in {
        "[equal]\nmutants = [{in = 'a.b', old = 'x', new = 'y'}]\n": "should say why",
        "[equal]\nwhy = ''\nmutants = [{in = 'a.b', old = 'x', new = 'y'}]\n": "should say why",
        "[equal]\nwhy = 'so'\nmutants = []\n": "of which mutants",
        "[equal]\nwhy = 'so'\nmutants = [{in = 'a.b', old = 'x'}]\n": "an entry of",
        "[equal]\nwhy = 'so'\nmutants = [{in = 'a.b', old = 'x', new = 'y', line = 5}]\n": "an entry of",
        f"[equal]\nwhy = 'so'\nmutants = [{', '.join(2 * [entry])}]": "twice",
    }.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ListError, match=message):
            explained.load(path)


@pytest.mark.parametrize(
    "change",
    [ONE, Change("a.b", "x = 'y'", ""), Change("a.b", "one\ntwo", "'''"), Change("a.b", "\"\\n'\n'''", "'\\")],
)
def test_an_entry_that_is_printed_can_be_put_into_the_list(change: Change, tmp_path: Path) -> None:
    """Whatever quotes and lines it has."""
    path = tmp_path / "explained.toml"
    path.write_text(f"[equal]\nwhy = 'so'\nmutants = [\n{explained.as_entry(change)}\n]\n", encoding="utf-8")
    assert [entry.change for entry in explained.load(path)] == [change]


def test_survivors_and_explanations_are_held_against_each_other_both_ways() -> None:
    """One that is not listed is a gap; one that is listed and did not survive is stale."""
    assert compare([ONE], [explanation(ONE)]).explained == {explanation(ONE): 1}
    compared = compare([ONE], [explanation(OTHER)])
    assert compared.unexplained == [ONE]
    assert compared.stale == [explanation(OTHER)]
    assert compare([], []).unexplained == []


def test_places_that_read_the_same_are_counted() -> None:
    """A second one that survives is not covered by the first one's explanation."""
    assert compare([ONE, ONE], [explanation(ONE)]).unexplained == [ONE]
    assert compare([ONE, ONE], [explanation(ONE, 2)]).unexplained == []
    fewer = compare([ONE], [explanation(ONE, 2)])
    assert fewer.stale == [explanation(ONE, 2)]
    assert fewer.explained == {explanation(ONE, 2): 1}


MUTATED = """
def x_plain__mutmut_orig(a):
    return f(
        a,
        b=1,
    )
def x_plain__mutmut_1(a):
    return f(
        a,
    )
class Thing:
    def xǁThingǁgo__mutmut_orig(self, n: int = 1) -> int:
        return n
    def xǁThingǁgo__mutmut_1(self, n: int = 2) -> int:
        return n
"""


def test_mutants_are_read_by_what_they_change_and_not_by_their_number(tmp_path: Path) -> None:
    """From the files that mutmut writes."""
    directory = tmp_path / "mutants" / "kcg_cache"
    directory.mkdir(parents=True)
    (directory / "tiny.py").write_text(MUTATED, encoding="utf-8")
    names = {"kcg_cache.tiny.x_plain__mutmut_1": 0, "kcg_cache.tiny.xǁThingǁgo__mutmut_1": 1}
    (directory / "tiny.py.meta").write_text(json.dumps({"exit_code_by_key": names}), encoding="utf-8")
    dropped = Change("tiny.plain", "b=1,", "")
    default = Change("tiny.Thing.go", "def go(self, n: int = 1) -> int:", "def go(self, n: int = 2) -> int:")
    assert mutants.read(tmp_path, ["tiny"]) == [
        Mutant("kcg_cache.tiny.x_plain__mutmut_1", dropped, Outcome.SURVIVED),
        Mutant("kcg_cache.tiny.xǁThingǁgo__mutmut_1", default, Outcome.KILLED),
    ]


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0, "survived"),
        (1, "killed"),
        (33, "no tests"),
        (5, "no tests"),
        (-24, "timeout"),
        (None, "broken"),
        (2, "broken"),
    ],
)
def test_a_run_that_was_not_one_is_no_success(code: int | None, outcome: str, tmp_path: Path) -> None:
    """Neither is one that nobody began."""
    directory = tmp_path / "mutants" / "kcg_cache"
    directory.mkdir(parents=True)
    (directory / "tiny.py").write_text(MUTATED, encoding="utf-8")
    meta = {"exit_code_by_key": {"kcg_cache.tiny.x_plain__mutmut_1": code}}
    (directory / "tiny.py.meta").write_text(json.dumps(meta), encoding="utf-8")
    (mutant,) = mutants.read(tmp_path, ["tiny"])
    assert mutant.outcome.value == outcome


def test_the_command_succeeds_only_when_list_and_survivors_agree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And prints what is not explained as it would stand in the list."""
    for outcome, listed, status in [
        (Outcome.KILLED, [], 0),
        (Outcome.TIMEOUT, [], 0),
        (Outcome.SURVIVED, [explanation(ONE)], 0),
        (Outcome.UNTESTED, [explanation(ONE)], 0),
        (Outcome.SURVIVED, [], 1),
        (Outcome.UNTESTED, [], 1),
        (Outcome.KILLED, [explanation(ONE)], 1),
        (Outcome.BROKEN, [], 1),
    ]:
        found = [Found(Mutant("name", ONE, outcome))]
        monkeypatch.setattr(tool, "run", lambda *_, found=found, **__: found)
        monkeypatch.setattr(explained, "load", lambda listed=listed: tuple(listed))
        assert main(["--module", "near"]) == status, (outcome, listed)
        out = capsys.readouterr().out
        survived = outcome in (Outcome.SURVIVED, Outcome.UNTESTED)
        assert out == (f"{explained.as_entry(ONE)}\n" if survived and not listed else "")


def test_a_part_is_not_recorded_as_if_it_were_all() -> None:
    """The page tells of all modules."""
    assert main(["--module", "near", "--record"]) == 2


def test_a_run_is_recorded_between_its_marks(tmp_path: Path) -> None:
    """With the figures of each module and the number of survivors under each reason."""
    page = tmp_path / "mutation.md"
    page.write_text(f"before\n{report._START}old\n{report._END}after\n", encoding="utf-8")
    found = [
        Found(Mutant("1", ONE, Outcome.SURVIVED)),
        Found(Mutant("2", OTHER, Outcome.KILLED)),
        Found(Mutant("3", OTHER, Outcome.KILLED), needed_servers=True),
        Found(Mutant("4", OTHER._replace(where="rows.thawed"), Outcome.TIMEOUT)),
    ]
    report.record(found, compare([ONE], [explanation(ONE)]), arguments=["--jobs", "2"], seconds=9, page=page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "`scripts/mutmut --jobs 2`: 4 mutants, 2 killed, 1 timeout, 1 survived" in text
    assert "| near | 3 | 1 | 1 | 0 | 1 |" in text
    assert "| rows | 1 | 0 | 0 | 1 | 0 |" in text
    assert "| **all** | 4 | 1 | 1 | 1 | 1 |" in text
    assert "| 1 | equal | it is the same |" in text


@pytest.mark.skipif(importlib.util.find_spec("mutmut") is None, reason="mutmut is in the environment of scripts/mutmut")
def test_a_tiny_module_is_mutated_and_what_its_tests_miss_survives_the_first_round(tmp_path: Path) -> None:
    """End to end; the second round asks other tests about what is left."""
    checkout = tmp_path / "checkout"
    for directory in ("kcg_cache", "tests"):
        (checkout / directory).mkdir(parents=True)
        (checkout / directory / "__init__.py").write_text("")
    (checkout / "pyproject.toml").write_text("[project]\nname = 'tiny'\n")
    (checkout / "kcg_cache" / "tiny.py").write_text("def more(a, b):\n    return a > b\n")
    for name, numbers in {"test_some": "2, 1", "test_equal": "1, 1"}.items():
        wanted = "not " if name == "test_equal" else ""
        (checkout / "tests" / f"{name}.py").write_text(
            f"from kcg_cache.tiny import more\n\n\ndef {name}():\n    assert {wanted}more({numbers})\n"
        )
    (mutant,) = tool.first_round(checkout, ["tiny"], ["tests/test_some.py"])
    assert mutant.change == Change("tiny.more", "return a > b", "return a >= b")
    assert mutant.outcome is Outcome.SURVIVED
    again = tool.next_round(checkout, ["tiny"], ["tests/test_equal.py"], [mutant])
    assert [one.outcome for one in again.values()] == [Outcome.KILLED]


@pytest.mark.skipif(importlib.util.find_spec("mutmut") is None, reason="mutmut is in the environment of scripts/mutmut")
def test_tests_that_fail_by_themselves_end_the_run(tmp_path: Path) -> None:
    """They would notice every mutant."""
    checkout = tmp_path / "checkout"
    (checkout / "kcg_cache").mkdir(parents=True)
    (checkout / "tests").mkdir()
    (checkout / "pyproject.toml").write_text("[project]\nname = 'tiny'\n")
    (checkout / "kcg_cache" / "tiny.py").write_text("def more(a, b):\n    return a > b\n")
    (checkout / "tests" / "test_wrong.py").write_text(
        "from kcg_cache.tiny import more\n\n\ndef test_wrong():\n    assert more(1, 2)\n"
    )
    with pytest.raises(tool.ToolError, match="mutmut ended with 1"):
        tool.first_round(checkout, ["tiny"], ["tests/test_wrong.py"])
