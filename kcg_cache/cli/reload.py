"""``kcg-cache reload``: read the database now, and refresh the shared copy."""

from collections.abc import Iterator, Mapping
from typing import Any

import typer
from rich.text import Text

from kcg_cache.cli import shown
from kcg_cache.cli.caches import Database, note_lacking, opened
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop
from kcg_cache.cli.options import AsJson, Debug, Dsn, Namespace, RedisUrl
from kcg_cache.cli.output import Output
from kcg_cache.cli.show import facts_of


def reload(
    context: typer.Context,
    *,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Read the database now and refresh the shared copy; running workers follow within their lease, a second at most.

    To be sure that no reader uses the rows before, use invalidate. Fails when the rows could not be shared.
    """
    output = Output(as_json=as_json)
    database = Database(dsn)
    with opened(redis, namespace, role="worker") as cache:
        # First, for it fails when Redis does: rows that nobody gets are not worth a load.
        before = cache.shared_digest()
        snapshot = database.interruptible(lambda: cache.read(database.connection, force=True))
        for failure in context.obj.journal.redis_failures:
            note_lacking(cache, failure, "worker")
        document = {
            "dataset": cache.dataset.name,
            "namespace": cache.settings.namespace,
            "before": before,
            "changed": before != snapshot.digest,
            "snapshot": facts_of(snapshot),
        }
        mode = cache.settings.mode
    output.show(document, *output.section("Reloaded", output.facts(_facts(document))))
    if not snapshot.shared:
        if context.obj.journal.redis_failures:
            raise Stop(ExitCode.REDIS)
        why = (
            "KCG_CACHE_MODE is bypass"
            if mode == "bypass"
            else "the warning says why, or a later invalidate overtook it"
        )
        raise Stop(ExitCode.FINDING, f"the rows were read, but not shared: {why}")


def _facts(document: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    snapshot = document["snapshot"]
    yield "before", document["before"] or "nothing"
    yield "now", Text(snapshot["digest"], style="bold") if document["changed"] else f"{snapshot['digest']}, the same"
    yield "rows", str(snapshot["rows"])
    yield "loaded at", snapshot["loaded_at"] or "just now"
    yield "shared", "yes" if snapshot["shared"] else Text("no", style="bold red")
    yield "age", shown.duration(snapshot["age_seconds"])
