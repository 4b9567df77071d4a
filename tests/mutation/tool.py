"""Run mutmut on a private copy of the checkout, first with the quick tests, then with those that start servers.

mutmut puts every mutant of a function beside it in the same file and chooses one by the environment. It forks for each
mutant, and runs those tests alone that call its function, from the quickest on, until one fails. In the first round
those are the pure tests and the ones on fakeredis: a tenth of a second for most mutants. Only what survives that is
asked again in the second round, by the tests with a real PostgreSQL and a real Valkey.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kcg_cache.embedded import start_postgres
from tests.mutants.runner import Checkout
from tests.mutation import mutants
from tests.mutation.mutants import Mutant, Outcome

#: Where the logic is.
MODULES = ("cache", "near", "codec", "filling", "outage", "rows")

QUICK = (
    "tests/test_near.py",
    "tests/test_rows.py",
    "tests/test_codec.py",
    "tests/test_store.py",
    "tests/test_cache.py",
    "tests/test_logged.py",
)
SERVERS = ("tests/test_postgres.py",)
#: What mutmut and the tests need beside `kcg_cache` and the tests.
_ALSO = ("sql",)
# The seed: a mutant that only some examples of Hypothesis notice has the same fate in every run.
_ARGUMENTS = ("-p", "no:cacheprovider", "--hypothesis-seed=0")
_NO_SERVER = ("-k", "not valkey")
# A mutant hangs when its tests take four times as long as (they took alone, and this). mutmut counts no fixtures, of
# which those with servers are mostly made; and the machine may have other work.
_PATIENCE_QUICK, _PATIENCE_SERVERS = 6.0, 30.0


class ToolError(Exception):
    """mutmut did not come to its end."""


@dataclass(frozen=True, slots=True)
class Found:
    """A mutant and who noticed it."""

    mutant: Mutant
    #: Noticed by the second round only.
    needed_servers: bool = False


def run(
    modules: Sequence[str] = MODULES, *, jobs: int = 1, tell: Callable[[str], None] = lambda _: None
) -> list[Found]:
    """Make the mutants of `modules` and run the tests on each; raises `ToolError`."""
    with tempfile.TemporaryDirectory(prefix="kcg-mutmut-") as directory:
        checkout = Path(directory) / "checkout"
        Checkout(Path(directory))  # copies what git tracks
        quick = first_round(checkout, modules, QUICK, arguments=(*_ARGUMENTS, *_NO_SERVER), jobs=jobs)
        left = [mutant for mutant in quick if mutant.outcome in (Outcome.SURVIVED, Outcome.UNTESTED)]
        tell(f"{len(quick)} mutants, {len(left)} of them not noticed by the quick tests: on to those with servers")
        if not left:
            return [Found(mutant) for mutant in quick]
        with start_postgres() as server:
            asked = next_round(
                checkout, modules, SERVERS, left, arguments=_ARGUMENTS, jobs=jobs, outside={"KCG_TEST_DSN": server.dsn}
            )
    return [_after(mutant, asked.get(mutant.name)) for mutant in quick]


def first_round(
    checkout: Path, modules: Sequence[str], tests: Sequence[str], *, arguments: Sequence[str] = (), jobs: int = 1
) -> list[Mutant]:
    """Make the mutants and run `tests` on them."""
    _configure(checkout, modules, tests, arguments, _PATIENCE_QUICK)
    _mutmut(checkout, ["run", "--max-children", str(jobs)])
    return mutants.read(checkout, modules)


def next_round(
    checkout: Path,
    modules: Sequence[str],
    tests: Sequence[str],
    left: Sequence[Mutant],
    *,
    arguments: Sequence[str] = (),
    jobs: int = 1,
    outside: Mapping[str, str] | None = None,
) -> dict[str, Mutant]:
    """Run other `tests` on the mutants that are `left`; give these by their names."""
    _configure(checkout, modules, tests, arguments, _PATIENCE_SERVERS)
    # Else it would go by which of the first round's tests call a function.
    (checkout / "mutants" / "mutmut-stats.json").unlink()
    names = [mutant.name for mutant in left]
    _mutmut(checkout, ["run", "--max-children", str(jobs), *names], outside)
    return {mutant.name: mutant for mutant in mutants.read(checkout, modules) if mutant.name in set(names)}


def _after(mutant: Mutant, asked: Mutant | None) -> Found:
    if asked is None or asked.outcome is Outcome.UNTESTED:
        return Found(mutant)
    return Found(replace(mutant, outcome=asked.outcome), asked.outcome in (Outcome.KILLED, Outcome.TIMEOUT))


def _configure(
    checkout: Path, modules: Sequence[str], tests: Sequence[str], arguments: Sequence[str], patience: float
) -> None:
    """Write mutmut's section into the copy's pyproject.toml, and into the copy of it that mutmut runs the tests in."""
    section: dict[str, Any] = {
        "source_paths": ["kcg_cache"],
        "only_mutate": [f"kcg_cache/{module}.py" for module in modules],
        "also_copy": list(_ALSO),
        "pytest_add_cli_args_test_selection": list(tests),
        "pytest_add_cli_args": list(arguments),
        "timeout_constant": patience,
        "timeout_multiplier": 4.0,
        "use_git_change_detection": False,
    }
    path = checkout / "pyproject.toml"
    given = path.read_text(encoding="utf-8").partition("\n[tool.mutmut]\n")[0]
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in section.items()]
    path.write_text(f"{given}\n[tool.mutmut]\n{''.join(lines)}", encoding="utf-8")


def _mutmut(checkout: Path, arguments: Sequence[str], outside: Mapping[str, str] | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KCG_", "PYTHON"))}
    # mutmut keeps the names of tests in sets: with the hash seed, their order is the same in every run.
    environment |= {"PYTHONHASHSEED": "0", "COLUMNS": "200", **(outside or {})}
    log = checkout.parent / "mutmut.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("mutmut")), *arguments],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with _ended(process):
            status = process.wait()
    if status != 0:
        said = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        raise ToolError(f"mutmut ended with {status}:\n{said[-3000:]}")


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """See to it that nothing of mutmut's is left running, however the block is left."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
