"""All benchmarks, in the order in which they run: modules with ``NAME``, ``TITLE`` and ``run(rig, effort)``."""

from types import ModuleType

from benchmarks import asking, compliance, covered

BENCHMARKS: dict[str, ModuleType] = {module.NAME: module for module in (compliance, covered, asking)}
