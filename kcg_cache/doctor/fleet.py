"""The processes that read: settings, versions of the library, and who lags. Pure: it looks at `Reader`s."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kcg_cache.answers import NotAllowed
from kcg_cache.doctor.findings import NOTE, OK, WARNING, Finding, unchecked
from kcg_cache.fleet import Fleet
from kcg_cache.units import count, duration

#: Processes that are named before the rest is counted.
NAMED = 4


class Reader(NamedTuple):
    """One process of the fleet, as it last told of itself."""

    host: str
    pid: int | None
    application: str
    #: Of the library.
    version: str
    #: Seconds.
    lease: float
    #: Those that all processes of a fleet should have alike, as far as it told them.
    settings: Mapping[str, Any]
    #: What it is at: "current", "lagging", "private", "silent", …
    standing: str
    #: Seconds since it has the rows that it reads.
    since: float

    @property
    def name(self) -> str:
        """What a person finds it by."""
        return f"{self.application or 'process'} {self.pid or '?'} on {self.host or '?'}"


def readers_of(seen: Fleet) -> list[Reader]:
    """Take from what Redis remembers of the fleet what is looked at here."""
    return [
        Reader(
            host=reader.host,
            pid=reader.pid,
            application=reader.application,
            version=reader.version,
            lease=reader.lease,
            settings=reader.settings,
            standing=seen.standing(reader),
            since=max(0, seen.at_us - (reader.private_since_us or reader.since_us)) / 1e6,
        )
        for reader in seen.readers
    ]


def examine(
    readers: Sequence[Reader] | NotAllowed, own_settings: Mapping[str, Any], own_version: str
) -> Iterator[Finding]:
    """Look at the fleet, and hold this host's settings and version against it."""
    if isinstance(readers, NotAllowed) or not readers:
        for code in ("KCG-F01", "KCG-F02", "KCG-F03"):
            if isinstance(readers, NotAllowed):
                yield unchecked(code, f"the fleet cannot be looked at ({readers.why})")
            else:
                yield unchecked(code, "no process has read within the last 15 minutes")
        return
    yield _settings(readers, own_settings)
    yield _versions(readers, own_version)
    yield _lagging(readers)


def _settings(readers: Sequence[Reader], own: Mapping[str, Any]) -> Finding:
    told = [{"lease": reader.lease, **reader.settings} for reader in readers]
    differing = []
    for name in sorted({name for settings in told for name in settings}):
        values = Counter(_spelt(settings[name]) for settings in told if name in settings)
        here = _spelt(own[name]) if name in own else None
        if len(values) > 1:
            differing.append(f"{name} is " + _counted(values))
        elif here is not None and here not in values:
            differing.append(f"{name} is {next(iter(values))} in the fleet, {here} here")
    if differing:
        mend = "give every process one environment (KCG_CACHE_*); who has what: kcg-cache fleet --json"
        return Finding("KCG-F01", WARNING, "; ".join(differing), mend)
    return Finding("KCG-F01", OK, f"{count(len(readers), 'process', 'processes')} and this host have the same")


def _versions(readers: Sequence[Reader], own: str) -> Finding:
    versions = Counter(reader.version or "?" for reader in readers)
    told = _counted(versions)
    if len(versions) > 1:
        mend = "finish the roll-out; while it lasts, each side may refuse the other's entry (KCG-E01)"
        return Finding("KCG-F02", WARNING, f"mixed: {told}", mend)
    (fleets,) = versions
    if fleets != own:
        return Finding("KCG-F02", NOTE, f"the fleet has {told}, this host {own}", f"pip install kcg-cache=={fleets}")
    return Finding("KCG-F02", OK, told)


def _lagging(readers: Sequence[Reader]) -> Finding:
    standing = Counter(reader.standing for reader in readers)
    told = f"{count(len(readers), 'process', 'processes')}: "
    told += ", ".join(f"{number} {name}" for name, number in _by_number(standing))
    for wrong in ("lagging", "private"):
        who = [reader for reader in readers if reader.standing == wrong]
        if who:
            names = ", ".join(f"{each.name} (for {duration(each.since)})" for each in who[:NAMED])
            more = f" and {len(who) - NAMED} more" if len(who) > NAMED else ""
            mend = (
                "run this again in 2 s; who is still here has lost Redis: grep its log for redis_failed, or restart it"
            )
            return Finding("KCG-F03", WARNING, f"{told}; {wrong}: {names}{more}", mend)
    return Finding("KCG-F03", OK, told)


def _spelt(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _counted(values: Counter[str]) -> str:
    return ", ".join(f"{value} ({number})" for value, number in _by_number(values))


def _by_number(values: Counter[str]) -> list[tuple[str, int]]:
    """Give the most frequent first, and of those that are as frequent an order that stays."""
    return sorted(values.items(), key=lambda each: (-each[1], each[0]))
