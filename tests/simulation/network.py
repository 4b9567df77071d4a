"""Between the workers and Redis: a client whose every request meets its fate, and the servers behind it.

The real `Store` talks to `Client`. A request may be lost, come late, come twice, lose its reply or its connection; the
server may be down, hung or refusing, be restarted from an old state or fail over to a replica that lags.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from kcg_cache import lua
from tests.simulation.redis_server import CommandError, Node, State, fresh_id
from tests.simulation.world import TIMED_OUT, Process, Task, World

#: Which script a SHA-1 is.
_NAMES = {lua.load(name).sha.encode(): name for name in lua.names()}
_ERRORS: dict[str, type[redis.ResponseError]] = {
    "NOSCRIPT": redis.exceptions.NoScriptError,
    "READONLY": redis.exceptions.ReadOnlyError,
}
#: States of the server that a failover may fall back to.
_REMEMBERED = 30


@dataclass
class Fates:
    """How often a request meets what, each from 0 to 1."""

    lost: float = 0.0
    reply_lost: float = 0.0
    reset: float = 0.0
    late: float = 0.0
    duplicated: float = 0.0


@dataclass
class _Blocked:
    """A client that waits on a stream."""

    key: bytes
    after: bytes
    answer: Callable[[Any], None]


@dataclass
class Network:
    """The servers and the ways to them."""

    world: World
    #: The Redis server's clock, from the world's time.
    offset: float
    rate: float
    #: Seconds that any call may take.
    timeout: float = 0.5
    #: How fine the server's clock is: on a coarse one, different moments have the same time.
    tick: float = 1e-6
    fates: Fates = field(default_factory=Fates)
    #: "up", "down" (refused at once), "hung" (requests pile up), or the code of an error that it answers with.
    mode: str = "up"
    #: Who cannot reach it: what they send may still come when they can again.
    cut: set[str] = field(default_factory=set)
    #: Told of every script that ran: its name, its words, its reply.
    observers: list[Callable[[str, tuple[Any, ...], Any], None]] = field(default_factory=list)
    #: Requests so far, and scripts that ran.
    requests: int = 0
    executed: int = 0

    def __post_init__(self) -> None:
        random = self.world.random
        self.master = self._node(fresh_id(random), fresh_id(random))
        self.history: deque[State] = deque(maxlen=_REMEMBERED)
        #: What the other machine was, for a failback.
        self.other_run_id = fresh_id(random)
        self._held_up: list[Callable[[], None]] = []
        self._blocked: list[_Blocked] = []
        self._in_flight: dict[int, tuple[Task, int]] = {}

    def clock(self) -> float:
        """Give the Redis server's time, in seconds since its epoch."""
        time = 1.7e9 + self.offset + self.world.now * self.rate
        return time - time % self.tick

    def _node(self, run_id: str, replid: str) -> Node:
        node = Node(run_id, replid, self.clock)
        node.on_event = self._on_event
        return node

    # --- one request ----------------------------------------------------------------------------------------------

    def request(self, process: Process, command: tuple[Any, ...]) -> Any:
        """Send a command and wait for its reply; raise what redis-py raises."""
        world = self.world
        process.check()
        self.requests += 1
        if world.current is None:
            return self._checked(self._run(command))  # the hub prepares and looks; it meets no fate
        world.door()
        if self.mode == "down":
            raise redis.ConnectionError("Error 111 connecting to simulation. Connection refused.")
        task, waiting = world.current, world.current.waiting
        task.requests += 1
        world.note(lambda: f"sends {_readable(command)}")

        def answer(value: Any) -> None:
            world.after(self._latency(), lambda: task.wake(waiting, value))

        self._send(process, command, answer)
        self._in_flight[id(task)] = task, waiting
        try:
            value = world.wait(self.timeout)
        finally:
            self._in_flight.pop(id(task), None)
        world.note(lambda: f"gets {_readable_reply(value)}")
        if value is TIMED_OUT:
            raise redis.TimeoutError("Timeout reading from socket")
        return self._checked(value)

    def _send(self, process: Process, command: tuple[Any, ...], answer: Callable[[Any], None]) -> None:
        """Decide what becomes of a request."""
        world, fates, node = self.world, self.fates, self.master

        def arrive(reply: Callable[[Any], None] = answer) -> None:
            if self.mode == "hung" or process.name in self.cut:
                self._held_up.append(lambda: arrive(reply))
            elif self.mode == "down" or self.master is not node:
                reply(redis.ConnectionError("Connection reset by peer"))
            else:
                self._execute(command, reply)

        if world.chance(fates.duplicated):
            # By a proxy, say: to whoever is the master then, and nobody waits for its answer.
            world.after(world.between(0.001, 20.0), lambda: self._again(command))
        if process.name in self.cut:
            if world.chance(0.5):
                self._held_up.append(arrive)
        elif world.chance(fates.lost):
            pass
        elif world.chance(fates.reply_lost):
            world.after(self._latency(), lambda: arrive(lambda _: None))
        elif world.chance(fates.reset):
            if world.chance(0.5):
                world.after(self._latency(), lambda: arrive(lambda _: None))
            world.after(self._latency() * 2, lambda: answer(redis.ConnectionError("Connection reset by peer")))
        elif world.chance(fates.late):
            world.after(world.between(0.01, 20.0), arrive)
        else:
            world.after(self._latency(), arrive)

    def _latency(self) -> float:
        return self.world.jitter()

    def _again(self, command: tuple[Any, ...]) -> None:
        if self.mode == "up" and command[0] != "XREAD":
            self.world.note(lambda: f"a duplicate runs: {_readable(command)}")
            self._run(command)

    # --- at the server --------------------------------------------------------------------------------------------

    def _execute(self, command: tuple[Any, ...], answer: Callable[[Any], None]) -> None:
        if self.mode != "up":
            answer(CommandError(f"{self.mode} the server says so"))
        elif command[0] != "XREAD":
            answer(self._run(command))
        else:
            _, _, _, _, block, _, key, after = command
            blocked = _Blocked(_raw(key), _raw(after), answer)
            try:
                if blocked.after == b"$":
                    blocked.after = self.master.last_id(blocked.key)
                found = self.master.newer(blocked.key, blocked.after)
            except CommandError as error:
                answer(error)
                return
            if found is not None:
                answer(found)
                return
            self._blocked.append(blocked)
            self.world.after(int(block) / 1000, lambda: self._unblock(blocked))

    def _run(self, command: tuple[Any, ...]) -> Any:
        try:
            reply = self.master.execute(*command)
        except CommandError as error:
            return error
        if command[0] in ("EVALSHA", "EVAL"):
            self.executed += 1
            name = _NAMES[_raw(command[1])] if command[0] == "EVALSHA" else _by_text(command[1])
            for observe in self.observers:
                observe(name, command[3:], reply)
            # Without the fleet's presence, which changes with every question and decides nothing.
            state = {key: value for key, value in self.master.keys.items() if not key.endswith(b":fleet")}
            if not self.history or self.history[-1] != state:
                self.history.append(state)
        return reply

    def _unblock(self, blocked: _Blocked) -> None:
        if blocked in self._blocked:
            self._blocked.remove(blocked)
            blocked.answer(None)

    def _on_event(self) -> None:
        self.world.after(0.0, self._look_again)

    def _look_again(self) -> None:
        for blocked in list(self._blocked):
            try:
                found = self.master.newer(blocked.key, blocked.after)
            except CommandError:
                continue
            if found is not None:
                self._blocked.remove(blocked)
                blocked.answer(found)

    @staticmethod
    def _checked(value: Any) -> Any:
        if isinstance(value, CommandError):
            code = str(value).partition(" ")[0]
            raise _ERRORS.get(code, redis.ResponseError)(str(value))
        if isinstance(value, Exception):
            raise value
        return value

    # --- what a nemesis does ----------------------------------------------------------------------------------------

    def reachable_again(self) -> None:
        """Deliver what was held up, in no particular order: the partition is over, or the server goes on."""
        held_up, self._held_up = self._held_up, []
        for deliver in held_up:
            self.world.after(self.world.between(0.0001, 2.0), deliver)

    def reset_connections(self) -> None:
        """Break every connection: whoever waits gets an error, and what is under way does not arrive."""
        self._blocked.clear()
        for task, waiting in self._in_flight.values():
            error = redis.ConnectionError("Connection closed by server.")
            self.world.after(self._latency(), lambda task=task, waiting=waiting, error=error: task.wake(waiting, error))  # type: ignore[misc]

    def restart(self, state: State, *, replid: str | None = None) -> None:
        """Start the server anew with an old state: a new run_id; the replid of its file may come back with it."""
        self._become(fresh_id(self.world.random), replid or fresh_id(self.world.random), state)

    def fail_over(self, state: State) -> None:
        """Let the other machine take over with what it had: its own run_id, which may have been the master's before."""
        run_id, self.other_run_id = self.other_run_id, self.master.run_id
        self.offset += self.world.random.choice((-1, 1)) * self.world.between(0.001, 100.0)  # its clock is its own
        self._become(run_id, fresh_id(self.world.random), state)

    def _become(self, run_id: str, replid: str, state: State) -> None:
        self.reset_connections()
        self.master = self._node(run_id, replid)
        self.master.keys = dict(state)
        self.history.clear()


class Client:
    """What the real `Store` is given in place of a redis-py client: one process's way to Redis."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self.connection_pool = _Pool(network.timeout)

    def execute_command(self, *command: Any, **_options: Any) -> Any:
        """Run one command."""
        return self._network.request(self._process, command)


class _Pool:
    """What the store asks of a client's pool."""

    def __init__(self, timeout: float) -> None:
        self.connection_kwargs = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": None}

    def disconnect(self, *, inuse_connections: bool) -> None:
        """Do nothing: no connection here ever holds an answer that nobody waited for."""


def _raw(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


def _by_text(text: str) -> str:
    return next(name for name in lua.names() if lua.load(name).text == text)


def _readable(command: tuple[Any, ...]) -> str:
    if command[0] == "EVALSHA":
        return f"{_NAMES[_raw(command[1])]}.lua {_readable_reply(command[3 + int(command[2]) :])}"
    return f"{command[0]} {_readable_reply(command[-1])}"


def _readable_reply(reply: Any) -> str:
    if isinstance(reply, (list, tuple)):
        return " ".join(_readable_reply(part) for part in reply if part not in (b"", "", None))
    if reply is TIMED_OUT:
        return "no answer in time"
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    return text if len(text) <= 60 else f"{text[:8]}…{text[-12:]}"
