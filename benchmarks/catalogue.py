"""All benchmarks, in the order in which they run: modules with ``NAME``, ``TITLE`` and ``run(rig, effort)``."""

from types import ModuleType

from benchmarks import (
    asking,
    cold,
    compliance,
    covered,
    fill,
    fleet,
    fresh,
    imports,
    memory,
    outage,
    race,
    scaling,
    threads,
    wave,
)

_IN_ORDER = (
    compliance,
    covered,
    asking,
    threads,
    cold,
    fresh,
    race,
    outage,
    fill,
    fleet,
    scaling,
    wave,
    imports,
    memory,
)

BENCHMARKS: dict[str, ModuleType] = {module.NAME: module for module in _IN_ORDER}
