"""scripts/watch_times: that it measures. How long it takes is no test's."""

import json

import pytest

from benchmarks import watching

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


def test_every_commit_is_measured_with_triggers_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    """Eight processes take up each, and the watcher withdraws once for each; 1 says only that the machine was busy."""
    assert watching.main(["--trials", "2", "--interval", "0.5", "--json"]) in (0, 1)
    both = json.loads(capsys.readouterr().out)
    assert [(each["triggers"], each["interval"], each["goal"]) for each in both] == [
        (True, 0.5, 1.5),
        (False, 0.5, 2.0),
    ]
    for each in both:
        assert len(each["seconds"]) == 2
        assert all(seconds > 0 for seconds in each["seconds"])
        assert each["invalidations"] >= 2


def test_what_came_out_is_a_table_that_says_whether_it_was_quick_enough() -> None:
    """The longest counts."""
    found = [watching.Times(triggers=True, interval=5.0, seconds=(0.5, 1.6, 1.0), invalidations=3)]
    heading, line = watching._table(found).splitlines()
    assert heading.split()[:3] == ["triggers", "interval", "commits"]
    assert line.split() == ["yes", "5", "s", "3", "1.00", "s", "1.60", "s", "1.5", "s", "no", "3"]
