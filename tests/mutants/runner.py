"""Run the tests on a mutated copy of the checkout, in as many private copies as there are workers."""

import contextlib
import enum
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.table import ROOT, Mutation

#: What the unmutated tests may take.
_BASELINE_TIMEOUT = 900.0
#: What pytest may take to stop its servers after it was interrupted.
_GRACE = 20.0
_PASSED, _FAILED, _USAGE = 0, 1, 4


class Verdict(enum.Enum):
    """What became of a mutation."""

    CAUGHT = "caught"
    TIMEOUT = "caught by timeout"
    SURVIVED = "survived"
    #: The tests did not run at all.
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Result:
    """One mutation, run."""

    mutation: Mutation
    verdict: Verdict
    #: The test that failed first; '' for none, or what pytest said of a broken run.
    test: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it is as it should be: noticed, or explained."""
        if self.verdict is Verdict.SURVIVED:
            return bool(self.mutation.equivalent)
        return self.verdict is not Verdict.BROKEN


class BaselineError(Exception):
    """The tests fail without any mutation, so that they say nothing about one."""


class Checkout:
    """A private copy of the tracked files of this checkout, as they are now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._running: subprocess.Popen[str] | None = None
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                target = root / "checkout" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)

    def check(self, tests: Sequence[str]) -> None:
        """Raise `BaselineError` unless the tests pass as things are."""
        status, said = self._pytest(tests, _BASELINE_TIMEOUT)
        if status != _PASSED:
            raise BaselineError(f"without a mutation the tests do not pass:\n{said}")

    def run(self, mutation: Mutation, hint: str = "") -> Result:
        """Mutate, test, restore. The test of `hint` goes first."""
        began = time.monotonic()
        with self.mutated(mutation):
            status, said = self._pytest([hint, *mutation.tests] if hint else mutation.tests, mutation.timeout)
            if status == _USAGE and hint:  # there is no such test any more
                status, said = self._pytest(mutation.tests, mutation.timeout)
        seconds = time.monotonic() - began
        if status is None:
            return Result(mutation, Verdict.TIMEOUT, "", seconds)
        if status == _PASSED:
            return Result(mutation, Verdict.SURVIVED, "", seconds)
        first = _first_failure(said)
        if status == _FAILED and first:
            return Result(mutation, Verdict.CAUGHT, first, seconds)
        return Result(mutation, Verdict.BROKEN, said[-2000:], seconds)

    @contextlib.contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[Path]:
        """Mutate the copy for as long as the block lasts; give where it is."""
        path = self.root / "checkout" / mutation.file
        source = path.read_text(encoding="utf-8")
        path.write_text(mutation.apply(source), encoding="utf-8")
        try:
            yield self.root / "checkout"
        finally:
            path.write_text(source, encoding="utf-8")

    def stop(self) -> None:
        """End the tests that are running."""
        if self._running is not None:
            _end(self._running)

    def _pytest(self, tests: Sequence[str], timeout: float) -> tuple[int | None, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KCG_CACHE_")}
        where = str(self.root / "checkout")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-ra", "--tb=no", "-p", "no:randomly"]
        command += ["-p", "no:cacheprovider", "--basetemp", str(self.root / "pytest"), *dict.fromkeys(tests)]
        self._running = subprocess.Popen(
            command,
            cwd=where,
            env={**environment, "PYTHONPATH": where, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "500"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said, _ = self._running.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(self._running)
            return None, "no end within the time allowed"
        return self._running.returncode, said


def run(
    mutations: Sequence[Mutation],
    *,
    jobs: int = 1,
    hints: Mapping[str, str] | None = None,
    tell: Callable[[Result], None] = lambda _: None,
    baseline: bool = True,
) -> list[Result]:
    """Run each mutation on one of `jobs` copies; `tell` is called, by one thread at a time, after each.

    Raises `StaleError` before anything runs, and `BaselineError`.
    """
    for mutation in mutations:
        mutation.mutated()
    waiting: queue.SimpleQueue[Mutation] = queue.SimpleQueue()
    for mutation in mutations:
        waiting.put(mutation)
    tests = sorted({test.partition("::")[0] for mutation in mutations for test in mutation.tests})
    results: list[Result] = []
    errors: list[BaseException] = []
    telling = threading.Lock()

    def work(checkout: Checkout) -> None:
        try:
            if baseline:
                checkout.check(tests)
            while not errors:
                mutation = waiting.get_nowait()
                result = checkout.run(mutation, (hints or {}).get(mutation.name, ""))
                with telling:
                    results.append(result)
                    tell(result)
        except queue.Empty:
            return
        except BaseException as error:  # noqa: BLE001 - raised below, by the caller's thread
            errors.append(error)

    with tempfile.TemporaryDirectory(prefix="kcg-mutants-") as directory:
        checkouts = [Checkout(Path(directory) / str(number)) for number in range(min(jobs, len(mutations)))]
        threads = [threading.Thread(target=work, args=(checkout,), daemon=True) for checkout in checkouts]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            errors.append(error)
            for checkout in checkouts:
                checkout.stop()
            raise
    if errors:
        raise errors[0]
    order = {mutation.name: number for number, mutation in enumerate(mutations)}
    return sorted(results, key=lambda result: order[result.mutation.name])


def _end(process: "subprocess.Popen[str]") -> None:
    """Interrupt pytest, so that it stops its servers; kill it if it does not hear."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _first_failure(said: str) -> str:
    for line in said.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("FAILED", "ERROR") and "::" in rest:
            return rest.partition(" - ")[0].strip()
    return ""
