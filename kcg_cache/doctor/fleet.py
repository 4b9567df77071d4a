"""The processes that read: settings, versions of the library, and who lags. Pure: it looks at `Reader`s."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kcg_cache.doctor.findings import NOTE, OK, WARNING, Finding, unchecked
from kcg_cache.units import duration

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


def examine(readers: Sequence[Reader] | None, own_settings: Mapping[str, Any], own_version: str) -> Iterator[Finding]:
    """Look at the fleet, and hold this host's settings and version against it; None where presence is not known."""
    if not readers:
        why = "processes of this version leave no presence" if readers is None else "no process was seen lately"
        for code in ("KCG-F01", "KCG-F02", "KCG-F03"):
            yield unchecked(code, why)
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
            differing.append(f"{name} is " + ", ".join(f"{value} ({count})" for value, count in values.most_common()))
        elif here is not None and here not in values:
            differing.append(f"{name} is {next(iter(values))} in the fleet, {here} here")
    if differing:
        mend = "give every process one environment (KCG_CACHE_*); who has what: kcg-cache fleet --json"
        return Finding("KCG-F01", WARNING, "; ".join(differing), mend)
    return Finding("KCG-F01", OK, f"all {len(readers)} processes and this host have the same")


def _versions(readers: Sequence[Reader], own: str) -> Finding:
    versions = Counter(reader.version or "?" for reader in readers)
    told = ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
    if len(versions) > 1:
        mend = "finish the roll-out; while it lasts, each side may refuse the other's entry (KCG-E01)"
        return Finding("KCG-F02", WARNING, f"mixed: {told}", mend)
    (fleets,) = versions
    if fleets != own:
        return Finding("KCG-F02", NOTE, f"the fleet has {told}, this host {own}", f"pip install kcg-cache=={fleets}")
    return Finding("KCG-F02", OK, told)


def _lagging(readers: Sequence[Reader]) -> Finding:
    standing = Counter(reader.standing for reader in readers)
    told = f"{len(readers)} processes: " + ", ".join(f"{count} {name}" for name, count in standing.most_common())
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
