"""The frame of the benchmarks, and that docs/performance.md shows what was recorded. What they measure is no test's."""

import json
import re
from pathlib import Path

import orjson
import pytest

from benchmarks import report, timing
from benchmarks.candidates import CATALOGUE
from benchmarks.catalogue import BENCHMARKS
from benchmarks.results import Table, duration
from benchmarks.rows import SIZES, generation_of, make_rows

pytestmark = pytest.mark.checkout


def test_every_candidate_is_timed_once_a_round_and_compared_within_it() -> None:
    """A noisy round strikes all of them, and no ratio."""
    order: list[str] = []

    def timed(name: str, seconds: float) -> timing.Timed:
        def work(count: int) -> float:
            order.append(name)
            return count * seconds * ((len(order) + 1) // 2)  # each round is slower than the one before

        return work

    both = {"base": timed("base", 1.0), "twice": timed("twice", 2.0)}
    found = timing.interleaved(both, rounds=5, seconds=1, counts={"base": 3, "twice": 3})
    assert [set(order[at : at + 2]) for at in range(0, 10, 2)] == [{"base", "twice"}] * 5
    assert len({tuple(order[at : at + 2]) for at in range(0, 10, 2)}) == 2  # in an order that changes
    assert found["base"].seconds == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert found["twice"].ratios(found["base"]).seconds == (2.0,) * 5


def test_the_spread_is_the_quartiles() -> None:
    """Of five rounds the second and the fourth."""
    times = timing.Times((5.0, 1.0, 4.0, 2.0, 3.0))
    assert (times.low, times.median, times.high) == (2.0, 3.0, 4.0)


def test_work_is_repeated_until_it_takes_the_time_that_was_asked_for() -> None:
    """What takes a millisecond is done a hundred times in a tenth of a second."""
    assert timing.calibrated(lambda count: count * 0.001, 0.1) == 100
    assert timing.calibrated(lambda count: count * 10.0, 0.1) == 1


@pytest.mark.parametrize("name", SIZES)
def test_the_rows_have_the_size_that_they_are_said_to_have(name: str) -> None:
    """The same in every run, with a first row that tells the generation."""
    size = SIZES[name]
    rows = make_rows(size)
    assert len(rows) == size.rows
    assert generation_of(rows) == 0
    mean = sum(len(orjson.dumps(row["params"])) for row in rows) / size.rows
    assert size.params_bytes <= mean < size.params_bytes + 500
    assert rows == make_rows(size)


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (123e-6, "123 µs"), (5e-9, "5.00 ns")]
)
def test_a_time_is_written_with_its_unit(seconds: float, text: str) -> None:
    """Three digits."""
    assert duration(seconds) == text


def test_candidates_have_names_of_their_own_and_say_what_they_promise() -> None:
    """A fast stale answer is not the same work."""
    assert len({kind.name for kind in CATALOGUE}) == len(CATALOGUE)
    assert all(kind.promise.endswith(".") for kind in CATALOGUE)


def test_the_page_has_one_place_for_each_benchmark() -> None:
    """And for none that there is not."""
    pages = report.PAGE.read_text() + report.SCALING.read_text()
    places = re.findall(r"<!-- bench:(\w+) -->", pages)
    assert sorted(places) == sorted([*BENCHMARKS, "goals", "limits", "machine"])


def test_the_page_shows_what_was_recorded_and_no_figure_of_it_was_written_by_hand() -> None:
    """It is made of results.json again, and is the same."""
    kept = json.loads(report.JSON.read_text())["runs"]
    assert kept.keys() == BENCHMARKS.keys()
    page = report.PAGE.read_text()
    assert report.rendered(page, kept) == page
    scaling = report.SCALING.read_text()
    assert report.rendered_scaling(scaling, kept) == scaling


def test_the_times_that_the_readme_shows_are_those_that_were_recorded() -> None:
    """Of size M, in the order of the table there."""
    covered = json.loads(report.JSON.read_text())["runs"]["covered"]["result"]["figures"]["sizes"]["M"]
    cost = (report.ROOT / "README.md").read_text().partition("## The cost")[2].partition("## ")[0]
    shown = [row.split("|")[2].strip() for row in cost.splitlines() if row.startswith("|")][2:]
    names = (
        "kcg_cache, lease=1: SharedCache.read",
        "kcg_cache, lease=1: load_active_versions",
        "in-process TTL cache with a lock",
        "theine before redis-py GET",
        "cashews, client-side cache",
        "dogpile.cache, memory before Redis",
        "kcg_cache, lease=0",
        "redis-py GET + orjson",
    )
    assert shown == [duration(covered[name]["median"]) for name in names]


def test_every_picture_that_was_recorded_is_there_and_shown() -> None:
    """And no other lies beside them."""
    kept = json.loads(report.JSON.read_text())["runs"]
    files = {f"{picture['file']}.svg" for run in kept.values() for picture in run["result"]["pictures"]}
    assert {path.name for path in report.PICTURES.iterdir()} == files
    shown = report.PAGE.read_text() + (report.ROOT / "README.md").read_text()
    for file in files:
        assert f"performance/{file})" in shown, file
        assert (Path(report.PICTURES) / file).read_text().lstrip().startswith("<?xml")


_RUN = {
    "about": {"command": "", "date": "", "seconds": {"memory": 1.0}},
    "result": {"goals": [], "tables": [], "pictures": [], "notes": []},
}


def test_a_page_without_a_place_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured would be lost without a word."""
    with pytest.raises(ValueError, match="places for 'memory'"):
        report.rendered("no markers", {"memory": _RUN})


def test_a_cell_may_hold_what_parts_cells() -> None:
    """A bar in a name does not break the table."""
    assert r"a\|b" in report._table(Table("t", ("x",), (("a|b",),)))
