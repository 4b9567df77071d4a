"""The dashboard and the alert rules name only what a real run exposes, and send whoever is woken to what there is."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

import kcg_cache.prometheus
from kcg_cache import ACTIVE_VERSIONS, Settings, SharedCache
from kcg_cache.events import EVENTS
from kcg_cache.metrics import FAMILIES
from tests.conftest import real_client

pytestmark = [pytest.mark.checkout, pytest.mark.once]

ROOT = Path(__file__).parent.parent
if not (ROOT / "deploy").is_dir():
    pytest.skip("these files are in the checkout only", allow_module_level=True)
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus-alerts.yml").read_text(encoding="utf-8"))
(GROUP,) = ALERTS["groups"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [target for panel in PANELS for target in panel["targets"]]
#: Units of Grafana that the dashboard uses.
UNITS = {"s", "short", "reqps", "percentunit"}


class Asked(NamedTuple):
    """What an expression asks for."""

    metric: str
    #: Label → the value that it has to have, or to match.
    matched: tuple[tuple[str, str], ...]


@cache
def asked(expression: str) -> tuple[set[Asked], set[str]]:
    """Parse PromQL, with Grafana's variables filled; give the series that it asks for, and the labels it groups by."""
    filled = expression.replace("$__rate_interval", "5m").replace("$__range", "1h")
    found: set[Asked] = set()
    grouped: set[str] = set()
    for node in nodes(promql.parse(filled)):
        if isinstance(node, promql.VectorSelector):
            matchers = tuple((each.name, each.value) for each in node.matchers.matchers)
            found.add(Asked(str(node.name), matchers))
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            grouped |= set(node.modifier.labels)
    assert found, expression
    return found, grouped


def nodes(expression: Any) -> Iterator[Any]:
    """Give an expression and all its parts."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        part = getattr(expression, name, None)
        if part is not None:
            yield from nodes(part)
    for part in getattr(expression, "args", ()):
        yield from nodes(part)


Exposed = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    """Give a registry that the caches of this process are exported to."""
    registry = CollectorRegistry()
    kcg_cache.prometheus.export(registry)
    return registry


#: What `exposed` gives, of the one run that all tests need.
_RUN: list[Exposed] = []


@pytest.fixture
def exposed(request: pytest.FixtureRequest) -> Exposed:
    """Give every series of a run, on real servers, in which this and that goes wrong: labels by sample name."""
    if not _RUN:  # a database and an empty Redis are made for each test that asks for one
        _RUN.append(run(*map(request.getfixturevalue, ("registry", "redis_url", "namespace", "pg_connect"))))
    return _RUN[0]


def run(registry: CollectorRegistry, redis_url: str, namespace: str, pg_connect: Callable[[], Connection]) -> Exposed:
    """Read, and have this and that go wrong; give what is scraped then."""
    settings = Settings(namespace=namespace)
    with real_client(redis_url) as client:
        worker, reader = (SharedCache(redis_url, ACTIVE_VERSIONS, settings) for _ in range(2))
        cut_off = SharedCache("redis://127.0.0.1:1/0", ACTIVE_VERSIONS, settings)
        worker.read(pg_connect())
        worker.read(None)
        (entry,) = [
            key
            for key in client.keys(f"*{namespace}*")
            if client.type(key) == b"hash" and client.hexists(key, "payload")
        ]
        client.hset(entry, "payload", b"junk")
        reader.read(pg_connect())
        writing = pg_connect()
        with writing.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE mine (id int)")
        reader.read(writing, force=True)
        cut_off.read(pg_connect())
        worker.invalidate(wait=False)
        found: Exposed = {}
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for sample in family.samples:
                if sample.labels["namespace"] == namespace:
                    found.setdefault(sample.name, []).append(sample.labels)
        assert worker.metrics.by_label("tainted_reads") != reader.metrics.by_label("tainted_reads")
        assert reader.metrics["entries_rejected"] == cut_off.metrics["breaker_opened"] == 1
        for each in (worker, reader, cut_off):
            each.close()
    return found


def test_every_family_is_exposed_by_the_run(exposed: Exposed) -> None:
    """Else the tests below would prove little."""
    ends = {"counter": "_total", "gauge": "", "histogram": "_bucket"}
    assert {f"{family.name}{ends[family.kind]}" for family in FAMILIES} <= set(exposed)


def check(expression: str, exposed: Exposed) -> set[str]:
    """Hold an expression to what is exposed; give the labels that its result has."""
    series, grouped = asked(expression)
    for metric, matched in series:
        assert metric in exposed, f"{metric} in {expression}"
        for label, value in matched:
            values = {labels[label] for labels in exposed[metric]}  # KeyError: no such label
            assert value.startswith("$") or any(re.fullmatch(value, each) for each in values), (
                f"{label} in {expression}"
            )
        for label in grouped:
            # A comparison of several metrics groups each by the same.
            assert all(label in labels for labels in exposed[metric]), f"{label} of {metric} in {expression}"
    return grouped


@pytest.mark.parametrize(
    "expression",
    [
        "sum by (namespace) (rate(kcg_cache_reads[5m]))",
        'max(kcg_cache_ttl_seconds) > on () kcg_cache_fills_total{result="lost"}',
        "histogram_quantile(0.9, sum by (le, operation) (rate(kcg_cache_lock_wait_seconds_bucket[5m])))",
        'kcg_cache_reads_total{cause="near"} or vector(0)',
    ],
)
def test_what_is_not_exposed_is_noticed(exposed: Exposed, expression: str) -> None:
    """A metric, a value, a label that is grouped by, a label that is asked for."""
    with pytest.raises((AssertionError, KeyError)):
        check(expression, exposed)


def test_the_dashboard_asks_for_what_is_exposed(exposed: Exposed) -> None:
    """Metrics, labels, their values, and the labels in the legends."""
    for target in TARGETS:
        grouped = check(target["expr"], exposed)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == grouped - {"le"}, target["expr"]
        assert 'namespace="$namespace"' in target["expr"]
    for variable in DASHBOARD["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        check(series, exposed)
        assert label == variable["name"] in exposed["kcg_cache_reads_total"][0]


def test_every_metric_is_on_the_dashboard() -> None:
    """But those that only alerts ask for."""
    shown = {series.metric for target in TARGETS for series in asked(target["expr"])[0]}
    for family in FAMILIES:
        assert any(name.startswith(family.name) for name in shown), family.name


def test_the_alerts_ask_for_what_is_exposed_and_say_what_they_know(exposed: Exposed) -> None:
    """A summary with labels that the result has, and a severity."""
    for rule in GROUP["rules"]:
        grouped = check(rule["expr"], exposed) - {"le"}
        summary = rule["annotations"]["summary"]
        assert set(re.findall(r"\{\{ \$labels\.(\w+) \}\}", summary)) == grouped, rule["alert"]
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert re.fullmatch(r"KcgCache[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"[0-9]+m", rule.get("for", "1m"))
    names = [rule["alert"] for rule in GROUP["rules"]]
    assert len(set(names)) == len(names)


def test_each_alert_sends_to_a_page_a_finding_or_an_event_that_there_is() -> None:
    """Whoever is woken finds what to do."""
    doctor = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    for rule in GROUP["rules"]:
        runbook = rule["annotations"]["runbook"]
        places = re.findall(r"docs/([a-z-]+)\.md(?:#([a-z-]+))?", runbook)
        assert places, rule["alert"]
        for page, anchor in places:
            headings = re.findall(
                r"^#+ (.*)$", (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE
            )
            assert not anchor or anchor in {
                re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings
            }
        for code in re.findall(r"KCG-[A-Z][0-9]+", runbook):
            assert f"### {code}: " in doctor, code
        if "docs/logging.md" in runbook:
            named = set(re.findall(r"[a-z]+_[a-z]+|tainted|oversized", runbook.rpartition("docs/logging.md")[2]))
            assert named & set(EVENTS), rule["alert"]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Unique ids, units it knows, its data source chosen by a variable, nothing on top of anything else."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "dataset"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(variables[name]["datasource"] == source for name in ("namespace", "dataset"))
    covered: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & covered, panel["title"]
        assert max(x for x, _ in cells) < 24
        covered |= cells
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
