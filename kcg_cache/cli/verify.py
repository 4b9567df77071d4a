"""``kcg-cache verify``: database, Redis and fleet held against each other by content."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from kcg_cache import codec
from kcg_cache.cache import SharedCache
from kcg_cache.cli import differences, shown
from kcg_cache.cli.caches import Database, opened
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop, one_line
from kcg_cache.cli.options import AsJson, Debug, Dsn, Namespace, RedisUrl, duration
from kcg_cache.cli.output import Output
from kcg_cache.cli.verify_rounds import rounds
from kcg_cache.differences import Change, difference
from kcg_cache.fleet import Reader
from kcg_cache.settings import without_password
from kcg_cache.verification import STANDINGS, Outcome, Rows, Shared, Verification

_HEADINGS: dict[Outcome, tuple[str, str]] = {
    "same": ("The same everywhere", "bold green"),
    "nothing shared": ("Nothing is shared now, so nothing differs", "bold green"),
    "different": ("Different: the shared rows are not the database's", "bold red"),
    "refused": ("No reader takes the entry that is shared", "bold red"),
    "readers differ": ("The shared rows are the database's, and there are readers on others", "bold red"),
}
_ABSENT = {
    "missing": "there is no entry: the next reader fills it",
    "incarnation": "the entry is another server's, or of before a restart: the next reader fills it anew",
    "expired": "the entry is past its TTL: the next reader fills it anew",
}
#: What a reader is at, in words; the first are named.
_FLEET = {
    "behind": "stay on other rows",
    "as_entry": "on the shared rows, which differ",
    "following": "within the lease of other rows",
    "private": "on rows of their own, or on none yet",
    "same": "on the database's rows",
    "silent": "silent: whatever they had, they ask before they read",
}
_NAMED = ("behind", "as_entry", "following", "private")
_MENDED = 5


def verify(
    *,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch",
            metavar="DURATION",
            parser=duration,
            help="Look again and again, with so much time in between (10s, 1min): a line each, until Ctrl-C.",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing when nothing differs: for cron, which mails the rest.")
    ] = False,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Hold the database's rows, the shared ones and every reader's against each other, and show what differs.

    It compares contents: an entry from before the last commit is the same when it says the same. What differs is looked
    at again before it is told, for a few seconds: a change that is being invalidated, or a fill, is no fault. It reads
    the database by itself, and fills and withdraws nothing. Fails when there is a difference. With --watch, --json
    gives a document on each line.
    """
    output = Output(as_json=as_json)
    database = Database(dsn)
    with opened(redis, namespace, role="viewer") as cache:

        def look() -> Verification:
            with _progress(wanted=not quiet and watch is None) as progress:
                return database.interruptible(lambda: cache.verify(database.connection, progress))

        if watch is not None:
            rounds(output, look, lambda found: document_of(cache, found), watch, quiet=quiet)
            return
        found = look()
        document = document_of(cache, found)
    if found.agrees and quiet:
        return
    output.show(document, *_parts(output, document, found))
    if not found.agrees:
        raise Stop(ExitCode.FINDING, _finding(found))


@contextlib.contextmanager
def _progress(*, wanted: bool) -> Iterator[Callable[[str], None]]:
    """Give what tells a person at a terminal what is being done."""
    if not wanted or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True, highlight=False).status("…") as status:
        yield status.update


def _finding(found: Verification) -> str:
    match found.outcome:
        case "different":
            told = "the shared rows are not the database's: if the database is right, `kcg-cache invalidate --reason …`"
        case "refused":
            assert found.shared is not None
            assert found.shared.refused is not None
            told = f"no reader takes the entry: {found.shared.refused.text}"
        case _:
            told = f"these readers stay on other rows: {', '.join(map(_named, found.readers.behind))}"
    unsettled = "" if found.settled else " (all the time a fill or an invalidate was under way)"
    return one_line(told) + unsettled


# --- as JSON ----------------------------------------------------------------------------------------------------------


def document_of(cache: SharedCache, found: Verification) -> dict[str, Any]:
    """Give a comparison for JSON."""
    changes = changes_of(found)
    readers = found.readers
    return {
        "dataset": cache.dataset.name,
        "namespace": cache.settings.namespace,
        "redis": without_password(cache.settings.redis_url),
        "time": shown.iso(found.at_us),
        "outcome": found.outcome,
        "agrees": found.agrees,
        "looks": found.looks,
        "settled": found.settled,
        "filling": found.filling,
        "database": _database(found.database),
        "entry": None if found.shared is None else _shared(found.shared),
        "absence": found.absence,
        "differences": [change.as_dict() for change in changes],
        "reordered": found.outcome == "different" and not changes,
        "readers": {name: [reader.as_dict() for reader in getattr(readers, name)] for name in STANDINGS}
        | {"unreadable": readers.unreadable},
    }


def changes_of(found: Verification) -> tuple[Change, ...]:
    """Tell what became of the shared rows in the database, row by row."""
    if found.outcome != "different" or found.shared is None or found.shared.rows is None:
        return ()
    return difference(found.shared.rows, found.database.rows)


def _database(rows: Rows) -> dict[str, Any]:
    return {
        "digest": rows.digest,
        "rows": len(rows.rows),
        "bytes": rows.size,
        "load_seconds": round(rows.seconds, 6),
        "source": rows.source or None,
        "unshared_because": rows.taint,
        "mended": list(rows.mended),
    }


def _shared(shared: Shared) -> dict[str, Any]:
    return {
        "digest": shared.digest or None,
        "rows": None if shared.rows is None else len(shared.rows),
        "loaded_at": shown.iso(shared.loaded_at_us),
        "age_seconds": shared.age,
        "fresh_seconds": None if shared.fresh is None else round(shared.fresh, 3),
        "format": shared.format or None,
        "source": shared.source or None,
        "refused": None if shared.refused is None else shared.refused._asdict(),
    }


# --- the same for people ----------------------------------------------------------------------------------------------


def _parts(output: Output, document: dict[str, Any], found: Verification) -> Iterator[Any]:
    yield Text(f"{document['dataset']} in namespace {document['namespace']} at {document['redis']}", style="bold")
    yield ""
    heading, style = _HEADINGS[found.outcome]
    yield Text(heading, style=style)
    looked = f"looked {shown.count(found.looks, 'time')}, last at {shown.moment(found.at_us)}"
    yield Text(looked if found.settled or found.agrees else f"{looked}, and each time something was under way", "dim")
    yield ""
    yield from output.section("Database", output.facts(_database_facts(found.database)))
    yield from output.section("Redis", output.facts(_shared_facts(found)))
    yield from output.section("Fleet", output.facts(_fleet_facts(found)))
    if found.outcome == "different":
        yield from _difference(output, found)


def _database_facts(rows: Rows) -> Iterator[tuple[str, str | Text]]:
    yield "digest", rows.digest
    yield "rows", f"{len(rows.rows)}, {shown.size(rows.size)}, read in {shown.duration(rows.seconds)}"
    yield "from database", rows.source or "(not told)"
    if rows.taint is not None:
        yield "not shared", Text(f"rows of this connection never are: {rows.taint}", style="yellow")
    for line in rows.mended[:_MENDED]:
        yield "mended", line
    if len(rows.mended) > _MENDED:
        yield "", f"and {len(rows.mended) - _MENDED} more"


def _shared_facts(found: Verification) -> Iterator[tuple[str, str | Text]]:
    shared = found.shared
    if found.absence is not None:
        yield "counts", f"nothing: {_ABSENT[found.absence]}"
    if shared is not None:
        same = shared.digest == found.database.digest
        yield "digest", shared.digest if same else Text(one_line(shared.digest) or "?", style="yellow")
        if shared.refused is not None and found.absence is None:
            yield "refused", Text(one_line(f"{shared.refused.text}; the next reader fills it anew"), style="bold red")
        if shared.age is not None:
            yield "loaded", f"{shown.duration(shared.age)} ago, at {shown.moment(shared.loaded_at_us or 0)}"
        if shared.fresh is not None and shared.fresh > 0:
            yield "time left", shown.duration(shared.fresh)
        packed = codec.meaning(shared.format) != shared.format
        yield "format", f"{shared.format or '?'}{', compressed' if packed else ''}"
        if shared.source != found.database.source:
            yield "from database", Text(f"{one_line(shared.source) or '(not told)'}: another one", style="yellow")
    if found.filling:
        yield "a fill", "is running"


def _fleet_facts(found: Verification) -> Iterator[tuple[str, str | Text]]:
    total = 0
    for name, meaning in _FLEET.items():
        readers: tuple[Reader, ...] = getattr(found.readers, name)
        total += len(readers)
        if readers:
            named = f": {', '.join(map(_named, readers))}" if name in _NAMED else ""
            style = "bold red" if name in ("behind", "as_entry") else ""
            yield str(len(readers)), Text(one_line(meaning + named), style=style)
    if not total:
        yield "0", "nobody asked within the last quarter of an hour"
    if found.readers.unreadable:
        yield str(found.readers.unreadable), "told what nobody can read"


def _named(reader: Reader) -> str:
    name = f"{reader.host or '?'}:{'?' if reader.pid is None else reader.pid}"
    digest = f" on {reader.digest[: shown.SHORT]}" if reader.digest else ""
    return f"{name}{f' ({reader.application})' if reader.application else ''}{digest}"


def _difference(output: Output, found: Verification) -> list[Any]:
    changes = changes_of(found)
    if not changes:
        told = "No row differs: they, or the keys within their params, stand in another order."
        return output.section("From the shared rows to the database's", told)
    drawn = [output.indented(part, 2) for part in differences.parts(output, changes)]
    return [Text("From the shared rows to the database's", style="bold"), *drawn]
