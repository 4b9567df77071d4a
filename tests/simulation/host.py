"""The doors to a simulated host: `System` with the world's time, chance, locks and threads."""

import threading
import zlib
from collections.abc import Callable
from types import TracebackType

from kcg_cache.system import System
from tests.simulation.world import Process, Task, World


class SimulatedLock:
    """A lock that nobody waits for in real time; like the real one it is unfair, and so is chance."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = False
        self._waiters: list[tuple[Task, int]] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - threading's own
        """Take it, as `threading.Lock` does; the pause before is where another thread gets in between."""
        world = self._world
        until = world.now + timeout
        if blocking:
            world.door()
        while self._held:
            left = until - world.now
            if not blocking or (timeout >= 0 and left <= 0):
                return False
            assert world.current is not None, "the hub would wait for ever"
            waiter = world.current, world.current.waiting
            self._waiters.append(waiter)
            try:
                world.wait(None if timeout < 0 else left)
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        self._held = True
        return True

    def release(self) -> None:
        """Give it back; who is first then takes it."""
        if not self._held:
            raise RuntimeError("release of a lock that nobody has")
        self._held = False
        for task, waiting in self._waiters:
            self._world.after(self._world.jitter(), lambda task=task, waiting=waiting: task.wake(waiting))  # type: ignore[misc]
        self._waiters.clear()

    def locked(self) -> bool:
        """Tell whether somebody has it."""
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class SimulatedHost(System):
    """A host whose clock began somewhere and runs a little fast or slow, and one process on it."""

    def __init__(self, world: World, process: Process, *, rate: float) -> None:
        self._world = world
        self._process = process
        self._began = world.random.uniform(0, 1e5)
        self.rate = rate
        #: How often a reading of the clock is followed by a pause: a thread that is descheduled with an old time.
        self.preempted = 0.05
        self.now = self._now

    def read_clock(self) -> float:
        """Read the clock from outside: nobody else gets in between."""
        return self._began + self._world.now * self.rate

    def _now(self) -> float:
        time = self.read_clock()
        if self._world.current is not None:
            self._process.check()
            if self._world.chance(self.preempted):
                self._world.door()
        return time

    def stopwatch(self) -> float:
        """Read the clock, and draw nothing: what decides nothing changes no run."""
        return self.read_clock()

    def sleep(self, seconds: float) -> None:
        """Let time pass on this host's clock."""
        self._process.check()
        self._world.sleep(max(0.0, seconds) / self.rate + self._world.jitter())

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event, in small steps: it is only ever set by a task of this process."""
        until = self._world.now + seconds / self.rate
        while not event.is_set() and self._world.now < until:
            self._world.wait(min(until - self._world.now, 0.05 + self._world.jitter()))
        return event.is_set()

    def lock(self) -> SimulatedLock:
        """Make a lock of the world's."""
        return SimulatedLock(self._world)

    def start(self, work: Callable[[], None], name: str) -> None:
        """Start a thread of the process's."""
        self._process.check()
        self._world.spawn(f"{self._process.name} {name.removeprefix('kcg_cache-')}", work, self._process)

    def token(self) -> str:
        """Draw a token."""
        return f"{self._world.random.getrandbits(128):032x}"

    def reader(self) -> str:
        """Name the cache by its process, and draw nothing: what decides nothing changes no run."""
        return f"{zlib.crc32(self._process.name.encode()):016x}"

    def program(self) -> str:
        """Name the same program everywhere."""
        return "simulated"

    def user(self) -> str:
        """Name nobody in particular."""
        return "simulated"

    def host(self) -> str:
        """Name the process instead: each is on a host of its own."""
        return self._process.name

    def pid(self) -> int:
        """Give any number."""
        return 1
