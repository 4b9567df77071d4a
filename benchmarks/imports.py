"""What `import kcg_cache` and `kcg-cache --help` cost beside the libraries that they stand on."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Bar, Chart, Goal, Result, Table, duration, spread
from benchmarks.rig import Effort, Rig
from benchmarks.timing import Times, interleaved

NAME = "imports"
TITLE = "Importing the library"

_ROOT = Path(__file__).parent.parent
_NOTHING, _DRIVERS, _OURS = "Python itself", "redis, orjson, psycopg2", "kcg_cache"
_SMALLEST_HELP, _HELP = "the three, and --help of the smallest typer app", "kcg-cache --help"
_SMALLEST_APP = """
import redis, orjson, psycopg2, typer
app = typer.Typer()
@app.command()
def do(): "Do nothing."
app()
"""
#: It ends as soon as the imports are done: what an interpreter clears away at its end is no part of importing.
_END = "import os; os._exit(0)"
_COMMANDS = {
    _NOTHING: ("-c", _END),
    _DRIVERS: ("-c", f"import redis, orjson, psycopg2; {_END}"),
    _OURS: ("-c", f"import kcg_cache; {_END}"),
    _SMALLEST_HELP: ("-c", _SMALLEST_APP, "--help"),
    _HELP: ("-m", "kcg_cache", "--help"),
}
_MOST = 1.15
_HEAVY = ("typer", "rich")
_MODULES_SHOWN = 10
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s*(\S+)")


@dataclass(slots=True)
class _Runs:
    """Whole processes of one command, one after the other."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    #: Processor time of all that were run, in seconds.
    processor: float = 0.0

    def wall(self, count: int) -> float:
        """Run it so many times; give the seconds from start to end."""
        began = time.perf_counter()
        for _ in range(count):
            self._once()
        return time.perf_counter() - began

    def _once(self) -> None:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, *self.arguments], env=self.environment, cwd=_ROOT, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(self.arguments)} ended with {process.returncode}")
        self.processor += used.ru_utime + used.ru_stime


def run(_rig: Rig, effort: Effort) -> Result:
    """Run every command in fresh processes, in interleaved rounds, with bytecode that is there already."""
    rounds = effort.of(40, 1)
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONPATH": str(_ROOT)}
        runs = {name: _Runs(arguments, environment) for name, arguments in _COMMANDS.items()}
        for its in runs.values():
            its.wall(1)  # writes the bytecode
            its.processor = 0.0
        wall = interleaved(
            {name: its.wall for name, its in runs.items()}, rounds=rounds, seconds=0, counts=dict.fromkeys(runs, 1)
        )
        tries = effort.of(5, 1)
        drivers, modules = (_modules(environment, runs[name].arguments[1], tries) for name in (_DRIVERS, _OURS))
    processor = {name: its.processor / rounds for name, its in runs.items()}
    return _result(wall, processor, modules, drivers.keys())


def _modules(environment: Mapping[str, str], program: str, tries: int) -> dict[str, float]:
    """Give, of every module that a program loads, the least time that it took by itself, in seconds."""
    least: dict[str, float] = {}
    for _ in range(tries):
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-X", "importtime", "-c", program],
            env=environment,
            cwd=_ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for own, _with_others, name in _LINE.findall(done.stderr):
            least[name] = min(least.get(name, float("inf")), int(own) / 1e6)
    return least


def _result(
    wall: Mapping[str, Times], processor: Mapping[str, float], modules: Mapping[str, float], drivers: Collection[str]
) -> Result:
    result = Result(NAME, TITLE)
    for what, base in ((_OURS, _DRIVERS), (_HELP, _SMALLEST_HELP)):
        by_wall = wall[what].ratios(wall[base])
        net = _net(wall, what, base)
        result.goals.append(
            Goal(
                11,
                f"{what} beside {base}",
                f"own modules <= {_MOST - 1:.0%} on top",
                f"{net - 1:+.1%} of its wall time, {_of_processor(processor, what, base) - 1:+.1%} of its processor's "
                f"({by_wall.median - 1:+.1%} of the whole process)",
                net <= _MOST,
            )
        )
    heavy = sorted({name.split(".")[0] for name in modules} & set(_HEAVY))
    result.goals.append(
        Goal(
            11,
            "heavy imports only where they are used",
            "import kcg_cache loads neither typer nor rich",
            f"loads {', '.join(heavy)}" if heavy else "loads neither",
            not heavy,
        )
    )
    own = {name: seconds for name, seconds in modules.items() if name.split(".")[0] == "kcg_cache"}
    more = {name: seconds for name, seconds in modules.items() if name not in own and name not in drivers}
    result.tables += [
        Table(
            "Whole processes",
            ("process", "wall time", "spread", "without Python's start", "processor time"),
            tuple(
                (
                    name,
                    duration(wall[name].median),
                    spread(wall[name].low, wall[name].high),
                    duration(max(0.0, wall[name].median - wall[_NOTHING].median)),
                    duration(processor[name]),
                )
                for name in _COMMANDS
            ),
        ),
        Table(
            f"What import kcg_cache loads of its own: {len(own)} modules, {duration(sum(own.values()))} by importtime",
            ("module", "by itself"),
            tuple((name, duration(seconds)) for name, seconds in _slowest(own)),
        ),
        Table(
            f"What else it loads that the drivers do not: {len(more)} modules, {duration(sum(more.values()))}",
            ("module", "by itself"),
            tuple((name, duration(seconds)) for name, seconds in _slowest(more)),
        ),
    ]
    result.pictures.append(
        Chart(
            "imports",
            "A fresh process that imports",
            "ms",
            tuple(
                Bar(
                    name,
                    wall[name].median * 1e3,
                    wall[name].low * 1e3,
                    wall[name].high * 1e3,
                    ours=name in (_OURS, _HELP),
                )
                for name in _COMMANDS
            ),
            log=False,
        )
    )
    result.notes.append(
        "Each figure is the wall time of whole fresh processes, in interleaved rounds, with bytecode written before. "
        "Those of the imports end as soon as they are done, without clearing the interpreter away. What is on top is "
        "reckoned after Python's own start is taken off both. -X importtime, which slows every import down, only tells "
        "where the time goes: it is no part of the figures above. Of what --help takes on top, our own modules are the "
        "smaller part: typer and rich lay out all its commands instead of one."
    )
    result.figures = {
        "wall_s": {name: list(its.seconds) for name, its in wall.items()},
        "processor_s": dict(processor),
        "own_modules_s": own,
        "other_modules_s": more,
    }
    return result


def _net(wall: Mapping[str, Times], what: str, base: str) -> float:
    """Give how many times as long as `base` it took, Python's own start taken off both; of medians, noise is less."""
    start = wall[_NOTHING].median
    return (wall[what].median - start) / (wall[base].median - start)


def _of_processor(processor: Mapping[str, float], what: str, base: str) -> float:
    return (processor[what] - processor[_NOTHING]) / (processor[base] - processor[_NOTHING])


def _slowest(modules: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(modules.items(), key=lambda item: -item[1])[:_MODULES_SHOWN]
