"""The owner's end of a guard: start it, ask it, be sure that it has gone."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kcg_cache.errors import EmbeddedError

_GUARD = Path(__file__).with_name("guard.py")

# How long the guard itself may take for one answer, beyond what it was asked to wait for. Generous: it is
# met only when the machine stands still.
_PATIENCE_SECONDS = 30.0

_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class User:
    """The user that a server runs as."""

    name: str
    uid: int
    gid: int


class NotStartedError(EmbeddedError):
    """The guard could not even start the program; `stage` says at which step: user, directory or program."""

    def __init__(self, message: str, *, stage: str) -> None:
        super().__init__(message)
        self.stage = stage


class Launcher:
    """One guard process with its private directory, and through it at most one server.

    Works from any thread, but only in the process that made it. Every method raises `EmbeddedError` when the
    guard is gone, or when called in a fork; `close` in a fork does nothing.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise EmbeddedError("sys.executable is empty: an embedded server needs a Python program to guard it.")
        base = Path(tempfile.gettempdir()).absolute()
        self._owner = os.getpid()
        # One question at a time: an answer must find the thread that asked.
        self._lock = threading.Lock()
        self._buffer = b""
        self._noise: list[str] = []
        self._number = 0
        self._closed = False
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own file, with our own interpreter
                [sys.executable, "-I", "-S", str(_GUARD), str(self._owner), str(base)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                cwd="/",
                # A Ctrl-C goes to the whole group of the terminal; when the server stops is the owner's to say.
                start_new_session=True,
            )
        except OSError as failure:
            raise EmbeddedError(f"The guard process of a server did not start: {failure}") from failure
        try:
            self._directory = Path(self._read(None, _PATIENCE_SECONDS)["directory"])
        except BaseException:
            self.close()
            raise

    @property
    def directory(self) -> Path:
        """The private directory, which goes when the guard goes."""
        return self._directory

    @property
    def pid(self) -> int:
        """The guard's process number."""
        return self._process.pid

    @property
    def mine(self) -> bool:
        """Whether this process made the launcher (False in a fork of it)."""
        return os.getpid() == self._owner

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def spawn(
        self,
        arguments: Sequence[str | Path],
        *,
        directory: Path,
        user: User | None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a program in a directory, as a user (None: as this one); return its process number.

        It sees a small environment of fixed language and time zone, with what `environment` adds.
        Raises `NotStartedError`.
        """
        answer = self._ask(
            {
                "do": "spawn",
                "arguments": [str(word) for word in arguments],
                "directory": str(directory),
                "user": None if user is None else [user.uid, user.gid],
                "environment": _environment() | dict(environment or {}),
            }
        )
        if "error" in answer:
            name = Path(arguments[0]).name
            raise NotStartedError(f"Could not start {name}: {answer['error']}", stage=answer["stage"])
        return int(answer["pid"])

    def wait(self, seconds: float) -> int | None:
        """Wait for the program's end; return its exit status (negative: the signal), None while it runs."""
        answer = self._ask({"do": "wait", "seconds": seconds}, seconds)
        return None if answer["status"] is None else int(answer["status"])

    def signal(self, number: int) -> None:
        """Send a signal to the program, if it still runs."""
        self._ask({"do": "signal", "number": int(number)})

    def end(self) -> None:
        """Kill the program and whatever it started; the private directory stays."""
        self._ask({"do": "end"})

    def log_size(self) -> int:
        """Return how many bytes the programs have written so far."""
        return self._log.stat().st_size

    def log_since(self, start: int) -> str:
        """Return what the programs wrote after the first `start` bytes."""
        with self._log.open("rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        """Return the last lines that the programs wrote, for the end of an error message."""
        try:
            lines = self.log_since(0).splitlines()[-_TAIL_LINES:]
        except OSError:
            lines = []
        return "\n".join(["The last of its log:", *(f"  {line}" for line in lines or ["(nothing)"])])

    def close(self) -> None:
        """Kill the server, remove the private directory, wait until both have happened. Repeatable.

        In a fork of the owner it does nothing. Raises `EmbeddedError` when something was left behind.
        """
        if not self.mine:
            # What the parent waits for is not ours to warn about when this copy of the object is dropped.
            self._process.returncode = 0
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._leave()

    def _leave(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has gone before: its exit status says how
            self._write({"do": "quit"})
        try:
            status = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        said = self._process.stdout.read().decode(errors="replace")
        self._process.stdin.close()
        self._process.stdout.close()
        if status != 0:
            raise EmbeddedError(
                f"The guard of an embedded server ended with status {status} before it had cleaned up; the "
                f"next start removes what it left.\n{said}".rstrip()
            )

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _ask(self, request: dict[str, Any], seconds: float = 0.0) -> dict[str, Any]:
        if not self.mine:
            raise EmbeddedError(
                f"This server belongs to process {self._owner}; process {os.getpid()} is a fork of it, and "
                "may only use the server's address."
            )
        with self._lock:
            if self._closed:
                raise EmbeddedError("This server was stopped for good, and its directory removed; start another.")
            self._number += 1
            try:
                self._write({"id": self._number, **request})
            except BrokenPipeError as failure:
                raise self._lost() from failure
            return self._read(self._number, seconds + _PATIENCE_SECONDS)

    def _write(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def _read(self, number: int | None, seconds: float) -> dict[str, Any]:
        """Read the answer with this number; those before it were for questions that were interrupted."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        until = time.monotonic() + seconds
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if end:
                self._buffer = rest
                answer = self._parse(line)
                if answer is not None and answer.get("id") == number:
                    return answer
            elif poll.poll(max(0.0, until - time.monotonic()) * 1000):
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise self._lost()
                self._buffer += chunk
            else:
                raise EmbeddedError(f"The guard process {self.pid} gave no answer for {seconds:.0f} seconds.")

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        # The guard writes nothing else, unless it breaks: then this is the traceback.
        self._noise.append(line.decode(errors="replace"))
        return None

    def _lost(self) -> EmbeddedError:
        said = "\n".join(self._noise)
        return EmbeddedError(
            f"The guard process {self.pid} has ended, and its server with it. Start another server: that "
            f"also removes what was left.\n{said}".rstrip()
        )


def _environment() -> dict[str, str]:
    """Return what a server sees: messages in English, times in UTC, and where programs and libraries are."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath} | kept | {"LC_ALL": "C", "TZ": "UTC"}
