"""Ask whether a version that requirements/*.lock pins has a known vulnerability (the command is scripts/audit).

pip-audit calls it "No known vulnerabilities found" when the service knew none of the packages, as a mirror without that
service answers. Here a package is clean only if it was really looked up.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "requirements"
SERVICES = ("pypi", "osv")
CLEAN, FOUND, UNUSABLE, UNREACHED = 0, 1, 2, 3


@dataclass(frozen=True)
class Answer:
    """What a service said of one lock: findings, as lines; how many packages it looked up; why not the others."""

    findings: list[str] = field(default_factory=list)
    looked_up: int = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Tell whether every package was looked up."""
        return self.looked_up > 0 and not self.unknown


def ask(lock: Path, service: str, program: Sequence[str]) -> Answer:
    """Ask one service about one lock; a service that is not reached has looked up nothing."""
    with tempfile.TemporaryDirectory(prefix="kcg-audit-") as place:
        output = Path(place) / "answer.json"
        options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--vulnerability-service", service]
        done = subprocess.run(
            [*program, *options, "--format", "json", "--output", output, "--requirement", lock],
            capture_output=True,
            text=True,
            check=False,
        )
        if not output.exists():
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return Answer(unknown=[said[-1]])
        return read(output.read_text(encoding="utf-8"))


def read(document: str) -> Answer:
    """Read pip-audit's JSON."""
    findings, unknown, looked_up = [], [], 0
    for one in json.loads(document)["dependencies"]:
        if "skip_reason" in one:
            unknown.append(one["skip_reason"])
            continue
        looked_up += 1
        for found in one["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no release"
            findings.append(f"{one['name']} {one['version']}: {found['id']}, mended in {fixed}")
    return Answer(findings, looked_up, unknown)


def main(arguments: Sequence[str] | None = None, program: Sequence[str] = (sys.executable, "-m", "pip_audit")) -> int:
    """Ask about every lock; give the worst: see the exit codes in --help."""
    parser = argparse.ArgumentParser(
        prog="scripts/audit",
        description="Ask, with pip-audit, whether a version that requirements/*.lock pins has a known vulnerability: "
        "PyPI's service first, then OSV's where that did not know every package.",
        epilog="Exit codes: 0 every package was looked up, and is clean; 1 a finding; 2 no such lock; 3 nothing "
        "was found, but a service could not be reached or did not know every package.",
    )
    parser.add_argument("lock", nargs="*", help="names of locks, as `demo`; all without any")
    names = parser.parse_args(arguments).lock or sorted(path.stem for path in LOCKS.glob("*.lock"))
    code = CLEAN
    for name in names:
        lock = LOCKS / f"{name}.lock"
        if not lock.exists():
            sys.stderr.write(f"scripts/audit: {lock.name} is not in requirements\n")
            return UNUSABLE
        code = _worse(code, _told(name, lock, program))
    return code


def _told(name: str, lock: Path, program: Sequence[str]) -> int:
    """Ask the services in turn until one knows every package, say what came out, and give the exit code."""
    answers = []
    for service in SERVICES:
        answers.append(answer := ask(lock, service, program))
        if answer.complete:
            break
    findings = sorted({finding for answer in answers for finding in answer.findings})
    best = max(answers, key=lambda answer: answer.looked_up)
    for finding in findings:
        sys.stdout.write(f"{name}: {finding}\n")
    if not answers[-1].complete:
        why = best.unknown[0] if best.unknown else "no package"
        sys.stdout.write(
            f"{name}: the vulnerability service could not be reached for all: {best.looked_up} packages were looked "
            f"up, {len(best.unknown)} answers were missing, the first: {why}\n"
        )
    elif not findings:
        sys.stdout.write(f"{name}: {best.looked_up} packages looked up, none with a known vulnerability\n")
    if findings:
        return FOUND
    return CLEAN if answers[-1].complete else UNREACHED


def _worse(one: int, other: int) -> int:
    return FOUND if FOUND in {one, other} else max(one, other)


if __name__ == "__main__":
    sys.exit(main())
