"""Where the pictures are taken: real servers, sample data, and workers on what look like several hosts."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg2.extensions import parse_dsn

from kcg_cache import postgres, queries
from kcg_cache.embedded import start_postgres, start_valkey

COLUMNS = 118
_ROOT = Path(__file__).resolve().parents[2]
#: A host of one's own name for one process: what runs here runs in a UTS namespace, which only root may make.
_ON_HOST = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


class DSN:
    """The database that a worker reads, by its environment."""

    VARIABLE = "SCREENS_DSN"

    @classmethod
    def get(cls) -> str:
        """Give it."""
        return os.environ[cls.VARIABLE]


class StageError(Exception):
    """The pictures cannot be taken; the message says why."""


@dataclass
class Stage:
    """The servers, and whatever runs on them."""

    environment: Mapping[str, str]
    dsn: str
    redis: str
    workers: list[Any] = field(default_factory=list)

    def worker(self, host: str, application: str) -> Any:
        """Start one more worker."""
        process = self.start("-m", "tests.screens.worker", host=host, application=application)
        self.workers.append(process)
        return process

    def start(self, *arguments: str, host: str, application: str = "", **streams: Any) -> Any:
        """Start Python with these arguments on `host`."""
        environment = {**self.environment, **({"KCG_CACHE_APPLICATION": application} if application else {})}
        return subprocess.Popen(
            [*_ON_HOST, host, sys.executable, *arguments],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            **streams,
        )

    def change(self, sql: str) -> None:
        """Change rows as psql would: nobody is told but by the triggers, where they are installed."""
        with postgres.connect(self.dsn) as connection:
            postgres.execute(connection, sql)
            connection.commit()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run one command with its standard output on a terminal; give its exit code and all that it wrote."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
        try:
            process = self.start("-m", "kcg_cache", *arguments, host="ops-1", stdout=theirs, stderr=subprocess.PIPE)
        finally:
            os.close(theirs)
        said: list[bytes] = []
        aside = threading.Thread(target=lambda: said.append(process.stderr.read()))
        aside.start()
        shown = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
        code = process.wait()
        aside.join()
        return code, (shown + said[0]).decode().replace("\r\n", "\n")


def _libpq(dsn: str) -> dict[str, str]:
    """Give a connection string as libpq's environment, so that no command on a picture has to name it."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[key]: str(value) for key, value in parse_dsn(dsn).items() if key in names}


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux's way to say that the other side of a terminal is closed
        return b""


@contextlib.contextmanager
def opened() -> Iterator[Stage]:
    """Start everything; end it, whatever happens. Raises `StageError` without the right to name hosts."""
    if os.geteuid() != 0:
        raise StageError("the pictures show several hosts, in namespaces that only root may make: run this as root")
    with start_valkey() as valkey, start_postgres() as server:
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "LOGNAME": "jimin",
            "PYTHONPATH": str(_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "KCG_CACHE_REDIS_URL": valkey.url,
            DSN.VARIABLE: server.dsn,
            **_libpq(server.dsn),
        }
        with postgres.connect(server.dsn) as connection:
            for script in ("schema", "sample_data"):
                postgres.execute(connection, queries.load(script))
            connection.commit()
        stage = Stage(environment, server.dsn, valkey.url)
        try:
            yield stage
        finally:
            for process in stage.workers:
                process.kill()
                process.wait()
