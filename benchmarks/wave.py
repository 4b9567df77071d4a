"""After an invalidate every process of a fleet needs the new rows: how long, and how many bytes (goal 10)."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import redis

from benchmarks import relay
from benchmarks.candidates import OursRead, Place
from benchmarks.crew import Local, Member, all_call, clock, crew
from benchmarks.database import Database
from benchmarks.results import Goal, Lines, Result, Table, amount, duration
from benchmarks.rig import Effort, Rig
from benchmarks.rows import generation_of

NAME = "wave"
TITLE = "after an invalidate: 64 processes, until the last has the new rows"

#: A link that all processes share; None is the loopback itself.
_LINKS: dict[str, float | None] = {"loopback": None, "1 Gbit/s": 1e9, "100 Mbit/s": 1e8}
#: How often the rows are changed: with L a wave takes long.
_WAVES = {"M": 5, "L": 1}
#: Seconds between two reads of a process.
_PAUSE = 0.02
_DEADLINE = 240.0
_METERS = ("loads", "fills_published", "private_loads", "store_errors", "reads_redis", "waits", "wait_timeouts")
_NOTES = (
    (
        f"Every process reads every {_PAUSE * 1000:.0f} ms. The change is committed, then `invalidate()` is called: "
        "its script deletes at once, and it returns 1.02 s later, when no lease covers the old rows any more. Each "
        "process asks when its own lease ends, so most have the new rows before it returns; a time of 0 past it says "
        "that all had. Who reads after it returned, and has no new rows yet, waits: nobody is given old ones."
    ),
    (
        "The link is a process of its own that passes pieces of 32 KB on, at one bandwidth for all, full duplex; all "
        "the processes are on its one side, Redis on the other. *Bytes* are what Redis sent, by its own count; *wire* "
        "is how long that takes at the link's bandwidth: no less is possible without sending less."
    ),
    (
        "*Core* is the processor time of all processes together: they share both cores here with the servers, so the "
        "wave takes no less than half of that; a fleet has it on many hosts, where the wire is what is left. "
        "*Server* is Redis's own. A fill wakes all who wait for it at once, and who is not answered within "
        "`redis_timeout` (0.5 s here) counts a Redis error and loads privately: then there are more loads than one."
    ),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """When one process had the new rows, on the common clock, and what it took."""

    at: float
    cpu: float
    meters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Wave:
    """One change, seen by all."""

    committed: float
    returned: float
    bytes_out: int
    #: Seconds of the server's core.
    server: float
    #: The payload of the entry, as Redis has it.
    payload: int
    arrivals: tuple[Arrival, ...]

    @property
    def last(self) -> float:
        """When the last one had the new rows."""
        return max(arrival.at for arrival in self.arrivals)

    def total(self, meter: str) -> int:
        """Add a counter up."""
        return sum(arrival.meters[meter] for arrival in self.arrivals)


def run(rig: Rig, effort: Effort) -> Result:
    """Change the rows under a fleet, at M and L, over each link."""
    result = Result(NAME, TITLE)
    fleet = effort.of(64, 3)
    rows: list[tuple[str, ...]] = []
    lines = []
    with rig.crew(fleet, everywhere=True) as members, crew(1, rig.board, rig.server_cores) as (linker,):
        for size in effort.of(("M", "L"), ("M",)):
            for link in effort.of(tuple(_LINKS), ("1 Gbit/s",)):
                waves = _waves(rig, members, linker, size, _LINKS[link], effort.of(_WAVES[size], 1))
                middle = sorted(waves, key=lambda wave: wave.last - wave.committed)[len(waves) // 2]
                rows.append(_row(size, link, waves, middle))
                if link != "loopback":
                    arrivals = sorted(arrival.at - middle.committed for arrival in middle.arrivals)
                    lines.append(
                        (
                            f"{size}, {link}",
                            tuple((at, 100.0 * (number + 1) / fleet) for number, at in enumerate(arrivals)),
                        )
                    )
                result.goals.append(_goal(size, link, waves))
                result.figures[f"{size}, {link}"] = [asdict(wave) for wave in waves]
    head = ("rows", "link", "entry", "loads", "last, from commit", "last, from return", "median, from commit")
    result.tables.append(
        Table(
            f"{fleet} processes, medians of the waves",
            (*head, "bytes", "wire", "core", "server", "Redis errors"),
            tuple(rows),
        )
    )
    result.pictures.append(
        Lines("wave", f"{fleet} processes after a commit and its invalidate", "s", "% with the new rows", tuple(lines))
    )
    result.notes += _NOTES
    return result


def _row(size: str, link: str, waves: Sequence[Wave], middle: Wave) -> tuple[str, ...]:
    loads = sorted({wave.total("loads") for wave in waves})
    bits = _LINKS[link]
    return (
        size,
        link,
        amount(middle.payload),
        " to ".join(map(str, dict.fromkeys((loads[0], loads[-1])))),
        duration(_from_commit(waves)),
        _written(_from_return(waves)),
        duration(statistics.median(arrival.at - middle.committed for arrival in middle.arrivals)),
        amount(middle.bytes_out),
        duration(middle.bytes_out * 8 / bits) if bits else "-",
        duration(sum(arrival.cpu for arrival in middle.arrivals)),
        duration(middle.server),
        str(sum(wave.total("store_errors") for wave in waves)),
    )


def _goal(size: str, link: str, waves: Sequence[Wave]) -> Goal:
    loads = sorted({wave.total("loads") for wave in waves})
    moved = statistics.median(wave.bytes_out for wave in waves)
    return Goal(
        10,
        f"{len(waves[0].arrivals)} processes on {size} over {link}",
        "measured: time to the last one, bytes moved; one load",
        f"{duration(_from_commit(waves))} from the commit, {_written(_from_return(waves))} from the invalidate's "
        f"return; {amount(moved)}; {' to '.join(map(str, dict.fromkeys((loads[0], loads[-1]))))} load",
        loads == [1],
    )


def _from_commit(waves: Sequence[Wave]) -> float:
    return statistics.median(wave.last - wave.committed for wave in waves)


def _from_return(waves: Sequence[Wave]) -> float:
    # Before it returned is no time at all.
    return statistics.median(max(0.0, wave.last - wave.returned) for wave in waves)


def _written(seconds: float) -> str:
    return duration(seconds) if seconds else "0 s"


def _waves(
    rig: Rig, members: Sequence[Member], linker: Member, size: str, bits: float | None, count: int
) -> list[Wave]:
    database, namespace = rig.database(size), rig.namespace()
    database.promote(0)
    url = rig.valkey.url
    if bits is not None:
        port = linker.call(relay.open_relay, "wave", rig.valkey.host, rig.valkey.port, bits)
        url = url.replace(f":{rig.valkey.port}/", f":{port}/")
    operator = OursRead(Place(rig.valkey.url, Database(database.dsn), namespace))
    try:
        operator.read()
        all_call(members, _open, url, database.dsn, namespace)
        return [_wave(rig, members, operator, database, generation) for generation in range(1, count + 1)]
    finally:
        operator.cache.close()
        operator.place.database.close()
        all_call(members, _close)
        if bits is not None:
            linker.call(relay.close_relay, "wave")


def _wave(rig: Rig, members: Sequence[Member], operator: OursRead, database: Database, generation: int) -> Wave:
    for member in members:
        member.order(_await, generation)
    time.sleep(1.5)  # until leases are renewed as they are in steady state
    bytes_before, server_before = _served(rig)
    database.promote(generation)
    committed = clock()
    operator.invalidate()
    returned = clock()
    arrivals = tuple(member.answer(_DEADLINE) for member in members)
    bytes_out, server = _served(rig)
    return Wave(
        committed,
        returned,
        bytes_out - bytes_before,
        server - server_before,
        operator.cache.inspect(0).payload_bytes,
        arrivals,
    )


def _open(local: Local, url: str, dsn: str, namespace: str) -> None:
    candidate = local.things["candidate"] = OursRead(Place(url, Database(dsn), namespace))
    candidate.read()


def _await(local: Local, generation: int) -> Arrival:
    """Read on until the rows are those of this generation."""
    candidate: OursRead = local.things["candidate"]
    before, cpu = candidate.cache.metrics.as_dict(), time.process_time()
    until = clock() + _DEADLINE
    while generation_of(candidate.read()) < generation:
        if clock() > until:
            raise TimeoutError(f"generation {generation} did not arrive in {_DEADLINE:g} s")
        time.sleep(_PAUSE)
    at, after = clock(), candidate.cache.metrics.as_dict()
    return Arrival(at, time.process_time() - cpu, {name: after[name] - before[name] for name in _METERS})


def _close(local: Local) -> None:
    candidate: OursRead = local.things.pop("candidate")
    candidate.close()
    candidate.place.database.close()


def _served(rig: Rig) -> tuple[int, float]:
    """Give how many bytes the server has sent, and how long it was on the core, so far."""
    with redis.Redis.from_url(rig.valkey.url, protocol=2) as client:
        said = client.info("everything")
    return int(said["total_net_output_bytes"]), float(said["used_cpu_user"] + said["used_cpu_sys"])
