"""Hold one server for one owner, and leave nothing of either behind.

Run as a file, in a session of its own, by `kcg_cache.embedded.launcher`::

    python -I -S guard.py OWNER_PID BASE_DIRECTORY

It makes a private directory below the base, then obeys requests from its standard input, one JSON object
per line, and answers each with one line. When the owner dies, in whatever way, it kills everything that it
started, removes the directory and the shared memory, and exits. It is a process because nothing inside the
owner survives a SIGKILL of the owner; it is one file of standard library only because `-I -S` starts it in a
few hundredths of a second, whatever the environment says.

What holds when somebody dies:

- The owner dies: the guard's parent changes. That is the only sign which counts. The end of standard
  input is not: a forked worker may hold its other end for hours, and an owner may close it by accident.
- The guard dies: the kernel kills the server (`PR_SET_PDEATHSIG`). The private directory stays, with its
  `flock` released, and the next guard to start removes it.
- The server dies: its children become the guard's (`PR_SET_CHILD_SUBREAPER`), so none can be lost from sight.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

# Every private directory is called so; the lock on it, not the name, says whether it is in use.
PREFIX = "kcg-emb-"
_SUFFIX_LENGTH = 8

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0

# Only where the kernel gives no pidfd (before Linux 5.3, or a strict sandbox) are these waited for in steps.
_OWNER_STEP_SECONDS = 0.5
_CHILD_STEP_SECONDS = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


# --- the private directory ---------------------------------------------------------------------------------


def _lock_directory(path: Path) -> int | None:
    """Return a descriptor that holds the lock on the directory; None when another has it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between open and flock a sweeper may have removed it: a lock on a directory without a name is none.
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def make_directory(base: Path) -> tuple[Path, int]:
    """Make and lock a private directory below the base; return it with the descriptor that holds the lock."""
    while True:
        path = base / (PREFIX + os.urandom(_SUFFIX_LENGTH // 2).hex())
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            lock = _lock_directory(path)
            # None: a sweeper came between the two calls and took the new directory for a stale one.
            if lock is not None:
                return path, lock


def sweep(base: Path) -> None:
    """Remove what killed guards left below the base: directories of our name and user that nobody has locked.

    The servers inherit the lock from their guard, so a directory that is still written to is never taken.
    """
    for path in base.glob(PREFIX + "*"):
        suffix = path.name.removeprefix(PREFIX)
        if len(suffix) != _SUFFIX_LENGTH or not set(suffix) <= set("0123456789abcdef"):
            continue
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.geteuid():
                continue
            lock = _lock_directory(path)
            if lock is not None:
                try:
                    forget_segment(path)
                    shutil.rmtree(path)
                finally:
                    os.close(lock)


# --- shared memory -----------------------------------------------------------------------------------------


def forget_segment(directory: Path) -> None:
    """Remove the System V segment of a killed PostgreSQL, and the file that names it.

    PostgreSQL keeps its data in anonymous memory, which goes with it, but holds one segment of a few bytes
    to find out whether another server uses the directory. A killed server cannot remove it.
    """
    note = directory / "data" / "postmaster.pid"
    try:
        lines = note.read_text(errors="replace").splitlines()
    except OSError:
        return
    with contextlib.suppress(IndexError, ValueError):
        creator = abs(int(lines[0]))  # a server without a postmaster, as under initdb, writes it negative
        key, segment = (int(word) for word in lines[6].split())
        _remove_segments(lambda row: row == (key, segment, creator))
    with contextlib.suppress(OSError):
        # The process numbers in it may soon be somebody else's, and PostgreSQL would refuse to start.
        note.unlink()


def _remove_segments(ours: Callable[[tuple[int, int, int]], bool]) -> None:
    """Remove the segments that nobody uses and that are ours: by key, number and the process that made them."""
    with contextlib.suppress(OSError):
        for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            key, segment, _, _, creator, _, attached = (int(word) for word in row.split()[:7])
            if attached == 0 and ours((key, segment, creator)):
                _libc.shmctl(segment, _IPC_RMID, None)


def _shared_files(pids: list[int]) -> set[Path]:
    """Return the POSIX shared memory of PostgreSQL that these processes have mapped (initdb tries it out)."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                _, mark, name = line.partition("/dev/shm/PostgreSQL.")  # noqa: S108 - compared, not made
                if mark and name.isdigit():
                    found.add(Path(mark + name))
    return found


# --- processes ---------------------------------------------------------------------------------------------


def _descendants(root: int) -> list[int]:
    """Return the process numbers of all children of `root`, and of theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name of the program, in brackets, may itself hold blanks and brackets.
                words = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                children.setdefault(int(words[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def kill_descendants() -> None:
    """Kill every process below this one and wait until none is left; remove their shared memory.

    Until waiting says that there is no child: what a child forked in the meantime becomes our own child, is
    found in the next round, and cannot get away.
    """
    killed: set[int] = set()
    shared: set[Path] = set()
    while True:
        pids = _descendants(os.getpid())
        killed.update(pids)
        shared |= _shared_files(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
    for path in shared:
        with contextlib.suppress(OSError):
            path.unlink()
    _remove_segments(lambda row: row[2] in killed)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


# --- the guard ---------------------------------------------------------------------------------------------


class _Guard:
    """The requests, and the one child process at a time that they are about."""

    def __init__(self, owner: int, directory: Path, lock: int) -> None:
        self._owner = owner
        self._owner_fd = _pidfd(owner)
        self._directory = directory
        self._lock = lock
        self._log = os.open(directory / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._requests_open = True
        self._buffer = b""
        self._child: int | None = None
        self._child_fd: int | None = None
        self._status: int | None = None

    def serve(self) -> None:
        """Obey until asked to quit, or until the owner is gone."""
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "spawn": self._spawn,
            "wait": self._wait,
            "signal": self._signal,
            "end": self._end,
        }
        self._say({"directory": str(self._directory)})
        for request in self._requests():
            if request["do"] == "quit":
                return
            try:
                answer = handlers[request["do"]](request)
            except OSError as failure:
                answer = {"error": str(failure), "stage": "guard"}
            self._say({"id": request["id"], **answer})

    def _say(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the owner closed its end, or died: the loop will see which
            os.write(1, json.dumps(answer).encode() + b"\n")

    def _requests(self) -> Iterator[dict[str, Any]]:
        while self._owner_lives():
            line, end, rest = self._buffer.partition(b"\n")
            if end:
                self._buffer = rest
                yield json.loads(line)
            elif self._sleep(None):
                chunk = os.read(0, 65536)
                self._buffer += chunk
                # No more requests can come, but the server stays for as long as its owner does.
                self._requests_open = bool(chunk)

    def _owner_lives(self) -> bool:
        # A pidfd only wakes us up: it may be missing, or have been opened on a stranger with a reused number.
        return os.getppid() == self._owner

    def _sleep(self, seconds: float | None) -> bool:
        """Sleep until a request, the end of the child or of the owner, or the time; say whether a request."""
        poll = select.poll()
        if self._requests_open:
            poll.register(0, select.POLLIN)
        limits = [seconds]
        watched = [(self._owner_fd, _OWNER_STEP_SECONDS)]
        if self._status is None and self._child is not None:
            watched.append((self._child_fd, _CHILD_STEP_SECONDS))
        for descriptor, step in watched:
            if descriptor is None:
                limits.append(step)
            else:
                poll.register(descriptor, select.POLLIN)
        shortest = min((limit for limit in limits if limit is not None), default=None)
        ready = poll.poll(None if shortest is None else max(0.0, shortest) * 1000)
        self._reap()
        return any(descriptor == 0 for descriptor, _ in ready)

    def _reap(self) -> None:
        """Collect whatever has ended: the child, or an orphan of it that became ours."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._child:
                    self._child_ended(os.waitstatus_to_exitcode(status))

    def _child_ended(self, status: int) -> None:
        self._status = status
        if self._child_fd is not None:
            os.close(self._child_fd)
            self._child_fd = None

    def _spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        self._end(request)
        told, tell = os.pipe()
        guard = os.getpid()
        child = os.fork()
        if child == 0:
            self._become(request, guard, tell)
        os.close(tell)
        with os.fdopen(told, "rb") as pipe:
            failure = pipe.read()  # the pipe closes without a word when the program takes over
        self._child, self._status, self._child_fd = child, None, _pidfd(child)
        return json.loads(failure) if failure else {"pid": child}

    def _become(self, request: dict[str, Any], guard: int, tell: int) -> NoReturn:
        """Turn this fork into the program; on failure tell the reason and exit."""
        stage = "prepare"
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(self._log, 1)
            os.dup2(self._log, 2)
            os.set_inheritable(self._lock, True)
            # An ignored signal stays ignored in the program, which relies on the default.
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            if request["user"] is not None:
                stage = "user"
                uid, gid = request["user"]
                os.setgroups([])
                os.setgid(gid)
                os.setuid(uid)
            stage = "prepare"
            # After the change of user, which clears it. Sent when the thread that forked ends: the only one.
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)
            stage = "directory"
            os.chdir(request["directory"])
            stage = "program"
            os.execve(request["arguments"][0], request["arguments"], request["environment"])  # noqa: S606
        except BaseException as failure:  # noqa: BLE001 - a fork of the guard must never run the guard's code
            os.write(tell, json.dumps({"error": str(failure), "stage": stage}).encode())
        finally:
            os._exit(127)

    def _wait(self, request: dict[str, Any]) -> dict[str, Any]:
        """Wait for the child's end; the next request cuts it short, for its sender waits no more."""
        until = time.monotonic() + request["seconds"]
        self._reap()
        while self._status is None and self._owner_lives():
            left = until - time.monotonic()
            if left <= 0 or self._buffer or self._sleep(left):
                break
        return {"status": self._status}

    def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        self._reap()
        if self._child is not None and self._status is None:
            os.kill(self._child, request["number"])
        return {"status": self._status}

    def _end(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._reap()
        kill_descendants()
        if self._child is not None and self._status is None:
            self._child_ended(-signal.SIGKILL)
        forget_segment(self._directory)
        return {"status": self._status}


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def main(owner: int, base: Path) -> int:
    """Guard until the owner is gone or says quit; return the exit status, 0 when nothing was left behind."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what the owner's thread had blocked is none of ours
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    os.umask(0o077)
    os.chdir("/")
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    sweep(base)
    directory, lock = make_directory(base)
    try:
        _Guard(owner, directory, lock).serve()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()
        forget_segment(directory)
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
