"""Why readers take no row of the entry that is there, as far as it can be told without its payload. Pure: no I/O."""

from typing import NamedTuple

from kcg_cache import codec
from kcg_cache.answers import State
from kcg_cache.errors import EntryError
from kcg_cache.settings import Settings
from kcg_cache.units import size

#: What an entry has beside its payload.
FIELDS = ("digest", "format", "loaded_at", "load_us", "incarnation", "source", "signature")
#: A time of so many microseconds is none (read.lua).
NO_TIME = 8_000_000_000_000_000

_INCARNATION = "another server, or this one before its restart or failover, has written it"
_AHEAD = "it was loaded later than now, by more than the TTL: a clock stepped back, or it is forged"


class Refusal(NamedTuple):
    """Why: a word for programs (malformed, incarnation, ahead, oversized, format, signature), and a line for people."""

    reason: str
    text: str


def refusal(state: State, dataset: str, settings: Settings) -> Refusal | None:
    """Tell why readers with these settings take no row of the entry in `state`; None when they do."""
    entry = state.entry
    malformed = _malformed(state)
    if malformed:
        return Refusal("malformed", malformed)
    # In the order of read.lua and then of the reader.
    checks = (
        (entry["incarnation"] != state.incarnation, "incarnation", _INCARNATION),
        (int(entry["loaded_at"]) > state.at + settings.ttl * 1e6, "ahead", _AHEAD),
        (state.payload_bytes > settings.max_payload, "oversized", f"its payload is over {_limit(settings)}"),
        (entry["format"] not in codec.FORMATS, "format", f"its format {entry['format']!r} is unknown to this version"),
    )
    for refused, reason, text in checks:
        if refused:
            return Refusal(reason, text)
    claim = codec.Claim(settings.namespace, dataset, *(entry[name] for name in codec.Claim._fields[2:]))
    try:
        codec.check_signature(settings.signing_keys, entry["signature"], claim, unsigned=settings.accept_unsigned)
    except EntryError as error:
        return Refusal("signature", str(error))
    return None


def _limit(settings: Settings) -> str:
    return f"max_payload ({size(settings.max_payload)})"


def whole_number(text: str, *, below: int) -> int | None:
    """Read decimal digits that anyone may have written; None for what is no number, or none below `below`."""
    # Python's int() reads other scripts' digits, too, and refuses 5000 of them.
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(below))
    return int(text) if digits and int(text) < below else None


def _malformed(state: State) -> str | None:
    """Tell what makes the entry none of ours to the script itself (read.lua)."""
    missing = [name for name in FIELDS if name not in state.entry]
    if not state.payload_bytes:
        missing.append("payload")
    if missing:
        return f"it has no {', '.join(missing)}"
    no_number = [name for name in ("loaded_at", "load_us") if whole_number(state.entry[name], below=NO_TIME) is None]
    return f"its {' and '.join(no_number)} is no number" if no_number else None
