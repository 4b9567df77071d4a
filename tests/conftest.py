"""Fixtures for all: real servers for the session, and the backends that the protocol suite runs on."""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from hypothesis.configuration import set_hypothesis_home_dir
from redis.backoff import NoBackoff
from redis.retry import Retry

from kcg_cache import Dataset, Settings, SharedCache, testing
from kcg_cache.embedded import EmbeddedValkey, start_valkey
from kcg_cache.keys import Keys
from tests import forked
from tests.doubles import Source, TickedSystem

pytest_plugins = ["tests.pg_fixtures"]

#: What fakeredis cannot do, in one place: a test with one of these in its `needs` mark runs on the real server alone.
FAKEREDIS_LACKS = {
    "replicas": "fakeredis knows no min-replicas-to-write",
    "stream ids": "fakeredis goes past the last id of a stream",
    "acl": "fakeredis does not enforce ACLs within scripts",
    "maxmemory": "fakeredis has no memory limit",
}


def pytest_configure(config: pytest.Config) -> None:
    """Have Hypothesis keep nothing in the working directory, but beside pytest's own files or where it goes away."""
    hypothesis.settings.register_profile("kcg", database=None, deadline=None)
    hypothesis.settings.load_profile("kcg")
    if config.option.basetemp:
        home = Path(config.option.basetemp).absolute().parent / "hypothesis"
    else:
        temporary = tempfile.TemporaryDirectory()
        config.add_cleanup(temporary.cleanup)
        home = Path(temporary.name)
    set_hypothesis_home_dir(home)


def pytest_sessionfinish() -> None:
    """End what command-line tests have forked from."""
    forked.close()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KCG_CACHE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    """Give a real server that lives as long as the session; a test that breaks one starts its own."""
    with start_valkey() as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: EmbeddedValkey) -> str:
    """Give the URL of the session's server, emptied."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """Give a client of it."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def namespace() -> str:
    """Give a namespace of the test's own."""
    return f"test-{secrets.token_hex(4)}"


@dataclass
class Backend:
    """A Redis to run the protocol on, real or fake."""

    name: str
    client: Any
    settings: Settings
    source: Source
    system: TickedSystem
    keys: Keys
    down: Callable[[], None]
    up: Callable[[], None]
    made: list[SharedCache] = field(default_factory=list)

    def worker(
        self, dataset: Dataset | None = None, *, system: Any = None, present: bool = True, **changes: Any
    ) -> SharedCache:
        """Make one more "process": a cache with a near copy of its own."""
        cache = SharedCache(
            self.client,
            dataset or self.source.dataset(),
            self.settings.replace(**changes),
            present=present,
            system=self.system if system is None else system,
        )
        self.made.append(cache)
        return cache

    def entry(self) -> dict[str, bytes]:
        """Give the entry's fields as they are in Redis."""
        return {name.decode(): value for name, value in self.client.hgetall(self.keys.entry).items()}


@pytest.fixture(params=["fakeredis", "valkey"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Give each protocol test a fake and a real Redis in turn, unchanged."""
    needed = request.node.get_closest_marker("needs")
    if request.param == "fakeredis" and needed is not None:
        for what in needed.args:
            pytest.skip(FAKEREDIS_LACKS[what])
    settings = Settings(namespace=f"test-{secrets.token_hex(4)}")
    source, system = Source(), TickedSystem()
    keys = Keys.of(settings.namespace, source.dataset().name)
    if request.param == "fakeredis":
        client = testing.fake_redis()
        server = testing.server_of(client)
        assert server is not None

        def down() -> None:
            server.connected = False

        def up() -> None:
            server.connected = True
            testing.restart(client)
            client.flushall()

        yield Backend("fakeredis", client, settings, source, system, keys, down, up)
        client.close()
    else:
        valkey: EmbeddedValkey = request.getfixturevalue("valkey_server")
        client = real_client(valkey.url)
        client.flushall()
        backend = Backend("valkey", client, settings, source, system, keys, valkey.kill, valkey.restart)
        yield backend
        for cache in backend.made:
            cache.close()
        client.close()


def real_client(url: str, **arguments: Any) -> Any:
    """Give a client bounded as kcg_cache wants it."""
    defaults: dict[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
    return redis.Redis.from_url(url, **(defaults | arguments))
