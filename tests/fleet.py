"""Real worker processes for the tests: ``python -m tests.fleet SCENE JSON`` runs one scene and prints JSON lines.

Each scene forks its workers from a process that has only one thread, lets them begin together, and reports what they
saw. Servers are the test's.
"""

import contextlib
import ctypes
import json
import mmap
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2

import kcg_cache
from kcg_cache import ACTIVE_VERSIONS, Dataset, Settings, SharedCache, postgres

_GENERATION = struct.Struct("q")


def main() -> None:
    scene, given = sys.argv[1], json.loads(sys.argv[2])
    {
        "cold": cold,
        "full_speed": full_speed,
        "held": held,
        "steady": steady,
        "following": following,
        "reader": reader,
        "forked": forked,
        "no_calls": no_calls,
    }[scene](given)


def say(**facts: Any) -> None:
    """Print one line, at once."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def settings(given: dict[str, Any]) -> Settings:
    return Settings(redis_url=given["redis"], namespace=given["namespace"], **given.get("settings", {}))


def connecting(given: dict[str, Any]) -> Callable[[], Any]:
    """Give a callable as `read` takes it: a connection of its own for each load."""

    @contextlib.contextmanager
    def connect() -> Iterator[Any]:
        conn = psycopg2.connect(given["dsn"])
        try:
            yield conn
        finally:
            conn.close()

    return connect


def together(count: int, work: Callable[[int], dict[str, Any]], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Fork `count` processes that begin `work` at once, and print what each returns."""
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    children = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(go_write)
                os.write(ready_write, b".")
                os.read(go_read, 1)  # ends when the parent closes its end: for all at the same moment
                say(**work(number))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for _ in children:
        os.read(ready_read, 1)
    os.close(go_read)
    os.close(go_write)
    meanwhile()
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    say(failed=len(failed))


def facts(cache: SharedCache) -> dict[str, int]:
    return {name: count for name, count in cache.metrics.as_dict().items() if count}


def cold(given: dict[str, Any]) -> None:
    """Many processes start on an empty cache; the load takes `load` seconds on the database."""

    def load(conn: Any) -> Any:
        postgres.fetch(conn, f"SELECT pg_sleep({float(given['load'])})")
        return ACTIVE_VERSIONS.load(conn)

    dataset = Dataset("cold", load, decode_row=ACTIVE_VERSIONS.decode_row)

    def work(number: int) -> dict[str, Any]:
        cache = SharedCache(given["redis"], dataset, settings(given))
        snapshot = cache.read(connecting(given))
        return {"worker": number, "source": snapshot.source, "digest": snapshot.digest, "metrics": facts(cache)}

    together(given["processes"], work)


def generation_in(rows: Any) -> int:
    """Give the number that the operator of `full_speed` writes."""
    return next(int(row["params"]["generation"]) for row in rows if row["model_id"] == "fleet-test")


def full_speed(given: dict[str, Any]) -> None:
    """Read in many processes at full speed while an operator promotes and invalidates; audit every read.

    The floor is written after an invalidate has returned, and read before the look-up begins.
    """
    shared = mmap.mmap(-1, 16)  # floor of the readers; whether to go on
    shared[8:16] = _GENERATION.pack(1)
    conn_of = connecting(given)

    def work(number: int) -> dict[str, Any]:
        cache = kcg_cache.configure(settings=settings(given))
        reads = stale = backwards = last = 0
        began = time.monotonic()
        scripts = first_scripts = 0
        quiet_reads = 0
        quiet_until = began + given["quiet"]
        in_quiet = True
        load, unpack = kcg_cache.load_active_versions, _GENERATION.unpack_from
        first = generation_in(load(conn_of))
        first_scripts = cache.metrics["scripts_read"]
        planted = given.get("plant") if number == 0 else None
        while True:
            for _ in range(200):
                floor = unpack(shared, 0)[0]
                generation = generation_in(load(conn_of))
                if planted is not None and floor > first:
                    generation, planted = first, None
                reads += 1
                stale += generation < floor
                backwards += generation < last
                last = generation
            if in_quiet and time.monotonic() > quiet_until:
                in_quiet = False
                scripts = cache.metrics["scripts_read"] - first_scripts
                quiet_reads = reads
                quiet_seconds = time.monotonic() - began
            if unpack(shared, 8)[0] == 0:
                break
        return {
            "worker": number,
            "reads": reads,
            "stale": stale,
            "backwards": backwards,
            "last": last,
            "quiet_scripts": scripts,
            "quiet_seconds": quiet_seconds,
            "quiet_reads": quiet_reads,
            "seconds": time.monotonic() - began,
            "metrics": facts(cache),
        }

    def operate() -> None:
        kcg_cache.configure(settings=settings(given))
        until = time.monotonic() + given["seconds"]
        generation = 1
        changes = []
        with contextlib.closing(psycopg2.connect(given["dsn"])) as conn:
            _sleep_until(time.monotonic() + given["quiet"] + 0.5)
            while time.monotonic() < until:
                generation += 1
                with conn, conn.cursor() as cursor:
                    cursor.execute(
                        "UPDATE kcg.detection_model_versions SET params = jsonb_build_object('generation', %s::int)"
                        " WHERE model_id = 'fleet-test'",
                        (generation,),
                    )
                receipt = kcg_cache.invalidate_cache(reason=f"generation {generation}")
                shared[0:8] = _GENERATION.pack(generation)
                changes.append(receipt.existed or receipt.fill_cancelled)
        # One more lease, so that everybody can be seen on the last one.
        _sleep_until(time.monotonic() + 0.3)
        shared[8:16] = _GENERATION.pack(0)
        say(changes=len(changes), generation=generation)

    together(given["processes"], work, operate)


def _sleep_until(moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)


def held(given: dict[str, Any]) -> None:
    """Hold the load between its SELECT and its publish until a line comes on standard input; then say what was read."""

    def load(conn: Any) -> Any:
        rows = ACTIVE_VERSIONS.load(conn)
        say(held=True)
        sys.stdin.readline()
        return rows

    dataset = Dataset("active_versions", load, decode_row=ACTIVE_VERSIONS.decode_row)
    cache = SharedCache(given["redis"], dataset, settings(given))
    snapshot = cache.read(connecting(given))
    say(source=snapshot.source, rows=list(snapshot.rows), metrics=facts(cache))


def steady(given: dict[str, Any]) -> None:
    """Read every 20 ms until standard input ends, in this process and in `forks` more; say which when they have rows.

    With `hold` every load but the first says so, and waits for a line on standard input.
    """
    loads = 0

    def load(conn: Any) -> Any:
        nonlocal loads
        loads += 1
        if given.get("hold") and loads > 1:
            say(held=True)
            sys.stdin.readline()
        return ACTIVE_VERSIONS.load(conn)

    dataset = Dataset("active_versions", load, decode_row=ACTIVE_VERSIONS.decode_row)
    cache = SharedCache(given["redis"], dataset, settings(given))
    conn_of = connecting(given)
    cache.read(conn_of)
    for _ in range(given.get("forks", 0)):
        if os.fork() == 0:
            break
    said = False
    while True:
        snapshot = cache.read(conn_of)
        if not said and snapshot.source != "near":  # so that it has asked in this very process
            said = True
            say(pid=os.getpid())
        if not given.get("hold") and select.select([sys.stdin], [], [], 0.02)[0]:
            os._exit(0)
        time.sleep(0.02 if given.get("hold") else 0)


def following(given: dict[str, Any]) -> None:
    """Read every 20 ms in so many `processes` until standard input ends; each says on which rows it is, since when.

    The time is the host's monotonic clock, which all processes share.
    """
    for _ in range(given["processes"] - 1):
        if os.fork() == 0:
            break
    cache = SharedCache(given["redis"], ACTIVE_VERSIONS, settings(given))
    conn_of = connecting(given)
    digest = ""
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        snapshot = cache.read(conn_of)
        if snapshot.digest != digest:
            digest = snapshot.digest
            say(pid=os.getpid(), digest=digest, at=time.monotonic())
    os._exit(0)


def reader(given: dict[str, Any]) -> None:
    """Read once, and say so before and after."""
    cache = SharedCache(given["redis"], ACTIVE_VERSIONS, settings(given))
    cache._store.inspect(1)  # connected, so that what follows is one script
    wait = cache._store.await_event

    def await_event(*arguments: Any) -> None:
        say(waiting=True)
        cache._store.await_event = wait  # type: ignore[method-assign]
        wait(*arguments)

    cache._store.await_event = await_event  # type: ignore[method-assign,assignment]
    say(reading=True)
    snapshot = cache.read(connecting(given))
    say(source=snapshot.source, rows=list(snapshot.rows), metrics=facts(cache))


def forked(given: dict[str, Any]) -> None:
    """Fork while other threads hold every lock of the cache, and read in the child."""
    cache = kcg_cache.configure(settings=settings(given))
    rows = kcg_cache.load_active_versions(connecting(given))
    taken = threading.Event()

    def hold() -> None:
        for lock in locks_of(cache):
            lock.acquire()
        taken.set()
        threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            near = cache.read(None).source
            cache._near.forget()
            plain = cache.read(connecting(given)).shared  # takes the slow path
            cache._breaker.failed()
            cache._breaker.succeeded()
            cache._log.once("load_failed", "about", "message")
            forced = cache.read(connecting(given), force=True)
            say(near=near, plain=plain, forced=forced.source, shared=forced.shared, equal=list(forced.rows) == rows)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    say(done=True)


def locks_of(cache: SharedCache) -> list[Any]:
    """Give every lock of a cache."""
    return [cache._slow, cache._near._lock, cache._breaker._lock, cache._log._lock, cache.metrics._lock]


def no_calls(given: dict[str, Any]) -> None:
    """Read 100,000 times in a process that the kernel kills at its first system call but write and exit."""
    cache = kcg_cache.configure(settings=settings(given))
    kcg_cache.load_active_versions(connecting(given))
    said, say_so = os.pipe()
    pid = os.fork()
    if pid == 0:
        _only_write_and_exit()
        for _ in range(100_000):
            if given["api"] == "read":
                cache.read(None)
            else:
                kcg_cache.load_active_versions(None)
        os.write(say_so, b"done")
        os._exit(0)
    os.close(say_so)
    heard = os.read(said, 4)  # ends when the child does
    _, status = os.waitpid(pid, 0)
    say(said=heard.decode(), killed_by=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)


def _only_write_and_exit() -> None:
    """Have the kernel kill this process (SIGSYS) at any other system call.

    A filter, not seccomp's strict mode: that one also takes the CPU's own clock away, which the vDSO reads.
    """
    write, exit_group = {"x86_64": (1, 231), "aarch64": (64, 94)}[os.uname().machine]
    load, equal, give_back, allow, kill = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
    program = [
        (load, 0, 0, 0),  # the number of the call
        (equal, 2, 0, write),
        (equal, 1, 0, exit_group),
        (give_back, 0, 0, kill),
        (give_back, 0, 0, allow),
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.c_void_p))

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    reference = ctypes.byref(Program(len(program), ctypes.addressof(filters)))
    if prctl(no_new_privileges, 1, 0, 0, 0) or prctl(set_seccomp, filter_mode, reference, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel took no filter")


if __name__ == "__main__":
    main()
