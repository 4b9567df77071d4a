"""``kcg-cache show``: the active versions, as a worker would get them."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any

import typer
from rich.text import Text

from kcg_cache import codec
from kcg_cache.cache import SharedCache
from kcg_cache.cli import shown
from kcg_cache.cli.caches import Database, note_lacking, opened
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop, one_line
from kcg_cache.cli.options import AsJson, Debug, Dsn, Namespace, RedisUrl
from kcg_cache.cli.output import Fit, Output
from kcg_cache.snapshot import Snapshot

_ROLES = {"PRIMARY": "bold green", "CHALLENGER": "yellow", "SHADOW": "dim"}
_COLUMNS: dict[str, Fit] = {
    "model": "whole",
    "role": "whole",
    "version": "whole",
    "id": "right",
    "params": "whole",
    "their keys": "cut",
}
_FROM = {
    "near": "this process's copy",
    "redis": "the shared copy in Redis",
    "database": "PostgreSQL, read just now",
}


def show(
    context: typer.Context,
    *,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Only look at the shared copy, as a viewer may: load nothing, change nothing."
        ),
    ] = False,
    params: Annotated[bool, typer.Option("--params", help="Show every version's params in full.")] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show the active versions, grouped by model, as a worker would get them now.

    They come from the shared copy in Redis. When that is missing or too old, PostgreSQL is read and the copy refreshed,
    as a worker does it: only then is a connection needed. That takes a worker's rights in Redis; with --read-only a
    viewer's suffice.
    """
    output = Output(as_json=as_json)
    database = Database(dsn)
    with opened(redis, namespace, role="viewer" if read_only else "worker") as cache:
        if read_only:
            snapshot = _looked_at(cache)
        else:
            snapshot = database.interruptible(lambda: cache.read(database.connection))
            for failure in context.obj.journal.redis_failures:
                note_lacking(cache, failure, "worker")
        document = {
            "dataset": cache.dataset.name,
            "namespace": cache.settings.namespace,
            "snapshot": facts_of(snapshot),
            "rows": snapshot.rows,
        }
    if params:
        parts = list(_in_full(output, snapshot.rows))
    else:
        parts = [output.table(_COLUMNS, _table_rows(snapshot.rows, grouped=output.terminal)), ""]
    if not snapshot.rows:
        parts = ["No enabled model has an ACTIVE version.", ""]
    output.show(document, *parts, _told(snapshot))
    if not snapshot.shared and context.obj.journal.redis_failures:
        raise Stop(ExitCode.REDIS)


def _looked_at(cache: SharedCache) -> Snapshot:
    """Give the shared rows as they are; raise `Stop` where readers would take none."""
    found = cache.peek()
    if isinstance(found, str):
        raise Stop(ExitCode.FINDING, f"there is nothing to show: {found}; the next reader loads")
    return found


def facts_of(snapshot: Snapshot) -> dict[str, Any]:
    """Give where rows are from, for JSON."""
    return {
        "source": snapshot.source,
        "shared": snapshot.shared,
        "stale": snapshot.stale,
        "digest": snapshot.digest,
        "loaded_at": shown.iso(snapshot.loaded_at_us),
        "age_seconds": round(snapshot.age, 6),
        "rows": len(snapshot.rows),
    }


def _told(snapshot: Snapshot) -> str:
    models = len({row["model_id"] for row in snapshot.rows})
    told = (
        f"{shown.count(len(snapshot.rows), 'version')} of {shown.count(models, 'model')}, "
        f"from {_FROM[snapshot.source]}; loaded {shown.duration(snapshot.age)} ago"
    )
    if snapshot.loaded_at_us is not None:
        told += f", at {shown.moment(snapshot.loaded_at_us)}"
    told += f"; digest {snapshot.digest[: shown.SHORT]}"
    if snapshot.stale:
        told += "; past their TTL, for the load failed"
    if not snapshot.shared:
        told += "; shared with nobody"
    return told


def _table_rows(rows: tuple[Any, ...], *, grouped: bool) -> Iterator[list[str | Text]]:
    """Give the cells. A person sees a model's name once; whoever filters lines finds it on each."""
    for model, versions in groupby(rows, key=lambda row: row["model_id"]):
        for number, row in enumerate(versions):
            yield [
                "" if grouped and number else Text(one_line(model), style="bold"),
                Text(one_line(row["role"]), style=_ROLES.get(row["role"], "")),
                row["version"],
                str(row["id"]),
                _digest(row["params"]),
                ", ".join(row["params"]) or "(none)",
            ]


def _digest(params: object) -> str:
    """Give eight characters by which two sets of params can be told apart; the order of their keys does not count."""
    text = codec.on_own_stack(lambda: json.dumps(params, sort_keys=True, separators=(",", ":")))
    return codec.digest_of(text.encode())[:8]


def _in_full(output: Output, rows: tuple[Any, ...]) -> Iterator[Any]:
    for model, versions in groupby(rows, key=lambda row: row["model_id"]):
        yield Text(one_line(model), style="bold")
        for row in versions:
            role = Text(one_line(row["role"]), style=_ROLES.get(row["role"], ""))
            yield Text("  ").append(role).append(f" {one_line(row['version'])} (id {row['id']})")
            yield output.indented(output.json_text(row["params"]), 4)
        yield ""
