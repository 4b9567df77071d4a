"""What the figures were measured on: processor, cores, system, Python, servers, releases of the libraries."""

import importlib.metadata
import os
import platform
from pathlib import Path

from benchmarks.candidates import CATALOGUE
from benchmarks.rig import Rig


def describe(rig: Rig) -> dict[str, str]:
    """Describe it, in the order in which it is shown."""
    shared = "" if rig.server_cores != rig.client_cores else " (they share it: there is but one)"
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(os.getppid()))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "servers": f"Valkey {rig.valkey.version}, PostgreSQL {rig.postgres.version}, on core {rig.server_cores[0]}",
        "clients": f"on core {rig.client_cores[0]}{shared}; loopback TCP",
        "libraries": ", ".join(f"{name} {version}" for name, version in releases().items()),
    }


def releases() -> dict[str, str]:
    """Give the installed release of everything that is measured, and of what we stand on."""
    names = dict.fromkeys(name for candidate in CATALOGUE for name in candidate.distributions)
    names |= dict.fromkeys(["redis", "hiredis", "orjson", "psycopg2-binary", "backports.zstd"])
    return {name: importlib.metadata.version(name) for name in names if name != "kcg-cache"}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
