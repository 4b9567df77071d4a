"""Every form of a Redis does all that the store asks, on real servers; and what is bounded, named and forgotten."""

import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from kcg_cache import ConfigurationError, Settings, clients, connecting
from kcg_cache.answers import Current, Fill, Question
from kcg_cache.clients import ClientTimeoutWarning
from kcg_cache.codec import Payload
from kcg_cache.embedded.valkey import EmbeddedValkey, start_valkey
from kcg_cache.errors import StoreError, StoreNotReady, StoreRefused, StoreUnreachable
from kcg_cache.store import INLINE, Store
from kcg_cache.system import System
from tests import redis_bounds
from tests.redis_forms import SENTINEL_PASSWORD, SERVICE, cluster_of_one, sentinel_of

pytestmark = pytest.mark.once

PATIENT = 20.0
FORMS = ("single", "unix", "sentinel", "cluster")
LOOSE: Any = Sentinel
NODE: Any = ClusterNode


@dataclass(frozen=True, slots=True)
class Servers:
    """A server of each form."""

    master: EmbeddedValkey
    sentinel_port: int
    node: EmbeddedValkey

    def url(self, form: str, user: str = "") -> str:
        """Give the URL of a form, with the password of the server's default user, or as `user`, whose password is x."""
        server = self.node if form == "cluster" else self.master
        who = f"{user}:x" if user else f":{server.password}"
        return {
            "single": f"redis://{who}@{server.host}:{server.port}/0",
            "unix": f"unix://{who}@{self.master.unix_socket}",
            "sentinel": f"redis+sentinel://{who}@127.0.0.1:{self.sentinel_port}/{SERVICE}"
            f"?sentinel_password={SENTINEL_PASSWORD}",
            "cluster": f"redis+cluster://{who}@{server.host}:{server.port}",
        }[form]

    def admin(self, form: str) -> Any:
        """Give a client that may do anything to the server that holds the data."""
        return redis.Redis.from_url((self.node if form == "cluster" else self.master).url)

    def sentinel(self) -> Any:
        """Give a client of the Sentinel itself."""
        return redis.Redis(port=self.sentinel_port, password=SENTINEL_PASSWORD)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Start a master, the Sentinel that watches it, and a Cluster of one node."""
    with (
        start_valkey() as master,
        sentinel_of(master.host, master.port, master.password) as port,
        cluster_of_one() as node,
    ):
        yield Servers(master, port, node)


@pytest.fixture
def settings() -> Settings:
    """Give settings in a namespace of the test's own, that no busy machine overruns."""
    return Settings(namespace=f"test-{secrets.token_hex(4)}", redis_timeout=PATIENT)


def asked(token: str = "a" * 32) -> Question:
    """Give a reader's question."""
    return Question(token=token)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [100, INLINE + 1])
def test_every_form_does_all_that_the_store_asks(servers: Servers, settings: Settings, form: str, size: int) -> None:
    """Scripts, a payload that is fetched, waiting, the log, and questions that are about the server and name no key."""
    payload = Payload(secrets.token_bytes(size), "d" * 32, "json.1", size, ())
    with warnings.catch_warnings(), closing(Store(servers.url(form), "d", settings)) as store:
        warnings.simplefilter("error")
        answer = store.read(asked())
        assert isinstance(answer, Fill)
        assert store.renew(answer.grant)
        assert store.publish(answer.grant, payload, load_us=1, source="s", signature="", by="test")
        read = store.read(asked())
        assert isinstance(read, Current)
        assert read.entry.payload == payload.data
        store.await_event(b"0", PATIENT)
        assert store.whole_entry()["payload"] == payload.data
        deleted = store.invalidate(who="w", host="h", reason="r")
        assert deleted.existed
        store.check_deletes()
        logged = store.logged("invalidations", 5)
        assert logged is not None
        assert store.has_logged("invalidations", logged[0].id)
        assert set(store.logged_after({"events": "0", "invalidations": "0"}, 5, PATIENT)) == {"events", "invalidations"}
        assert store.presences() == {}
        state = store.inspect(1)
        with servers.admin(form) as admin:
            run_id = admin.info("server")["run_id"]
        assert store.server()["run_id"] == run_id
        assert state.incarnation.startswith(run_id)
        assert store.config("maxmemory") == {"maxmemory": "0"}
        assert isinstance(store.time_us(), int)
        assert store.ask("PING")
        assert store.ask("ACL", "WHOAMI") == b"default"
        assert store.may([("GET", store.keys.lock)]) == (True,)
        assert store.remove() > 0


@pytest.mark.parametrize("form", FORMS)
def test_scripts_that_the_server_lost_are_sent_again(servers: Servers, settings: Settings, form: str) -> None:
    """And a store that was closed goes on when it is used again."""
    with closing(Store(servers.url(form), "d", settings)) as store:
        store.inspect(1)
        with servers.admin(form) as admin:
            admin.script_flush()
        store.inspect(1)
        store.close()
        store.inspect(1)


@pytest.mark.parametrize("form", FORMS)
def test_a_process_has_a_name_in_client_list(servers: Servers, settings: Settings, form: str) -> None:
    """Of characters that Redis takes, whatever the application is called; the URL may give another."""
    mine = settings.replace(application=f"작업자 1 {secrets.token_hex(4)}")
    url = servers.url(form)
    own = f"{url}{'&' if '?' in url else '?'}client_name={secrets.token_hex(4)}"
    with closing(Store(url, "d", mine)) as store, closing(Store(own, "d", mine)) as other:
        store.inspect(1)
        other.inspect(1)
        name = connecting.name_of(mine)
        assert re.fullmatch(r"kcg-cache:-1-[0-9a-f]{8}:[0-9]+", name)
        with servers.admin(form) as admin:
            names = {found["name"] for found in admin.client_list()}
        assert {name, own.rpartition("=")[2]} <= names


@pytest.mark.parametrize("form", FORMS)
def test_a_user_who_may_not_give_a_name_works_without(servers: Servers, settings: Settings, form: str) -> None:
    """A name is for people."""
    with servers.admin(form) as admin:
        admin.execute_command("ACL", "SETUSER", "nameless", "on", ">x", "~*", "+@all", "-client")
        with closing(Store(servers.url(form, "nameless"), "d", settings)) as store:
            store.inspect(1)
            assert "user=nameless" in str(admin.execute_command("CLIENT", "LIST"))
            assert {found["name"] for found in admin.client_list() if found["user"] == "nameless"} == {""}


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:1", "unix:///nowhere.sock", "redis+sentinel://127.0.0.1:1/m", "redis+cluster://127.0.0.1:1"],
)
def test_nothing_is_asked_before_the_first_call(settings: Settings, url: str) -> None:
    """A process starts while its Redis is down; its first question is an outage like any other."""
    store = Store(url, "d", settings)
    for _ in range(2):
        with pytest.raises(StoreUnreachable) as failed:
            store.inspect(1)
        assert failed.value.symptom == "connection"
    store.close()


# --- what is asked again ----------------------------------------------------------------------------------------------


def calls(client: Any, command: str) -> int:
    """Count how often a server was asked this."""
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_master_that_refuses_to_write_is_looked_for_again(servers: Servers, settings: Settings) -> None:
    """Cut off, it keeps its clients, and none would ever ask the Sentinels who the master is now."""
    with closing(Store(servers.url("sentinel"), "d", settings)) as store, servers.sentinel() as sentinel:
        store.inspect(1)
        before = calls(sentinel, "sentinel|masters")
        store.read(asked())
        assert calls(sentinel, "sentinel|masters") == before
        with servers.admin("sentinel") as admin, start_valkey() as other:
            try:
                admin.config_set("min-replicas-to-write", 1)
                sentinel.execute_command("SENTINEL", "REMOVE", SERVICE)
                sentinel.execute_command("SENTINEL", "MONITOR", SERVICE, other.host, other.port, 1)
                sentinel.execute_command("SENTINEL", "SET", SERVICE, "auth-pass", other.password)
                with redis.Redis.from_url(other.url) as its:
                    its.execute_command("ACL", "SETUSER", "default", f">{servers.master.password}")
                with pytest.raises(StoreNotReady) as refused:
                    store.read(asked())
                assert refused.value.symptom == "replicas"
                assert isinstance(store.read(asked()), Fill)
                assert store.server("server")["tcp_port"] == str(other.port)
            finally:
                admin.config_set("min-replicas-to-write", 0)
                sentinel.execute_command("SENTINEL", "REMOVE", SERVICE)
                sentinel.execute_command("SENTINEL", "MONITOR", SERVICE, servers.master.host, servers.master.port, 1)
                sentinel.execute_command("SENTINEL", "SET", SERVICE, "auth-pass", servers.master.password)


def test_another_sentinel_is_asked_first_after_a_failure() -> None:
    """The one that was asked may be cut off together with the old master, and would name it for ever."""
    client = clients.connect(Settings(redis_url="redis+sentinel://a:1,b:2,c:3/m"))
    manager = client.redis.connection_pool.sentinel_manager

    def order() -> list[str]:
        return [each.connection_pool.connection_kwargs["host"] for each in manager.sentinels]

    assert order() == ["a", "b", "c"]
    client.look_again("replicas")
    assert order() == ["b", "c", "a"]
    manager.sentinels = [manager.sentinels[0]] * 3  # as two threads of redis-py's leave it, sometimes
    client.look_again("replicas")
    assert order() == ["c", "a", "b"]


def test_a_node_that_refuses_to_write_is_looked_for_again(servers: Servers, settings: Settings) -> None:
    """After a lost connection redis-py asks for the slots by itself; after this answer it does not."""
    with closing(Store(servers.url("cluster"), "d", settings)) as store, servers.admin("cluster") as admin:
        store.inspect(1)
        before = calls(admin, "cluster|slots")
        try:
            admin.config_set("min-replicas-to-write", 1)
            with pytest.raises(StoreNotReady):
                store.read(asked())
        finally:
            admin.config_set("min-replicas-to-write", 0)
        assert calls(admin, "cluster|slots") == before + 1
        store.read(asked())
        assert calls(admin, "cluster|slots") == before + 1


def test_another_node_is_asked_first_after_a_failure() -> None:
    """redis-py 6.4 asks in their order; a node that is cut off names itself."""

    class Nodes:
        def __init__(self) -> None:
            self.startup_nodes = {"a": 1, "b": 2, "c": 3}
            self.asked = 0

        def initialize(self) -> None:
            self.asked += 1
            raise redis.ConnectionError("down")

    class Cluster:
        nodes_manager = Nodes()

        def get_nodes(self) -> list[Any]:
            return []

    nodes, client = Cluster.nodes_manager, clients.ClusterClient(Cluster())
    client.look_again("timeout")
    assert (list(nodes.startup_nodes), nodes.asked) == (["a", "b", "c"], 0)
    client.look_again("replicas")
    assert (list(nodes.startup_nodes), nodes.asked) == (["b", "c", "a"], 1)


def test_a_cluster_client_is_another_after_a_fork(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks may have been another thread's, which the child has not."""
    client = clients.connect(settings.replace(redis_url=servers.url("cluster")))
    client.execute("k", "EXISTS", "k")
    first = client.redis
    client.execute("k", "EXISTS", "k")
    assert client.redis is first
    monkeypatch.setattr(System, "pid", lambda _: 1)
    client.execute("k", "EXISTS", "k")
    assert client.redis is not first
    first.close()
    client.close()


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_user_who_may_not_ask_for_the_slots_is_told_so(servers: Servers, settings: Settings) -> None:
    """redis-py says of it that the node is not in cluster mode."""
    with servers.admin("cluster") as admin:
        admin.execute_command("ACL", "SETUSER", "slotless", "on", ">x", "~*", "+@all", "-cluster")
    with closing(Store(servers.url("cluster", "slotless"), "d", settings)) as store:
        with pytest.raises(StoreRefused, match=r"cluster\|slots") as refused:
            store.inspect(1)
        assert refused.value.symptom == "denied"


def test_a_server_that_is_no_cluster_is_told_of(servers: Servers, settings: Settings) -> None:
    """With the server's own words."""
    url = servers.url("single").replace("redis:", "redis+cluster:")
    with closing(Store(url, "d", settings)) as store, pytest.raises(StoreError, match="cluster support disabled"):
        store.inspect(1)


@pytest.mark.parametrize("password", ["", "?sentinel_password=wrong"])
def test_sentinels_that_refuse_the_password_are_told_of(servers: Servers, settings: Settings, password: str) -> None:
    """It is another than the master's; neither is shown."""
    url = servers.url("sentinel").partition("?")[0] + password
    with closing(Store(url, "d", settings)) as store:
        with pytest.raises(StoreRefused, match="sentinel_password") as refused:
            store.inspect(1)
        assert refused.value.symptom == "denied"
        assert servers.master.password not in str(refused.value)


def test_a_service_that_no_sentinel_knows_is_told_of(servers: Servers, settings: Settings) -> None:
    """By its name."""
    url = servers.url("sentinel").replace(SERVICE, "another")
    with (
        closing(Store(url, "d", settings)) as store,
        pytest.raises(StoreUnreachable, match=r"SENTINEL MASTERS .*'another'"),
    ):
        store.inspect(1)


def test_no_error_of_a_sentinel_shows_a_password(settings: Settings) -> None:
    """redis-py writes into it all that its clients were made with; release 6 the passwords, too."""
    kwargs = {**BOUNDED, "password": "s3cret"}
    sentinel = LOOSE([("127.0.0.1", 1)], sentinel_kwargs=kwargs)
    store = Store(sentinel.master_for("m", **kwargs), "d", settings)
    with pytest.raises(StoreUnreachable, match="no Sentinel that answers") as failed:
        store.inspect(1)
    assert "s3cret" not in f"{failed.value} {failed.value.__cause__} {failed.value.__cause__!r}"
    hidden = clients.connect(Settings(redis_url="redis+sentinel://u:s3cret@h/m?sentinel_password=s3cret"))
    assert "s3cret" not in f"{hidden.redis!r} {hidden.redis.connection_pool.sentinel_manager.sentinels!r}"


# --- bounds -----------------------------------------------------------------------------------------------------------

BOUNDED: dict[str, Any] = {
    "socket_timeout": 0.5,
    "socket_connect_timeout": 0.5,
    "retry": Retry(NoBackoff(), 0),
}


@pytest.mark.parametrize(
    ("url", "addresses", "bound"),
    [
        ("redis://h", 1, 0.5),
        ("unix:///s", 1, 0.5),
        ("redis+sentinel://a,b,c/m", 4, 2.0),
        ("redis+cluster://a,b", 3, 1.5),
        ("redis+cluster://a,b?socket_timeout=0.2", 3, 1.5),
        ("redis://h?socket_timeout=2", 1, 2.0),
    ],
)
def test_a_call_is_bounded_by_the_deadline_for_each_address(url: str, addresses: int, bound: float) -> None:
    """Each Sentinel and the master; the node that fails and each that is asked who holds what then."""
    client = clients.connect(Settings(redis_url=url, redis_timeout=0.5))
    assert (client.addresses, client.bound) == (addresses, bound)


def test_an_address_that_does_not_answer_is_tried_once_in_a_call() -> None:
    """Which is what the bound is made of; scripts/redis_bounds measures it."""
    found = list(redis_bounds.measured(0.05))
    assert [each.tried for each in found] == [(1,), (1, 1, 1), (1, 1), (1, 1, 1), (1,)]
    assert [each.addresses for each in found] == [1, 4, 4, 4, 3]


def test_every_part_of_a_sentinels_client_is_bounded_and_tried_once() -> None:
    """The Sentinels' own clients are given their deadlines by nobody else."""
    client = clients.connect(Settings(redis_url="rediss+sentinel://a,b/m/3", redis_timeout=0.25))
    pool = client.redis.connection_pool
    for kwargs in (pool.connection_kwargs, *(s.connection_pool.connection_kwargs for s in client._sentinels)):  # type: ignore[attr-defined]
        assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (0.25, 0.25)
        assert kwargs["retry"].get_retries() == 0
    assert pool.connection_kwargs["db"] == 3
    assert pool.connection_class is redis.sentinel.SentinelManagedSSLConnection
    assert {s.connection_pool.connection_class for s in client._sentinels} == {redis.SSLConnection}  # type: ignore[attr-defined]


def test_a_cluster_client_is_bounded_and_gives_redirections_up(servers: Servers, settings: Settings) -> None:
    """redis-py's own 16 hops, and its retries, are for who has no deadline."""
    client = clients.connect(settings.replace(redis_url=servers.url("cluster")))
    client.execute("k", "EXISTS", "k")
    assert client.redis.retry.get_retries() == 0
    assert client.redis.RedisClusterRequestTTL == clients.CLUSTER_HOPS
    (node,) = client.redis.get_nodes()
    kwargs = node.redis_connection.connection_pool.connection_kwargs
    assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (PATIENT, PATIENT)
    assert kwargs["retry"].get_retries() == 0
    client.close()


def test_passed_clients_of_sentinels_are_measured_whole(settings: Settings) -> None:
    """With the Sentinels that they ask; one that is bounded for each address is taken without a word."""
    bounded = LOOSE([("a", 1), ("b", 2)], sentinel_kwargs=BOUNDED).master_for("m", **BOUNDED)
    loose = LOOSE([("a", 1), ("b", 2)]).master_for("m", **BOUNDED)
    endless = LOOSE([("a", 1)], sentinel_kwargs={**BOUNDED, "socket_timeout": None}).master_for("m", **BOUNDED)
    assert (clients.given(bounded).addresses, clients.given(bounded).bound) == (3, 1.5)
    assert clients.given(endless).bound is None
    short = settings.replace(redis_timeout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Store(bounded, "d", short)
    with pytest.warns(ClientTimeoutWarning, match=r"redis_timeout=0.5 s for each of 3 addresses"):
        Store(loose, "d", short)
    with pytest.warns(ClientTimeoutWarning, match="has no timeout"):
        Store(endless, "d", short)


def test_passed_clients_of_a_cluster_are_measured_whole(servers: Servers, settings: Settings) -> None:
    """By default redis-py tries each call again; what it is bounded by is for each node that it may ask."""
    nodes = [NODE(servers.node.host, servers.node.port)]
    short = settings.replace(redis_timeout=PATIENT)
    bounds = {**BOUNDED, "socket_timeout": PATIENT, "socket_connect_timeout": PATIENT}
    with closing(RedisCluster(startup_nodes=nodes, password=servers.node.password, **bounds)) as bounded:
        client = clients.given(bounded)
        assert (client.addresses, client.bound) == (2, 2 * PATIENT)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store = Store(bounded, "d", short)
        assert isinstance(store.read(asked()), Fill)
        assert store.server("server")["tcp_port"] == str(servers.node.port)
        store.close()
        assert isinstance(store.read(asked()), Fill)
        store._client.forget()
        assert isinstance(store.read(asked()), Fill)
    bounds.pop("retry")
    loose = RedisCluster(startup_nodes=nodes, password=servers.node.password, **bounds)
    with closing(loose), pytest.warns(ClientTimeoutWarning):
        Store(loose, "d", short)


@pytest.mark.parametrize(
    ("client", "instead"),
    [
        (LOOSE([("a", 1)]), "give its master_for"),
        (LOOSE([("a", 1)]).slave_for("m"), "give master_for"),
        (redis.asyncio.Redis(), "asyncio client"),
        (redis.Redis().pipeline(), "no redis client"),
        (object(), "no redis client"),
    ],
)
def test_what_is_no_client_that_writes_is_refused(client: Any, instead: str, settings: Settings) -> None:
    """At once, with what to give instead."""
    with pytest.raises(ConfigurationError, match=instead):
        Store(client, "d", settings)


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["single", "cluster"])
def test_a_password_file_is_read_for_every_connection(
    servers: Servers, settings: Settings, form: str, tmp_path: Path
) -> None:
    """So that a password can be changed while processes run; the settings win over the URL."""
    file = tmp_path / "password"
    file.write_text("first\n")
    with servers.admin(form) as admin:
        admin.execute_command("ACL", "SETUSER", "rotated", "on", ">first", "~*", "+@all")
        mine = settings.replace(redis_username="rotated", redis_password_file=file)
        with closing(Store(servers.url(form), "d", mine)) as store:
            assert store.ask("ACL", "WHOAMI") == b"rotated"
            admin.execute_command("ACL", "SETUSER", "rotated", "<first", ">second")
            file.write_text("second")
            store._client.forget()
            assert store.ask("ACL", "WHOAMI") == b"rotated"
            file.write_text("")
            store._client.forget()
            with pytest.raises(StoreRefused, match=r"KCG_CACHE_REDIS_PASSWORD_FILE .* as its only line"):
                store.inspect(1)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(None, "cannot be read: No such file"), (b"", "only line"), (b"a\nb\n", "only line"), (b"\xff", "no text")],
)
def test_a_password_file_that_is_none_is_refused_at_once(
    settings: Settings, tmp_path: Path, content: bytes | None, wrong: str
) -> None:
    """With the variable that names it, and nothing of what it holds."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"KCG_CACHE_REDIS_PASSWORD_FILE .*{wrong}"):
        Store("redis://h", "d", settings.replace(redis_password_file=file))


def test_the_settings_credentials_win_over_the_urls(servers: Servers, settings: Settings) -> None:
    """A URL may then be told to everybody."""
    mine = settings.replace(redis_password=servers.master.password)
    url = servers.url("single").replace(servers.master.password, "wrong")
    with closing(Store(url, "d", mine)) as store:
        store.inspect(1)
    with closing(Store(url, "d", settings)) as store, pytest.raises(StoreRefused):
        store.inspect(1)
