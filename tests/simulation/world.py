"""Virtual time and the tasks that live in it: who goes on, and when, is drawn from one seed.

A task is a greenlet. It runs until it comes to a door (a clock, a lock, a request, a sleep), where it tells when it
wants to go on; the world then runs whatever comes first. So one seed is one schedule, to the last step.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any

import greenlet

#: What `World.wait` gives when the time was up.
TIMED_OUT: Any = object()


class ProcessKilled(BaseException):
    """This task's process is dead: nothing that it still does reaches anybody."""


class StuckError(AssertionError):
    """The simulation did not come to its end."""


class Process:
    """What can be killed and paused as a whole."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.dead = False
        self.paused_until = 0.0
        #: How much of the time so far it was paused.
        self.paused_for = 0.0
        self.tasks: list[Task] = []

    def check(self) -> None:
        """Raise `ProcessKilled` in a dead process: its doors are shut."""
        if self.dead:
            raise ProcessKilled

    def pause(self, seconds: float) -> None:
        """Stop every task of it (SIGSTOP, a suspended host) for so long; its clock goes on."""
        until = max(self.paused_until, self.world.now + seconds)
        self.paused_for += until - max(self.paused_until, self.world.now)
        self.paused_until = until

    def kill(self) -> None:
        """End it as SIGKILL does. Its tasks unwind, and find every door shut."""
        self.dead = True
        for task in self.tasks:
            task.end()
        self.tasks.clear()


class Task:
    """One thread of control."""

    def __init__(self, world: "World", name: str, work: Callable[[], None], process: Process | None) -> None:
        self.world = world
        self.name = name
        self.process = process
        self.over = False
        self._work = work
        #: Which wait it is in: a wake-up for an earlier one comes too late.
        self.waiting = 0
        #: Requests that it has sent.
        self.requests = 0
        #: Called if it is killed before it began.
        self.unstarted: Callable[[], None] = lambda: None
        self.greenlet = greenlet.greenlet(self._run, world.hub)
        if process is not None:
            process.tasks.append(self)

    def _run(self, _: Any = None) -> None:
        try:
            if self.process is not None:
                self.process.check()
            self._work()
        except ProcessKilled:
            pass
        finally:
            self.over = True

    def wake(self, waiting: int, value: Any = None) -> None:
        """Let it go on, from the hub, if it is still in that wait; later if its process is paused."""
        if self.over or waiting != self.waiting:
            return
        process = self.process
        if process is not None and process.paused_until > self.world.now:
            self.world.after(
                process.paused_until - self.world.now + self.world.jitter(), lambda: self.wake(waiting, value)
            )
            return
        self.waiting += 1
        self._go(lambda: self.greenlet.switch(value))

    def end(self) -> None:
        """Unwind it, from the hub."""
        if self.greenlet:
            self.waiting += 1
            self._go(lambda: self.greenlet.throw(ProcessKilled))
        elif not self.over:
            self.unstarted()
        self.over = True

    def _go(self, switch: Callable[[], object]) -> None:
        before, self.world.current = self.world.current, self
        try:
            switch()
        finally:
            self.world.current = before


class World:
    """One run: its clock, its chance, its tasks and its schedule."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.random = random.Random(seed)  # noqa: S311 - chance that can be repeated is the point
        self.now = 0.0
        self.hub = greenlet.getcurrent()
        #: The task that runs now; None in the hub.
        self.current: Task | None = None
        self.steps = 0
        self.trace: list[str] | None = [] if trace else None
        #: What it broke: the first one counts, the others may follow from it.
        self.violations: list[str] = []
        #: The longest of a usual pause at a door, and how often one is much longer.
        self.pace = 0.0005
        self.hiccups = 0.01
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # --- events ---------------------------------------------------------------------------------------------------

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have `action` run in the hub, so many seconds from now."""
        self._number += 1
        heapq.heappush(self._events, (self.now + max(0.0, seconds), self._number, action))

    def run(self, *, until: Callable[[], bool], most_steps: int = 200_000, most_seconds: float = 3600.0) -> None:
        """Run events in the order of their times until `until` holds; raise `StuckError` if it never does."""
        while not until():
            self.steps += 1
            if not self._events or self.steps > most_steps or self.now > most_seconds:
                raise StuckError(f"stuck at {self.now:.3f} s after {self.steps} steps")
            at, _, action = heapq.heappop(self._events)
            self.now = max(self.now, at)
            action()

    # --- chance ---------------------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        """Tell whether something happens."""
        return self.random.random() < probability

    def jitter(self) -> float:
        """Draw a pause at a door: mostly short, now and then a scheduler's, a collector's or a page fault's."""
        draw = self.random.random()
        if draw < self.hiccups:
            return self.random.choice((0.01, 0.1, 0.4, 1.0)) * self.random.random() * 2
        return self.pace * self.random.random()

    def between(self, low: float, high: float) -> float:
        """Draw a number, small ones as likely as large ones on a logarithmic scale."""
        return float(low * (high / low) ** self.random.random())

    # --- tasks ----------------------------------------------------------------------------------------------------

    def spawn(self, name: str, work: Callable[[], None], process: Process | None = None) -> Task:
        """Start a task soon."""
        task = Task(self, name, work, process)
        waiting = task.waiting
        self.after(self.jitter(), lambda: task.wake(waiting))
        return task

    def wait(self, seconds: float | None) -> Any:
        """Wait in a task until something wakes it; `TIMED_OUT` after so many seconds (None: only then)."""
        task = self.current
        assert task is not None
        if seconds is not None:
            waiting = task.waiting
            self.after(seconds, lambda: task.wake(waiting, TIMED_OUT))
        value = self.hub.switch()
        if task.process is not None:
            task.process.check()
        return value

    def sleep(self, seconds: float) -> None:
        """Let so much time pass in a task; in the hub, which prepares and looks, no time passes."""
        if self.current is not None:
            self.wait(seconds)

    def door(self) -> None:
        """Let others go on, for as long as a pause may take."""
        self.sleep(self.jitter())

    # --- what happened --------------------------------------------------------------------------------------------

    def note(self, what: Callable[[], str]) -> None:
        """Write a line of the schedule, if anybody wants it."""
        if self.trace is not None:
            who = self.current.name if self.current is not None else "-"
            self.trace.append(f"{self.now:12.6f}  {who:14}  {what()}")

    def violation(self, what: str) -> None:
        """Remember that a promise was broken."""
        self.violations.append(f"at {self.now:.6f} s: {what}")
        self.note(lambda: f"VIOLATION: {what}")
