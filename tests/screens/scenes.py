"""What is shown, in the order in which it plays: a version is promoted, and a change of another is not withdrawn."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import redis

from kcg_cache import Settings, SharedCache, queries
from tests.screens.stage import Stage, StageError
from tests.waiting import eventually

_HOSTS = ("busan-1", "busan-2", "incheon-1")
_APPLICATIONS = ("detector", "detector", "correlator")
#: Somebody's change that no invalidate follows.
_FORGOTTEN = """
    UPDATE kcg.detection_model_versions SET params = jsonb_set(params, '{max_mean_speed_kn}', '3.4'), updated_at = now()
    WHERE model_id = 'loitering' AND version = '2.0.0'
"""
_AGAIN = """
    UPDATE kcg.detection_model_versions SET params = jsonb_set(params, '{radius_nm}', '2.5'), updated_at = now()
    WHERE model_id = 'loitering' AND version = '2.0.0'
"""


#: Every scene, in order.
NAMES = (
    "show",
    "fleet",
    "promote-dry-run",
    "promote",
    "invalidate",
    "verify",
    "verify-different",
    "watch",
    "log",
    "status",
    "doctor",
)


class Screen(NamedTuple):
    """One picture: its name, the command as an operator types it, and what the terminal then shows."""

    name: str
    command: str
    shown: str


def play(stage: Stage) -> Iterator[Screen]:
    """Go through all scenes and give a screen for each; raise `StageError` when a command ends otherwise than told."""
    for host in _HOSTS:
        for application in _APPLICATIONS:
            stage.worker(host, application)
    cache = SharedCache(stage.redis, settings=Settings())
    readers = len(_HOSTS) * len(_APPLICATIONS)
    eventually(lambda: sum(1 for one in cache.fleet().readers if one.digest) == readers)

    yield _screen(stage, "show", 0, "show")
    yield _screen(stage, "fleet", 0, "fleet")
    promote = ("promote", "dark-vessel", "3.3.0", "--role", "PRIMARY")
    yield _screen(stage, "promote-dry-run", 0, *promote, "--dry-run")
    yield _screen(stage, "promote", 0, *promote, "--yes", "--reason", "야간 해상 시험 통과", "--wait-for-fleet", "20s")
    # A worker that is killed within its lease: the receipt of the next invalidate names it.
    stage.workers[0].kill()
    yield _screen(stage, "invalidate", 0, "invalidate", "--reason", "운영자 교육", "--wait-for-fleet", "20s")
    yield _screen(stage, "verify", 0, "verify")
    stage.change(_FORGOTTEN)
    yield _screen(stage, "verify-different", 1, "verify")
    yield _watch(stage, cache)
    yield _screen(stage, "log", 0, "log")
    yield _screen(stage, "status", 0, "status")
    _neglect(stage)
    yield _screen(stage, "doctor", 1, "doctor")
    cache.close()


def _screen(stage: Stage, name: str, expected: int, *arguments: str) -> Screen:
    code, shown = stage.run(*arguments)
    command = "kcg-cache " + " ".join(f"'{word}'" if " " in word else word for word in arguments)
    if code != expected:
        raise StageError(f"{command} ended with {code}, not {expected}:\n{shown}")
    return Screen(name, command, shown)


def _neglect(stage: Stage) -> None:
    """Leave both servers as they should not be, for the doctor."""
    with redis.Redis.from_url(stage.redis) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("tcp-keepalive", 0)
    stage.change("ALTER TABLE kcg.detection_models DISABLE TRIGGER kcg_notify_changed")


def _watch(stage: Stage, cache: SharedCache) -> Screen:
    """Show the daemon as it finds the change that nobody told of, is told of the next, and is ended."""
    stage.change(queries.load("notify"))
    before = len(cache.inspect(50).invalidations)
    process = stage.start("-m", "kcg_cache", "watch", host="ops-1", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        _until(process, lambda: len(cache.inspect(50).invalidations) == before + 1)
        _until(process, lambda: "digest" in cache.inspect(1).entry)
        stage.change(_AGAIN)
        _until(process, lambda: len(cache.inspect(50).invalidations) >= before + 2)
    finally:
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate()
    if process.returncode != 0:
        raise StageError(f"kcg-cache watch ended with {process.returncode}:\n{shown.decode()}")
    return Screen("watch", "kcg-cache watch", shown.decode())


def _until(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    def come() -> bool:
        if process.poll() is not None:
            raise StageError(f"kcg-cache watch ended with {process.returncode}")
        return condition()

    eventually(come)
