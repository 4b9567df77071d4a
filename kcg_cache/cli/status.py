"""``kcg-cache status``: what Redis holds for one dataset, who did what, and with which settings."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer
from rich.text import Text

from kcg_cache import codec
from kcg_cache.answers import State
from kcg_cache.cache import SharedCache
from kcg_cache.cli import shown
from kcg_cache.cli.caches import opened
from kcg_cache.cli.events import ago, micros, since, spell, timed, told, when, withdrew
from kcg_cache.cli.options import AsJson, DatasetName, Debug, Namespace, RedisUrl
from kcg_cache.cli.output import Fit, Output
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.refusal import refusal
from kcg_cache.settings import Settings, variable_of, without_password

#: Among so many events the one that filled the entry is found: after it come only those of later fills that failed.
_SEARCHED = 64
#: Redis's answer for the remaining life of a key that is not there.
_NO_KEY = -2


def status(
    *,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dataset: DatasetName = ACTIVE_VERSIONS.name,
    events: Annotated[
        int, typer.Option("--events", min=0, max=500, help="How many events, and how many invalidations, to show.")
    ] = 8,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show what is shared: the entry, the fill lock, events, invalidations, the server and the settings in force.

    An entry that is missing is no failure: the next reader fills it.
    """
    output = Output(as_json=as_json)
    with opened(redis, namespace, dataset) as cache:
        state = cache.inspect(max(events, _SEARCHED))
        document = _document(cache, state, cache.server(), events)
    output.show(document, *_parts(output, document))


# --- what there is, as JSON -------------------------------------------------------------------------------------------


def _document(cache: SharedCache, state: State, info: Mapping[str, str], events: int) -> dict[str, Any]:
    settings = cache.settings
    return {
        "dataset": cache.dataset.name,
        "namespace": settings.namespace,
        "redis": without_password(settings.redis_url),
        "time": shown.iso(state.at),
        "entry": _entry(cache, state),
        "lock": _lock(state),
        "events": [timed(event, state.at) for event in state.events[:events]],
        "invalidations": [timed(event, state.at) for event in state.invalidations[:events]],
        "server": _server(info),
        "settings": {name: {"value": value, "from": origin} for name, value, origin in _settings(settings)},
    }


def _entry(cache: SharedCache, state: State) -> dict[str, Any] | None:
    entry = state.entry
    if state.entry_ttl_ms == _NO_KEY:
        return None
    # It is kept for stale_if_error past its freshness. One without an end is given one by the next read.
    kept = state.entry_ttl_ms / 1000 if state.entry_ttl_ms >= 0 else None
    filled = next(
        (
            event
            for event in state.events
            if event.get("event") == "filled" and event.get("loaded_at") == entry.get("loaded_at")
        ),
        {},
    )
    refused = refusal(state, cache.dataset.name, cache.settings)
    return {
        "digest": entry.get("digest"),
        "loaded_at": shown.iso(entry.get("loaded_at")),
        "age_seconds": since(entry.get("loaded_at"), state.at),
        "fresh_seconds": None if kept is None else round(kept - cache.settings.stale_if_error, 3),
        "kept_seconds": kept,
        "format": entry.get("format"),
        "payload_bytes": state.payload_bytes,
        "filled_by": filled.get("by"),
        "load_seconds": micros(entry.get("load_us")),
        "source": entry.get("source"),
        "signed": bool(entry.get("signature")),
        "refused_because": None if refused is None else refused.text,
    }


def _lock(state: State) -> dict[str, Any] | None:
    if state.lock is None:
        return None
    return {
        "holder": state.lock.token,
        "since": shown.iso(state.lock.granted_at),
        "held_seconds": since(state.lock.granted_at, state.at),
        "left_seconds": state.lock_ttl_ms / 1000,
        "of_this_server": state.lock.incarnation == state.incarnation,
    }


def _server(info: Mapping[str, str]) -> dict[str, Any]:
    def number(name: str) -> int | None:
        value = info.get(name, "")
        return int(value) if value.isdecimal() else None

    return {
        "name": info.get("server_name") or ("valkey" if "valkey_version" in info else "redis"),
        "version": info.get("valkey_version") or info.get("redis_version"),
        "run_id": info.get("run_id"),
        "role": info.get("role"),
        "replicas": number("connected_slaves"),
        "uptime_seconds": number("uptime_in_seconds"),
        "used_memory_bytes": number("used_memory"),
        "maxmemory_bytes": number("maxmemory"),
        "maxmemory_policy": info.get("maxmemory_policy"),
        "clients": number("connected_clients"),
    }


def _settings(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Give each setting's name, its value (keys and passwords never) and where it is from."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        in_environment = os.environ.get(variable_of(field.name))
        if in_environment is None:
            origin = "default" if value == field.default else "option"
        else:
            origin = (
                "environment" if field.name not in ("redis_url", "namespace") or value == in_environment else "option"
            )
        if field.name == "signing_keys":
            value = shown.count(len(value), "key") if value else None
        elif field.name == "redis_url":
            value = without_password(value)
        elif field.name == "redis_password":
            value = "given, not shown" if value else ""
        yield field.name, value, origin


# --- the same for people ----------------------------------------------------------------------------------------------


def _parts(output: Output, document: Mapping[str, Any]) -> Iterator[Any]:
    yield Text(f"{document['dataset']} in namespace {document['namespace']} at {document['redis']}", style="bold")
    yield ""
    entry, lock = document["entry"], document["lock"]
    if entry is None:
        yield from output.section("Entry", "There is none: the next reader fills it.")
    else:
        yield from output.section("Entry", output.facts(_entry_facts(entry)))
    yield from output.section("Fill lock", "Free." if lock is None else output.facts(_lock_facts(lock)))
    yield from output.section("Last events", _events(output, document["events"]))
    yield from output.section("Last invalidations", _invalidations(output, document["invalidations"]))
    yield from output.section("Server", output.facts(_server_facts(document["server"])))
    rows = [(name, _setting(setting["value"]), setting["from"]) for name, setting in document["settings"].items()]
    yield from output.section(
        "Settings in force", output.table({"setting": "whole", "value": "wrap", "from": "whole"}, rows)
    )


def _entry_facts(entry: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    if entry["refused_because"]:
        yield "no reader takes it", Text(f"{entry['refused_because']}; the next one fills it anew", style="bold red")
    yield "age", f"{spell(entry['age_seconds'])}, loaded at {entry['loaded_at'] or '?'}"
    yield "time left", _time_left(entry)
    yield "digest", entry["digest"] or "?"
    yield "format", f"{entry['format'] or '?'}, {'signed' if entry['signed'] else 'not signed'}"
    packed = entry["format"] is not None and codec.meaning(entry["format"]) != entry["format"]
    yield "size", shown.size(entry["payload_bytes"]) + (", compressed" if packed else "")
    yield "filled by", f"{entry['filled_by'] or '?'}, in {spell(entry['load_seconds'])}"
    yield "from database", entry["source"] or "(not told)"


def _time_left(entry: Mapping[str, Any]) -> str:
    fresh, kept = entry["fresh_seconds"], entry["kept_seconds"]
    if kept is None:
        return "no end; the next read sets one"
    if fresh > 0:
        return shown.duration(fresh)
    return f"none; for {shown.duration(kept)} more it is served if a load fails"


def _lock_facts(lock: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "held by", f"the caller with token {lock['holder'][: shown.SHORT]}…"
    yield "since", f"{lock['since'] or '?'}, {spell(lock['held_seconds'])} ago"
    yield "time left", f"{shown.duration(max(0.0, lock['left_seconds']))}, unless it is renewed"
    if not lock["of_this_server"]:
        yield "does not count", "it was granted before a restart or failover"


def _events(output: Output, events: list[Mapping[str, Any]]) -> Any:
    if not events:
        return "None within the last day."
    rows = [(when(event), ago(event), event.get("event", "?"), told(event)) for event in events]
    return output.table({"when (UTC)": "whole", "ago": "right", "event": "whole", "": "wrap"}, rows)


def _invalidations(output: Output, invalidations: list[Mapping[str, Any]]) -> Any:
    if not invalidations:
        return "None that is remembered."
    rows = [
        (
            when(event),
            ago(event),
            event.get("who", "?"),
            event.get("host", "?"),
            withdrew(event),
            event.get("reason") or "(no reason)",
        )
        for event in invalidations
    ]
    columns: dict[str, Fit] = {
        "when (UTC)": "whole",
        "ago": "right",
        "who": "wrap",
        "host": "wrap",
        "withdrew": "whole",
        "reason": "wrap",
    }
    return output.table(columns, rows)


def _server_facts(server: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "version", f"{server['name']} {server['version'] or '?'}"
    yield "run_id", f"{(server['run_id'] or '?')[: shown.SHORT]}…, up for {spell(server['uptime_seconds'])}"
    yield "role", f"{server['role'] or '?'}, {shown.count(server['replicas'] or 0, 'replica')}"
    used, most = server["used_memory_bytes"], server["maxmemory_bytes"]
    limit = f"of {shown.size(most)}" if most else "without a limit"
    yield "memory", f"{'?' if used is None else shown.size(used)} {limit}, {server['maxmemory_policy'] or '?'}"
    yield "clients", "?" if server["clients"] is None else str(server["clients"])


def _setting(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "(none)" if value is None else str(value)
