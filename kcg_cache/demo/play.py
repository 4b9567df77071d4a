"""`perform`: raise the servers and the crew, let them play, decide whether every promise held."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kcg_cache.demo import servers, signals, summary
from kcg_cache.demo.board import BEGUN, FLOOR, Board
from kcg_cache.demo.crew import Crew, Member
from kcg_cache.demo.lines import PlainLines, Silence, View
from kcg_cache.demo.tally import Tally, WorkerTally
from kcg_cache.errors import ConfigurationError
from kcg_cache.system import SYSTEM

_STEP = 0.1
#: Seconds: bounds that are met only when something is wrong.
_READY_WITHIN, _ON_LAST_WITHIN, _ENDED_WITHIN, _OVERTIME = 60.0, 15.0, 15.0, 60.0
#: One worker in three looks up once per cycle, as a scheduler does.
_ONE_SCHEDULER_IN = 3


class UsageError(ConfigurationError):
    """An argument of the demo is wrong."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to play; raises `UsageError` for what cannot be played."""

    workers: int = 6
    seconds: float = 20.0
    redis: str | None = field(default=None, repr=False)
    dsn: str | None = field(default=None, repr=False)
    #: Let the first worker return rows once that an invalidate had withdrawn: the audit must find them.
    plant_stale_read: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 64:
            raise UsageError(f"workers is {self.workers}; allowed: 1 to 64")
        if not 3 <= self.seconds <= 86_400 or math.isnan(self.seconds):
            raise UsageError(f"seconds is {self.seconds:g}; allowed: 3 to 86400")
        if bool(self.redis) != bool(self.dsn):
            raise UsageError("give redis and dsn both, to use servers of yours, or neither")


def perform(options: Options, *, as_json: bool, plain: bool) -> int:
    """Play, and show it; give 0 when every promise held, 1 when one was broken. Raises as `kcg_cache.demo.run` says."""
    tally = Tally()
    with signals.raising():
        view: View = Silence() if as_json else _view(options.seconds, plain=plain)
        with contextlib.ExitStack() as stack:
            # The screen inside of the servers: what they say at their end must not be drawn over.
            place = stack.enter_context(_place(options, view.say))
            stack.enter_context(view)
            _play(options, place, tally, view)
        if as_json:
            sys.stdout.write(json.dumps(tally.as_dict(), indent=2) + "\n")
        else:
            sys.stdout.write("\n".join(summary.lines_of(tally)) + "\n")
        sys.stdout.flush()
    return 1 if tally.broken() else 0


def _place(options: Options, say: Callable[[str], None]) -> contextlib.AbstractContextManager[servers.Place]:
    if options.redis and options.dsn:
        return servers.given(options.redis, options.dsn, say)
    return servers.private(say)


def _view(seconds: float, *, plain: bool) -> View:
    if not plain and sys.stdout.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - the extra may be missing

            from kcg_cache.demo.screen import Screen  # noqa: PLC0415 - as above
        except ImportError:
            return PlainLines()
        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            return Screen(console, seconds)
    return PlainLines()


def _play(options: Options, place: servers.Place, tally: Tally, view: View) -> None:
    servers.fill(place)
    with contextlib.closing(Board.make()) as board, Crew() as crew:
        board.words[FLOOR] = board.words[BEGUN] = 1
        stage = _Stage(crew, tally, view)
        told = {"redis": place.redis, "dsn": place.dsn, "namespace": place.namespace}
        for name, kind in _roles(options.workers):
            plant = options.plant_stale_read and not tally.workers
            member = crew.start(name, kind, "worker", {**told, "plant_stale_read": plant}, board.descriptor)
            tally.workers[name] = WorkerTally(name, kind, member.pid)
        operator = crew.start("operator", "operator", "operate", told, board.descriptor)
        _perform(options, stage, operator)
        tally.ended = SYSTEM.now()
        for member in crew.members:
            member.tell(stop=True)
        stage.until(lambda: tally.all_gone, _ENDED_WITHIN, whoever_died=True)
        tally.troubles += [f"{member.name} did not end" for member in crew.members if member.exit_code is None]
        tally.notes = [note for member in crew.members for note in member.notes()]


def _perform(options: Options, stage: "_Stage", operator: Member) -> None:
    """Let the operator play, and everyone come to the last version; stop where that does not come about."""
    tally = stage.tally
    if not stage.until(lambda: not tally.not_ready(), _READY_WITHIN):
        if not tally.someone_died:
            tally.troubles += [f"{name} was not ready in {_READY_WITHIN:g} s" for name in tally.not_ready()]
        return
    tally.began = SYSTEM.now()
    operator.tell(seconds=options.seconds)
    if not stage.until(lambda: tally.operator_finished, options.seconds + _OVERTIME):
        if not tally.someone_died:
            tally.troubles.append(f"the operator was not done {_OVERTIME:g} s after the end")
        return
    if not stage.until(lambda: not tally.behind(), _ON_LAST_WITHIN) and not tally.someone_died:
        tally.troubles += [f"{name} never got generation {tally.generation}" for name in tally.behind()]


def _roles(workers: int) -> Iterator[tuple[str, str]]:
    schedulers = workers // _ONE_SCHEDULER_IN
    for number in range(1, workers - schedulers + 1):
        yield f"worker-{number:02}", "reader"
    for number in range(1, schedulers + 1):
        yield f"scheduler-{number:02}", "scheduler"


@dataclass(slots=True)
class _Stage:
    """Hears the crew, keeps the tally, shows it."""

    crew: Crew
    tally: Tally
    view: View

    def until(self, condition: Callable[[], bool], seconds: float, *, whoever_died: bool = False) -> bool:
        """Listen until something is true; False when it was not in time, or when somebody died."""
        end = SYSTEM.now() + seconds
        while not condition():
            now = SYSTEM.now()
            if now >= end or (self.tally.someone_died and not whoever_died):
                return False
            self._hear(min(_STEP, end - now))
        return True

    def _hear(self, seconds: float) -> None:
        for member, message in self.crew.listen(seconds):
            if member.kind == "operator":
                self.tally.hear_operator(message)
            else:
                self.tally.workers[member.name].hear(message)
        self.view.show(self.tally, SYSTEM.now())
