"""What some servers lack that others have: such a test is skipped there, and says why (docs/servers.md)."""

import pytest

from kcg_cache.embedded import EmbeddedValkey


def needs_redis(server: EmbeddedValkey, version: str, why: str) -> None:
    """Skip the test on a Redis older than this, for the reason `why`; every Valkey counts as a Redis 7.2 at least."""
    if numbers(server.version) < numbers(version):
        pytest.skip(f"{why} (since Redis {version})")


def numbers(version: str) -> tuple[int, ...]:
    """Give a version for comparison."""
    return tuple(int(part) for part in version.split("."))
