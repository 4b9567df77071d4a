"""``kcg-cache log``: who withdrew the shared rows, who filled them, and what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from kcg_cache.cache import SharedCache
from kcg_cache.cli import shown
from kcg_cache.cli.caches import opened
from kcg_cache.cli.events import count_of, filled, micros, short, spell
from kcg_cache.cli.failures import one_line
from kcg_cache.cli.options import AsJson, DatasetName, Debug, Namespace, RedisUrl, duration
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import check_reader, say
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.history import Gap, Happening, History, Kind, Lost, Only, Past, Regained, Seen
from kcg_cache.settings import INVALIDATE_WAIT, without_password

_LIMIT, _LIMIT_BEFORE_FOLLOWING = 50, 10
#: Characters of one text that somebody wrote into a stream that a screen shows.
_LONGEST = 400
_NAMES: dict[Kind, tuple[str, str]] = {
    "invalidation": ("invalidated", "bold yellow"),
    "fill": ("filled", "green"),
    "release": ("released", "magenta"),
    "other": ("?", "dim"),
}
#: The width of the widest name, and of a time to the millisecond.
_NAME, _TIME = 11, 23
#: A terminal has to be that wide for the columns to stand beside each other as they are.
_ROOMY = 60


def _since(text: str | None) -> str | None:
    if text is not None and moment_of(text) is None:
        try:
            duration(text)
        except typer.BadParameter:
            message = f"{text!r} is neither a time span (10min, 2h, 1d) nor a time in ISO 8601 (UTC)"
            raise typer.BadParameter(message) from None
    return text


def _only(text: str | None) -> str | None:
    if text not in (None, "invalidations", "fills"):
        raise typer.BadParameter(f"{text!r} is none of invalidations, fills")
    return text


def log(  # noqa: PLR0913 - each is an option
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on, until Ctrl-C.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="SPAN|TIME",
            callback=_since,
            help="Nothing older: a time span (90s, 10min, 2h, 1d) or a time in ISO 8601, UTC unless it says otherwise.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=0,
            help=f"The newest so many. Without it {_LIMIT}, with --follow {_LIMIT_BEFORE_FOLLOWING}, with --since all.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="invalidations|fills", callback=_only, help="Leave the others out."),
    ] = None,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dataset: DatasetName = ACTIVE_VERSIONS.name,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show who withdrew the shared rows, when, from where and why, and what came of it; and who filled them.

    The newest stands last. Invalidations are kept for good (about the last two thousand), fills for a day (about the
    last five hundred). Times are the Redis server's, in UTC. With --follow, --json gives a document on each line.
    """
    output = Output(as_json=as_json)
    kinds = cast("Only | None", only)
    if limit is None and since is None:
        limit = _LIMIT_BEFORE_FOLLOWING if follow else _LIMIT
    with opened(redis, namespace, dataset, role="viewer") as cache:
        history = cache.history()
        since_us = None if since is None else _since_us(since, history)
        past = history.past(since_us=since_us, limit=limit, only=kinds)
        for stream in past.foreign:
            say(f"warning: no stream but something else stands under the key of the {stream}: the next one replaces it")
        if not follow:
            document = _document(cache, past, {"since": shown.iso(since_us), "limit": limit, "only": only})
            output.show(document, *_parts(output, past))
            return
        _show_each(output, past.happenings, past.at_us, heading=True)
        for seen in history.follow(kinds):
            check_reader()
            _tell_interruptions(seen)
            told = [item for item in seen if isinstance(item, (Happening, Gap))]
            _show_each(output, told, history.now_us())


def moment_of(text: str) -> datetime | None:
    """Read a time in ISO 8601, which is UTC unless it says otherwise; None for what is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _since_us(text: str, history: History) -> int:
    moment = moment_of(text)
    if moment is None:
        return max(0, history.look() - round(duration(text) * 1e6))
    return max(0, (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


# --- as JSON ----------------------------------------------------------------------------------------------------------


def _document(cache: SharedCache, past: Past, asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dataset": cache.dataset.name,
        "namespace": cache.settings.namespace,
        "redis": without_password(cache.settings.redis_url),
        "time": shown.iso(past.at_us),
        **asked,
        "more": past.more,
        "no_stream": list(past.foreign),
        "entries": [_entry(happening, past.at_us) for happening in past.happenings],
    }


def _entry(seen: Happening | Gap, now_us: int) -> dict[str, Any]:
    if isinstance(seen, Gap):
        return {"kind": "gap", "stream": seen.stream, "time": shown.iso(now_us)}
    entry: dict[str, Any] = {
        "kind": seen.kind,
        "stream": seen.stream,
        "id": seen.id,
        "time": shown.iso(seen.at_us),
        "age_seconds": _between(seen.at_us, now_us),
    }
    get = seen.fields.get
    match seen.kind:
        case "invalidation":
            entry |= {
                "who": get("who"),
                "host": get("host"),
                "reason": get("reason"),
                "digest": get("digest") or None,
                "existed": _yes(get("existed")),
                "fill_cancelled": _yes(get("fill_cancelled")),
                "in_force_at": shown.iso(_in_force_us(seen)),
                "in_force_seconds": INVALIDATE_WAIT,
                "fill": None if seen.fill is None else _came_after(seen, seen.fill),
                "fill_known": seen.fill is not None or seen.fill_known,
            }
        case "fill":
            entry |= {
                "by": get("by"),
                "digest": get("digest") or None,
                "digest_before": seen.digest_before,
                "load_seconds": micros(get("load_us")),
                "bytes": count_of(get("bytes")),
                "source": get("source"),
                "loaded_at": shown.iso(get("loaded_at")),
                "invalidation": None if seen.after is None else _came_before(seen.after, seen),
            }
        case "release":
            entry |= {"by": get("by"), "reason": get("reason")}
        case _:
            pass
    return {**entry, "fields": dict(seen.fields)}


def _came_after(invalidation: Happening, fill: Happening) -> dict[str, Any]:
    digest = fill.fields.get("digest") or None
    return {
        "id": fill.id,
        "time": shown.iso(fill.at_us),
        "after_seconds": _between(invalidation.at_us, fill.at_us),
        "digest": digest,
        "changed": _changed(invalidation.fields.get("digest"), digest),
    }


def _came_before(invalidation: Happening, fill: Happening) -> dict[str, Any]:
    return {
        "id": invalidation.id,
        "time": shown.iso(invalidation.at_us),
        "after_seconds": _between(invalidation.at_us, fill.at_us),
        "reason": invalidation.fields.get("reason"),
    }


def _changed(before: str | None, after: str | None) -> bool | None:
    return before != after if before and after else None


def _between(earlier: int | None, later: int | None) -> float | None:
    return None if earlier is None or later is None else round(max(0, later - earlier) / 1e6, 6)


def _yes(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get(text or "")


def _in_force_us(invalidation: Happening) -> int | None:
    return None if invalidation.at_us is None else invalidation.at_us + round(INVALIDATE_WAIT * 1e6)


# --- the same for people ----------------------------------------------------------------------------------------------


def _parts(output: Output, past: Past) -> Iterator[Any]:
    if not past.happenings:
        yield "Nothing that is remembered."
    elif output.terminal:
        yield _table(output, past.happenings, past.at_us, heading=True)
    else:
        yield from (Text(_line(happening, past.at_us)) for happening in past.happenings)


def _show_each(output: Output, told: Sequence[Happening | Gap], now_us: int, *, heading: bool = False) -> None:
    """Write what has happened, at once: a JSON line each, a line each, or some more of the table."""
    if output.as_json:
        for item in told:
            output.more(_entry(item, now_us))
    elif output.terminal and (told or heading):
        output.more(None, _table(output, told, now_us, heading=heading))
    elif told:
        output.more(None, *(Text(_line(item, now_us)) for item in told))


def _tell_interruptions(seen: Sequence[Seen]) -> None:
    for item in seen:
        if isinstance(item, Lost):
            say(f"{one_line(str(item.error))}: it is asked again until it answers")
        elif isinstance(item, Regained):
            restarted = ": it is another server, or was restarted" if item.restarted else ""
            say(f"Redis answers again, after {shown.duration(item.seconds)}{restarted}")


def _table(output: Output, told: Sequence[Happening | Gap], now_us: int, *, heading: bool) -> Table:
    """Give what happened, several lines each. Columns are as wide in every part of a table that goes on and on."""
    table = output.table({"when (UTC)": "wrap", "what": "wrap", "": "wrap"}, ())
    table.show_header = heading
    for column, width in zip(table.columns, (_TIME, _NAME), strict=False):
        # Where there is no room for that the columns give way, and those of the next part may then stand elsewhere.
        column.min_width = width if output.width >= _ROOMY else None
    for item in told:
        name, style = _name(item)
        at, ago = _when(item, now_us)
        lines = list(_lines(item))
        body = Text("\n").join([Text(lines[0]), *(Text(line, style="dim") for line in lines[1:])])
        table.add_row(Text.assemble(at, "\n", (ago, "dim")), Text(name, style=style), body)
    return table


def _line(item: Happening | Gap, now_us: int) -> str:
    at, ago = _when(item, now_us)
    name, _ = _name(item)
    return f"{at:<{_TIME}}  {ago:>16}  {name:<{_NAME}}  {'; '.join(_lines(item))}"


def _name(item: Happening | Gap) -> tuple[str, str]:
    return ("gap", "bold red") if isinstance(item, Gap) else _NAMES[item.kind]


def _when(item: Happening | Gap, now_us: int) -> tuple[str, str]:
    at_us = now_us if isinstance(item, Gap) else item.at_us
    seconds = _between(at_us, now_us)
    return _time(at_us), "now" if isinstance(item, Gap) else "?" if seconds is None else f"{spell(seconds)} ago"


def _time(at_us: int | None) -> str:
    """Give a server time to the millisecond."""
    told = None if at_us is None else shown.iso(at_us)
    return "?" if at_us is None or told is None else shown.moment(at_us).removesuffix("Z")


def _lines(item: Happening | Gap) -> Iterator[str]:
    """Tell what happened: first what matters most, then the rest."""
    if isinstance(item, Gap):
        yield (
            f"the {item.stream} that were read last are no longer there: the stream was trimmed or made anew, "
            "and some of them may be missing here"
        )
        return
    match item.kind:
        case "invalidation":
            yield from _of_invalidation(item)
        case "fill":
            yield from _of_fill(item)
        case "release":
            yield f"a fill gave up: {_text(item, 'reason')}, by {_text(item, 'by')}"
        case _:
            yield _cut(", ".join(f"{name}={value}" for name, value in item.fields.items()) or "(empty)")


def _of_invalidation(item: Happening) -> Iterator[str]:
    yield _text(item, "reason", "(no reason)")
    yield f"by {_text(item, 'who')} on {_text(item, 'host')}"
    digest, existed = item.fields.get("digest"), _yes(item.fields.get("existed"))
    if digest:
        withdrew = f"withdrew {one_line(short(digest))}"
    else:
        withdrew = {None: "withdrew ?", False: "there was no entry", True: "withdrew an entry without a digest"}[
            existed
        ]
    cancelled = ", cancelled a fill that ran" if _yes(item.fields.get("fill_cancelled")) else ""
    yield f"{withdrew}{cancelled}; in force from {_time(_in_force_us(item))[11:] or '?'} on"
    if item.fill is not None:
        back = _came_after(item, item.fill)
        yield f"back after {spell(back['after_seconds'])} with {_rows(back['digest'], changed=back['changed'])}"
    elif item.fill_known:
        yield "no rows yet"


def _of_fill(item: Happening) -> Iterator[str]:
    digest = item.fields.get("digest") or None
    yield _rows(digest, changed=_changed(item.digest_before, digest))
    yield _cut(filled(item.fields))
    source = item.fields.get("source")
    if source:
        yield f"from {_cut(source)}"
    if item.after is not None:
        after = _between(item.after.at_us, item.at_us)
        yield f"back {spell(after)} after the invalidate: {_text(item.after, 'reason', '(no reason)')}"


def _rows(digest: str | None, *, changed: bool | None) -> str:
    return one_line(short(digest)) + {None: "", False: ", the same rows", True: ", other rows"}[changed]


def _text(item: Happening, name: str, empty: str = "?") -> str:
    return _cut(item.fields.get(name) or empty)


def _cut(text: str) -> str:
    spelt = one_line(text[: 2 * _LONGEST])
    return spelt if len(spelt) <= _LONGEST else f"{spelt[:_LONGEST]}…"
