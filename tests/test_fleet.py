"""The promise between real processes, on a real Valkey and a real PostgreSQL."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

from kcg_cache import ACTIVE_VERSIONS, Settings, SharedCache, queries
from kcg_cache.embedded import start_valkey
from tests.fleet import generation_in, locks_of
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent


@pytest.fixture
def database(pg: Connection, pg_dsn: str) -> str:
    """Give the address of a database with the sample data and one model more, whose params hold a generation."""
    with pg, pg.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
        cursor.execute("INSERT INTO kcg.detection_models (model_id, display_name) VALUES ('fleet-test', '시험')")
        cursor.execute(
            "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
            " VALUES ('fleet-test', '1', 'PRIMARY', 'ACTIVE', '{\"generation\": 1}')"
        )
    return pg_dsn


@pytest.fixture
def given(redis_url: str, namespace: str, database: str) -> dict[str, Any]:
    """Give what a scene is told of the servers."""
    return {"redis": redis_url, "namespace": namespace, "dsn": database}


class Process:
    """A scene in a process of its own."""

    def __init__(self, scene: str, given: dict[str, Any]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet", scene, json.dumps(given)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, Any]:
        """Give its next line."""
        assert self.popen.stdout is not None
        return dict(json.loads(self.popen.stdout.readline()))

    def tell(self) -> None:
        """Let a held scene go on."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def close(self) -> None:
        """End it, however far it is."""
        self.popen.kill()
        self.popen.communicate()


@contextlib.contextmanager
def process(scene: str, given: dict[str, Any]) -> Iterator[Process]:
    started = Process(scene, given)
    try:
        yield started
    finally:
        started.close()


def run(scene: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a scene to its end and give its lines."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fleet", scene, json.dumps(given)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=240,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def total(lines: list[dict[str, Any]], name: str) -> int:
    return sum(line.get("metrics", {}).get(name, 0) for line in lines)


def test_thirty_two_processes_that_start_at_once_cost_one_load_in_every_run_of_ten(given: dict[str, Any]) -> None:
    """The load takes 0.2 s; the others wait for it and share it."""
    for attempt in range(10):
        lines = run("cold", given | {"processes": 32, "load": 0.2, "namespace": f"{given['namespace']}-{attempt}"})
        workers = [line for line in lines if "worker" in line]
        assert len(workers) == 32
        assert lines[-1] == {"failed": 0}
        assert total(workers, "loads") == 1
        assert len({line["digest"] for line in workers}) == 1
        assert sorted(line["source"] for line in workers) == ["database"] + ["redis"] * 31


def test_rows_that_were_read_before_an_invalidate_reach_nobody_after_it(given: dict[str, Any], pg: Connection) -> None:
    """A process is held between its SELECT and its publish while the row changes and is invalidated."""
    operator = SharedCache(given["redis"], ACTIVE_VERSIONS, Settings(namespace=given["namespace"]))
    with process("held", given) as filler:
        assert filler.line() == {"held": True}
        with pg, pg.cursor() as cursor:
            cursor.execute(
                "UPDATE kcg.detection_model_versions SET params = '{\"generation\": 2}' WHERE model_id = 'fleet-test'"
            )
        receipt = operator.invalidate(reason="the row has changed")
        assert receipt.fill_cancelled
        filler.tell()
        assert filler.line() == {"held": True}  # rejected: it reads again
        filler.tell()
        last = filler.line()
        assert generation_in(last["rows"]) == 2
        assert last["metrics"]["fills_rejected"] == 1
    for _ in range(3):
        (_, reading) = run("reader", given)
        assert generation_in(reading["rows"]) == 2
        assert reading["source"] == "redis"
    assert generation_in(operator.read(None).rows) == 2
    operator.close()


@pytest.mark.slow
def test_eight_processes_at_full_speed_never_read_what_a_returned_invalidate_withdrew(
    given: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    """Ten seconds, millions of reads, an operator throughout; in quiet times one script per lease and process."""
    lines = run("full_speed", given | {"processes": 8, "seconds": 10, "quiet": 2.5})
    workers = [line for line in lines if "worker" in line]
    assert len(workers) == 8
    assert [line["stale"] for line in workers] == [0] * 8
    assert [line["backwards"] for line in workers] == [0] * 8
    (operated,) = [line for line in lines if "changes" in line]
    assert operated["changes"] >= 3
    assert {line["last"] for line in workers} == {operated["generation"]}
    assert sum(line["reads"] for line in workers) > 100_000
    for line in workers:
        # One script per lease of 1 s that has begun in the quiet time, counted from the first.
        assert line["quiet_scripts"] <= line["quiet_seconds"] / 1.0 + 1
    # One load for the start and one for each change; each is one fill.
    loads = total(workers, "loads")
    assert loads <= operated["changes"] + 1
    reads, scripts = sum(line["reads"] for line in workers), total(workers, "scripts_read")
    figures = (
        f"{reads:,} reads, {operated['changes']} invalidates, {loads} loads, {scripts / loads:.1f} scripts per fill"
    )
    record_property("figures", figures)


def test_the_audit_finds_a_planted_stale_read(given: dict[str, Any]) -> None:
    """A test that could not fail would prove nothing."""
    lines = run("full_speed", given | {"processes": 2, "seconds": 3, "quiet": 0.1, "plant": True})
    assert sum(line.get("stale", 0) for line in lines) == 1
    assert sum(line.get("backwards", 0) for line in lines) == 1


def test_when_the_filler_is_killed_exactly_one_other_loads(given: dict[str, Any]) -> None:
    """Within its lock's life, and everyone who waited shares it; nobody's patience ran out."""
    with process("held", given) as filler, contextlib.ExitStack() as stack:
        assert filler.line() == {"held": True}
        waiters = [stack.enter_context(process("reader", given)) for _ in range(4)]
        for waiter in waiters:
            assert waiter.line() == {"reading": True}
            assert waiter.line() == {"waiting": True}
        os.kill(filler.popen.pid, signal.SIGKILL)
        results = [waiter.line() for waiter in waiters]
    assert sorted(result["source"] for result in results) == ["database", "redis", "redis", "redis"]
    assert total(results, "loads") == 1
    assert total(results, "wait_timeouts") == 0


def test_redis_stopped_reads_go_on_invalidate_fails_loudly_and_the_cache_fills_itself_again(
    given: dict[str, Any], pg: Connection
) -> None:
    """From the database, privately, until Redis is back."""
    with start_valkey() as server:
        cache = SharedCache(server.url, ACTIVE_VERSIONS, Settings(namespace="n", breaker_window=0.05, lease=0))
        rows = cache.read(pg).rows
        server.kill()
        assert cache.read(pg).rows == rows
        assert cache.read(pg).source == "database"
        with pytest.raises(Exception, match="not confirmed"):
            cache.invalidate()
        server.restart()
        eventually(lambda: cache.read(pg).shared)
        assert SharedCache(server.url, ACTIVE_VERSIONS, Settings(namespace="n")).read(None).rows == rows


def test_a_forked_child_gets_fresh_locks_and_keeps_the_near_copy(given: dict[str, Any]) -> None:
    """Though threads of the parent held every lock at the fork (R12)."""
    child, parent = run("forked", given)
    assert child == {"near": "near", "plain": True, "forced": "database", "shared": True, "equal": True}
    assert parent == {"done": True}


@pytest.mark.parametrize("api", ["read", "load_active_versions"])
def test_a_covered_read_makes_no_system_call(given: dict[str, Any], api: str) -> None:
    """In a process that the kernel kills at its first one, 100,000 reads come to their end."""
    (told,) = run("no_calls", given | {"api": api})
    assert told == {"said": "done", "killed_by": 0}


def test_the_kernel_would_have_noticed_a_system_call(given: dict[str, Any]) -> None:
    """With lease=0 every read asks, and the process does not come to its end."""
    (told,) = run("no_calls", given | {"api": "read", "settings": {"lease": 0}})
    assert told == {"said": "", "killed_by": signal.SIGSYS}


def test_a_covered_read_takes_no_lock(given: dict[str, Any], pg: Connection) -> None:
    """It comes back while every lock of the cache is held."""
    cache = SharedCache(given["redis"], ACTIVE_VERSIONS, Settings(namespace=given["namespace"]))
    cache.read(pg)
    for lock in locks_of(cache):
        lock.acquire()
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(cache.read, None).result(timeout=10).source == "near"
    finally:
        for lock in locks_of(cache):
            lock.release()


def test_an_operator_can_connect_to_the_same_database(database: str) -> None:
    """The fixture's rows are there for every process."""
    with contextlib.closing(psycopg2.connect(database)) as conn:
        assert generation_in(list(ACTIVE_VERSIONS.decoded(ACTIVE_VERSIONS.loaded(conn), print))) == 1
