"""Other versions of the library beside this one, in this process: its own source by another name, with a few changes.

`BRIDGE` is a release that reads a made-up next format, and does not write it yet; `NEXT` the one after it, which does.
Both have other script texts and another version number. The next format has ``v2`` before its rows, so whoever takes it
for what it is not reads nothing at all.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import kcg_cache

_SOURCE = Path(kcg_cache.__file__).parent
_IMPORT = re.compile(r"^(\s*(?:from|import) )kcg_cache\b", re.MULTILINE)
NEXT_FORMAT = "orjson2"

#: What is changed, by file: a text that is there exactly once, and what stands in its place.
Changes = dict[str, list[tuple[str, str]]]

BRIDGE: Changes = {
    "codec.py": [
        (
            "FORMATS = (ORJSON, STDLIB, ORJSON + _PACKED, STDLIB + _PACKED)",
            """NEXT = "orjson2"
FORMATS = tuple(kind + end for kind in (ORJSON, STDLIB, NEXT) for end in ("", _PACKED))""",
        ),
        (
            "rows = orjson.loads(data) if meaning(fmt) == ORJSON else",
            'rows = orjson.loads(data.removeprefix(b"v2")) if meaning(fmt) in (ORJSON, NEXT) else',
        ),
    ],
    "version.py": [(f'"{kcg_cache.__version__}"', '"0.9.8+bridge"')],
    "lua/_prelude.lua": [("-- Put before every script", "-- Of another version, put before every script")],
    "lua/invalidate.lua": [("-- KEYS", "-- of another version\n-- KEYS")],
}
NEXT: Changes = {
    **BRIDGE,
    "codec.py": [
        *BRIDGE["codec.py"],
        ("fmt = STDLIB if odd else ORJSON", "fmt = STDLIB if odd else NEXT"),
        ('data = b"[" + b",".join(parts) + b"]"', 'data = (b"[" if odd else b"v2[") + b",".join(parts) + b"]"'),
    ],
    "version.py": [(f'"{kcg_cache.__version__}"', '"0.9.9+next"')],
}


def made(name: str, changes: Changes, directory: Path) -> ModuleType:
    """Copy the library as the package `name` into a directory, change and import it; `unmade` takes it away."""
    package = directory / name
    shutil.copytree(_SOURCE, package, ignore=shutil.ignore_patterns("__pycache__", "cli", "demo", "doctor", "embedded"))
    for file, replacements in changes.items():
        path = package / file
        text = path.read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    for path in package.rglob("*.py"):
        path.write_text(_IMPORT.sub(rf"\1{name}", path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(directory))


def unmade(name: str) -> None:
    """Forget a package that was `made`, and what it imported of itself."""
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
