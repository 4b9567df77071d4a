"""What a fleet of readers costs its one Redis while nothing changes, and how far that goes (goal 9)."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.candidates import Place
from benchmarks.candidates.kcg import settings_of
from benchmarks.crew import Local, Member, all_call, clock
from benchmarks.results import Goal, Lines, Result, Table, amount, duration
from benchmarks.rig import Effort, Rig
from kcg_cache import ACTIVE_VERSIONS, SharedCache
from kcg_cache.presence import REPORT_EVERY

NAME = "fleet"
TITLE = "1 to 256 readers on one Redis while nothing changes, and 10,000"

_PROCESSES = 4
TARGET = 10_000
_SHORT_LEASE = 0.01
#: Seconds between two rounds over the readers of a process, and between two handfuls of recorded questions.
_PAUSE, _TICK = 0.002, 0.01
_NOTES = (
    (
        "A reader is a cache of a process: it has a connection of its own, and its threads share it. Here four "
        "processes hold a quarter of the caches each and read all of them without end; a cache asks when its lease of "
        "1 s ends. *Core* is the share of the server's core (`used_cpu_user` and `used_cpu_sys`), and *server per "
        "question* what is left of it over the idle server's, per question; within it the script itself is what "
        "`INFO commandstats` says of EVALSHA. *Commands* are the server's own count, with those inside scripts."
    ),
    (
        "The model: all of it is proportional to the readers, for each asks once a second and is told *same*, whatever "
        "the size of the rows. The line is fitted through the measured points. It is checked at the rate of 10,000 "
        "readers in two ways: by readers with a lease of 10 ms, as many questions as their one core can ask "
        "(they tell of themselves every half second only, which makes their questions cheaper); and by one recorded "
        "question, sent over many connections at the rate, and then as fast as one process can. For "
        "commands and bytes the line holds; for the core it says too much, because a server that is mostly idle wakes "
        "up, with cold caches, for each question, and one that is busy finds several at each look. What bounds a fleet "
        "is that core: the last line's questions, divided by its share."
    ),
    (
        "Past what one server bears, in this order: one cache for each process and not for each thread (it is so "
        "already: count processes); datasets or namespaces on servers of their own, for they share nothing; rows of "
        "several services that are the same in one namespace. A longer lease is no way out: the protocol allows 1 s at "
        "most, which is what an invalidate waits for. Nor are replicas: rows count only on the server whose "
        "incarnation stored them, and `read` writes. `maxclients` (10,000 by default) is reached at 10,000 readers: "
        "raise it, and the limit of open files; a proxy that shares connections must let `XREAD BLOCK` through."
    ),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What the server did in a second, while so many readers read."""

    readers: int
    questions: float
    commands: float
    bytes_in: float
    bytes_out: float
    #: The share of one core.
    core: float
    #: Seconds that one script ran.
    script: float
    memory: int
    clients: int


def run(rig: Rig, effort: Effort) -> Result:
    """Measure the steady state, fit a line, and check it at ten thousand questions a second."""
    result = Result(NAME, TITLE)
    seconds = effort.of(10.0, 0.3)
    counts = effort.of((0, 1, 8, 64, 256), (0, 1, 4))
    connections = effort.of(1000, 10)
    with rig.crew(_PROCESSES) as members, contextlib.closing(_client(rig)) as client:
        steady = []
        for count in counts:
            with _reading(rig, members, count, 1.0, spread=effort.of(1.0, 0.0)):
                steady.append(_load(client, count, seconds))
        with _reading(rig, members, counts[-1], _SHORT_LEASE, spread=0.0):
            short = _load(client, counts[-1], seconds)
        members[0].call(_record, Place(rig.valkey.url, rig.database("S"), rig.namespace()), connections)
        replayed = []
        for rate in (effort.of(TARGET, 500), 0):
            members[0].order(_replay, rate, seconds + 0.5)
            time.sleep(0.2)
            replayed.append(_load(client, connections, seconds))
            members[0].answer()
        members[0].call(_end_replay)
        most_clients = int(client.info("clients")["maxclients"])
    idle, steady = steady[0], steady[1:]
    predicted = _predicted(steady)
    checks = (
        (f"{short.readers} readers, lease of {_SHORT_LEASE * 1000:.0f} ms", short),
        (f"one question over {connections} connections", replayed[0]),
        ("the same, as fast as it goes", replayed[1]),
    )
    loads = (
        ("no reader", idle),
        *((f"{load.readers} reader{'s' if load.readers > 1 else ''}", load) for load in steady),
        (f"{TARGET:,} readers, by the line", predicted),
        *checks,
    )
    result.tables.append(
        Table(
            "One second of the server",
            ("load", "questions", "commands", "in", "out", "core", "server per question", "script"),
            tuple((name, *_cells(load, idle)) for name, load in loads),
        )
    )
    per_reader = (steady[-1].memory - idle.memory) / max(1, steady[-1].clients - idle.clients)
    result.tables.append(
        Table(
            "Connections",
            ("what", "measured"),
            (
                ("memory of the server for each reader's connection", amount(per_reader)),
                (f"for {TARGET:,} of them", amount(per_reader * TARGET)),
                ("`maxclients`", f"{most_clients:,}"),
            ),
        )
    )
    result.pictures.append(_picture(steady, predicted, checks))
    result.goals.append(_goal(predicted, *replayed))
    result.notes += _NOTES
    result.figures = {name: asdict(load) for name, load in loads} | {
        "memory per reader": per_reader,
        "maxclients": most_clients,
    }
    return result


def _client(rig: Rig) -> Any:
    return redis.Redis.from_url(rig.valkey.url, protocol=2)


# --- readers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reading(rig: Rig, members: Sequence[Member], count: int, lease: float, *, spread: float) -> Iterator[None]:
    """Have so many readers read, divided among the processes, for the length of the block."""
    place = Place(rig.valkey.url, rig.database("S"), rig.namespace())
    with reading(rig, members, _open, [(place, share, lease, spread) for share in shares(count, len(members))]):
        yield


@contextlib.contextmanager
def reading(
    rig: Rig, members: Sequence[Member], open_readers: Callable[..., None], each: Sequence[tuple[Any, ...]]
) -> Iterator[None]:
    """Have every process open its readers, with arguments of its own, and read with all of them until the block ends.

    `open_readers` puts `caches` and `place` into the process's things, and a `client` that they share, if they do.
    """
    rig.board.stop = False
    for member, arguments in zip(members, each, strict=True):
        member.order(open_readers, *arguments)
    for member in members:
        member.answer()
    for member in members:
        member.order(_read_on)
    time.sleep(0.2)
    try:
        yield
    finally:
        rig.board.stop = True
        for member in members:
            member.answer()
        all_call(members, _close)


def shares(count: int, processes: int) -> list[int]:
    """Divide so many readers among processes."""
    return [len(range(number, count, processes)) for number in range(processes)]


def _open(local: Local, place: Place, count: int, lease: float, spread: float) -> None:
    """Open the readers, one after the other over `spread` seconds: a fleet's leases do not end all at once."""
    caches = []
    for _ in range(count):
        cache = SharedCache(place.redis_url, ACTIVE_VERSIONS, settings_of(place, lease=lease))
        cache.read(place.database.connection)
        caches.append(cache)
        time.sleep(spread / count)
    local.things.update(caches=caches, place=place)


def _read_on(local: Local) -> None:
    caches, connection = local.things["caches"], local.things["place"].database.connection
    while not local.board.stop:
        for cache in caches:
            cache.read(connection)
        time.sleep(_PAUSE)


def _close(local: Local) -> None:
    for cache in local.things.pop("caches"):
        cache.close()
    client = local.things.pop("client", None)
    if client is not None:
        client.close()
    local.things.pop("place").database.close()


# --- one recorded question ------------------------------------------------------------------------------------------


class _Recorder(redis.Redis):
    """A client that remembers the last command."""

    last: tuple[Any, ...] = ()

    def execute_command(self, *command: Any, **options: Any) -> Any:
        self.last = command
        return super().execute_command(*command, **options)  # type: ignore[no-untyped-call]


def _record(local: Local, place: Place, count: int) -> None:
    """Keep what a reader asks when its lease ends, and open so many connections to send it over.

    With a lease of half a second every question tells of its reader, as those of a fleet with a lease of a second do.
    """
    client: Any = _Recorder.from_url(
        place.redis_url,
        protocol=2,
        socket_timeout=place.timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=count + 1,
    )
    cache = SharedCache(client, ACTIVE_VERSIONS, settings_of(place, lease=REPORT_EVERY))
    cache.read(place.database.connection)
    time.sleep(REPORT_EVERY)
    if cache.read(place.database.connection).source != "redis":
        raise RuntimeError("the recorded question found no rows")
    connections = [client.connection_pool.get_connection() for _ in range(count)]
    question = b"".join(connections[0].pack_command(*client.last))
    sockets = [connection._sock for connection in connections]  # noqa: SLF001 - redis-py shows no other way to it
    local.things["replay"] = (question, sockets, connections, client)
    place.database.close()


def _replay(local: Local, rate: float, seconds: float) -> None:
    """Ask over one connection after the other, `rate` times a second; 0 for as fast as it is answered."""
    question, sockets, *_ = local.things["replay"]
    handful = max(1, round(rate * _TICK)) if rate else min(100, len(sockets))
    reader = hiredis.Reader()
    at = 0
    began = due = clock()
    while due < began + seconds:
        chosen = [sockets[(at + number) % len(sockets)] for number in range(min(handful, len(sockets)))]
        at += len(chosen)
        for one in chosen:
            one.sendall(question)
        for one in chosen:
            while (reply := reader.gets()) is False:
                reader.feed(one.recv(65536))
            if not isinstance(reply, list) or reply[1] != b"SAME":
                raise RuntimeError(f"the recorded question was answered with {reply!r}")
        due = due + len(chosen) / rate if rate else clock()
        time.sleep(max(0.0, due - clock()))


def _end_replay(local: Local) -> None:
    *_, connections, client = local.things.pop("replay")
    for connection in connections:
        client.connection_pool.release(connection)
    client.close()
    client.connection_pool.disconnect()


# --- the server's own figures -------------------------------------------------------------------------------------


def _load(client: Any, readers: int, seconds: float) -> Load:
    """Watch the server for some seconds."""
    before, began = client.info("all"), clock()
    time.sleep(seconds)
    after, took = client.info("all"), clock() - began

    def grew(name: str) -> float:
        return float(after[name] - before[name])

    def script(what: str) -> float:
        return float(after.get("cmdstat_evalsha", {}).get(what, 0) - before.get("cmdstat_evalsha", {}).get(what, 0))

    return Load(
        readers=readers,
        questions=script("calls") / took,
        commands=grew("total_commands_processed") / took,
        bytes_in=grew("total_net_input_bytes") / took,
        bytes_out=grew("total_net_output_bytes") / took,
        core=(grew("used_cpu_user") + grew("used_cpu_sys")) / took,
        script=script("usec") / max(1.0, script("calls")) / 1e6,
        memory=int(after["used_memory"]),
        clients=int(after["connected_clients"]),
    )


def _predicted(steady: Sequence[Load]) -> Load:
    """Continue the line through the measured points to 10,000 readers."""

    def at_target(name: str) -> float:
        line = statistics.linear_regression(
            [load.readers for load in steady], [float(getattr(load, name)) for load in steady]
        )
        return line.intercept + line.slope * TARGET

    values = {name: at_target(name) for name in ("questions", "commands", "bytes_in", "bytes_out", "core")}
    return Load(
        readers=TARGET,
        script=steady[-1].script,
        memory=round(at_target("memory")),
        clients=round(at_target("clients")),
        **values,
    )


def _cells(load: Load, idle: Load) -> tuple[str, ...]:
    return (
        f"{load.questions:,.1f}",
        f"{load.commands:,.1f}",
        f"{amount(load.bytes_in)}/s",
        f"{amount(load.bytes_out)}/s",
        f"{load.core:.2%}",
        duration(max(0.0, load.core - idle.core) / max(load.questions, 1e-9)),
        duration(load.script),
    )


def _goal(predicted: Load, at_rate: Load, fastest: Load) -> Goal:
    return Goal(
        9,
        f"{TARGET:,} readers on one Redis",
        "measured, extrapolated and explained",
        f"by the line {predicted.commands:,.0f} commands/s, {amount(predicted.bytes_in)}/s in, "
        f"{amount(predicted.bytes_out)}/s out, {predicted.core:.0%} of the core; measured at "
        f"{at_rate.questions:,.0f} questions/s {at_rate.core:.0%}; a full core for "
        f"{fastest.questions / fastest.core:,.0f} questions/s",
        None,
    )


def _picture(steady: Sequence[Load], predicted: Load, others: Sequence[tuple[str, Load]]) -> Lines:
    def point(load: Load) -> tuple[float, float]:
        return load.questions, 100 * load.core

    return Lines(
        "fleet",
        "The core that Redis needs for the leases of a fleet",
        "questions a second (readers)",
        "% of a core",
        (
            ("readers", tuple(point(load) for load in steady)),
            ("by the line", (point(steady[-1]), point(predicted))),
            *((name, (point(load),)) for name, load in others),
        ),
        log_x=True,
        log_y=True,
    )
