"""Redis over TLS, on a real server: whose certificate is believed, and what is said where one is not."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kcg_cache import ConfigurationError, Settings
from kcg_cache.errors import StoreError, StoreRefused
from kcg_cache.store import Store
from tests.redis_forms import certificates, tls_program, tls_server

PROGRAM = tls_program()
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(PROGRAM is None, reason="no redis-server that was built with TLS (Debian's is)"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with"),
]


@dataclass(frozen=True, slots=True)
class Places:
    """A server that takes any client, one that asks each for a certificate, and certificates of two authorities."""

    open_port: int
    closed_port: int
    ours: dict[str, Path]
    others: dict[str, Path]

    def store(self, port: int, query: str = "", **files: Any) -> Store:
        """Give a store on one of them, with these settings that name files."""
        settings = Settings(redis_url=f"rediss://127.0.0.1:{port}{query}", redis_timeout=20.0, **files)
        return Store(settings.redis_url, "d", settings)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Start both."""
    assert PROGRAM is not None
    directory = tmp_path_factory.mktemp("certificates")
    ours, others = certificates(directory, "ours"), certificates(directory, "others")
    with tls_server(PROGRAM, ours, clients="no") as first, tls_server(PROGRAM, ours, clients="yes") as second:
        yield Places(first, second, ours, others)


def test_a_server_of_the_right_authority_is_believed(places: Places) -> None:
    """By its setting, by redis-py's option in the URL, and without any check where that is asked for."""
    ours = places.ours
    for store in (
        places.store(places.open_port, redis_ca=ours["ca"]),
        places.store(places.open_port, f"?ssl_ca_certs={ours['ca']}"),
        places.store(places.open_port, "?ssl_cert_reqs=none"),
        places.store(places.closed_port, redis_ca=ours["ca"], redis_cert=ours["cert"], redis_key=ours["key"]),
    ):
        with closing(store):
            assert store.inspect(1).at


def test_a_server_of_another_authority_is_refused(places: Places) -> None:
    """Also where none is named and the system's do not know it; and it is said which setting is about that."""
    for store in (
        places.store(places.open_port, redis_ca=places.others["ca"]),
        places.store(places.open_port),
    ):
        with closing(store), pytest.raises(StoreRefused, match=r"redis_ca .*CERTIFICATE_VERIFY_FAILED") as refused:
            store.inspect(1)
        assert refused.value.symptom == "certificate"


def test_a_name_that_the_certificate_does_not_hold_is_refused(places: Places) -> None:
    """Whatever answers there has another's certificate."""
    settings = Settings(
        redis_url=f"rediss://127.0.0.2:{places.open_port}", redis_ca=str(places.ours["ca"]), redis_timeout=20.0
    )
    with closing(Store(settings.redis_url, "d", settings)) as store, pytest.raises(StoreError):
        store.inspect(1)


def test_a_client_without_the_certificate_that_is_asked_for_is_refused(places: Places) -> None:
    """Without any, and with one of another authority."""
    others = places.others
    cases: list[dict[str, Any]] = [{}, {"redis_cert": others["cert"], "redis_key": others["key"]}]
    for files in cases:
        with closing(places.store(places.closed_port, redis_ca=places.ours["ca"], **files)) as store:
            with pytest.raises(StoreError) as refused:
                store.inspect(1)
            # The server's reason may be overtaken by the end of the connection.
            assert refused.value.symptom in ("certificate", "connection")


def test_files_that_cannot_be_used_are_found_before_anything_is_asked(places: Places, tmp_path: Path) -> None:
    """Each by its setting and its path, with what it should be."""
    ours, others = places.ours, places.others
    cases: list[tuple[dict[str, Any], str]] = [
        ({"redis_ca": tmp_path / "none"}, "KCG_CACHE_REDIS_CA .*none' cannot be read: No such file.*PEM"),
        ({"redis_ca": tmp_path}, "KCG_CACHE_REDIS_CA .* cannot be read: Is a directory"),
        ({"redis_ca": ours["key"]}, "KCG_CACHE_REDIS_CA .* holds no certificate"),
        ({"redis_cert": ours["cert"], "redis_key": tmp_path / "none"}, "KCG_CACHE_REDIS_KEY .* cannot be read"),
        ({"redis_cert": ours["cert"], "redis_key": others["key"]}, "KCG_CACHE_REDIS_CERT .* are no pair"),
        ({"redis_cert": ours["ca"]}, "KCG_CACHE_REDIS_CERT .* are no pair"),
    ]
    for files, wrong in cases:
        with pytest.raises(ConfigurationError, match=wrong):
            places.store(places.open_port, **files)
    with pytest.raises(ConfigurationError, match=r"ssl_keyfile .*of redis_url is a key without its certificate"):
        places.store(places.open_port, f"?ssl_keyfile={ours['key']}")
