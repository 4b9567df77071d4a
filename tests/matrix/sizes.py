"""What each extra brings: the packages that it requires, all the way down, and how much they take when installed."""

import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.matrix.pythons import PROJECT


def measured() -> dict[str, dict[str, Any]]:
    """Give, for the bare package, each extra with it, and all: the names of its packages and their bytes.

    Of this process's Python and environment, which must have all extras. Bytecode is not counted: it is made later.
    """
    extras = list(_project()["optional-dependencies"])
    kinds = {"kcg-cache": [], **{f"kcg-cache[{extra}]": [extra] for extra in extras}}
    kinds[f"kcg-cache[{','.join(extras)}]"] = extras
    sizes = {}
    for name, chosen in kinds.items():
        packages = closure(chosen)
        sizes[name] = {"packages": sorted(packages), "bytes": sum(_size(one) for one in packages.values())}
    return sizes


def direct() -> dict[str, str]:
    """Give the installed versions of what pyproject.toml names itself, extras too, as far as it is for this Python."""
    names = {canonicalize_name(one.name) for one in _required(_project()["optional-dependencies"])}
    return {name: metadata.version(name) for name in sorted(names)}


def closure(extras: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Give every package that `kcg-cache` with these extras needs here, by its name, without kcg-cache itself."""
    seen: set[tuple[str, str]] = set()
    found: dict[str, metadata.Distribution] = {}
    todo = _required(extras)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = metadata.distribution(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            todo += _wanted(found[name].requires or [], extra)
    return found


def _required(extras: Iterable[str]) -> list[Requirement]:
    project = _project()
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return _wanted(texts, "")


def _wanted(texts: Iterable[str], extra: str) -> list[Requirement]:
    requirements = [Requirement(text) for text in texts]
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": extra})]


def _size(distribution: metadata.Distribution) -> int:
    files = (file for file in distribution.files or [] if "__pycache__" not in file.parts)
    return sum(path.stat().st_size for file in files if (path := distribution.locate_file(file)).is_file())  # type: ignore[attr-defined] # locate_file gives a Path here


def _project() -> Mapping[str, Any]:
    project: Mapping[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project
