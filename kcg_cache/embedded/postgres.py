"""A real PostgreSQL server, and a streaming replica of one, for the demo and the tests."""

import os
import pwd
import secrets
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from kcg_cache.embedded.binaries import PostgresPrograms, find_postgres
from kcg_cache.embedded.launcher import Launcher, NotStartedError, User
from kcg_cache.embedded.server import EmbeddedServer, ask_unix_socket, checked_socket_path
from kcg_cache.errors import ConfigurationError, EmbeddedError

_DEADLINE_SECONDS = 60.0

_SUPERUSER = "postgres"

# What nobody in particular has on most systems, should its user `nobody` have no entry.
_NOBODY_ID = 65534

_PROTOCOL_3 = 196608

# The launcher must know these, so they are not the caller's to change.
_OURS = {"config_file", "data_directory", "listen_addresses", "port", "unix_socket_directories"}

# Safe as long as the machine does not crash: what a killed server has written is in the kernel's hands.
_SETTINGS = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "300",
        "shared_buffers": "32MB",
        "max_wal_size": "256MB",
        # Plans and timings depend on what a test does, not on what runs beside it.
        "autovacuum": "off",
        # Ready for a replica that starts late or falls behind.
        "wal_level": "replica",
        "max_wal_senders": "10",
        "wal_keep_size": "128MB",
        "wal_retrieve_retry_interval": "200ms",
        # All of it goes with the processes and the directory; nothing under /dev/shm outlives a kill.
        "shared_memory_type": "mmap",
        "dynamic_shared_memory_type": "mmap",
        # The configuration that initdb writes, and its guesses about the machine, are not used.
        "default_text_search_config": "pg_catalog.english",
        "log_checkpoints": "off",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
)


class EmbeddedPostgres(EmbeddedServer):
    """A running PostgreSQL server; made by `start_postgres` and `start_replica`."""

    def __init__(self, launcher: Launcher, password: str, options: Mapping[str, str]) -> None:
        super().__init__(launcher, password)
        self._options = dict(options)
        self._user = _server_user()
        self._sockets = launcher.directory / "run"
        self._programs: PostgresPrograms | None = None
        self._version = ""

    @property
    def user(self) -> str:
        """The name of the superuser that the password belongs to."""
        return _SUPERUSER

    @property
    def dsn(self) -> str:
        """The address as libpq keywords, with the password, of the database `postgres`."""
        return self.dsn_for("postgres")

    def dsn_for(self, dbname: str) -> str:
        """Return the address of another database of this server, which need not exist yet."""
        quoted = dbname.replace("\\", "\\\\").replace("'", "\\'")
        return f"host={self.host} port={self.port} user={self.user} password={self.password} dbname='{quoted}'"

    @property
    def options(self) -> Mapping[str, str]:
        """The settings that the caller asked for."""
        return MappingProxyType(self._options)

    @property
    def directory(self) -> Path:
        """The data directory."""
        return self._launcher.directory / "data"

    @property
    def version(self) -> str:
        """The server's version, such as "18.1"."""
        return self._version

    @property
    def _default_deadline(self) -> float:
        return _DEADLINE_SECONDS

    # The data directory, made in one of two ways before the server starts.

    def _make_cluster(self, until: float) -> None:
        """Make a new, empty cluster."""
        programs = self._prepare(until)
        password_file = self._sockets / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self._give(password_file)
        self._run(
            [
                programs.initdb,
                *("-D", self.directory, "-U", self.user, f"--pwfile={password_file}", "-A", "scram-sha-256"),
                # A locale that every system has.
                *("--locale=C", "--encoding=UTF8", "--no-sync"),
            ],
            until,
        )
        password_file.unlink()

    def _copy_cluster(self, primary: "EmbeddedPostgres", until: float) -> None:
        """Copy a running cluster, and note in the copy where to stream from."""
        programs = self._prepare(until)
        if not os.access(programs.pg_basebackup, os.X_OK):
            raise EmbeddedError(f"A replica needs pg_basebackup, and there is none in {programs.directory}.")
        self._run(
            [
                programs.pg_basebackup,
                *("-D", self.directory, "-d", f"host={primary.host} port={primary.port} user={primary.user}"),
                *(
                    "--write-recovery-conf",
                    "--wal-method=stream",
                    "--checkpoint=fast",
                    "--no-sync",
                    "--no-password",
                ),
            ],
            until,
            # Not an argument: those can be read by every user of the machine.
            environment={"PGPASSWORD": primary.password},
        )

    def _prepare(self, until: float) -> PostgresPrograms:
        """Make the directories, and find programs that the server's user can run."""
        if self._user is not None:
            # To be passed through, not to be read: what the server owns lies below.
            self._launcher.directory.chmod(0o711)
        for directory in (self.directory, self._sockets):
            directory.mkdir(mode=0o700)
            self._give(directory)
        programs = find_postgres()
        try:
            version = self._run([programs.postgres, "--version"], until)
        except NotStartedError as failure:
            programs = self._within_reach(programs, failure)
            version = self._run([programs.postgres, "--version"], until)
        self._version = version.split()[2]
        self._programs = programs
        return programs

    def _within_reach(self, programs: PostgresPrograms, failure: NotStartedError) -> PostgresPrograms:
        """Return programs that the server's user can run, when it cannot run these."""
        if self._user is None:
            raise failure
        if failure.stage == "directory":
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and the user {self._user.name} cannot enter "
                f"{self._sockets}. Set TMPDIR to a directory that everybody may enter, such as /tmp."
            ) from failure
        if failure.stage == "program" and programs.wheel is not None:
            # A virtual environment below /root, most likely.
            return programs.copy_to(self._launcher.directory / "pg")
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and running {programs.postgres} as {self._user.name} failed: "
            f"{failure}. Run this as an ordinary user."
        ) from failure

    def _give(self, path: Path) -> None:
        if self._user is None:
            return
        try:
            os.chown(path, self._user.uid, self._user.gid, follow_symlinks=False)
        except OSError as failure:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and this root may not give files to {self._user.name} ({failure}), "
                "as in a namespace of only one user. Run this as an ordinary user."
            ) from failure

    def _run(
        self,
        arguments: Sequence[str | Path],
        until: float,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run a program to its end as the server's user; return what it wrote."""
        mark = self._launcher.log_size()
        self._launcher.spawn(arguments, directory=self._sockets, user=self._user, environment=environment)
        status = self._launcher.wait(max(0.0, until - time.monotonic()))
        if status == 0:
            return self._launcher.log_since(mark)
        self._launcher.end()
        how = "was not done in time" if status is None else f"failed with status {status}"
        raise EmbeddedError(f"{Path(arguments[0]).name} {how}.\n{self._launcher.log_tail()}")

    # The server.

    def _spawn(self, port: int) -> int:
        assert self._programs is not None
        checked_socket_path(self._socket(port))
        settings = {
            **_SETTINGS,
            **self._options,
            "listen_addresses": self.host,
            "port": str(port),
            "unix_socket_directories": _list_entry(self._sockets),
        }
        # Outside of the data directory: a replica's copy of that must not bring the primary's port along.
        file = self._launcher.directory / "postgresql.conf"
        file.write_text("".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items()))
        file.chmod(0o644)
        return self._launcher.spawn(
            [self._programs.postgres, "-D", self.directory, "-c", f"config_file={file}"],
            directory=self.directory,
            user=self._user,
        )

    def _is_ready(self, port: int) -> bool:
        # Over a socket in a directory that only the server's user may enter: no stranger can answer. A server
        # that takes connections asks for the password ("R"); one that does not, yet, says an error ("E").
        body = struct.pack("!i", _PROTOCOL_3) + f"user\0{self.user}\0database\0postgres\0\0".encode()
        question = struct.pack("!i", len(body) + 4) + body
        return ask_unix_socket(self._socket(port), question, enough=1).startswith(b"R")

    def _end_in_order(self, until: float) -> None:
        self._launcher.signal(signal.SIGINT)  # PostgreSQL's "fast": clients are sent away, nothing is lost
        self._launcher.wait(max(0.0, until - time.monotonic()))
        self._launcher.end()

    def _socket(self, port: int) -> Path:
        return self._sockets / f".s.PGSQL.{port}"


def start_postgres(
    *,
    options: Mapping[str, str] = MappingProxyType({}),
    port: int | None = None,
    deadline: float = _DEADLINE_SECONDS,
) -> EmbeddedPostgres:
    """Start a private, empty PostgreSQL server and return it ready.

    It listens on the loopback only, asks for a random password, trades safety in a crash of the machine for
    speed, and goes with the process that started it, however that ends, together with its data. When that
    process is root's, the server runs as `nobody`.

    `options`: settings, as in postgresql.conf, on top of those for speed. `port`: by default one that is
    free. `deadline`: seconds for all of it.

    Raises `ConfigurationError` for a setting that is the launcher's to make, and `EmbeddedError` when no
    server program is found, the port is taken, or the server is not ready in time.
    """
    _check(options)
    until = time.monotonic() + deadline
    server = EmbeddedPostgres(Launcher(), secrets.token_hex(16), options)
    # Private, for to users a server is always a started one.
    return server._start(port, until, server._make_cluster)  # noqa: SLF001


def start_replica(
    primary: EmbeddedPostgres,
    *,
    options: Mapping[str, str] = MappingProxyType({}),
    port: int | None = None,
    deadline: float = _DEADLINE_SECONDS,
) -> EmbeddedPostgres:
    """Start a hot standby that streams from a running server and return it ready for queries.

    User, password, and the settings that `options` does not name are the primary's. It is a server of its
    own: it outlives the primary, follows it again after a restart, and is to be stopped by itself.

    `options`, `port`, `deadline` and errors: as for `start_postgres`.
    """
    _check(options)
    until = time.monotonic() + deadline
    server = EmbeddedPostgres(Launcher(), primary.password, {**primary.options, **options})
    # Private, for to users a server is always a started one.
    return server._start(port, until, partial(server._copy_cluster, primary))  # noqa: SLF001


def _check(options: Mapping[str, str]) -> None:
    taken = sorted(_OURS.intersection(name.lower() for name in options))
    if taken:
        raise ConfigurationError(f"An embedded PostgreSQL sets {', '.join(taken)} itself; leave it out of options=.")


def _server_user() -> User | None:
    """Return whom the server runs as: PostgreSQL refuses to be root. None: whoever runs this."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return User("nobody", _NOBODY_ID, _NOBODY_ID)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _quoted(value: str) -> str:
    """Return a value as postgresql.conf wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _list_entry(path: Path) -> str:
    """Return a path as one entry of a list of them: a comma in it would begin the next."""
    return '"' + str(path).replace('"', '""') + '"'
