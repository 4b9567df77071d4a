"""The command: scripts/matrix."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.matrix import artefacts, bare, pythons, report, sizes, suites


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if all that was asked for ran and passed, 1 if not, 2 if it could not be run."""
    options = _parser().parse_args(arguments)
    options.dependencies = options.dependencies or list(suites.LOCKS)
    options.artefact = options.artefact or ["wheel", "sdist"]
    try:
        found = pythons.found(options.python)
    except ValueError as error:
        _tell(f"scripts/matrix: {error}")
        return 2
    if options.newest_python:
        able = [python for python in found if python.has_pip or shutil.which("uv")]
        sys.stdout.write("".join(f"{python.path}\n" for python in able[-1:]))
        return int(not able)
    return _sizes(record=options.record) if options.sizes else _chosen(found, options)


def _chosen(found: Sequence[pythons.Python], options: argparse.Namespace) -> int:
    chosen = [python for python in found if not options.only or python.minor in options.only]
    for minor in sorted({*(options.only or pythons.supported())} - {python.minor for python in chosen}):
        _tell(f"Python {minor} is not on this machine: it is not run")
    if not chosen:
        return 2
    try:
        return _run(chosen, options)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        _tell(f"scripts/matrix: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


def _run(chosen: Sequence[pythons.Python], options: argparse.Namespace) -> int:
    cells = []
    versions = {}
    failed = False
    suite = "smoke" if options.smoke else "whole"
    tests = [*(suites.SMOKE if options.smoke else ()), *options.pytest]
    with tempfile.TemporaryDirectory(prefix="kcg-matrix-") as directory:
        work = Path(directory)
        built = [one for one in artefacts.build(work / "built") if one.name in options.artefact]
        for python in chosen:
            for name, told in bare.check(python, built[0].wheel, work / f"bare-{python.minor}") if options.bare else ():
                _tell(f"Python {python.version}, nothing but {name}: {told or 'as it should be'}")
                failed = failed or bool(told)
            for dependencies in options.dependencies:
                home = suites.environment(python, dependencies)
                versions[f"{dependencies}, {python.minor}"] = suites.versions(home)
                for artefact in built:
                    _tell(f"== Python {python.version}, {dependencies} dependencies, {artefact.name}")
                    place = work / f"{python.minor}-{dependencies}-{artefact.name}"
                    outcome = suites.run(artefact, home, place, tests)
                    failed = failed or not outcome.good
                    today = f"{datetime.now(UTC):%Y-%m-%d}"
                    cells.append(
                        report.cell(
                            python.version, artefact.name, dependencies, suite=suite, date=today, outcome=outcome
                        )
                    )
                    if options.record:  # at once: a whole matrix takes hours
                        known = report.load()
                        known["cells"] = report.merged(known["cells"], cells)
                        known["versions"] = {**known["versions"], **versions}
                        report.store(known)
    sys.stdout.write(f"{report.matrix(cells)}\n")
    return int(failed)


def _sizes(*, record: bool) -> int:
    known = report.load()
    known["sizes"] = sizes.measured()
    if record:
        report.store(known)
    sys.stdout.write(f"{report.tables(known)['sizes']}\n")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/matrix",
        description="Test the wheel and the sdist as installed, without the source tree, on every supported Python "
        "of this machine (on PATH, or of pyenv), with the newest and the oldest dependencies (docs/packaging.md). "
        "Environments are kept in .venv-matrix.",
        epilog="Exit codes: 0 all passed, 1 something failed, 2 it could not be run. The whole takes some ten minutes "
        "for each of sixteen suites; --smoke one minute.",
    )
    add = parser.add_argument
    add("--smoke", action="store_true", help="a few test files only, which touch every dependency")
    add("--only", action="append", metavar="3.X", help="this Python only (again for more)")
    add(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="an interpreter that is neither on PATH nor of pyenv",
    )
    add("--dependencies", action="append", choices=list(suites.LOCKS), help="this set only")
    add("--artefact", action="append", choices=["wheel", "sdist"], help="this one only")
    add(
        "--bare",
        action="store_true",
        help="also install the wheel with no extra, from the package index, as a user does",
    )
    add("--record", action="store_true", help="write what came out into docs/compatibility/python.json and the page")
    add("--sizes", action="store_true", help="instead: count and measure what every extra brings")
    add("--newest-python", action="store_true", help="instead: print the path of the newest Python here")
    add("pytest", nargs="*", metavar="ARGUMENT", help="after --, for pytest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
