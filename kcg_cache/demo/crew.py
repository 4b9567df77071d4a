"""The processes of a demo: start them, hear them, and be sure that they end.

Each ends when its standard input does, and so also when this process is killed. Each has a session of its own: Ctrl-C
is for the play to hear, which then lets them end.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from kcg_cache.demo.wire import Lines

_CHUNK = 65536
#: Seconds that a process whose standard input has ended is given before it is killed.
_GRACE = 5.0
_KEPT_NOTES = 12


class Member:
    """One process of the crew."""

    #: Where its module is, and where to find that; None for wherever this process finds it.
    package: ClassVar[str] = "kcg_cache.demo"
    directory: ClassVar[Path | None] = None

    def __init__(self, name: str, kind: str, module: str, told: dict[str, Any], descriptor: int | None) -> None:
        self.name = name
        self.kind = kind
        self._process = subprocess.Popen(  # noqa: S603 - our own module, with our own interpreter
            [sys.executable, "-m", f"{self.package}.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=self.directory,
            pass_fds=() if descriptor is None else (descriptor,),
            start_new_session=True,
        )
        self.lines = Lines()
        #: What it wrote to standard error.
        self.complaints = b""
        self.exit_code: int | None = None
        self.tell(**told, kind=kind, board=descriptor)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def streams(self) -> tuple[int, int]:
        """The descriptors of what it says and of what went wrong."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout.fileno(), self._process.stderr.fileno()

    def tell(self, **order: Any) -> None:
        """Tell it something; one that has ended hears nothing, and is found out by its silence."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def dismiss(self) -> None:
        """End its standard input, which ends the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; give its exit status, None when it goes on."""
        try:
            self.exit_code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return self.exit_code

    def notes(self) -> list[str]:
        """Give the lines that it wrote to standard error, each with its name, the last ones of many."""
        lines = self.complaints.decode(errors="replace").splitlines()
        return [f"{self.name}: {line}" for line in lines[-_KEPT_NOTES:]]

    def last_words(self) -> str:
        """Give the last line that a process which has ended wrote to standard error."""
        if self.exit_code is not None:
            while chunk := os.read(self.streams[1], _CHUNK):
                self.complaints += chunk
        return (self.complaints.decode(errors="replace").splitlines() or [""])[-1]

    def end(self, seconds: float) -> None:
        """See it end, in order or killed, and close what there was between us."""
        self.dismiss()
        if self.wait(seconds) is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


class Crew:
    """All processes of one demo. Leaving the ``with`` block ends them, whatever they do."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._selector = selectors.DefaultSelector()

    def start(self, name: str, kind: str, module: str, told: dict[str, Any], descriptor: int) -> Member:
        """Start one more process, tell it what it is, and let it inherit the board."""
        member = Member(name, kind, module, told, descriptor)
        self.members.append(member)
        out, errors = member.streams
        self._selector.register(out, selectors.EVENT_READ, (member, True))
        self._selector.register(errors, selectors.EVENT_READ, (member, False))
        return member

    def listen(self, seconds: float) -> list[tuple[Member, dict[str, Any]]]:
        """Wait for something to be said, at most so long; give what was. A process that has ended says "gone"."""
        heard: list[tuple[Member, dict[str, Any]]] = []
        for key, _ in self._selector.select(max(0.0, seconds)):
            member, speaks = key.data
            chunk = os.read(key.fd, _CHUNK)
            if not chunk:
                self._selector.unregister(key.fd)
                if speaks:
                    heard.append(
                        (member, {"event": "gone", "status": member.wait(_GRACE), "said": member.last_words()})
                    )
            elif speaks:
                heard += [(member, message) for message in member.lines.feed(chunk)]
            else:
                member.complaints += chunk
        return heard

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.dismiss()
        until = time.monotonic() + _GRACE
        for member in self.members:
            member.end(max(0.0, until - time.monotonic()))
        self._selector.close()
