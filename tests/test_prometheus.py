"""The Prometheus adapter: real expositions, parsed as Prometheus does, of one process and of several."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.parser import text_string_to_metric_families

import kcg_cache.prometheus
from kcg_cache.metrics import FAMILIES, HISTOGRAMS
from tests.conftest import Backend

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(registry: CollectorRegistry, namespace: str) -> Values:
    """Give every sample of a scrape that is of a namespace, by name and other labels."""
    values: Values = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("namespace", "") == namespace:
                assert labels.pop("dataset") == "numbers"
                key = sample.name, frozenset(labels.items())
                assert key not in values
                values[key] = sample.value
    return values


def value(values: Values, name: str, **labels: str) -> float:
    """Give one sample."""
    return values[f"kcg_cache_{name}", frozenset(labels.items())]


def expected(counts: list[dict[str, int]]) -> Values:
    """Give what counters show of what caches counted, by the families' own words; labelled ones aside."""
    values: Values = {}
    for family in FAMILIES:
        for labels, names in family.of.items():
            key = f"{family.name}_total", frozenset(zip(family.labels, labels, strict=True))
            values[key] = sum(count[name] for count in counts for name in names)
    return values


def test_one_process_shows_what_it_did(backend: Backend) -> None:
    """In the text that Prometheus reads."""
    registry = CollectorRegistry()
    kcg_cache.prometheus.export(registry)
    kcg_cache.prometheus.export(registry)
    worker = backend.worker()
    for _ in range(5):
        worker.read(None)
    worker.invalidate(wait=False)
    worker.read(None)
    values = scraped(registry, worker.metrics.of.namespace)
    told = expected([worker.metrics.as_dict()])
    assert {key: values[key] for key in told} == told
    assert value(values, "reads_total", source="near") == 4
    assert value(values, "load_duration_seconds_count") == 2
    assert value(values, "load_duration_seconds_bucket", le="+Inf") == 2
    assert value(values, "invalidation_in_force_seconds_count") == 1
    assert value(values, "breaker_open") == 0
    assert value(values, "ttl_seconds") == 300
    assert value(values, "tainted_reads_total", cause="standby") == 0


def test_a_histogram_adds_its_buckets_up(backend: Backend) -> None:
    """As Prometheus wants them: each has those below it too."""
    registry = CollectorRegistry()
    kcg_cache.prometheus.export(registry)
    worker = backend.worker()
    for seconds in (0.02, 0.3, 1000.0):
        worker.metrics.observe("lock_wait", seconds)
    values = scraped(registry, worker.metrics.of.namespace)
    buckets = {
        float(dict(labels)["le"]): count
        for (name, labels), count in values.items()
        if name == "kcg_cache_lock_wait_seconds_bucket"
    }
    assert sorted(buckets) == [*HISTOGRAMS["lock_wait"].buckets, float("inf")]
    assert [buckets[bound] for bound in (0.01, 0.025, 0.25, 0.5, 30.0, float("inf"))] == [0, 1, 1, 2, 2, 3]
    assert value(values, "lock_wait_seconds_sum") == pytest.approx(1000.32)


def test_the_format_of_openmetrics_can_be_made_of_it(backend: Backend) -> None:
    """It is stricter about names, and wants an end."""
    registry = CollectorRegistry()
    kcg_cache.prometheus.export(registry)
    backend.worker().read(None)
    assert generate_open_metrics(registry).decode().endswith("# EOF\n")  # type: ignore[no-untyped-call]


def test_a_registry_that_has_these_names_is_told(backend: Backend) -> None:
    """Twice the same sample, and Prometheus would take neither."""
    registry = CollectorRegistry()
    registry.register(kcg_cache.prometheus.CacheCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        kcg_cache.prometheus.export(registry)


def test_without_the_extra_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else of the library needs it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "kcg_cache.prometheus")
    with pytest.raises(ImportError, match=r"pip install 'kcg-cache\[prometheus\]'"):
        importlib.import_module("kcg_cache.prometheus")


def test_the_library_does_not_import_it() -> None:
    """A process that exports nothing pays for nothing."""
    program = "import sys, kcg_cache; print([name for name in sys.modules if 'prometheus' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Run(NamedTuple):
    """What several processes said, and what they left to be scraped."""

    told: list[dict[str, Any]]
    values: Values
    files: Path


@pytest.fixture(scope="module")
def run(valkey_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run `tests.exported` to its end, and scrape."""
    files, namespace = tmp_path_factory.mktemp("prometheus"), f"exported-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.exported"],
        input=json.dumps({"redis": valkey_server.url, "namespace": namespace}),
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(files)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(files))  # type: ignore[no-untyped-call]
    return Run([json.loads(line) for line in done.stdout.splitlines()], scraped(registry, namespace), files)


def test_several_processes_show_together_what_they_did(run: Run) -> None:
    """Also what a parent had not yet written at a fork, a cache that is gone, and the last covered reads."""
    assert len(run.told) == 3
    told = expected([counts for each in run.told for counts in each["counts"]])
    assert {key: run.values[key] for key in told} == told
    assert value(run.values, "reads_total", source="near") == 3 + 1 + (5 + 7) + (10 + 7) + 1
    assert value(run.values, "reads_total", source="database") == 1 + 2 + 1
    assert value(run.values, "loads_total") == 4
    assert value(run.values, "load_duration_seconds_count") == 4
    assert value(run.values, "load_duration_seconds_bucket", le="+Inf") == 4
    assert value(run.values, "redis_call_duration_seconds_count", operation="invalidate") == 1
    assert value(run.values, "tainted_reads_total", cause="standby") == 0
    assert value(run.values, "invalidate_errors_total") == 0


def test_a_child_counts_from_0(run: Run) -> None:
    """What its parent did before the fork the parent tells, whoever is asked."""
    for number, each in enumerate(run.told[:2], 1):
        (counts,) = each["counts"]
        assert counts["reads_near"] in (12, 17)
        assert counts["loads"] == 1, number
        assert each["collected"]["near"] == counts["reads_near"]
        assert each["collected"]["database"] == 1


def test_gauges_of_dead_processes_go_when_they_are_said_to_be_dead(run: Run) -> None:
    """As prometheus_client's documentation has gunicorn do in child_exit."""
    assert value(run.values, "breaker_open") == 0
    assert value(run.values, "ttl_seconds") == 300
    assert 0 <= value(run.values, "served_age_seconds") < 60
    live = sorted(path.name for path in run.files.glob("gauge_live*"))
    assert len(live) == 6
    for each in run.told:
        mark_process_dead(each["pid"], str(run.files))  # type: ignore[no-untyped-call]
    assert list(run.files.glob("gauge_live*")) == []


def test_every_family_is_shown_also_before_anything_happened(run: Run, backend: Backend) -> None:
    """But those whose labels nobody knows before; in both ways the same."""
    registry = CollectorRegistry()
    kcg_cache.prometheus.export(registry)
    worker = backend.worker()
    worker.read(None)
    one = {name for name, _ in scraped(registry, worker.metrics.of.namespace)}
    ends = {"counter": "_total", "gauge": "", "histogram": "_count"}
    every = {f"{family.name}{ends[family.kind]}" for family in FAMILIES}
    assert every - one == every - {name for name, _ in run.values} == {"kcg_cache_redis_errors_total"}
