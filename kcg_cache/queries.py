"""Finds `sql/`: the queries, the DDL and the sample data, as files that a DBA can read.

In an installed wheel the files lie inside the package (``kcg_cache/sql/``), in a checkout beside it
(``sql/``). They are read at first use and kept. They must be real files: a package that runs from inside a zip
is not supported.
"""

import functools
from pathlib import Path

from kcg_cache.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent
_PLACES = (_PACKAGE / "sql", _PACKAGE.parent / "sql")
#: A directory without it is somebody else's: beside an installed package any other may stand.
_OURS = "snapshot_check.sql"


def load(name: str) -> str:
    """Give the text of ``<name>.sql``; raise `ConfigurationError` with the known names when there is none."""
    return _text(path(name))


def names() -> tuple[str, ...]:
    """Give the names that `load` knows, in alphabetical order."""
    return tuple(_files())


def path(name: str) -> Path:
    """Tell where ``<name>.sql`` is; raise `ConfigurationError` with the known names when there is none."""
    files = _files()
    if name not in files:
        raise ConfigurationError(f"no SQL file is named {name!r}; known are {', '.join(files)}")
    return files[name]


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def _files() -> dict[str, Path]:
    for place in _PLACES:
        if (place / _OURS).is_file():
            return {file.stem: file for file in sorted(place.glob("*.sql"))}
    raise ConfigurationError(
        f"the SQL files of kcg_cache are in neither {' nor '.join(map(str, _PLACES))}: "
        "the installation is incomplete, install it anew"
    )
