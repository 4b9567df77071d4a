"""The entry in Redis, as readers with these settings would take it. Pure."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from kcg_cache import codec, compression
from kcg_cache.answers import NotAllowed, State
from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding, Severity, unchecked
from kcg_cache.errors import EntryError
from kcg_cache.refusal import Refusal, refusal
from kcg_cache.settings import Settings
from kcg_cache.units import size

#: Of max_payload: from here on the rows will soon be too large.
NEARLY = 0.8
_NO_KEY = -2


def examine(
    state: State | NotAllowed, payload: Mapping[str, bytes], dataset: str, settings: Settings, source: str | None
) -> Iterator[Finding]:
    """Look at the entry and at who filled it; `source` is the database that this host's settings name, if known."""
    if isinstance(state, NotAllowed):
        for code in ("KCG-E01", "KCG-E02", "KCG-E03", "KCG-E04"):
            yield unchecked(code, f"the entry cannot be looked at ({state.why})")
        return
    if state.entry_ttl_ms == _NO_KEY:
        yield Finding("KCG-E01", OK, "there is none: the next reader fills it")
    else:
        refused = refusal(state, dataset, settings)
        yield _taken(state, refused, payload, settings)
        yield _size(state, refused, payload, settings)
        yield _signature(state, refused, settings)
    yield _one_database(state, source)


def _taken(state: State, refused: Refusal | None, payload: Mapping[str, bytes], settings: Settings) -> Finding:
    mend = "kcg-cache invalidate --reason 'unreadable entry'; it comes back? A second writer has this namespace"
    if refused is None or refused.reason in ("signature", "oversized"):
        unreadable = _unreadable(payload, settings)
        if unreadable is None:
            told = f"entry {state.entry['digest'][:12]}, {state.entry['format']}, {size(state.payload_bytes)} as sent"
            return Finding("KCG-E01", OK, told)
        return Finding("KCG-E01", ERROR, f"the entry is refused: {unreadable}", mend)
    if refused.reason == "incarnation":
        return Finding("KCG-E01", NOTE, f"the entry is refused: {refused.text}; the next reader fills it anew")
    if refused.reason == "format":
        mend = "upgrade kcg_cache here, or wherever it is older: pip install -U kcg-cache"
    return Finding("KCG-E01", ERROR, f"the entry is refused: {refused.text}", mend)


def _unreadable(payload: Mapping[str, bytes], settings: Settings) -> str | None:
    """Tell why the payload cannot be decoded; None where it can, or is too large, or went meanwhile."""
    if not payload.keys() >= {"digest", "format", "payload"}:
        return None
    texts = {name: payload[name].decode(errors="replace") for name in ("digest", "format")}
    try:
        codec.decode(payload["payload"], texts["format"], texts["digest"], max_payload=settings.max_payload)
    except EntryError as error:
        return None if error.reason == "oversized" else str(error)
    return None


def _size(state: State, refused: Refusal | None, payload: Mapping[str, bytes], settings: Settings) -> Finding:
    if refused is not None and refused.reason not in ("signature", "oversized"):
        return unchecked("KCG-E02", f"the entry is refused: {refused.text}")
    if "payload" not in payload:
        return unchecked("KCG-E02", "its payload went meanwhile, or HMGET is not for this user")
    unpacked = len(payload["payload"])
    if payload.get("format", b"").endswith(b"+zstd"):
        try:
            # As much as could make a difference: a hostile frame may be unpacked to any size.
            unpacked = len(compression.unpacked(payload["payload"], settings.max_payload))
        except EntryError as error:
            if error.reason != "oversized":
                return unchecked("KCG-E02", str(error))
            unpacked = settings.max_payload + 1
    return measured("KCG-E02", unpacked, settings, f", {size(state.payload_bytes)} as sent")


def measured(code: str, unpacked: int, settings: Settings, more: str = "") -> Finding:
    """Hold the size of a payload, before it is compressed, against max_payload (PROTOCOL R14)."""
    most = settings.max_payload
    mend = f"KCG_CACHE_MAX_PAYLOAD={2 * max(unpacked, most)} on every process, readers first; archive what nobody reads"
    if unpacked > most:
        return Finding(code, ERROR, f"the rows take more than max_payload ({size(most)}){more}", mend)
    seen = f"the rows take {size(unpacked)} of {size(most)} (max_payload){more}"
    if unpacked > most * NEARLY:
        return Finding(code, WARNING, seen, mend)
    return Finding(code, OK, seen)


def _signature(state: State, refused: Refusal | None, settings: Settings) -> Finding:
    signed = bool(state.entry.get("signature"))
    if not settings.signing_keys:
        if signed:
            mend = "KCG_CACHE_SIGNING_KEYS=… here too: without keys this host believes, and writes, unsigned entries"
            return Finding("KCG-E03", WARNING, "the entry is signed, and this host has no keys", mend)
        return Finding("KCG-E03", OK, "not signed, and no keys here")
    if refused is not None and refused.reason == "signature":
        told = "signed by none of this host's keys" if signed else "not signed, and this host has keys"
        mend = "give every process the same KCG_CACHE_SIGNING_KEYS; to change keys, add the new one behind first"
        return Finding("KCG-E03", ERROR, f"the entry is {told}", mend)
    if refused is not None:
        return unchecked("KCG-E03", f"the entry is refused: {refused.text}")
    if settings.accept_unsigned:
        told = "signed by one of this host's keys" if signed else "not signed"
        mend = "when every process has keys, take KCG_CACHE_ACCEPT_UNSIGNED away: until then a forged entry needs none"
        return Finding("KCG-E03", WARNING, f"the entry is {told}, and this host accepts unsigned ones", mend)
    return Finding("KCG-E03", OK, "signed by one of this host's keys")


def _one_database(state: State, source: str | None) -> Finding:
    """Look at who filled this namespace: one change is a move, a change back and forth are two environments."""
    filled = [event["source"] for event in reversed(state.events) if event.get("source")]
    if state.entry.get("source"):
        filled.append(state.entry["source"])
    changes = [(old, new) for old, new in itertools.pairwise(filled) if not same(old, new)]
    mend = "give each environment its own KCG_CACHE_NAMESPACE, then: kcg-cache invalidate --reason 'foreign rows'"
    if source is not None and filled and not same(filled[-1], source):
        seen = f"last filled from database {filled[-1]}, and this host's is {source}"
        return Finding("KCG-E04", ERROR, seen, mend)
    if changes:
        severity: Severity = ERROR if len(changes) > 1 else WARNING
        times = "back and forth" if len(changes) > 1 else "once (was it moved?)"
        return Finding("KCG-E04", severity, f"filled from {_several(filled)}, changing {times}", mend)
    if not filled:
        return Finding("KCG-E04", OK, "filled by nobody within the last day")
    told = f"filled from {filled[-1]}" + (", which is this host's too" if source is not None else "")
    return Finding("KCG-E04", OK, told)


def same(one: str, other: str) -> bool:
    """Tell whether two sources may be one database: who may not ask for the identity says "unknown"."""
    if "unknown" in one + other:
        return one.partition("/")[2] == other.partition("/")[2]
    return one == other


def _several(sources: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(sources))
