"""Signing keys as a setting or a file gives them; what is wrong is named by its place, and never shown."""

import base64
import copy
import dataclasses
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from kcg_cache import Settings, SettingsError
from kcg_cache.keyring import SigningKey, parsed

RAW = bytes(range(200, 232))
TEXT = "sixteen-or-more-characters"


def test_a_key_is_text_hex_base64_or_in_a_file(tmp_path: Path) -> None:
    """Random bytes can be given in an environment; a file may hold a rotation."""
    file = tmp_path / "keys"
    file.write_text(f"# the new one\nhex:{RAW.hex()}\n\n  {TEXT}  \n")
    encoded = base64.b64encode(RAW).decode()
    assert parsed(f"hex:{RAW.hex()}, base64:{encoded},{TEXT}") == (RAW, RAW, TEXT.encode())
    assert parsed(f"{TEXT}, file:{file}") == (TEXT.encode(), RAW, TEXT.encode())
    assert parsed((RAW, f"hex:{RAW.hex()}")) == (RAW, RAW)
    assert parsed("") == parsed(" , ") == parsed(()) == ()
    settings = Settings.from_env({"KCG_CACHE_SIGNING_KEYS": f"file:{file}"})
    assert settings.signing_keys == settings.replace(ttl=5).signing_keys == (RAW, TEXT.encode())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("hex:00112233", "key 1 of 1 has 4 bytes"),
        (f"{TEXT},hex:zz{RAW.hex()}", "key 2 of 2 is not what its form says"),
        (f"base64:*{TEXT}", "key 1 of 1 is not what its form says"),
        (f"base64:é{TEXT}", "key 1 of 1 is not what its form says"),
        ((TEXT, 5), "key 2 of 2 is int"),
        ({TEXT: 1}, "neither text nor a list"),
        ("file:/nowhere/at/all", "'/nowhere/at/all' cannot be read: No such file"),
        ("file:\0", "cannot be read"),
    ],
)
def test_a_wrong_key_is_named_by_its_place_and_not_shown(value: Any, told: str) -> None:
    """Neither in the message nor in what a traceback prints, and the message says how to make one."""
    with pytest.raises(SettingsError, match="openssl rand -hex 32") as refused:
        Settings(signing_keys=value)
    assert told in str(refused.value)
    printed = "".join(traceback.format_exception(refused.value))
    assert not any(part in printed for part in (TEXT, RAW.hex(), "00112233"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no key"),
        (b"# nothing\n", "holds no key"),
        (RAW, "is no text; put the key there as hex"),
        (TEXT.encode() + b"\nshort-one\n", "line 2 of "),
        (b"x" * 70_000, "is over 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_keys_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    """With the line, where it is about one."""
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        parsed(f"file:{file}")
    assert told in str(refused.value)
    assert str(file) in str(refused.value)
    assert "short-one" not in str(refused.value)


def test_a_key_shows_itself_nowhere_but_is_one() -> None:
    """In a repr, in text, in a dump of the settings, after a copy; a URL shows all but its password."""
    key = SigningKey(RAW)
    for other in (copy.deepcopy(key), pickle.loads(pickle.dumps(key))):  # noqa: S301 - our own
        assert other == RAW
        assert repr(other) == str(other) == f"{other}" == "<signing key>"
    settings = Settings(redis_url="redis://user:hunter2-hunter2@h/0", signing_keys=(RAW, TEXT.encode()))
    dumped = f"{dataclasses.asdict(settings)} {settings} {dataclasses.astuple(settings)} {vars}"
    assert not any(part in dumped for part in (TEXT, "hunter2", repr(RAW)[2:-1]))
    assert "redis://user:***@h/0" in dumped
    assert settings.redis_url == "redis://user:hunter2-hunter2@h/0"
