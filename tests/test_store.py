"""Foreign errors are mapped at one edge, completely."""

import inspect
from typing import Any

import pytest
import redis

from kcg_cache import ConfigurationError, Settings, lua, testing
from kcg_cache.answers import Grant, Question
from kcg_cache.clients import connect
from kcg_cache.codec import encode
from kcg_cache.embedded import EmbeddedValkey
from kcg_cache.errors import StoreError, StoreNotReady, StoreRefused, StoreReplyError, StoreUnreachable
from kcg_cache.keys import Keys
from kcg_cache.outage import SYMPTOMS
from kcg_cache.redis_errors import MAPPED, mapped
from kcg_cache.store import Store
from tests.servers import needs_redis


def test_every_exception_of_redis_py_is_mapped() -> None:
    """This fails when redis-py grows one."""
    known = {
        error
        for _, error in inspect.getmembers(redis.exceptions, inspect.isclass)
        if issubclass(error, Exception) and error.__module__ == redis.exceptions.__name__
    }
    assert known - set(MAPPED) == set()


def test_every_symptom_is_a_row_of_the_outage_table() -> None:
    """What the store reports, the table decides."""
    assert {symptom for _, symptom in MAPPED.values()} <= set(SYMPTOMS)


@pytest.mark.parametrize(
    ("error", "kind", "symptom"),
    [
        (redis.TimeoutError("t"), StoreUnreachable, "timeout"),
        (redis.ConnectionError("refused"), StoreUnreachable, "connection"),
        (OSError("broken"), StoreUnreachable, "connection"),
        (redis.BusyLoadingError("LOADING"), StoreNotReady, "loading"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write. script: x"), StoreNotReady, "replicas"),
        (
            redis.ResponseError("ERR Error running script: @user_script:1: -READONLY You can't"),
            StoreNotReady,
            "readonly",
        ),
        (redis.ResponseError("MISCONF Redis is configured to save RDB"), StoreNotReady, "readonly"),
        (redis.ResponseError("BUSY Redis is busy running a script"), StoreNotReady, "loading"),
        (redis.ResponseError("KCGINCARNATION this server"), StoreRefused, "incarnation"),
        (redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'"), StoreRefused, "memory"),
        (redis.ResponseError("NOPERM this user has no permissions"), StoreRefused, "denied"),
        (redis.ResponseError("ACL failure in script: User x has no permissions to run"), StoreRefused, "denied"),
        (redis.ResponseError("The user executing the script can't run this command"), StoreRefused, "denied"),
        (redis.ResponseError("WRONGPASS invalid username-password pair"), StoreRefused, "denied"),
        (redis.AuthenticationError("invalid"), StoreRefused, "denied"),
        (redis.ResponseError("WRONGTYPE Operation"), StoreReplyError, "reply"),
        (redis.ResponseError("ERR wrong number of arguments for BUSYBODY"), StoreReplyError, "reply"),
        (redis.exceptions.ClusterDownError("CLUSTERDOWN"), StoreNotReady, "cluster"),
    ],
)
def test_an_error_is_known_by_its_kind_or_by_what_the_server_says(
    error: Exception, kind: type[StoreError], symptom: str
) -> None:
    """Also from within a script, where the driver sees only a ResponseError."""
    ours = mapped(error)
    assert type(ours) is kind
    assert ours.symptom == symptom
    assert str(error) in str(ours)


def test_a_url_that_cannot_be_used_is_a_configuration_error_without_its_password() -> None:
    """Found before anything is asked."""
    with pytest.raises(ConfigurationError) as refused:
        Store("redis://u:s3cret@h:1/0?socket_timeout=soon", "d", Settings())
    assert "s3cret" not in str(refused.value)


def test_a_dead_server_is_unreachable_and_the_cause_is_kept() -> None:
    """The driver's error stays in the chain."""
    store = Store("redis://127.0.0.1:1/0", "d", Settings())
    with pytest.raises(StoreUnreachable) as failed:
        store.inspect(1)
    assert isinstance(failed.value.__cause__, redis.ConnectionError)


def test_all_keys_of_a_dataset_carry_one_hash_tag() -> None:
    """So that every script is single-slot in a cluster; the names never change between versions."""
    keys = Keys.of("kcg", "active_versions")
    assert keys == Keys(
        entry="{kcg:active_versions}:entry",
        lock="{kcg:active_versions}:lock",
        events="{kcg:active_versions}:events",
        invalidations="{kcg:active_versions}:invalidations",
        guard="{kcg:active_versions}:guard",
        fleet="{kcg:active_versions}:fleet",
        watch="{kcg:active_versions}:watch",
    )


@pytest.mark.parametrize("name", ["", "a b", "a{b", "a:b", "*", "가", ".a", "a" * 101])
def test_a_name_that_is_no_safe_part_of_a_key_is_refused(name: str) -> None:
    """With what is allowed."""
    with pytest.raises(ConfigurationError, match="1 to 100 letters"):
        Keys.of("kcg", name)


#: Answers of the shape that `read`, `publish` or `invalidate` gives, with parts that none of them has: another client's
#: command on the same connection, a proxy, a module that changes replies.
_GARBAGE: list[Any] = [None, 5, b"", b"soon", b"\xff", b"-" + b"9" * 400, b"9" * 5000, [b"x"], "text"]


@pytest.mark.parametrize("part", _GARBAGE, ids=lambda part: repr(part)[:20])
@pytest.mark.parametrize("name", ["read", "publish", "invalidate", "inspect"])
def test_an_answer_with_parts_that_are_none_is_a_reply_error(
    monkeypatch: pytest.MonkeyPatch, name: str, part: Any
) -> None:
    """An outage to a reader (R8), no success to an operator (R9); never another error."""
    store = Store(testing.fake_redis(), "numbers", Settings())
    script = lua.load(name)
    known = {"asked": b"a" * 32, "kind": b"ROWS", "status": b"PUBLISHED", "copy": b"rows", "entry": []}
    grant = Grant("a" * 32, "1", "a/b", "1")
    calls: dict[str, Any] = {
        "read": lambda: store.read(Question(token="a" * 32)),
        "publish": lambda: store.publish(grant, encode("d", []), load_us=1, source="", signature="", by=""),
        "invalidate": lambda: store.invalidate(who="", host="", reason=""),
        "inspect": lambda: store.inspect(1),
    }
    forgotten: list[bool] = []
    monkeypatch.setattr(store, "_forget_connections", lambda: forgotten.append(True))
    monkeypatch.setattr(store, "_call", lambda *_: [known.get(reply, part) for reply in script.replies])
    with pytest.raises(StoreReplyError):
        calls[name]()
    assert forgotten == [True]


@pytest.mark.parametrize("part", [None, 5, "text", [b"x"]], ids=repr)
@pytest.mark.parametrize(("kind", "name"), [(b"ROWS", "payload"), (b"WAIT", "last_event")])
def test_what_is_passed_on_as_bytes_is_bytes(
    monkeypatch: pytest.MonkeyPatch, kind: bytes, name: str, part: Any
) -> None:
    """Else the decoder, or the next command, would stumble over it."""
    store = Store(testing.fake_redis(), "numbers", Settings())
    known = {"asked": b"a" * 32, "kind": kind, "copy": b"rows", name: part}
    monkeypatch.setattr(store, "_call", lambda *_: [known.get(reply, b"1") for reply in lua.load("read").replies])
    with pytest.raises(StoreReplyError, match="for bytes"):
        store.read(Question(token="a" * 32))


def test_the_server_is_told_which_driver_this_is(valkey_server: EmbeddedValkey, redis_url: str) -> None:
    """For whoever reads CLIENT LIST."""
    needs_redis(valkey_server, "7.2", "CLIENT LIST does not show a driver's name")
    with connect(Settings(redis_url=redis_url)).redis as client:
        told: Any = client.client_info()
        assert (told["lib-name"], told["lib-ver"]) == ("redis-py", redis.__version__)
