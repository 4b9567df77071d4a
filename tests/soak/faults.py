"""The faults, each with a name, a beginning and an end."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kcg_cache.keys import Keys
from tests.soak.children import KINDS

if TYPE_CHECKING:
    from tests.soak.stage import Stage

#: Seconds that a fault lasts, unless it says otherwise.
_LASTS = (1.5, 3.0)
_EVERY = 0.1
_TRIES = 50
_ENTRY = Keys.of("soak", "active_versions").entry


class Fault(ABC):
    """One fault. It lasts from the call of `begin` to the return of `end`, which is called however that went."""

    name: str
    #: What it does, for people.
    what: str
    #: redis, database, process or clock.
    area: str
    lasts: tuple[float, float] = _LASTS
    #: Whether its beginning needs a fleet that works: of two faults it is then the one that begins.
    needs_peace = False

    @property
    def database(self) -> bool:
        """Whether readers may meet errors of their database connection."""
        return self.area == "database"

    def lacks(self, stage: "Stage") -> str | None:
        """Tell why it cannot be done here; None when it can."""
        return None

    @abstractmethod
    def begin(self, stage: "Stage") -> None:
        """Let it happen."""

    def again(self, stage: "Stage") -> None:  # noqa: B027 - most are done once
        """Repeat what has to be repeated while it lasts; called every tenth of a second."""

    def end(self, stage: "Stage") -> None:  # noqa: B027 - some are over at once
        """Put things right again."""


class RedisKilled(Fault):
    name, area, what = "redis_killed", "redis", "Redis is killed (SIGKILL), and started again later"

    def begin(self, stage: "Stage") -> None:
        stage.servers.valkey.kill()

    def end(self, stage: "Stage") -> None:
        stage.servers.valkey.restart()


class RedisRestarted(Fault):
    name, area, what = "redis_restarted", "redis", "Redis is stopped in order and started again at once"
    lasts = (0.3, 0.6)

    def begin(self, stage: "Stage") -> None:
        stage.servers.valkey.restart()


class RedisStopped(Fault):
    name, area, what = "redis_stopped", "redis", "Redis hangs (SIGSTOP): connections stay open, nobody answers"

    def begin(self, stage: "Stage") -> None:
        stage.servers.valkey.pause()

    def end(self, stage: "Stage") -> None:
        stage.servers.valkey.resume()


class RedisOldFile(Fault):
    name, area = "redis_old_rdb", "redis"
    what = "Redis is killed and comes back with an RDB file from before an invalidate"
    needs_peace = True
    lasts = (0.3, 0.6)

    def begin(self, stage: "Stage") -> None:
        servers = stage.servers
        for _ in range(_TRIES):
            # Entries come and go: it must be there before and after.
            entry = servers.redis("HGET", _ENTRY, "loaded_at")
            servers.redis("SAVE")
            if entry and entry == servers.redis("HGET", _ENTRY, "loaded_at"):
                stage.hits(1)
                break
            stage.listen_for(_EVERY)
        stage.until_invalidated()
        # Nobody asks in the meantime: whoever notices a restart asks for newer rows than the file has (R8). The file
        # stays, and every later restart begins with it.
        with stage.everybody_stopped():
            servers.valkey.kill()
            servers.valkey.restart()


class OneCommand(Fault):
    """A command to Redis, repeated for as long as it lasts."""

    area = "redis"
    lasts = (0.5, 1.5)

    def __init__(self, name: str, what: str, *command: Any) -> None:
        self.name, self.what, self._command = name, what, command

    def begin(self, stage: "Stage") -> None:
        stage.servers.redis(*self._command)

    def again(self, stage: "Stage") -> None:
        stage.servers.redis(*self._command)


_FILL_UP = """
for i = 1, 60 do
  redis.pcall('SET', 'soak-filler:' .. ARGV[1] .. ':' .. i, string.rep('x', 4000), 'EX', 60)
end
"""


class MaxMemory(Fault):
    """A limit below what is used, and somebody who writes without end."""

    area = "redis"

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.name = "redis_oom" if policy == "noeviction" else f"redis_evicts_{policy.replace('-', '_')}"
        self.what = (
            "Redis is over maxmemory and evicts nothing"
            if policy == "noeviction"
            else f"Redis is over maxmemory and evicts ({policy})"
        )

    def begin(self, stage: "Stage") -> None:
        redis = stage.servers.redis
        redis("CONFIG", "RESETSTAT")
        redis("CONFIG", "SET", "maxmemory-policy", self._policy)
        # Below what is used, nothing can be written; a little above it, whatever may go goes, again and again.
        most = 1 if self._policy == "noeviction" else redis("INFO", "memory")["used_memory"] + 200_000
        redis("CONFIG", "SET", "maxmemory", most)

    def again(self, stage: "Stage") -> None:
        if self._policy == "noeviction":
            # That nothing can be written is seen by writing: the scripts, whose first command is a deletion, may write.
            stage.hits(stage.redis_refuses("SET", "soak-filler", "x"))
            return
        # With a TTL, so that the volatile policies have something to weigh against the entry.
        stage.redis_refuses("EVAL", _FILL_UP, 0, stage.random.randrange(10**6))

    def end(self, stage: "Stage") -> None:
        redis = stage.servers.redis
        stage.hits(redis("INFO", "stats")["evicted_keys"])
        redis("CONFIG", "SET", "maxmemory", 0)
        redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis("EVAL", "for _, k in ipairs(redis.call('KEYS', 'soak-filler:*')) do redis.call('DEL', k) end", 0)


class Proxied(Fault):
    """What lies between the workers and a server goes wrong."""

    def __init__(self, name: str, what: str, server: str, mode: str, seconds: float = 0.0) -> None:
        self.name, self.what = name, what
        self.area = "redis" if server == "redis" else "database"
        self._server, self._mode, self._seconds = server, mode, seconds

    def begin(self, stage: "Stage") -> None:
        stage.servers.set_proxy(self._server, self._mode, self._seconds)

    def end(self, stage: "Stage") -> None:
        stage.hits(stage.servers.set_proxy(self._server, "pass"))


class PostgresKilled(Fault):
    name, area, what = "postgres_killed", "database", "PostgreSQL is killed (SIGKILL), and started again later"

    def begin(self, stage: "Stage") -> None:
        stage.servers.postgres.kill()

    def end(self, stage: "Stage") -> None:
        stage.servers.postgres.restart()


class PostgresRestarted(Fault):
    name, area = "postgres_restarted", "database"
    what = "PostgreSQL is stopped in order (fast) and started again at once"
    lasts = (0.3, 0.6)

    def begin(self, stage: "Stage") -> None:
        stage.servers.postgres.restart()


class PostgresStopped(Fault):
    name, area, what = "postgres_stopped", "database", "PostgreSQL hangs (SIGSTOP of all its processes)"

    def begin(self, stage: "Stage") -> None:
        stage.servers.signal_postgres(signal.SIGSTOP)

    def end(self, stage: "Stage") -> None:
        stage.servers.signal_postgres(signal.SIGCONT)


class BackendsTerminated(Fault):
    name, area, what = "postgres_backends_terminated", "database", "pg_terminate_backend of every client, repeatedly"
    lasts = (0.5, 1.5)

    def begin(self, stage: "Stage") -> None:
        stage.servers.terminate_backends()

    def again(self, stage: "Stage") -> None:
        stage.servers.terminate_backends()


class TableLocked(Fault):
    """Somebody holds an ACCESS EXCLUSIVE lock on the table that everyone reads."""

    area = "database"

    def __init__(self, name: str, what: str, setting: str | None = None) -> None:
        self.name, self.what, self._setting = name, what, setting
        self._holder: Any = None

    def begin(self, stage: "Stage") -> None:
        servers = stage.servers
        if self._setting is not None:
            servers.sql(f"ALTER DATABASE postgres SET {self._setting} = '150ms'")
            # Those that are open know nothing of it.
            servers.terminate_backends()
        context = servers.database()
        self._holder = context
        conn = context.__enter__()
        with conn.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            cursor.execute("BEGIN")
            cursor.execute("LOCK TABLE kcg.detection_model_versions IN ACCESS EXCLUSIVE MODE")

    def end(self, stage: "Stage") -> None:
        if self._holder is not None:
            holder, self._holder = self._holder, None
            holder.__exit__(None, None, None)
        if self._setting is not None:
            stage.servers.sql(f"ALTER DATABASE postgres RESET {self._setting}")
            stage.servers.terminate_backends()


class FillerKilled(Fault):
    name, area = "filler_killed", "process"
    what = "a worker is killed (SIGKILL) between its SELECT and its publish"
    needs_peace = True
    lasts = (0.5, 1.0)

    def begin(self, stage: "Stage") -> None:
        filler = stage.holding_filler()
        filler.kill()

    def end(self, stage: "Stage") -> None:
        stage.replace_the_dead()


class FillerStopped(Fault):
    name, area = "filler_stopped", "process"
    what = "a worker is stopped (SIGSTOP) between its SELECT and its publish, beyond its lock, and goes on"
    needs_peace = True
    lasts = (0.0, 0.3)

    def __init__(self) -> None:
        self._filler: Any = None

    def begin(self, stage: "Stage") -> None:
        self._filler = stage.holding_filler()
        self._filler.stop()
        # It must be the lock's end, and an invalidate, that it sleeps through.
        stage.listen_for(stage.lock_ttl + 0.3)
        stage.until_invalidated()

    def end(self, stage: "Stage") -> None:
        if self._filler is not None:
            self._filler.go_on()
            self._filler.tell(go_on=True)
            self._filler = None


class WorkerKilled(Fault):
    name, area, what = "worker_killed", "process", "a worker is killed (SIGKILL) wherever it is"
    lasts = (0.2, 0.8)

    def begin(self, stage: "Stage") -> None:
        stage.random.choice(stage.living_workers()).kill()

    def end(self, stage: "Stage") -> None:
        stage.replace_the_dead()


class WorkerStopped(Fault):
    name, area, what = "worker_stopped", "process", "a worker is suspended (SIGSTOP) for longer than its lease"

    def __init__(self) -> None:
        self._worker: Any = None

    def begin(self, stage: "Stage") -> None:
        self._worker = stage.random.choice(stage.living_workers())
        self._worker.stop()

    def end(self, stage: "Stage") -> None:
        if self._worker is not None:
            self._worker.go_on()
            self._worker = None


class PromoterKilled(Fault):
    name, area, what = "promoter_killed", "process", "the promoters are killed between any two of their steps"
    lasts = (0.2, 0.8)

    def begin(self, stage: "Stage") -> None:
        stage.promoter.kill()

    def end(self, stage: "Stage") -> None:
        stage.replace_the_dead()


class PromoterStopped(Fault):
    name, area, what = "promoter_stopped", "process", "the promoters are suspended (SIGSTOP) and go on"
    lasts = (1.2, 2.0)

    def begin(self, stage: "Stage") -> None:
        stage.promoter.stop()

    def end(self, stage: "Stage") -> None:
        stage.promoter.go_on()


class Forked(Fault):
    """Every worker makes a child in the middle of its reads, and the children read too."""

    area = "process"
    lasts = (0.5, 1.0)

    def __init__(self, kind: str, what: str) -> None:
        self.name, self.what, self._kind = f"fork_{kind}" if kind != "spawn" else "spawn", what, kind

    def begin(self, stage: "Stage") -> None:
        stage.make_children(self._kind)

    def end(self, stage: "Stage") -> None:
        stage.until_childless()


class ClockStepped(Fault):
    """The clock of the Redis host steps, and steps back at the end."""

    area = "clock"

    def __init__(self, name: str, what: str, low: float, high: float) -> None:
        self.name, self.what, self._range = name, what, (low, high)

    def lacks(self, stage: "Stage") -> str | None:
        return "libfaketime is not installed" if stage.servers.clock is None else None

    def begin(self, stage: "Stage") -> None:
        assert stage.servers.clock is not None
        stage.servers.clock.step(stage.random.uniform(*self._range))

    def end(self, stage: "Stage") -> None:
        if stage.servers.clock is not None:
            stage.servers.clock.step(0)


class Several(Fault):
    """More than one fault at once."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = sorted(faults, key=lambda fault: not fault.needs_peace)
        self.name = " + ".join(fault.name for fault in faults)
        self.what = "; ".join(fault.what for fault in faults)
        self.area = " + ".join(fault.area for fault in faults)
        self.lasts = max(fault.lasts for fault in faults)

    @property
    def database(self) -> bool:
        return any(fault.database for fault in self._faults)

    def begin(self, stage: "Stage") -> None:
        for fault in self._faults:
            fault.begin(stage)

    def again(self, stage: "Stage") -> None:
        for fault in self._faults:
            fault.again(stage)

    def end(self, stage: "Stage") -> None:
        failures: list[Exception] = []
        # Servers first, then processes: a new one wants them.
        for fault in sorted(self._faults, key=lambda fault: fault.area == "process"):
            try:
                fault.end(stage)
            except Exception as failure:  # noqa: BLE001 - the others are to end all the same
                failures.append(failure)
        if failures:
            raise failures[0]


_BETWEEN: tuple[tuple[str, str, float, str], ...] = (
    ("drops_replies", "drop", 0.0, "what is asked of {} happens, and no answer arrives"),
    ("is_late", "delay", 0.1, "each message to and from {} takes 0.1 s"),
    ("is_too_late", "delay", 0.7, "each message to and from {} takes 0.7 s"),
    ("is_deaf", "deaf", 0.0, "{} is deaf: connections are taken, nothing arrives and nothing comes back"),
    ("half_closes", "half_close", 0.0, "connections to {} are closed by its side alone, in the middle of an answer"),
    ("is_cut", "cut", 0.0, "connections to {} are reset in the middle of an answer"),
    ("refuses", "refuse", 0.0, "connections to {} are refused"),
)


def all_faults() -> dict[str, Fault]:
    """Give every fault by its name."""
    policies = (
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    )
    children = {
        "os": "every worker forks (os.fork, as gunicorn does) in the middle of its threads' reads",
        "fork": "every worker forks by multiprocessing in the middle of its threads' reads",
        "spawn": "every worker spawns a process by multiprocessing",
    }
    between: Callable[[str, str], list[Fault]] = lambda server, called: [  # noqa: E731
        Proxied(f"{server}_{name}", what.format(called), server, mode, seconds)
        for name, mode, seconds, what in _BETWEEN
    ]
    faults: list[Fault] = [
        RedisKilled(),
        RedisStopped(),
        RedisRestarted(),
        RedisOldFile(),
        OneCommand("flushall", "FLUSHALL, repeatedly", "FLUSHALL"),
        OneCommand("script_flush", "SCRIPT FLUSH, repeatedly", "SCRIPT", "FLUSH"),
        OneCommand("client_kill", "CLIENT KILL of every client, repeatedly", "CLIENT", "KILL", "TYPE", "normal"),
        *map(MaxMemory, policies),
        *between("redis", "Redis"),
        PostgresKilled(),
        PostgresStopped(),
        PostgresRestarted(),
        BackendsTerminated(),
        TableLocked("table_locked", "the table is locked (ACCESS EXCLUSIVE), and nobody gives up"),
        TableLocked("statement_timeout", "the table is locked, and statements time out", "statement_timeout"),
        TableLocked("lock_timeout", "the table is locked, and waiting for locks times out", "lock_timeout"),
        *between("postgres", "PostgreSQL"),
        FillerKilled(),
        FillerStopped(),
        WorkerKilled(),
        WorkerStopped(),
        PromoterKilled(),
        PromoterStopped(),
        *(Forked(kind, children[kind]) for kind in KINDS),
        ClockStepped("clock_back", "the Redis host's clock steps back a minute or two, and forward again", -120, -30),
        ClockStepped("clock_forward", "the Redis host's clock steps forward by seconds, and back again", 1, 40),
    ]
    return {fault.name: fault for fault in faults}
