"""The servers of a soak, the proxies in front of them, and the clock of the Redis host."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import redis

from kcg_cache import queries
from kcg_cache.embedded import EmbeddedPostgres, EmbeddedValkey, guard, start_postgres, start_valkey
from tests.soak.audit import MARKER, model_of
from tests.soak.crew import Crew, Member

_FAKETIME = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
_CONNECT_SECONDS = 3


class Clock:
    """The wall clock of the Redis host, stepped by libfaketime, which reads how far from a file without a name.

    Only the wall clock: time that runs (CLOCK_MONOTONIC) is not touched, as when an operator or NTP steps a clock.
    """

    def __init__(self, library: Path) -> None:
        self._library = library
        self._descriptor = os.memfd_create("kcg_cache soak clock")
        self.step(0)

    @property
    def environment(self) -> dict[str, str]:
        """What the server is to be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": f"/proc/{os.getpid()}/fd/{self._descriptor}",
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: float) -> None:
        """Let the clock show so much more than the host's."""
        # One write, as long as the longest: a reader sees the old or the new, and never a part.
        os.pwrite(self._descriptor, f"{seconds:+.3f}s".ljust(32, "\n").encode(), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def find_faketime() -> Path | None:
    """Give libfaketime, if this machine has it."""
    for pattern in _FAKETIME:
        for path in sorted(Path("/").glob(pattern.removeprefix("/"))):
            return path
    return None


class Database:
    """PostgreSQL, and the tables in it."""

    def __init__(self, dsn: str) -> None:
        self._address = dsn

    @property
    def proxied_dsn(self) -> str:
        """The address of PostgreSQL for the workers; here the server itself."""
        return self.dsn

    @property
    def dsn(self) -> str:
        """The address of PostgreSQL itself."""
        return f"{self._address} connect_timeout={_CONNECT_SECONDS}"

    @contextlib.contextmanager
    def database(self, *, by_proxy: bool = False) -> Iterator[Any]:
        """Open a connection in autocommit to PostgreSQL."""
        with contextlib.closing(psycopg2.connect(self.proxied_dsn if by_proxy else self.dsn)) as conn:
            conn.autocommit = True
            yield conn

    def sql(self, *statements: str) -> None:
        """Run statements on PostgreSQL itself, each by itself."""
        with self.database() as conn, conn.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def fill(self, operators: int, *, schema: bool = True) -> None:
        """Make tables and rows: a model for each operator, and one of which no row is ever committed."""
        with self.database() as conn, conn.cursor() as cursor:
            if schema:
                cursor.execute(queries.load("schema"))
            for model in [*map(model_of, range(operators)), MARKER]:
                cursor.execute(
                    "INSERT INTO kcg.detection_models (model_id, display_name) VALUES (%s, %s)", (model, model)
                )
            for operator in range(operators):
                cursor.execute(
                    "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
                    " VALUES (%s, '1', 'PRIMARY', 'ACTIVE', '{\"v\": 0}')",
                    (model_of(operator),),
                )


class Servers(Database):
    """Both servers, and their proxies in a process of their own."""

    def __init__(self, valkey: EmbeddedValkey, postgres: EmbeddedPostgres, clock: Clock | None) -> None:
        super().__init__(postgres.dsn)
        self.postgres = postgres
        self.valkey = valkey
        self.clock = clock
        self._proxy: Member | None = None
        self._crew: Crew | None = None
        self._ports: dict[str, int] = {}
        self._redis: Any = redis.Redis.from_url(valkey.url, socket_timeout=10.0, protocol=2)

    def start_proxies(self, crew: Crew, seed: int) -> None:
        """Start the proxies; `crew` ends them."""
        upstream = {
            "redis": [self.valkey.host, self.valkey.port],
            "postgres": [self.postgres.host, self.postgres.port],
        }
        self._crew = crew
        self._proxy = crew.start("proxy", "proxy", {"upstream": upstream, "seed": seed})
        self._ports = self._answer("ready")["ports"]

    @property
    def proxied_redis(self) -> str:
        """The address of Redis by way of the proxy."""
        return f"redis://:{self.valkey.password}@127.0.0.1:{self._ports['redis']}/0"

    @property
    def proxied_dsn(self) -> str:
        """The address of PostgreSQL by way of the proxy."""
        return f"{self.dsn} port={self._ports['postgres']}"

    def redis_of_worker(self, _number: int) -> str:
        """Give the address of Redis that a worker is told."""
        return self.proxied_redis

    def redis_of_operators(self) -> list[str]:
        """Give the addresses of Redis that the operators are told, in turn."""
        return [self.proxied_redis, self.valkey.url]

    def set_proxy(self, name: str, mode: str, seconds: float = 0.0) -> int:
        """Let one of the proxies go wrong, from the return of this on; give how often it went wrong until now."""
        assert self._proxy is not None
        self._proxy.tell(proxy=name, mode=mode, seconds=seconds)
        return int(self._answer("set")["hits"])

    def redis(self, *command: Any) -> Any:
        """Send one command to Redis itself."""
        return self._redis.execute_command(*command)

    def terminate_backends(self) -> None:
        """Send away every client of PostgreSQL but this one."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def signal_postgres(self, number: signal.Signals) -> None:
        """Send a signal to PostgreSQL and to every process of it."""
        pids = [self.postgres.pid, *guard._descendants(self.postgres.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        """Close the connections of this object; who started the servers stops them."""
        self._redis.close()

    def _answer(self, event: str) -> dict[str, Any]:
        """Read the proxy's next answer; nobody else reads from it."""
        assert self._proxy is not None
        while True:
            chunk = os.read(self._proxy.streams[0], 65536)
            if not chunk:
                raise RuntimeError(f"the proxy has ended: {self._proxy.complaints.decode(errors='replace')}")
            for message in self._proxy.lines.feed(chunk):
                if message["event"] == event:
                    return message


@contextlib.contextmanager
def started() -> Iterator[Servers]:
    """Start both servers; they go with this process, however it ends."""
    library = find_faketime()
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(contextlib.closing(Clock(library))) if library is not None else None
        # A directory of its own: DEBUG and SAVE need none of the caller's.
        valkey = stack.enter_context(start_valkey(environment=clock.environment if clock is not None else {}))
        postgres = stack.enter_context(start_postgres())
        yield stack.enter_context(contextlib.closing(Servers(valkey, postgres, clock)))
