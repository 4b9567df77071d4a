"""Every setting from environment and arguments, and one error that names variable, value and what is allowed."""

import dataclasses
from typing import Any

import pytest

from kcg_cache import Settings, SettingsError
from kcg_cache.settings import variable_of, without_password


def test_the_defaults_are_the_documented_ones() -> None:
    """They are part of the interface."""
    assert dataclasses.asdict(Settings()) == {
        "redis_url": "redis://127.0.0.1:6379/0",
        "redis_username": "",
        "redis_password": "",
        "redis_password_file": "",
        "redis_ca": "",
        "redis_cert": "",
        "redis_key": "",
        "namespace": "kcg",
        "ttl": 300,
        "lease": 1.0,
        "lock_ttl": 3,
        "wait_timeout": 10,
        "redis_timeout": 0.5,
        "breaker_window": 2,
        "refresh_ahead": 0,
        "stale_if_error": 0,
        "signing_keys": (),
        "max_payload": 32 * 1024 * 1024,
        "mode": "shared",
        "copy_rows": False,
        "application": "",
    }


def test_every_setting_has_a_variable_and_arguments_win() -> None:
    """KCG_CACHE_ and the name in capitals."""
    environ = {
        "KCG_CACHE_REDIS_URL": "rediss://u:p@h:1/2",
        "KCG_CACHE_REDIS_USERNAME": "worker",
        "KCG_CACHE_REDIS_PASSWORD": "",
        "KCG_CACHE_REDIS_PASSWORD_FILE": "/run/secrets/redis",
        "KCG_CACHE_REDIS_CA": "/etc/ssl/ca.pem",
        "KCG_CACHE_REDIS_CERT": "/etc/ssl/worker.pem",
        "KCG_CACHE_REDIS_KEY": "/etc/ssl/worker.key",
        "KCG_CACHE_NAMESPACE": "n",
        "KCG_CACHE_TTL": "60",
        "KCG_CACHE_LEASE": "0.5",
        "KCG_CACHE_LOCK_TTL": "2",
        "KCG_CACHE_WAIT_TIMEOUT": "5",
        "KCG_CACHE_REDIS_TIMEOUT": "0.1",
        "KCG_CACHE_BREAKER_WINDOW": "1",
        "KCG_CACHE_REFRESH_AHEAD": "0.1",
        "KCG_CACHE_STALE_IF_ERROR": "3600",
        "KCG_CACHE_SIGNING_KEYS": "0123456789abcdef, fedcba9876543210",
        "KCG_CACHE_MAX_PAYLOAD": "1000",
        "KCG_CACHE_MODE": "bypass",
        "KCG_CACHE_COPY_ROWS": "yes",
        "KCG_CACHE_APPLICATION": " detector ",
        "HOME": "/",
    }
    assert {variable_of(field.name) for field in dataclasses.fields(Settings)} == set(environ) - {"HOME"}
    read = Settings.from_env(environ, ttl=61)
    assert (read.ttl, read.lease, read.mode, read.copy_rows) == (61, 0.5, "bypass", True)
    assert read.signing_keys == (b"0123456789abcdef", b"fedcba9876543210")
    assert read.application == "detector"
    assert read.replace(ttl=62).ttl == 62


WRONG: list[tuple[str, Any, str]] = [
    ("redis_url", "http://h", "redis://"),
    ("redis_url", "redis://h:port", "redis://"),
    ("redis_url", 5, "redis://"),
    ("redis_url", "redis+sentinel://h:1/", "the name that the Sentinels have"),
    ("redis_username", "a b", "without spaces"),
    ("redis_password", "a\nb", "without line breaks"),
    ("redis_password_file", "a\nb", "the path of a file"),
    ("redis_ca", "/ca.pem", "begin redis_url with rediss"),
    ("redis_cert", "/cert.pem", "begin redis_url with rediss"),
    ("redis_key", "/key.pem", "none without redis_cert"),
    ("namespace", "", "letters"),
    ("namespace", "a{b}", "letters"),
    ("namespace", "a:b", "letters"),
    ("namespace", "a" * 101, "letters"),
    ("ttl", "soon", "seconds"),
    ("ttl", 0, "seconds"),
    ("ttl", -1, "seconds"),
    ("ttl", float("nan"), "seconds"),
    ("ttl", float("inf"), "seconds"),
    ("ttl", None, "seconds"),
    ("ttl", True, "seconds"),
    ("lease", 1.01, "the protocol's constant"),
    ("lease", -0.1, "seconds"),
    ("lock_ttl", 0, "seconds"),
    ("wait_timeout", 5.9, "at least 2 × lock_ttl"),
    ("redis_timeout", 0, "seconds"),
    ("breaker_window", -1, "seconds"),
    ("refresh_ahead", 1, "a part of the TTL"),
    ("refresh_ahead", "x", "a part of the TTL"),
    ("stale_if_error", -1, "seconds"),
    ("signing_keys", "short", "16 to 64 bytes"),
    ("signing_keys", ("x" * 65,), "16 to 64 bytes"),
    ("signing_keys", 5, "16 to 64 bytes"),
    ("max_payload", 0, "bytes"),
    ("max_payload", "1.5", "bytes"),
    ("max_payload", 2**30, "bytes"),
    ("mode", "off", "'shared' or 'bypass'"),
    ("copy_rows", "maybe", "1, true, yes, on"),
    ("application", "a" * 101, "at most 100 characters"),
    ("application", "a\nb", "at most 100 characters"),
    ("application", "\x1b[31m", "at most 100 characters"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_value_names_variable_value_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    """In one error."""
    with pytest.raises(SettingsError) as refused:
        Settings(**{name: value})
    message = str(refused.value)
    assert variable_of(name) in message
    assert allowed in message
    if name not in ("signing_keys", "redis_password"):
        assert repr(value) in message
    if value is not None:
        with pytest.raises(SettingsError):
            Settings.from_env({variable_of(name): str(value)})


def test_every_setting_is_refused_some_value() -> None:
    """None is unchecked."""
    assert {name for name, _, _ in WRONG} == {field.name for field in dataclasses.fields(Settings)}


def test_a_misspelt_variable_is_an_error() -> None:
    """It would else do nothing."""
    with pytest.raises(SettingsError, match=r"KCG_CACHE_TLL is no setting.*KCG_CACHE_TTL"):
        Settings.from_env({"KCG_CACHE_TLL": "5"})
    with pytest.raises(SettingsError, match="no setting is called 'tll'"):
        Settings.from_env({}, tll=5)


def test_passwords_and_keys_are_shown_nowhere() -> None:
    """Neither in repr nor in errors."""
    secret = "-".join(["s3cr3t"] * 3)
    settings = Settings(redis_url=f"redis://user:{secret}@h/0", redis_password=secret, signing_keys=(secret.encode(),))
    assert secret not in repr(settings)
    wrongs: list[dict[str, Any]] = [
        {"redis_url": f"http://u:{secret}@h"},
        {"redis_url": f"redis://u:a?{secret}@h"},
        {"redis_url": f"redis://u:a#{secret}@h"},
        {"redis_url": f"redis://u:a/{secret}@h"},
        {"redis_url": f"redis://h/0?pasword={secret}"},
        {"redis_url": f"redis+sentinel://h/?sentinel_password={secret}"},
        {"redis_password": f"{secret}\n"},
        {"redis_password": secret, "redis_password_file": "/f"},
        {"signing_keys": secret[:5]},
        {"signing_keys": (secret * 9,)},
    ]
    for wrong in wrongs:
        with pytest.raises(SettingsError) as refused:
            Settings(**wrong)
        assert secret[:5] not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:p@h:1/0", "redis://:***@h:1/0"),
        ("rediss://u:p@h/0?ssl_keyfile=x&password=y", "rediss://u:***@h/0?ssl_keyfile=***&password=***"),
        ("redis://:pa:ss@h/0", "redis://:***@h/0"),
        ("redis://:pa@ss@h/0", "redis://:***@h/0"),
        ("redis://u:my/secret@h:6379/0", "redis://u:***@h:6379/0"),
        ("unix://u:p@/run/s.sock?db=1", "unix://u:***@/run/s.sock?db=***"),
        ("redis://h:6379/0?password=p@ss", "redis://***"),
        ("redis://u:my?secret@h:6379/0", "redis://***"),
        (
            "redis+sentinel://u:p@a:1,[::1]:2/master/3?sentinel_password=q",
            "redis+sentinel://u:***@a:1,[::1]:2/master/3?sentinel_password=***",
        ),
        ("rediss+cluster://u:p@a:1,b:2?ssl_password=q", "rediss+cluster://u:***@a:1,b:2?ssl_password=***"),
    ],
)
def test_a_url_can_be_shown_without_its_password(url: str, shown: str) -> None:
    """Host, port and database stay readable."""
    assert without_password(url) == shown
