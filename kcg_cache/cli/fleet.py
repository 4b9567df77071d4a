"""``kcg-cache fleet``: who reads, on which rows, and who does not."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.text import Text

from kcg_cache.cli import shown
from kcg_cache.cli.caches import opened
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop, one_line
from kcg_cache.cli.options import AsJson, DatasetName, Debug, Namespace, RedisUrl
from kcg_cache.cli.output import Fit, Output
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.fleet import Fleet, Reader
from kcg_cache.settings import without_password

#: What a process is at, in the order of the totals, and its colour.
_STANDINGS = {
    "lagging": "bold red",
    "private": "yellow",
    "loading": "yellow",
    "waiting": "yellow",
    "following": "cyan",
    "current": "green",
    "silent": "dim",
}
#: The columns, and from which width of the terminal on there is room for each.
_COLUMNS: dict[str, tuple[Fit, int]] = {
    "process": ("right", 0),
    "application": ("wrap", 60),
    "is": ("whole", 0),
    "digest": ("whole", 0),
    "since (UTC)": ("whole", 80),
    "for": ("right", 100),
    "last seen": ("right", 60),
    "reads/s": ("right", 90),
    "version": ("whole", 100),
}
_BY_SOURCE = ("near", "redis", "database", "handed_over")


def fleet(
    *,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dataset: DatasetName = ACTIVE_VERSIONS.name,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show every process that reads, by host: on which rows it is and since when, who lags and who is silent.

    A silent one has not asked for longer than its lease: idle or dead, it has to ask before it reads again. After a
    quarter of an hour it is forgotten. Fails when somebody was given rows from before those that are shared.
    """
    output = Output(as_json=as_json)
    with opened(redis, namespace, dataset, role="viewer") as cache:
        found = cache.fleet()
        document = {
            "dataset": cache.dataset.name,
            "namespace": cache.settings.namespace,
            "redis": without_password(cache.settings.redis_url),
            "totals": dict.fromkeys(_STANDINGS, 0) | Counter(map(found.standing, found.readers)),
            **found.as_dict(),
        }
    output.show(document, *_parts(output, document, found))
    lagging = [reader for reader in found.readers if found.standing(reader) == "lagging"]
    if lagging:
        names = one_line(", ".join(map(_named, lagging)))
        raise Stop(ExitCode.FINDING, f"given rows from before the shared ones, which must not be: {names}")


def _parts(output: Output, document: dict[str, Any], found: Fleet) -> Iterator[Any]:
    yield Text(f"{document['dataset']} in namespace {document['namespace']} at {document['redis']}", style="bold")
    yield ""
    yield from output.section("Shared rows", output.facts(_entry(found)))
    if not found.readers:
        yield from output.section("Readers", "None that asked within the last quarter of an hour.")
    columns: dict[str, Fit] = {name: fit for name, (fit, width) in _COLUMNS.items() if output.width >= width}
    if output.terminal:
        for host, readers in groupby(found.readers, key=lambda reader: reader.host):
            rows = [[cells[name] for name in columns] for cells in (_cells(found, reader) for reader in readers)]
            yield from output.section(one_line(host) or "?", output.table(columns, rows))
    elif found.readers:
        # Whoever filters lines finds the host on each.
        each = [{"host": reader.host or "?", **_cells(found, reader)} for reader in found.readers]
        columns = {"host": "whole", **columns}
        yield from output.section("Readers", output.table(columns, [[row[name] for name in columns] for row in each]))
    notes = [(_named(reader), told) for reader in found.readers if (told := ", ".join(_told(reader, found)))]
    if notes:
        yield from output.section("Out of the ordinary", output.facts(notes))
    yield Text(_totals(document["totals"], found))


def _entry(found: Fleet) -> Iterator[tuple[str, str]]:
    yield "now", shown.moment(found.at_us)
    if found.digest is None:
        yield "digest", "there are none: the next reader loads them"
        return
    yield "digest", found.digest
    if found.loaded_at_us is not None:
        ago = shown.duration(max(0, found.at_us - found.loaded_at_us) / 1e6)
        yield "loaded", f"{shown.moment(found.loaded_at_us)}, {ago} ago"


def _cells(found: Fleet, reader: Reader) -> dict[str, str | Text]:
    standing = found.standing(reader)
    other = _other(reader, found)
    since = reader.digest is not None
    return {
        "process": "?" if reader.pid is None else str(reader.pid),
        "application": reader.application or "?",
        "is": Text(standing, style=_STANDINGS[standing]),
        "digest": Text((reader.digest or "none")[: shown.SHORT] + (" ≠" if other else ""), style="yellow" * other),
        "since (UTC)": shown.moment(reader.since_us)[5:19] if since else "",
        "for": _since(reader.since_us, found) if since else "",
        "last seen": f"{_since(reader.seen_us, found)} ago",
        "reads/s": _rate(reader),
        "version": reader.version or "?",
    }


def _other(reader: Reader, found: Fleet) -> bool:
    """Tell whether it has, or had when it was last seen, other rows than those that are shared."""
    return None not in (reader.digest, found.digest) and reader.digest != found.digest


def _named(reader: Reader) -> str:
    return f"{reader.host or '?'}:{'?' if reader.pid is None else reader.pid}"


def _since(micros: int, found: Fleet) -> str:
    return shown.duration(max(0, found.at_us - micros) / 1e6)


def _rate(reader: Reader) -> str:
    if not reader.counted_seconds or not reader.counts:
        return "?"
    return f"{sum(reader.counts[name] for name in _BY_SOURCE if name in reader.counts) / reader.counted_seconds:,.0f}"


def _told(reader: Reader, found: Fleet) -> Iterator[str]:
    if _other(reader, found):
        yield "other rows than the shared ones"
    if reader.private_since_us is not None:
        yield f"rows that it shares with nobody, for {_since(reader.private_since_us, found)}"
    if reader.counts.get("cut_off"):
        yield f"was cut off from Redis {shown.count(reader.counts['cut_off'], 'time')}"
    if reader.counts.get("private"):
        yield shown.count(reader.counts["private"], "private load")


def _totals(totals: dict[str, int], found: Fleet) -> str:
    hosts = len({reader.host for reader in found.readers})
    told = f"{shown.count(len(found.readers), 'process', 'processes')} on {shown.count(hosts, 'host')}"
    named = ", ".join(f"{number} {standing}" for standing, number in totals.items() if number)
    told += f": {named}" if named else ""
    versions = sorted({reader.version or "?" for reader in found.readers})
    if len(versions) > 1:
        told += f"; {len(versions)} versions of the library: {', '.join(map(one_line, versions))}"
    if found.unreadable:
        told += f"; {shown.count(found.unreadable, 'record')} that nobody can read"
    return told
