"""The command line without a start of Python for every call: one process has imported it and forks for each.

A call is a process of its own, as a started one is: its own environment, directory, streams, signals and exit code,
`sys.argv`, and the whole end of an interpreter. What a fork cannot give is what Python and the modules read while
they start. So a call is forked only when its environment differs from that of the forking process in nothing but
variables that are read later (`READ_LATER`); any other is for `subprocess`, and so are all tests of what happens at
the start, of signals and of what is typed. No module of `kcg_cache` is imported before the fork but `cli.app` and
what that imports: what a command imports when it runs, each call does itself.

The forking process has no thread. It ends when the test process is gone, for then its socket says so.
"""

import contextlib
import functools
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.programs import SOURCE

#: Variables that nothing reads before a command runs: the package's settings, libpq's, and what rich asks a console.
READ_LATER = frozenset({"HOME", "NO_COLOR", "COLUMNS", "NOTIFY_SOCKET"})
READ_LATER_PREFIXES = ("KCG_CACHE_", "PG")

#: What libraries import when they are first used, as far as it is there.
_LIBRARIES = ("typer._adapters", "encodings.idna", "unicodedata", "zoneinfo", "psycopg2.extras")

#: What every call of the command line in the tests has in its environment.
ENVIRONMENT: Mapping[str, str] = {
    "PATH": os.environ.get("PATH", ""),
    "PYTHONPATH": SOURCE,
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
}

#: Of one call's message, in bytes.
_LONGEST = 100_000


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that a fork cannot change any more."""
    return {
        name: value
        for name, value in environment.items()
        if name not in READ_LATER and not name.startswith(READ_LATER_PREFIXES)
    }


class Forked:
    """One call, by the descriptor that tells its end."""

    def __init__(self, told: int) -> None:
        self._told = told
        self.returncode: int | None = None

    def wait(self) -> int:
        """Give its exit code, or the negative number of the signal that ended it, as `subprocess` does."""
        if self.returncode is None:
            with open(self._told, closefd=True) as told:  # noqa: PTH123 - of a descriptor
                self.returncode = os.waitstatus_to_exitcode(int(told.read()))
        return self.returncode


class ForkServer:
    """The forking process, as the tests see it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._fixed = _fixed(environment)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a message is a call
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "tests.forked", str(theirs.fileno())],
                env=environment,
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    @property
    def pid(self) -> int:
        """Its process's id."""
        return self._process.pid

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Tell whether a fork is all the same as a start in this environment."""
        return _fixed(environment) == self._fixed

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], out: int, err: int) -> Forked:
        """Run the command line with these streams, and nothing on stdin."""
        call = json.dumps([list(arguments), dict(environment), str(Path.cwd())]).encode()
        told, tell = os.pipe()
        try:
            sent = socket.send_fds(self._socket, [call], [out, err, tell])
            assert sent == len(call) <= _LONGEST
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(tell)
        return Forked(told)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, bytes, bytes]:
        """Run the command line with both streams captured; give its exit code and what it wrote."""
        (out, out_of_it), (err, err_of_it) = os.pipe(), os.pipe()
        try:
            forked = self.start(arguments, environment, out_of_it, err_of_it)
        finally:
            os.close(out_of_it)
            os.close(err_of_it)
        said = {out: bytearray(), err: bytearray()}
        with selectors.DefaultSelector() as selector, os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0):
            for stream in said:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    part = os.read(key.fd, 65536)
                    said[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
        return forked.wait(), bytes(said[out]), bytes(said[err])

    def close(self) -> None:
        """End the forking process."""
        self._socket.close()
        assert self._process.wait() == 0


@functools.cache
def server() -> ForkServer:
    """Give the one forking process of this test run."""
    return ForkServer(ENVIRONMENT)


def close() -> None:
    """End it, if there is one."""
    if server.cache_info().currsize:
        server().close()
        server.cache_clear()


# --- the forking process ----------------------------------------------------------------------------------------------


def _serve(connection: socket.socket) -> tuple[list[str], dict[str, str], str, list[int]]:
    """Fork for every call and tell each one's end; return in the child. Leave when the test process is gone."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    interrupt = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the calls' business, and the end the test process's
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    tell_of: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake in ready:
                os.read(wake, 65536)
                _tell_ends(tell_of)
            if connection.fileno() not in ready:
                continue
            call, streams, *_ = socket.recv_fds(connection, _LONGEST, 3)
            if not call:
                connection.close()
                sys.exit(0)
            arguments, environment, directory = json.loads(call)
            assert threading.active_count() == 1
            pid = os.fork()
            if pid == 0:
                break
            tell_of[pid] = streams.pop()
            for stream in streams:
                os.close(stream)
        for fd in (wake, woken, *tell_of.values()):
            os.close(fd)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, interrupt)
    return arguments, environment, directory, streams


def _tell_ends(tell_of: dict[int, int]) -> None:
    while tell_of:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        tell = tell_of.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # a test that has failed does not ask any more
            os.write(tell, str(status).encode())
        os.close(tell)


def _become(environment: Mapping[str, str], directory: str, streams: Sequence[int]) -> None:
    """Give this process what a new one has of its own."""
    for stream, fd in zip(streams, (1, 2), strict=False):
        os.dup2(stream, fd)
    for stream in streams:
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout)  # type: ignore[misc]  # as the interpreter itself does
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr)  # type: ignore[misc]  # the same


def _stream(fd: int, before: Any) -> Any:
    """Open a stream as the interpreter does at its start."""
    raw = open(fd, "wb", closefd=False)  # noqa: SIM115 - of a descriptor, for as long as the process lives
    lines = fd == 2 or os.isatty(fd)
    return io.TextIOWrapper(raw, before.encoding, before.errors, newline="\n", line_buffering=lines)


def _main() -> NoReturn:
    connection = socket.socket(fileno=int(sys.argv[1]))
    importlib.import_module("kcg_cache.cli.app")
    for library in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # what a collection does not touch stays one memory for all
    arguments, environment, directory, streams = _serve(connection)
    connection.close()
    os.close(streams.pop())  # who tells of this call is the forking process
    _become(environment, directory, streams)
    sys.argv = ["-m", *arguments]
    runpy.run_module("kcg_cache", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    _main()
