"""The metrics for Prometheus: `export()`, once, before the process forks. Needs the extra ``kcg-cache[prometheus]``.

In a server of one process a collector is registered, which is asked at each scrape. In one of several
(``PROMETHEUS_MULTIPROC_DIR`` is set, as for gunicorn) whoever answers the scrape asks no custom collector: there
what was counted is written to prometheus_client's own files, after each read that was not covered, at the end of the
process, and with `flush`.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from kcg_cache import exporting
from kcg_cache.metrics import FAMILIES, GAUGES, HISTOGRAMS, Collected, Distribution, Family, Of, Totals

try:
    from prometheus_client import REGISTRY, Counter, Gauge, Histogram, values
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector, CollectorRegistry
except ImportError as error:
    raise ImportError("kcg_cache.prometheus needs prometheus_client: pip install 'kcg-cache[prometheus]'") from error

_LABELS = Of._fields


class CacheCollector(Collector):
    """Gives, at each scrape, what all caches of this process counted. For `CollectorRegistry.register`."""

    def describe(self) -> Iterable[Metric]:
        """Give the families without samples: what is registered twice is found at once."""
        return [_metric(Collected(family, [])) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        return map(_metric, exporting.collect())


def _metric(found: Collected) -> Metric:
    family, labels = found.family, (*_LABELS, *found.family.labels)
    metric: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    match family.kind:
        case "counter":
            metric = CounterMetricFamily(family.name, family.help, labels=labels)
        case "gauge":
            metric = GaugeMetricFamily(family.name, family.help, labels=labels)
        case "histogram":
            metric = HistogramMetricFamily(family.name, family.help, labels=labels)
    for sample in found.samples:
        if isinstance(sample.value, Distribution):
            assert isinstance(metric, HistogramMetricFamily)
            bounds = [*map(str, family.buckets), "+Inf"]
            buckets = list(zip(bounds, accumulate(sample.value.counts), strict=True))
            metric.add_metric(sample.labels, buckets, sample.value.sum)
        else:
            assert not isinstance(metric, HistogramMetricFamily)
            metric.add_metric(sample.labels, sample.value)
    return metric


class Mirror:
    """Writes what was counted to prometheus_client's files, of which each process has its own.

    All of it under one lock, which is held at a fork: prometheus_client has one of its own, and a child that got it
    while a thread of the parent held it would wait for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # In no registry: it is the files that are read.
        self._metrics = {family.name: _file(family) for family in FAMILIES}
        #: Counter → what shows it: family and label values.
        self._shown: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        self._by = {family.by: family.name for family in FAMILIES if family.by}
        for family in FAMILIES:
            for labels, names in family.of.items():
                for name in names:
                    self._shown.setdefault(name, []).append((family.name, labels))
        #: Samples that were written to before: prometheus_client takes longer to find them.
        self._samples: dict[tuple[str, Of, tuple[str, ...]], Any] = {}
        #: What this process has written so far.
        self._written: dict[Of, Totals] = {}
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._begin_anew
        )

    def counted(self, of: Of) -> None:
        """Write what has changed of one dataset."""
        with self._lock:
            self._write(of)

    def observed(self, of: Of, name: str, value: float, values: tuple[str, ...]) -> None:
        """Put a value into its histogram."""
        with self._lock:
            self._sample(HISTOGRAMS[name].name, of, values).observe(value)

    def flush(self) -> None:
        """Write what has changed of all datasets."""
        with self._lock:
            for of in exporting.datasets():
                self._write(of)

    def _write(self, of: Of) -> None:
        totals, levels = exporting.totals(of, observed=False)
        written = self._written.get(of)
        if written is None:
            # Also what is 0 is there from the first: an alert on an increase would else miss it.
            written = self._written[of] = Totals()
            for shown in self._shown.values():
                for family, labels in shown:
                    self._sample(family, of, labels)
            for name, labels in written.labelled:
                self._sample(self._by[name], of, labels)
            for family_ in HISTOGRAMS.values():
                if not family_.labels:
                    self._sample(family_.name, of, ())
        for name, count in totals.counts.items():
            # It may be less: a cache that is being let go of is not among those that are gone yet.
            if (more := count - written.counts[name]) > 0:
                written.counts[name] = count
                for family, labels in self._shown.get(name, ()):
                    self._sample(family, of, labels).inc(more)
        for (name, labels), count in totals.labelled.items():
            if (more := count - written.labelled.get((name, labels), 0)) > 0:
                written.labelled[name, labels] = count
                self._sample(self._by[name], of, labels).inc(more)
        for name, level in levels.items():
            self._sample(GAUGES[name].name, of, ()).set(level)

    def _sample(self, family: str, of: Of, labels: tuple[str, ...]) -> Any:
        key = family, of, labels
        found = self._samples.get(key)
        if found is None:
            found = self._samples[key] = self._metrics[family].labels(*of, *labels)
        return found

    def _begin_anew(self) -> None:
        # What the parent has counted and not yet written the parent writes; this process counts from 0.
        self._written = {}
        self._lock.release()


def _file(family: Family) -> Counter | Gauge | Histogram:
    labels = (*_LABELS, *family.labels)
    match family.kind:
        case "counter":
            return Counter(family.name, family.help, labels, registry=None)
        case "gauge":
            together = family.together or "livemax"
            return Gauge(family.name, family.help, labels, registry=None, multiprocess_mode=together)
        case "histogram":
            return Histogram(family.name, family.help, labels, registry=None, buckets=family.buckets)


_mirror: Mirror | None = None
_exported: "weakref.WeakSet[CollectorRegistry]" = weakref.WeakSet()


def multiprocess() -> bool:
    """Tell whether prometheus_client keeps what several processes count in files: decided when it is imported."""
    return values.ValueClass is not values.MutexValue


def export(registry: CollectorRegistry = REGISTRY) -> None:
    """Export the metrics of all caches of this process and of its forks; a second call changes nothing.

    Raises `ValueError` for a registry that has metrics of these names. With several processes there is nothing to
    register: whoever answers the scrape reads the files with prometheus_client's `MultiProcessCollector`.
    """
    global _mirror  # noqa: PLW0603 - one set of files in one process
    if multiprocess():
        if _mirror is None:
            _mirror = Mirror()
            exporting.listen(_mirror)
            atexit.register(flush)
    elif registry not in _exported:
        registry.register(CacheCollector())
        _exported.add(registry)


def flush() -> None:
    """Write what has not been written yet: covered reads since this process last asked Redis.

    It is done at the end of a process that ends by itself. Only for several processes; else nothing is left to write.
    """
    if _mirror is not None:
        _mirror.flush()
