"""A real Valkey (or Redis) server for the demo and the tests."""

import re
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from kcg_cache.embedded.binaries import find_valkey
from kcg_cache.embedded.launcher import Launcher
from kcg_cache.embedded.server import EmbeddedServer, ask_unix_socket, checked_socket_path
from kcg_cache.errors import ConfigurationError

_DEADLINE_SECONDS = 30.0

# A server with a directory of the caller's may have data to save before it goes.
_SAVE_SECONDS = 10.0

# What the launcher must know of the server is not the caller's to change.
_OURS = {
    "--bind",
    "--daemonize",
    "--dir",
    "--logfile",
    "--port",
    "--protected-mode",
    "--requirepass",
    "--supervised",
    "--unixsocket",
    "--unixsocketperm",
}


class EmbeddedValkey(EmbeddedServer):
    """A running Valkey server; made by `start_valkey`."""

    def __init__(
        self,
        launcher: Launcher,
        program: Path,
        directory: Path | None,
        options: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(launcher, secrets.token_hex(16))
        self._program = program
        self._options = tuple(options)
        self._environment = dict(environment)
        self._keeps_data = directory is not None
        self._directory = launcher.directory / "data" if directory is None else directory.absolute()
        self._socket = launcher.directory / "valkey.sock"
        self._version = ""

    @property
    def url(self) -> str:
        """The address as a Redis URL, with the password, of database 0."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"

    @property
    def directory(self) -> Path:
        """Where the server keeps its data files."""
        return self._directory

    @property
    def unix_socket(self) -> Path:
        """The server's Unix socket; it asks for the same password."""
        return self._socket

    @property
    def version(self) -> str:
        """The server's version, such as "9.1.2"."""
        return self._version

    def pause(self) -> None:
        """Stop the server in mid-work (SIGSTOP): connections stay open, and nobody answers."""
        self._launcher.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT); harmless when it is not paused."""
        self._launcher.signal(signal.SIGCONT)

    @property
    def _default_deadline(self) -> float:
        return _DEADLINE_SECONDS

    def _spawn(self, port: int) -> int:
        checked_socket_path(self._socket)
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": self.host,
            "port": str(port),
            "requirepass": self.password,
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory),
            "daemonize": "no",
            "logfile": "",
            # Nothing is saved unless asked for, as in a cache.
            "save": "",
            "appendonly": "no",
        }
        # In a file: arguments, and with them the password, can be read by every user of the machine.
        file = self._launcher.directory / "valkey.conf"
        file.touch(mode=0o600)
        file.write_text("".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()))
        return self._launcher.spawn(
            [self._program, file, *self._options],
            directory=self._directory,
            user=None,
            environment=self._environment,
        )

    def _is_ready(self, port: int) -> bool:
        # Over a socket in a directory that only this user may enter: no stranger can answer.
        question = f"AUTH {self.password}\r\nPING\r\nINFO server\r\nQUIT\r\n"
        answer = ask_unix_socket(self._socket, question.encode()).decode(errors="replace")
        if not answer.startswith("+OK\r\n+PONG\r\n"):
            return False
        facts = dict(re.findall(r"^(\w+):(.*?)\r$", answer, re.MULTILINE))
        self._version = facts.get("valkey_version") or facts.get("redis_version", "")
        return facts.get("process_id") == str(self.pid) and facts.get("tcp_port") == str(port)

    def _end_in_order(self, until: float) -> None:
        self.resume()
        self._launcher.signal(signal.SIGTERM)
        self._launcher.wait(max(0.0, until - time.monotonic()))
        self._launcher.end()

    def _say_goodbye(self) -> None:
        if self._keeps_data:
            self._end_in_order(time.monotonic() + _SAVE_SECONDS)


def start_valkey(
    *,
    directory: Path | str | None = None,
    options: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
    port: int | None = None,
    deadline: float = _DEADLINE_SECONDS,
) -> EmbeddedValkey:
    """Start a private Valkey server (or Redis, when that is what the machine has) and return it ready.

    It listens on the loopback only, asks for a random password, saves nothing unless told to, and goes with
    the process that started it, however that ends.

    `directory`: where its data files lie; made if missing, and never removed. By default a private one, which
    goes with the server. `options`: as on the server's command line, e.g. `("--maxmemory", "100mb")`. `environment`:
    variables that the server sees beside the few that it is given, e.g. to preload a library. `port`: by default one
    that is free. `deadline`: seconds.

    Raises `ConfigurationError` for an option that is the launcher's to set, and `EmbeddedError` when no
    server program is found, the port is taken, or the server is not ready in time.
    """
    # "--port 1" may be one argument or two.
    taken = sorted(_OURS.intersection(word for option in options for word in option.lower().split(maxsplit=1)[:1]))
    if taken:
        raise ConfigurationError(f"start_valkey sets {', '.join(taken)} itself; leave it out of options=.")
    until = time.monotonic() + deadline
    program = find_valkey()
    place = None if directory is None else Path(directory)
    server = EmbeddedValkey(Launcher(), program, place, options, environment)
    # Private, for to users a server is always a started one.
    return server._start(port, until)  # noqa: SLF001


def _quoted(value: str) -> str:
    """Return a value as the configuration file wants it, whatever is in a path."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
