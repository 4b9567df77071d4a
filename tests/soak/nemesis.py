"""One soak from start to end: raise the servers and the crew, apply one fault after the other, see it all end."""

import contextlib
import time
from collections.abc import Callable

from kcg_cache.demo import signals
from tests.soak import prices, servers
from tests.soak.board import Board
from tests.soak.crew import Crew
from tests.soak.faults import Fault, Several, all_faults
from tests.soak.plan import Options, Schedule, UsageError
from tests.soak.stage import GaveUpError, Stage
from tests.soak.tally import Tally


def chosen(options: Options) -> dict[str, Fault]:
    """Give the faults that are to be applied; raises `UsageError` for a name that is none."""
    known = all_faults()
    unknown = [name for name in options.faults if name not in known]
    if unknown:
        raise UsageError(f"no fault is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return {name: fault for name, fault in known.items() if not options.faults or name in options.faults}


def run(options: Options, say: Callable[[str], None]) -> Tally:
    """Do what the options say and give what came out; it leaves nothing behind, however it ends."""
    faults, tally = chosen(options), Tally()
    with (
        signals.raising(),
        contextlib.closing(Board.make(options.operators)) as board,
        servers.started() as place,
        Crew() as crew,
    ):
        tally.versions = {"server": place.redis("INFO", "server").get("valkey_version", "?")}
        tally.versions["postgres"] = place.postgres.version
        place.fill(options.operators)
        place.start_proxies(crew, options.seed)
        stage = Stage(options, place, crew, board, tally, say)
        try:
            stage.raise_crew()
            _apply_all(stage, faults)
            stage.dismiss_crew()
        except GaveUpError as error:
            tally.trouble(str(error))
        except Exception as error:  # noqa: BLE001 - a soak of hours tells what it saw until then
            tally.trouble(f"the nemesis itself failed: {type(error).__name__}: {error}")
    return tally


def _apply_all(stage: Stage, faults: dict[str, Fault]) -> None:
    options = stage.options
    for name, fault in list(faults.items()):
        why = fault.lacks(stage)
        if why is not None:
            stage.tally.left_out[name] = why
            del faults[name]
    areas = {name: fault.area for name, fault in faults.items()}
    schedule = Schedule(
        list(faults), areas, options.seed, pairs=options.pairs and not options.prices, shuffled=not options.prices
    )
    until = None if options.minutes is None else time.monotonic() + options.minutes * 60
    for names in schedule.steps():
        over = schedule.rounds > options.rounds if until is None else time.monotonic() > until
        if over or not faults or (options.plant and stage.tally.violation_count):
            break
        if options.prices:
            prices.apply(stage, faults[names[0]])
        else:
            stage.apply(faults[names[0]] if len(names) == 1 else Several([faults[name] for name in names]))
            stage.listen_for(stage.random.uniform(0, 0.5) * options.scale)
