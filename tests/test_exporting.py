"""What an exporter sees: every cache of the process, also those that are gone; and a word when something is counted."""

import gc
import inspect
import logging
import re
import threading
from typing import Any

import pytest

from kcg_cache import cache, codec, compression, exporting, metrics, postgres
from kcg_cache.exporting import ExportedMetrics
from kcg_cache.metrics import COUNTERS, FAMILIES, KNOWN, LABELLED, Collected, Distribution, Of
from tests.conftest import Backend
from tests.doubles import fail


def counted(found: list[Collected], name: str, of: Of, *labels: str) -> Any:
    """Give the value of one sample."""
    (family,) = (each for each in found if each.family.name == f"kcg_cache_{name}")
    (value,) = (sample.value for sample in family.samples if sample.labels == (*of, *labels))
    return value


def made(dataset: str) -> ExportedMetrics:
    """Give the counts of a cache that there is none of."""
    return ExportedMetrics("exported", dataset, dict, lambda error: pytest.fail(str(error)))


def test_every_counter_is_in_a_family_and_every_family_is_named_by_the_conventions() -> None:
    """What is counted and not shown, nobody sees."""
    shown = [name for family in FAMILIES for names in family.of.values() for name in names]
    shown += [family.by for family in FAMILIES if family.by]
    assert set(shown) == set(COUNTERS)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.startswith("kcg_cache_")
        assert not family.name.endswith("_total")  # a counter's samples get it
        assert (family.kind == "histogram") == bool(family.buckets) == family.name.endswith("_seconds") or (
            family.kind == "gauge"
        )
        assert (family.kind == "gauge") == bool(family.together)
        assert list(family.buckets) == sorted(set(family.buckets))
    assert set(KNOWN) <= set(LABELLED) <= set(COUNTERS)


@pytest.mark.once
def test_the_labels_values_are_those_that_the_code_knows() -> None:
    """They are shown as 0 before the first, and there are only so many."""
    code = {module: inspect.getsource(module) for module in (cache, codec, compression, postgres)}
    raised = re.findall(r'reason="([a-z ]+)"', code[codec] + code[compression])
    (noted,) = re.findall(r"note in \(([^)]+)\)", code[cache])
    assert {reason for (reason,) in KNOWN["entries_rejected"]} == {*raised, *re.findall('"([a-z]+)"', noted)}
    causes = re.findall(r'return Origin\("([a-z ]+)"', code[postgres])
    assert {cause for (cause,) in KNOWN["tainted_reads"]} == set(causes)


def test_reads_are_counted_by_their_source_and_sum_up_to_what_was_read(backend: Backend) -> None:
    """Whatever way each took."""
    worker, other = backend.worker(), backend.worker()
    for _ in range(3):
        worker.read(None)
    other.read(None)
    backend.system.tick(2)
    worker.read(None)
    worker.read(None, force=True)
    found = worker.metrics.collect()
    sources = {source: counted(found, "reads", worker.metrics.of, source) for source in ("near", "redis", "database")}
    assert sources == {"near": 2, "redis": 1, "database": 2}
    assert counted(found, "reads", worker.metrics.of, "handed_over") == 0


def test_what_was_the_matter_is_kept_apart(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """By cause, reason, operation and symptom; the sum stays under the name that it had."""
    reader = backend.worker()
    backend.worker().read(None)
    backend.client.hset(backend.keys.entry, "payload", b"junk")
    reader.read(None)
    assert reader.metrics["entries_rejected"] == 1
    assert reader.metrics.by_label("entries_rejected")["digest",] == 1
    assert sum(reader.metrics.by_label("entries_rejected").values()) == 1
    backend.down()
    try:
        reader.read(None, force=True)
    finally:
        backend.up()
    assert reader.metrics.by_label("store_errors") == {("read", "connection"): 1}
    assert counted(reader.metrics.collect(), "breaker_open", reader.metrics.of) == 1


def test_durations_are_measured_off_the_covered_path(backend: Backend) -> None:
    """Loads, also failing ones, calls of Redis, and how long an invalidate takes to be in force."""
    worker = backend.worker()
    backend.source.before_read = lambda: backend.system.tick(0.3)
    worker.read(None)
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        worker.read(None, force=True)
    worker.invalidate(wait=False)
    of, found = worker.metrics.of, worker.metrics.collect()
    loads = counted(found, "load_duration_seconds", of)
    assert sum(loads.counts) == worker.metrics["loads"] == 2
    assert loads.sum == pytest.approx(0.3)
    assert loads.counts[metrics.HISTOGRAMS["load_duration"].buckets.index(0.5)] == 1
    assert sum(counted(found, "redis_call_duration_seconds", of, "read").counts) == 2
    assert sum(counted(found, "redis_call_duration_seconds", of, "publish").counts) == 1
    in_force = counted(found, "invalidation_in_force_seconds", of)
    assert isinstance(in_force, Distribution)
    assert in_force.sum == pytest.approx(1.02)


def test_an_abandoned_fill_is_counted(backend: Backend) -> None:
    """Its load raised: neither published nor rejected."""
    worker = backend.worker()
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        worker.read(None)
    assert counted(worker.metrics.collect(), "fills", worker.metrics.of, "failed") == 1


def test_the_age_of_what_is_served_ends_with_the_lease(backend: Backend) -> None:
    """What nobody reads does not grow old; and where nothing is held there is no age."""
    worker = backend.worker()
    assert "served_age_seconds" not in worker.metrics.levels()
    backend.source.before_read = lambda: backend.system.tick(0.25)
    worker.read(None)
    begun = worker.metrics.levels()["served_age_seconds"]
    backend.system.tick(0.5)
    assert worker.metrics.levels()["served_age_seconds"] == pytest.approx(begun + 0.5)
    backend.system.tick(100)
    assert worker.metrics.levels()["served_age_seconds"] == pytest.approx(begun + 1.0)
    assert worker.metrics.levels()["ttl_seconds"] == 300


def test_caches_of_one_dataset_are_one_and_a_counter_never_goes_back() -> None:
    """Not when a cache is made anew, and the old one goes."""
    first, second, third = made("gone"), made("gone"), made("else")
    first.add("loads")
    first.reads_near += 5
    first.observe("load_duration", 0.1)
    second.add("loads")
    third.add("loads")
    of = first.of

    def seen() -> tuple[Any, ...]:
        found = exporting.collect()
        duration = counted(found, "load_duration_seconds", of)
        return counted(found, "loads", of), counted(found, "reads", of, "near"), sum(duration.counts)

    assert seen() == (2, 5, 1)
    del first
    gc.collect()
    assert seen() == (2, 5, 1)
    second.add("loads")
    assert seen() == (3, 5, 1)
    assert counted(exporting.collect(), "loads", third.of) == 1


class Told:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.of: list[Of] = []
        self.values: list[tuple[str, tuple[str, ...]]] = []

    def counted(self, of: Of) -> None:
        """Keep it."""
        self.of.append(of)

    def observed(self, of: Of, name: str, value: float, values: tuple[str, ...]) -> None:
        """Keep it."""
        self.values.append((name, values))


class Broken(Told):
    """A listener whose disk is full."""

    def counted(self, of: Of) -> None:
        """Fail."""
        raise OSError("no space left on device")


def test_a_listener_is_told_of_each_read_that_was_not_covered(backend: Backend) -> None:
    """And never of a covered one."""
    worker, told = backend.worker(), Told()
    exporting.listen(told)
    try:
        for _ in range(10):
            worker.read(None)
        assert told.of == [worker.metrics.of]
        assert told.values == [
            ("redis_call_duration", ("read",)),
            ("load_duration", ()),
            ("redis_call_duration", ("publish",)),
        ]
        worker.invalidate(wait=False)
        assert len(told.of) == 2
    finally:
        exporting.forget(told)
    worker.read(None)
    assert len(told.of) == 2


def test_a_listener_that_raises_is_counted_and_logged_and_the_read_goes_on(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads are what this is for."""
    worker, broken, told = backend.worker(lease=0), Broken(), Told()
    exporting.listen(broken)
    exporting.listen(told)
    try:
        with caplog.at_level(logging.INFO, "kcg_cache"):
            assert worker.read(None).shared
            assert worker.read(None).shared
    finally:
        exporting.forget(broken)
        exporting.forget(told)
    assert worker.metrics["exporter_errors"] == len(told.of) == 2
    assert [record.kcg_event for record in caplog.records] == ["exporter_failed"]  # type: ignore[attr-defined]


def test_threads_that_count_and_collect_at_once_lose_nothing() -> None:
    """All but the covered reads are counted under a lock."""
    mine = made("threads")
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            exporting.collect()
            made("threads").add("waits")

    def count() -> None:
        for _ in range(2000):
            mine.add("loads")

    collecting = threading.Thread(target=collect)
    collecting.start()
    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collecting.join()
    assert counted(exporting.collect(), "loads", mine.of) == 8000
