"""The processes of a soak: start them, hear them, and be sure that they end.

Each ends when its standard input does, and the kernel kills it when the process that started it dies, also while it is
stopped (SIGSTOP) and hears nothing. Each has a session of its own: Ctrl-C is for the soak to hear.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kcg_cache.demo import crew

ROOT = Path(__file__).parent.parent.parent
_CHUNK = 65536
_GRACE = 5.0
_PR_SET_PDEATHSIG = 1
_KEPT_COMPLAINTS = 100_000


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; end at once if it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        os._exit(1)


class Member(crew.Member):
    """One process of the crew."""

    package, directory = "tests.soak", ROOT

    def __init__(self, name: str, module: str, told: dict[str, Any], descriptor: int | None) -> None:
        self.module = module
        #: Ended, and its last words heard.
        self.gone = False
        #: Killed or let go on purpose: that it ends is no trouble.
        self.expected_to_end = False
        self.stopped = False
        self.heard_at = time.monotonic()
        super().__init__(name, module, module, {**told, "name": name, "parent": os.getpid()}, descriptor)

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.expected_to_end = True
        self._process.kill()

    def stop(self) -> None:
        """Stop it in mid-work (SIGSTOP)."""
        self.stopped = True
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped one go on."""
        self._process.send_signal(signal.SIGCONT)
        self.stopped = False
        self.heard_at = time.monotonic()

    def end(self, seconds: float) -> None:
        """See it end, in order or killed, and close what there was between us. A stopped one hears nothing."""
        if self.stopped:
            self._process.kill()
        super().end(seconds)


class Crew:
    """All processes of one soak. Leaving the ``with`` block ends them, whatever they do."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._selector = selectors.DefaultSelector()

    def start(
        self,
        name: str,
        module: str,
        told: dict[str, Any],
        descriptor: int | None = None,
        *,
        member_type: type[Member] = Member,
    ) -> Member:
        """Start one more process, tell it what it is, and let it inherit the board."""
        member = member_type(name, module, told, descriptor)
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
                    member.gone = True
                    heard.append((member, {"event": "gone", "status": member.wait(_GRACE)}))
            elif speaks:
                member.heard_at = time.monotonic()
                heard += [(member, message) for message in member.lines.feed(chunk)]
            else:
                member.complaints = (member.complaints + chunk)[-_KEPT_COMPLAINTS:]
        return heard

    def let_go(self, member: Member) -> None:
        """Close what there was with a member that has ended."""
        self.members.remove(member)
        with contextlib.suppress(KeyError):
            self._selector.unregister(member.streams[1])
        member.end(_GRACE)

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
