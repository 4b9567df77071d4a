"""Cold start: many processes read at the same moment, and nobody has the rows yet (goal 4)."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.candidates import CATALOGUE, Candidate, Ours, Place
from benchmarks.crew import Local, Member, all_call, clock
from benchmarks.readers import CountingDatabase
from benchmarks.results import Goal, Lines, Result, Table, duration, spread, times
from benchmarks.rig import Effort, Rig
from benchmarks.timing import Times

NAME = "cold"
TITLE = "Cold start: 32 and 200 processes read at once"

#: Seconds that the load takes longer than its query.
LOAD = 0.2
_AT_32 = 1.3
_CORES = len(os.sched_getaffinity(0))
_NOTES = (
    (
        "All processes are up and have imported everything; they are told of a moment, and each then opens its own "
        "connection to Redis and reads. Only the one that loads asks for a database connection. What one process needs "
        "is measured in the same rounds, in the same way."
    ),
    (
        "All of them share both cores, with the servers: the time past the load is theirs, for each process opens a "
        "connection and decodes the rows once. *Core time of all* is what they took together; a fleet has it on many "
        "hosts. *Cores alone* is what the ratio would be if nothing but the two cores were waited for: one process's "
        "time, and half of the core time of all the others."
    ),
    (
        "*Questions, waits*: `read` scripts sent, and waits for another's fill, in the median round, of all processes. "
        "A waiter asks once, waits on the events stream for half of `redis_timeout` at a time, and asks again."
    ),
)
_METERS = ("waits", "scripts_read", "private_loads")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process saw of its first read."""

    #: Seconds from the common start: until it was on the core, and until it had the rows.
    began: float
    done: float
    #: Seconds of the core.
    cpu: float
    loads: int
    #: Of our counters; of a peer nothing.
    meters: dict[str, int]
    failure: str


@dataclass(frozen=True, slots=True)
class Wave:
    """One start of so many processes."""

    readings: tuple[Reading, ...]

    @property
    def last(self) -> float:
        """Seconds until the last one had its rows."""
        return max(reading.done for reading in self.readings)

    @property
    def cpu(self) -> float:
        """Seconds of the core that all of them took together."""
        return sum(reading.cpu for reading in self.readings)

    def total(self, meter: str) -> int:
        """Add one of our counters up."""
        return sum(reading.meters.get(meter, 0) for reading in self.readings)

    @property
    def loads(self) -> int:
        """How often the rows were loaded."""
        return sum(reading.loads for reading in self.readings)

    @property
    def failures(self) -> int:
        """How many were given no rows."""
        return sum(bool(reading.failure) for reading in self.readings)


def run(rig: Rig, effort: Effort) -> Result:
    """Start 1, 32 and 200 processes in interleaved rounds, on S and on M; then every peer's 1 and 32."""
    result = Result(NAME, TITLE)
    counts = (1, *effort.of((32, 200), (3, 5)))
    rows, lines = [], []
    with rig.crew(counts[-1], everywhere=True) as members:
        for size in effort.of(("S", "M"), ("S",)):
            start_all(members, rig, Ours, size)  # the first read of a process pays for more than this
            waves = _rounds(members, rig, Ours, size, counts, effort.of(7, 1))
            single = Times(tuple(wave.last for wave in waves[1]))
            for count in counts:
                last = Times(tuple(wave.last for wave in waves[count]))
                rows.append(_row(size, count, waves, last, last.ratios(single)))
                lines.append((f"{size}, {count}", _curve(waves[count])))
            _judge(result, size, counts, waves, single)
            result.figures[size] = {
                str(count): [[asdict(reading) for reading in wave.readings] for wave in waves[count]]
                for count in counts
            }
        shared = [each for each in CATALOGUE if each.shared and (each is Ours or not each.ours)]
        peers = _peers(members, rig, counts[1], effort.of(3, 1), effort.of(shared, shared[:2]), result)
    result.tables += [
        Table(
            f"Time until the last process has its rows; the load takes {LOAD:g} s",
            (
                "rows",
                "processes",
                "loads",
                "last",
                "quartiles",
                "× of one",
                "median process",
                "cores alone",
                "core time of all",
                "questions, waits",
            ),
            tuple(rows),
        ),
        peers,
    ]
    result.pictures.append(
        Lines("cold", "Cold start: how many processes have their rows", "% of the processes", "s", tuple(lines))
    )
    result.notes += _NOTES
    return result


def start_all(members: Sequence[Member], rig: Rig, candidate: type[Candidate], size: str) -> Wave:
    """Have all read at the same moment in a namespace that is empty."""
    all_call(members, prepare, candidate, rig.valkey.url, rig.database(size).dsn, rig.namespace())
    at = clock() + 0.1 + 0.002 * len(members)
    try:
        return Wave(tuple(all_call(members, read_at, at)))
    finally:
        all_call(members, finish)


def prepare(local: Local, candidate: type[Candidate], redis_url: str, dsn: str, namespace: str) -> None:
    """Make the candidate, with no connection open yet where the library allows that."""
    local.things["candidate"] = candidate(Place(redis_url, CountingDatabase(dsn), namespace, load_delay=LOAD))


def read_at(local: Local, at: float) -> Reading:
    """Wait for the moment, read, and tell how it went."""
    candidate: Candidate = local.things["candidate"]
    time.sleep(max(0.0, at - clock()))
    began, cpu, failure = clock(), time.process_time(), ""
    try:
        candidate.read()
    except Exception as error:  # noqa: BLE001 - what a library raises is a result: it stands in the table
        failure = f"{type(error).__name__}: {error}"
    done, cpu = clock(), time.process_time() - cpu
    meters = {name: candidate.cache.metrics[name] for name in _METERS} if isinstance(candidate, Ours) else {}
    database = candidate.place.database
    assert isinstance(database, CountingDatabase)
    return Reading(began - at, done - at, cpu, database.loads, meters, failure)


def finish(local: Local) -> None:
    """Close what the candidate and its database opened."""
    candidate: Candidate = local.things.pop("candidate")
    candidate.close()
    candidate.place.database.close()


def _rounds(
    members: Sequence[Member], rig: Rig, candidate: type[Candidate], size: str, counts: Sequence[int], rounds: int
) -> dict[int, list[Wave]]:
    waves: dict[int, list[Wave]] = {count: [] for count in counts}
    for number in range(rounds):
        for count in counts if number % 2 else reversed(counts):
            waves[count].append(start_all(members[:count], rig, candidate, size))
    return waves


def _judge(result: Result, size: str, counts: Sequence[int], waves: dict[int, list[Wave]], single: Times) -> None:
    loads = {wave.loads for count in counts for wave in waves[count]}
    failed = [reading.failure for count in counts for wave in waves[count] for reading in wave.readings]
    if any(failed):
        raise RuntimeError(f"a read of ours failed: {next(filter(None, failed))}")
    result.goals.append(
        Goal(
            4,
            f"cold start on {size}: loads of {counts[1]} and of {counts[2]} processes",
            "exactly one",
            "1 in every round" if loads == {1} else f"{min(loads)} to {max(loads)}",
            loads == {1},
        )
    )
    for count, limit in ((counts[1], _AT_32), (counts[2], None)):
        ratio = Times(tuple(wave.last for wave in waves[count])).ratios(single).median
        result.goals.append(
            Goal(
                4,
                f"cold start on {size}: the last of {count} processes, beside a single one",
                f"≤ {times(limit)}" if limit else "measured and explained",
                times(ratio),
                ratio <= limit if limit else None,
            )
        )


def _row(size: str, count: int, waves: dict[int, list[Wave]], last: Times, ratios: Times) -> tuple[str, ...]:
    one, middle = _middle(waves[1]), _middle(waves[count])
    loads = {wave.loads for wave in waves[count]}
    return (
        size,
        str(count),
        "1" if loads == {1} else f"{min(loads)} to {max(loads)}",
        duration(last.median),
        spread(last.low, last.high),
        times(ratios.median),
        duration(statistics.median(reading.done for reading in middle.readings)),
        times((one.last + (middle.cpu - one.cpu) / _CORES) / one.last),
        duration(middle.cpu),
        f"{middle.total('scripts_read')}, {middle.total('waits')}",
    )


def _middle(waves: Sequence[Wave]) -> Wave:
    return sorted(waves, key=lambda wave: wave.last)[len(waves) // 2]


def _curve(waves: Sequence[Wave]) -> tuple[tuple[float, float], ...]:
    done = sorted(reading.done for reading in _middle(waves).readings)
    return tuple((100 * (number + 1) / len(done), seconds) for number, seconds in enumerate(done))


def _peers(
    members: Sequence[Member],
    rig: Rig,
    count: int,
    rounds: int,
    candidates: Sequence[type[Candidate]],
    result: Result,
) -> Table:
    rows = []
    for candidate in candidates:
        start_all(members[:count], rig, candidate, "S")
        waves = _rounds(members, rig, candidate, "S", (1, count), rounds)
        single = Times(tuple(wave.last for wave in waves[1]))
        last = Times(tuple(wave.last for wave in waves[count]))
        loads = sorted(wave.loads for wave in waves[count])
        failures = sum(wave.failures for wave in waves[count])
        rows.append(
            (
                candidate.name,
                str(loads[0]) if loads[0] == loads[-1] else f"{loads[0]} to {loads[-1]}",
                duration(last.median),
                times(last.ratios(single).median),
                str(failures),
            )
        )
        result.figures[f"peer: {candidate.name}"] = {
            "single": single.seconds,
            "last": last.seconds,
            "loads": loads,
            "failures": failures,
        }
    return Table(
        f"The same with every library that shares its rows: {count} processes on S",
        ("library", "loads", "last", "× of one", "reads that raised"),
        tuple(rows),
    )
