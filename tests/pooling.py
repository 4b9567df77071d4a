"""A pgbouncer before a database of the tests."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from tests.waiting import eventually

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_TRIES = 5


@contextlib.contextmanager
def pgbouncer(dsn: str, mode: str, directory: Path) -> Iterator[str]:
    """Run a pgbouncer before the database, with its files in `directory`, and give its address."""
    with contextlib.ExitStack() as stack:
        for _ in range(_TRIES):
            # Between its choice and its use another may take the port.
            with contextlib.suppress(_NotStartedError):
                address = stack.enter_context(_started(dsn, mode, directory))
                break
        else:
            raise AssertionError(f"pgbouncer did not start, {_TRIES} times")
        yield address


class _NotStartedError(Exception):
    pass


@contextlib.contextmanager
def _started(dsn: str, mode: str, directory: Path) -> Iterator[str]:
    assert PGBOUNCER is not None
    given = parse_dsn(dsn)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory.chmod(0o755)  # whoever it runs as may enter; the password in it is that of a server of the tests
    users = directory / "users.txt"
    users.write_text(f'"{given["user"]}" "{given["password"]}"\n')
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n{given['dbname']} = host={given['host']} port={given['port']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = {mode}\n"
    )
    # It refuses to run as root.
    other: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}
    with subprocess.Popen([PGBOUNCER, "-q", settings], stderr=subprocess.PIPE, **other) as process:
        try:
            address = make_dsn(dsn, host="127.0.0.1", port=port)

            def ready() -> bool:
                if process.poll() is not None:
                    raise _NotStartedError(process.communicate()[1])
                with contextlib.suppress(psycopg2.OperationalError), contextlib.closing(psycopg2.connect(address)):
                    return True
                return False

            eventually(ready)
            yield address
        finally:
            process.terminate()
