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
_COLUMNS: dict[str, Fit] = {
    "host": "wrap",
    "application": "wrap",
    "process": "right",
    "is": "whole",
    "digest": "whole",
    "since (UTC)": "whole",
    "for": "right",
    "last seen": "right",
    "reads/s": "right",
    "version": "whole",
    "": "wrap",
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
    with opened(redis, namespace, dataset) as cache:
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
        names = ", ".join(f"{one_line(reader.host)}:{reader.pid}" for reader in lagging)
        raise Stop(ExitCode.FINDING, f"given rows from before the shared ones, which must not be: {names}")


def _parts(output: Output, document: dict[str, Any], found: Fleet) -> Iterator[Any]:
    yield Text(f"{document['dataset']} in namespace {document['namespace']} at {document['redis']}", style="bold")
    yield ""
    yield from output.section("Shared rows", output.facts(_entry(found)))
    if found.readers:
        yield from output.section("Readers", output.table(_COLUMNS, _rows(found, grouped=output.terminal)))
    else:
        yield from output.section("Readers", "None that asked within the last quarter of an hour.")
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


def _rows(found: Fleet, *, grouped: bool) -> Iterator[list[str | Text]]:
    """Give the cells. A person sees a host's name once; whoever filters lines finds it on each."""
    for host, readers in groupby(found.readers, key=lambda reader: reader.host):
        for number, reader in enumerate(readers):
            standing = found.standing(reader)
            other = reader.digest is not None and reader.digest != found.digest
            yield [
                "" if grouped and number else Text(one_line(host) or "?", style="bold"),
                reader.application or "?",
                "?" if reader.pid is None else str(reader.pid),
                Text(standing, style=_STANDINGS[standing]),
                Text((reader.digest or "none")[: shown.SHORT], style="yellow" if other else ""),
                "" if reader.digest is None else shown.moment(reader.since_us)[5:19],
                "" if reader.digest is None else _since(reader.since_us, found),
                f"{_since(reader.seen_us, found)} ago",
                _rate(reader),
                reader.version or "?",
                ", ".join(_told(reader, found, other=other)),
            ]


def _since(micros: int, found: Fleet) -> str:
    return shown.duration(max(0, found.at_us - micros) / 1e6)


def _rate(reader: Reader) -> str:
    if not reader.counted_seconds or not reader.counts:
        return "?"
    return f"{sum(reader.counts[name] for name in _BY_SOURCE if name in reader.counts) / reader.counted_seconds:,.0f}"


def _told(reader: Reader, found: Fleet, *, other: bool) -> Iterator[str]:
    """Give what is out of the ordinary."""
    if other and found.digest is not None:
        yield "other rows"
    if reader.private_since_us is not None:
        yield f"rows of its own for {_since(reader.private_since_us, found)}"
    if reader.counts.get("cut_off"):
        yield f"was cut off from Redis {shown.count(reader.counts['cut_off'], 'time')}"
    if reader.counts.get("private"):
        yield shown.count(reader.counts["private"], "private load")
    if reader.counts.get("database"):
        yield shown.count(reader.counts["database"], "load")


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
