"""What the rows themselves say: models without a PRIMARY, dependencies that lead nowhere, cycles. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from kcg_cache.rows import Dependency

#: So many names are listed before the rest is counted.
NAMED = 5


def mended(reports: Sequence[str], rows: int) -> Finding:
    """Tell of rows whose params are no JSON object (`kcg_cache.datasets.version_row`)."""
    if reports:
        mend = "UPDATE kcg.detection_model_versions SET params = '{…}' WHERE id = …, then kcg-cache invalidate"
        return Finding("KCG-D01", WARNING, _several(reports, "; "), mend)
    return Finding("KCG-D01", OK, f"all {rows} ACTIVE versions have a JSON object")


def primaries(models: Sequence[Mapping[str, Any]]) -> Finding:
    """Look for enabled models with no ACTIVE PRIMARY, or several (sql/doctor_models.sql)."""
    enabled = [model for model in models if model["is_enabled"]]
    if not enabled:
        return Finding("KCG-D02", NOTE, "no model is enabled: workers get no rows", "is it the right database?")
    several = [model["model_id"] for model in enabled if model["primaries"] > 1]
    if several:
        mend = "kcg-cache promote MODEL VERSION --role PRIMARY archives the others; then make the index of KCG-P09"
        return Finding("KCG-D02", ERROR, f"several ACTIVE PRIMARY versions: {_several(several)}", mend)
    none = [model["model_id"] for model in enabled if model["primaries"] == 0]
    if none:
        mend = "kcg-cache promote MODEL VERSION --role PRIMARY, or kcg-cache disable MODEL"
        return Finding("KCG-D02", WARNING, f"enabled, with no ACTIVE PRIMARY version: {_several(none)}", mend)
    return Finding("KCG-D02", OK, f"each of {len(enabled)} enabled models has one ACTIVE PRIMARY")


def dependencies(models: Sequence[Mapping[str, Any]], edges: Sequence[Dependency]) -> Iterator[Finding]:
    """Look at the edges of the enabled models."""
    enabled = {model["model_id"] for model in models if model["is_enabled"]}
    known = {model["model_id"] for model in models}
    needed = [edge for edge in edges if edge.model_id in enabled]
    missing = [f"{edge.model_id} needs {edge.depends_on}" for edge in needed if edge.depends_on not in known]
    disabled = [f"{edge.model_id} needs {edge.depends_on}" for edge in needed if edge.depends_on in known - enabled]
    if missing:
        mend = "DELETE FROM kcg.detection_model_dependencies …, and add its foreign keys (sql/schema.sql)"
        yield Finding("KCG-D03", ERROR, f"models that do not exist: {_several(missing)}", mend)
    elif disabled:
        mend = "kcg-cache enable MODEL, or kcg-cache disable whoever needs it"
        yield Finding("KCG-D03", WARNING, f"models that are disabled: {_several(disabled)}", mend)
    else:
        yield Finding("KCG-D03", OK, f"{len(needed)} dependencies of enabled models, all on enabled ones")
    cycle = a_cycle(needed)
    if cycle:
        mend = "DELETE FROM kcg.detection_model_dependencies WHERE … one of these edges"
        yield Finding("KCG-D04", ERROR, " → ".join(cycle), mend)
    else:
        yield Finding("KCG-D04", OK, "no model needs its own output")


def a_cycle(edges: Iterable[Dependency]) -> list[str]:
    """Give the models of one cycle, the first again at the end; [] for none. No recursion: chains may be long."""
    needs: dict[str, list[str]] = {}
    for edge in edges:
        needs.setdefault(edge.model_id, []).append(edge.depends_on)
    done: set[str] = set()
    for start in sorted(needs):
        path: list[str] = []
        pending = [(start, False)]
        while pending:
            model, leaving = pending.pop()
            if leaving:
                done.add(path.pop())
                continue
            if model in path:
                return [*path[path.index(model) :], model]
            if model in done:
                continue
            path.append(model)
            pending.append((model, True))
            pending += [(other, False) for other in sorted(needs.get(model, []), reverse=True)]
    return []


def _several(names: Sequence[str], between: str = ", ") -> str:
    told = between.join(names[:NAMED])
    return told if len(names) <= NAMED else f"{told}{between}and {len(names) - NAMED} more"
