"""A shared cache of PostgreSQL-held parameters that never serves a version which an operator has withdrawn."""

from kcg_cache.api import configure, invalidate_cache, load_active_versions, load_dependencies
from kcg_cache.cache import SharedCache
from kcg_cache.datasets import ACTIVE_VERSIONS, Dataset
from kcg_cache.errors import CacheError, ConfigurationError, DatasetError, InvalidateError, SettingsError
from kcg_cache.fleet import Fleet, FleetReceipt
from kcg_cache.receipt import Invalidation
from kcg_cache.rows import Dependency, VersionRow
from kcg_cache.settings import Settings
from kcg_cache.snapshot import Snapshot
from kcg_cache.version import __version__ as __version__

__all__ = [
    "ACTIVE_VERSIONS",
    "CacheError",
    "ConfigurationError",
    "Dataset",
    "DatasetError",
    "Dependency",
    "Fleet",
    "FleetReceipt",
    "InvalidateError",
    "Invalidation",
    "Settings",
    "SettingsError",
    "SharedCache",
    "Snapshot",
    "VersionRow",
    "configure",
    "invalidate_cache",
    "load_active_versions",
    "load_dependencies",
]
