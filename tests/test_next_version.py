"""A made-up next version of the library beside this one, on one Redis: no format is read wrongly, no invalidate missed.

The next version is this one's own source with another format, other scripts and another number (`tests/versions.py`).
"""

import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import kcg_cache
from kcg_cache import lua
from kcg_cache.cli import app
from kcg_cache.cli.exits import ExitCode
from kcg_cache.keys import Keys
from kcg_cache.settings import variable_of
from tests import versions
from tests.conftest import Backend
from tests.doubles import fail, version_of
from tests.versions import NEXT_FORMAT

pytestmark = pytest.mark.once

HOSTS = 6
KEY = b"0123456789abcdef0123456789abcdef"
OLD, BRIDGE, NEXT = "old", "bridge", "next"

#: Makes one more process of a version ("old", "bridge", "next") on the test's Redis.
Worker = Callable[..., Any]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """Give the versions by name; `old` is this very one."""
    directory = tmp_path_factory.mktemp("versions")
    made = {
        BRIDGE: versions.made("kcg_cache_bridge", versions.BRIDGE, directory),
        NEXT: versions.made("kcg_cache_next", versions.NEXT, directory),
    }
    yield {OLD: kcg_cache, **made}
    for module in made.values():
        versions.unmade(module.__name__)


@pytest.fixture
def worker(backend: Backend, others: dict[str, ModuleType]) -> Worker:
    def make(version: str, name: str = "numbers", **changes: Any) -> Any:
        module = others[version]
        settings = module.Settings(namespace=backend.settings.namespace, **changes)
        dataset = module.Dataset(name, backend.source.load, transactional=False)
        return module.SharedCache(backend.client, dataset, settings, system=backend.system)

    return make


def second(backend: Backend, hosts: list[Any]) -> int:
    """Let a second pass, and every host read the right rows; give how many loads that took."""
    before = backend.source.loads
    backend.system.tick(1.1)
    for host in hosts:
        assert version_of(host.read(None)) == backend.source.version
    assert all(host.metrics["private_loads"] == 0 for host in hosts)
    return backend.source.loads - before


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["unsigned", "signed"])
def test_an_unknown_format_is_a_miss_and_a_known_one_is_read(
    backend: Backend, worker: Worker, keys: tuple[bytes, ...]
) -> None:
    """Whoever knows both shares with both; whoever does not loads, and replaces what it could not read (R14)."""
    old, next_one = worker(OLD, signing_keys=keys), worker(NEXT, signing_keys=keys)
    assert next_one.read(None).source == "database"
    assert backend.entry()["format"] == NEXT_FORMAT.encode()
    assert worker(BRIDGE, signing_keys=keys).read(None).source == "redis"
    assert (old.read(None).source, old.metrics["entries_rejected"]) == ("database", 1)
    assert backend.entry()["format"] == b"orjson"
    assert worker(NEXT, signing_keys=keys).read(None).source == "redis"
    assert worker(BRIDGE, signing_keys=keys).read(None).source == "redis"
    assert backend.source.loads == 2


def test_the_same_rows_in_another_format_are_not_taken_for_those_held(backend: Backend, worker: Worker) -> None:
    """Each format's payload has a digest of its own; a copy goes on only with what means the same."""
    old, next_one = worker(OLD), worker(NEXT)
    old.read(None)
    next_one.read(None, force=True)
    backend.system.tick(1.1)
    assert (old.read(None).source, old.metrics["entries_rejected"]) == ("database", 1)
    backend.system.tick(1.1)
    assert next_one.read(None).source == "redis"
    assert version_of(next_one.read(None)) == version_of(old.read(None)) == 1


def test_an_unknown_format_is_no_fallback(backend: Backend, worker: Worker) -> None:
    """When the load fails, what cannot be read is not served, and nothing but the load's error is raised (R15)."""
    worker(NEXT).read(None)
    backend.source.before_read = fail
    with pytest.raises(LookupError):
        worker(OLD, stale_if_error=60).read(None)


@pytest.mark.parametrize(("who", "whom"), [(OLD, NEXT), (NEXT, OLD)])
def test_an_invalidate_by_either_version_reaches_both(backend: Backend, worker: Worker, who: str, whom: str) -> None:
    """Key names never change; whichever format stands there, and whichever version fills meanwhile (R3, R7)."""
    one, other = worker(who), worker(whom)
    for filler in (one, other):
        filler.read(None, force=True)
        backend.source.version += 1
        receipt = one.invalidate(wait=False)
        assert receipt.existed
        assert not backend.client.exists(backend.keys.entry)
        backend.system.tick(1.1)
        assert version_of(other.read(None)) == version_of(one.read(None)) == backend.source.version
    # In the middle of the other's fill.
    backend.source.after_read = lambda: one.invalidate(wait=False) if backend.source.loads < fenced else None
    fenced = backend.source.loads + 2
    other.read(None, force=True)
    assert other.metrics["fills_rejected"] == 1


def test_the_versions_wait_for_each_others_fill(backend: Backend, worker: Worker) -> None:
    """Locks mean the same to all, so a roll makes no stampede: whoever waits takes, or replaces, what comes."""
    bridge = worker(BRIDGE)
    waits: list[str] = []

    def meanwhile() -> None:
        if not waits:
            waits.append(type(bridge._store.read(_question(bridge))).__name__)

    backend.source.after_read = meanwhile
    worker(OLD).read(None)
    assert waits == ["Wait"]
    assert bridge.read(None).source == "redis"


def _question(cache: Any) -> Any:
    module = __import__(f"{type(cache).__module__.partition('.')[0]}.answers", fromlist=["Question"])
    return module.Question(token="b" * 32)


def test_each_version_runs_its_own_scripts(backend: Backend, worker: Worker, others: dict[str, ModuleType]) -> None:
    """Redis knows them by what they say, so neither runs the other's, whoever came first."""
    worker(OLD).read(None)
    worker(NEXT).read(None, force=True)
    worker(NEXT).invalidate(wait=False)
    worker(OLD).invalidate(wait=False)
    theirs = __import__(f"{others[NEXT].__name__}.lua", fromlist=["load"])
    for name in ("read", "publish", "invalidate"):
        shas = [lua.load(name).sha, theirs.load(name).sha]
        assert len(set(shas)) == 2
        assert [bool(known) for known in backend.client.script_exists(*shas)] == [True, True]


def test_keys_are_called_the_same_in_every_version(others: dict[str, ModuleType]) -> None:
    """And as they were called in the first: an invalidate of any version finds them."""
    names = tuple(Keys.of("kcg", "active_versions"))
    assert names == tuple(
        f"{{kcg:active_versions}}:{part}"
        for part in ("entry", "lock", "events", "invalidations", "guard", "fleet", "watch")
    )
    for module in others.values():
        theirs = __import__(f"{module.__name__}.keys", fromlist=["Keys"]).Keys
        assert tuple(theirs.of("kcg", "active_versions")) == names


# --- what a roll costs ------------------------------------------------------------------------------------------------


def rolled(backend: Backend, worker: Worker, steps: list[str]) -> list[int]:
    """Roll a fleet from version to version, host by host; give the loads of the second after each."""
    hosts = [worker(steps[0]) for _ in range(HOSTS)]
    second(backend, hosts)
    loads = []
    for step in steps[1:]:
        for place in range(HOSTS):
            hosts[place] = worker(step)
            loads.append(second(backend, hosts))
    return loads


def test_a_roll_over_a_version_that_reads_both_costs_no_load(backend: Backend, worker: Worker) -> None:
    """First whoever reads both everywhere, then whoever writes the next; back the same way."""
    assert rolled(backend, worker, [OLD, BRIDGE, NEXT, BRIDGE, OLD]) == [0] * HOSTS * 4


def test_changes_in_the_middle_of_such_a_roll_cost_one_load_each(backend: Backend, worker: Worker) -> None:
    """Whoever fills, in whichever format."""
    for mixed in ([OLD, BRIDGE], [BRIDGE, NEXT]):
        hosts = [worker(mixed[place % 2]) for place in range(HOSTS)]
        second(backend, hosts)
        for first in range(2):
            backend.source.version += 1
            hosts[first].invalidate(wait=False)
            assert second(backend, hosts[first:] + hosts[:first]) == 1


def test_a_roll_that_skips_it_costs_one_more_load_for_each_fill_of_the_next_version(
    backend: Backend, worker: Worker
) -> None:
    """Whoever does not know the format replaces it, once for each fill of the next version, which takes what comes."""
    assert rolled(backend, worker, [OLD, NEXT]) == [0] * HOSTS
    hosts = [worker((OLD, NEXT)[place % 2]) for place in range(HOSTS)]
    assert [second(backend, hosts) for _ in range(3)] == [0, 0, 0]
    loads = []
    for first in (0, 1):
        backend.source.version += 1
        hosts[first].invalidate(wait=False)
        loads.append([second(backend, hosts[first:] + hosts[:first]) for _ in range(2)])
    assert loads == [[1, 0], [2, 0]]


# --- what people look at ----------------------------------------------------------------------------------------------


def test_commands_show_what_another_version_left(
    backend: Backend,
    worker: Worker,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its readers, fills and invalidates, and fields, kinds and answers that this version has never heard of."""
    if backend.name == "fakeredis":
        pytest.skip("the commands connect by a URL")
    next_one = worker(NEXT, "active_versions", application="detector")
    next_one.read(None)
    next_one.invalidate(reason="by the next version", wait=False)
    backend.system.tick(1.1)
    next_one.read(None)
    keys = Keys.of(backend.settings.namespace, "active_versions")
    backend.client.hset(keys.entry, "checksum_of_the_future", "1")
    backend.client.xadd(keys.events, {"event": "merged", "time": "soon", "shards": "3"})
    backend.client.xadd(keys.invalidations, {"who": "w", "scope": "partial"})
    known = next(iter(backend.client.hgetall(keys.fleet).values()))
    head, told = known.rsplit(b"|", 1)
    future = {**json.loads(told), "version": "2.0", "shard": {"of": 3}, "counts": {"near": 1, "peer": 2}}
    backend.client.hset(keys.fleet, "f" * 16, head.replace(b"ROWS", b"PEER") + b"|" + json.dumps(future).encode())
    monkeypatch.setenv(variable_of("redis_url"), request.getfixturevalue("valkey_server").url)
    monkeypatch.setenv(variable_of("namespace"), backend.settings.namespace)
    shown: dict[str, Any] = {}
    for command in (["status"], ["fleet"], ["log"], ["doctor", "--only", "redis"]):
        assert app.run([*command, "--json"]) in (ExitCode.OK, ExitCode.FINDING)
        shown[command[0]] = json.loads(capfd.readouterr().out)
    assert shown["status"]["entry"]["format"] == NEXT_FORMAT
    assert "unknown to this version" in shown["status"]["entry"]["refused_because"]
    assert {reader["version"] for reader in shown["fleet"]["readers"]} >= {"0.9.9+next", "2.0"}
    assert "by the next version" in json.dumps(shown["log"])
    (told,) = [finding for finding in shown["doctor"]["findings"] if finding["code"] == "KCG-E01"]
    assert "upgrade kcg_cache here, or wherever it is older" in json.dumps(told)
