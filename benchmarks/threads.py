"""Covered reads from 1, 2, 8 and 32 threads of one process: what they make together."""

import threading
import time
from functools import partial

from benchmarks.candidates import Candidate, InProcess, Ours, OursRead, Place
from benchmarks.crew import Local
from benchmarks.database import Database
from benchmarks.results import Goal, Lines, Result, Table, spread, times
from benchmarks.rig import Effort, Rig
from benchmarks.timing import Timed, Times, interleaved

NAME = "threads"
TITLE = "Covered reads from many threads of one process"

_THREADS = (1, 2, 8, 32)
_KINDS: tuple[type[Candidate], ...] = (InProcess, Ours, OursRead)
_CONTROL = "an empty function"
#: Of what one thread makes, or of what an empty function keeps where the switching alone costs some of it.
_LEAST = 0.9


def run(rig: Rig, effort: Effort) -> Result:
    """Time everything with every number of threads, in interleaved rounds of one process."""
    place = Place(rig.valkey.url, Database(rig.database("S").dsn), rig.namespace())
    with rig.crew(1) as (member,):
        found: dict[tuple[str, int], Times] = member.call(_measure, place, effort.of(12, 2), effort.of(0.2, 0.002))
    return _result(found)


def _measure(_local: Local, place: Place, rounds: int, seconds: float) -> dict[tuple[str, int], Times]:
    candidates = [kind(place) for kind in _KINDS]
    work: dict[str, Timed] = {_CONTROL: _nothing}
    work.update({candidate.name: candidate.time_reads for candidate in candidates})
    found = interleaved(
        {
            f"{threads} {name}": partial(_together, timed, threads)
            for name, timed in work.items()
            for threads in _THREADS
        },
        rounds=rounds,
        seconds=seconds,
    )
    for candidate in candidates:
        candidate.close()
    return {(name, threads): found[f"{threads} {name}"] for name in work for threads in _THREADS}


def _nothing(count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        _empty()
    return time.perf_counter() - began


def _empty() -> None:
    pass


def _together(work: Timed, threads: int, count: int) -> float:
    """Do it so many times in all, shared out among threads; give the time from the first start to the last end."""
    barrier = threading.Barrier(threads)
    began, ended, failures = [], [], []
    each = max(1, count // threads)

    def one() -> None:
        barrier.wait()
        began.append(time.perf_counter())
        try:
            work(each)
        except Exception as error:  # noqa: BLE001 - raised where it is heard
            failures.append(error)
        ended.append(time.perf_counter())

    everybody = [threading.Thread(target=one) for _ in range(threads)]
    for thread in everybody:
        thread.start()
    for thread in everybody:
        thread.join()
    if failures:
        raise failures[0]
    return (max(ended) - min(began)) * count / (each * threads)


def _result(found: dict[tuple[str, int], Times]) -> Result:
    result = Result(NAME, TITLE)
    names = list(dict.fromkeys(name for name, _ in found))
    # Throughput against that of one thread, round by round.
    kept = {(name, threads): found[name, 1].ratios(found[name, threads]) for name, threads in found}
    for kind in (Ours, OursRead):
        worst = min(_THREADS, key=lambda threads: kept[kind.name, threads].median)
        result.goals.append(
            Goal(
                3,
                f"total throughput of {', '.join(map(str, _THREADS))} threads: {kind.name}",
                f"does not fall: >= {times(_LEAST)} that of 1 thread, or of what an empty function keeps",
                f"{times(kept[kind.name, worst].median)} at {worst} threads "
                f"(an empty function: {times(kept[_CONTROL, worst].median)})",
                kept[kind.name, worst].median >= _LEAST * min(1.0, kept[_CONTROL, worst].median),
            )
        )
    result.tables.append(
        Table(
            "Reads per second of all threads together, and against one thread",
            ("candidate", "threads", "reads/s", "against 1 thread", "spread"),
            tuple(
                (
                    name,
                    str(threads),
                    f"{1 / found[name, threads].median:,.0f}",
                    times(kept[name, threads].median),
                    spread(kept[name, threads].low, kept[name, threads].high, times),
                )
                for name in names
                for threads in _THREADS
            ),
        )
    )
    result.pictures.append(
        Lines(
            "threads",
            "Covered reads of all threads of one process together",
            "threads",
            "million reads/s",
            tuple(
                (name, tuple((float(threads), 1e-6 / found[name, threads].median) for threads in _THREADS))
                for name in names
            ),
            log_x=True,
        )
    )
    result.notes.append(
        "CPython lets one thread of a process run at a time, so the most that threads can make together is what one "
        f"makes. {_CONTROL.capitalize()}, called in a loop, shows what the switching itself costs. A lock costs more "
        "where the thread that holds it is switched away: every other one runs into it. kcg_cache with a lease asks "
        "Redis once a second, in the timed loops."
    )
    result.figures = {
        name: {
            str(threads): {
                "reads_per_s": 1 / found[name, threads].median,
                "against_one": kept[name, threads].median,
                "seconds_per_read": list(found[name, threads].seconds),
            }
            for threads in _THREADS
        }
        for name in names
    }
    return result
