"""The command: scripts/fuzz."""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parent
CORPUS = _HERE / "corpus"
REGRESSIONS = _HERE / "regressions"
#: Said here as well as in `targets`: to name them must not import kcg_cache, which is instrumented at its import.
NAMES = ("entry", "reply", "params")
#: Longer inputs reach nothing that these do not, and are slower.
_LONGEST = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz each target; 0 if nothing was found, 1 if something was, 2 where there is no atheris."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("scripts/fuzz: atheris is not installed; it has wheels for x86_64 Linux and Python < 3.14\n")
        return 2
    found = [name for name in options.target or NAMES if not _fuzzed(name, options)]
    if found:
        sys.stderr.write(f"found something in: {', '.join(found)}; the inputs are in tests/fuzz/regressions\n")
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description="Fuzz what reads bytes that others wrote (docs/bad-input.md)."
    )
    parser.add_argument("target", nargs="*", choices=[*NAMES, []], help="which targets; all without one")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="for how long, each (60); 0: no limit")
    parser.add_argument("--runs", type=int, default=-1, metavar="N", help="for how many inputs at most, each")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of libFuzzer; 0: another one each time")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what reaches more, as little as does")
    parser.add_argument("--artifacts", type=Path, default=REGRESSIONS, metavar="DIR", help=argparse.SUPPRESS)
    return parser


def _fuzzed(name: str, options: argparse.Namespace) -> bool:
    began, cpu = time.monotonic(), os.times()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) / "work"
        work.mkdir()
        limits = [f"-max_total_time={options.seconds}", f"-runs={options.runs}", f"-seed={options.seed}"]
        code, said = _atheris(
            name, str(work), str(CORPUS / name), *limits, f"-max_len={_LONGEST}",
            f"-artifact_prefix={options.artifacts}/{name}-", "-print_final_stats=1",
        )  # fmt: skip
        if code == 0 and options.keep:
            _keep(name, work)
    now = os.times()
    spent = now.children_user + now.children_system - cpu.children_user - cpu.children_system
    began_with, ended_with = _coverage(said)
    sys.stderr.write(
        f"{name:7} {_executions(said)} executions, {time.monotonic() - began:.0f} s ({spent:.0f} s of CPU), "
        f"branches {began_with[0]} -> {ended_with[0]}, features {began_with[1]} -> {ended_with[1]}\n"
    )
    if code:
        sys.stderr.write(said[-4000:])
    return code == 0


def _atheris(name: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.fuzz.run", name, *arguments]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return ended.returncode, (ended.stderr + ended.stdout).decode(errors="replace")


def _keep(name: str, work: Path) -> None:
    """Make the corpus anew, of the fewest inputs that reach all that it and `work` do."""
    merged = work.parent / "merged"
    merged.mkdir()
    inputs = [str(merged), str(CORPUS / name), str(work)]
    code, said = _atheris(name, "-set_cover_merge=1", f"-max_len={_LONGEST}", *inputs)
    if code or not any(merged.iterdir()):
        raise SystemExit(f"scripts/fuzz: merging the corpus of {name} failed:\n{said[-2000:]}")
    corpus = CORPUS / name
    corpus.mkdir(exist_ok=True)
    for path in corpus.iterdir():
        path.unlink()
    for path in merged.iterdir():
        # libFuzzer names them by their SHA-1; twelve digits tell them apart.
        (corpus / path.name[:12]).write_bytes(path.read_bytes())


def _executions(said: str) -> int:
    counts = re.findall(r"^stat::number_of_executed_units: (\d+)", said, re.MULTILINE)
    return int(counts[-1]) if counts else 0


def _coverage(said: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give what libFuzzer says first, which is what the corpus reaches, and last."""
    counts = [(int(cov), int(ft)) for cov, ft in re.findall(r"cov: (\d+) ft: (\d+)", said)]
    return (counts[0], counts[-1]) if counts else ((0, 0), (0, 0))


if __name__ == "__main__":
    sys.exit(main())
