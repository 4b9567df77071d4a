"""The Redis server: what INFO, CONFIG and its clock say. Pure: it looks at `RedisFacts`."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kcg_cache.answers import NotAllowed, State
from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding, unchecked
from kcg_cache.doctor.fleet import Reader
from kcg_cache.units import count, duration, size

#: The settings of the server that are asked for.
CONFIG = (
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "timeout",
    "tcp-keepalive",
    "save",
    "appendonly",
    "cluster-node-timeout",
)
#: The sections of INFO that are asked for.
INFO = ("server", "memory", "replication", "clients", "persistence", "stats", "cluster")

#: The oldest Redis whose commands suffice.
OLDEST = (7, 0)
#: Seconds of median latency from which on the server is in another place, most likely.
FAR = 0.01
#: Seconds that clocks may differ before it is told.
CLOCKS_APART = 2.0
#: While it is published an entry is there twice, and once more as an argument.
COPIES = 3
#: Of maxmemory or of maxclients: from here on it is nearly full.
NEARLY = 0.9


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a server that answers told. A part that it would not tell is `NotAllowed`."""

    pings: tuple[float, ...] | NotAllowed
    info: Mapping[str, str] | NotAllowed
    config: Mapping[str, str] | NotAllowed
    #: Seconds by which its clock is ahead of this host's, and how long the question took.
    ahead: float | NotAllowed
    asked_for: float
    #: Whether this user may run each command that was asked about; None where that is not told.
    rights: Mapping[tuple[str, ...], bool | None]
    #: What is there under the dataset's keys, or why that cannot be looked at.
    state: State | NotAllowed
    entry: Mapping[str, bytes] = field(default_factory=dict)
    #: The processes that read.
    readers: Sequence[Reader] | NotAllowed = ()


def examine(facts: RedisFacts, failover: float | None) -> Iterator[Finding]:
    """Look at the server; `failover` is after how many seconds its Sentinel gives a master up, if anyone knows."""
    yield Finding("KCG-R01", OK, "it answers")
    yield _latency(facts)
    yield _clock(facts)
    if isinstance(facts.info, NotAllowed):
        for code in ("KCG-R02", "KCG-R04", "KCG-R05", "KCG-R06", "KCG-R07", "KCG-R08", "KCG-R12"):
            yield unchecked(code, f"INFO is not for this user ({facts.info.why})", "ACL SETUSER … +info")
    else:
        info = facts.info
        yield _version(info)
        yield _role(info)
        yield _policy(info)
        yield _headroom(info, 0 if isinstance(facts.state, NotAllowed) else facts.state.payload_bytes)
        yield _persistence(info, facts.config)
        yield _replicas(info, facts.config, failover)
        yield _connections(info)
    if isinstance(facts.config, NotAllowed):
        for code in ("KCG-R09", "KCG-R10"):
            yield unchecked(code, f"CONFIG GET is not for this user ({facts.config.why})")
    else:
        yield _timeout(facts.config)
        yield _keepalive(facts.config)


def _latency(facts: RedisFacts) -> Finding:
    if isinstance(facts.pings, NotAllowed):
        return unchecked("KCG-R03", f"PING is not for this user ({facts.pings.why})", "ACL SETUSER … +ping")
    median, most = statistics.median(facts.pings), max(facts.pings)
    seen = f"median {duration(median)}, longest {duration(most)} of {len(facts.pings)} pings"
    if median >= FAR:
        return Finding("KCG-R03", NOTE, seen, "run this on a worker's host; place Redis in the workers' own zone")
    return Finding("KCG-R03", OK, seen)


def _clock(facts: RedisFacts) -> Finding:
    if isinstance(facts.ahead, NotAllowed):
        return unchecked("KCG-R11", f"TIME is not for this user ({facts.ahead.why})", "ACL SETUSER … +time")
    return clock("KCG-R11", "Redis", facts.ahead, facts.asked_for)


def clock(code: str, server: str, ahead: float, asked_for: float) -> Finding:
    """Compare a server's clock with this host's; the question took `asked_for` seconds."""
    apart = abs(ahead)
    if apart <= CLOCKS_APART + asked_for:
        return Finding(code, OK, f"{server}'s clock and this host's agree within {duration(CLOCKS_APART)}")
    seen = f"{server}'s clock is {duration(apart)} {'ahead of' if ahead > 0 else 'behind'} this host's"
    return Finding(code, NOTE, seen, "chronyc tracking, on both hosts: let both follow one time source")


def _version(info: Mapping[str, str]) -> Finding:
    valkey, redis = info.get("valkey_version"), info.get("redis_version", "")
    seen = f"Valkey {valkey} (as Redis {redis})" if valkey else f"Redis {redis or '?'}"
    numbers = tuple(int(part) for part in redis.split(".")[:2] if part.isdecimal())
    if len(numbers) < 2:
        return unchecked("KCG-R02", f"the server does not tell its version ({seen})")
    if numbers < OLDEST:
        return Finding("KCG-R02", ERROR, seen, "upgrade to Redis 7.0 or later, or to Valkey")
    return Finding("KCG-R02", OK, seen)


def _role(info: Mapping[str, str]) -> Finding:
    role = info.get("role", "?")
    if role == "master":
        return Finding("KCG-R04", OK, "a master: it takes writes")
    master = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
    seen = f"this server is a replica of {master} (link {info.get('master_link_status', '?')})"
    return Finding(
        "KCG-R04", ERROR, seen, f"KCG_CACHE_REDIS_URL=redis://{master}/…, or `REPLICAOF NO ONE` if it is lost"
    )


def _policy(info: Mapping[str, str]) -> Finding:
    policy, most = info.get("maxmemory_policy", "?"), _int(info, "maxmemory")
    seen = f"maxmemory-policy is {policy}, maxmemory {size(most) if most else 'without a limit'}"
    evicted = _int(info, "evicted_keys")
    if evicted:
        seen += f"; it has evicted {count(evicted, 'key')} since it started"
    if policy == "noeviction" or not most:
        return Finding("KCG-R05", OK, seen)
    mend = "CONFIG SET maxmemory-policy noeviction (a server of its own for kcg_cache), and CONFIG REWRITE"
    if policy.startswith("allkeys") or evicted:
        return Finding("KCG-R05", WARNING, seen, mend)
    # volatile-*: it bites where others' keys without a TTL fill the memory.
    return Finding("KCG-R05", NOTE, f"{seen}: all of kcg_cache's keys with a TTL may go", mend)


def _headroom(info: Mapping[str, str], payload: int) -> Finding:
    used, most, policy = _int(info, "used_memory"), _int(info, "maxmemory"), info.get("maxmemory_policy", "?")
    needed = COPIES * payload
    if not most:
        system = _int(info, "total_system_memory")
        seen = f"{size(used)} used, without a limit" + (f", on a host of {size(system)}" if system else "")
        if system and used + needed > system * NEARLY:
            return Finding("KCG-R06", WARNING, seen, "CONFIG SET maxmemory …, below what the host has")
        return Finding("KCG-R06", NOTE, seen, "CONFIG SET maxmemory …: else the kernel ends the server when it is full")
    free = most - used
    seen = f"{size(used)} of {size(most)} used, {size(max(0, free))} free; publishing the entry takes {size(needed)}"
    mend = f"CONFIG SET maxmemory {max(2 * most, used + 10 * needed)}, and find what fills it: redis-cli --bigkeys"
    if free < needed or free <= 0:
        return Finding("KCG-R06", WARNING if policy == "noeviction" else ERROR, seen, mend)
    if used > most * NEARLY:
        return Finding("KCG-R06", WARNING, seen, mend)
    return Finding("KCG-R06", OK, seen)


def _persistence(info: Mapping[str, str], config: Mapping[str, str] | NotAllowed) -> Finding:
    for name, word in (("rdb_last_bgsave_status", "snapshot (RDB)"), ("aof_last_write_status", "append (AOF)")):
        if info.get(name, "ok") != "ok":
            mend = "free its disk, then BGSAVE; a cache may do without: CONFIG SET save ''"
            return Finding("KCG-R07", ERROR, f"its last {word} failed: it refuses writes (MISCONF)", mend)
    kept = ["AOF"] if info.get("aof_enabled") == "1" else []
    if isinstance(config, NotAllowed):
        kept += ["RDB (when, is not told)"] if _int(info, "rdb_saves") else []
    elif config.get("save"):
        kept.append(f"RDB (save {config['save']})")
    if not kept:
        return Finding("KCG-R07", OK, "nothing is saved to disk")
    fork = _int(info, "latest_fork_usec") / 1e6
    seen = f"{' and '.join(kept)}; its last fork held it up for {duration(fork)}"
    severity = WARNING if fork >= 0.1 else NOTE
    return Finding("KCG-R07", severity, seen, "CONFIG SET save '' and appendonly no, if the cache is all it holds")


_SET_BOTH = "CONFIG SET min-replicas-to-write 1 min-replicas-max-lag {}, and CONFIG REWRITE, on every node"

#: Seconds beyond `min-replicas-max-lag` for which a master that is cut off may go on (docs/failover.md).
_GOES_ON = 2


def _replicas(info: Mapping[str, str], config: Mapping[str, str] | NotAllowed, failover: float | None) -> Finding:
    """Hold `min-replicas-*` against the failover time (PROTOCOL R2)."""
    replicas, clustered = _int(info, "connected_slaves"), info.get("cluster_enabled") == "1"
    if info.get("role") != "master":
        return unchecked("KCG-R08", "this server is a replica; ask its master")
    if isinstance(config, NotAllowed):
        return _replicas_by_info(info, replicas, alone=not replicas and not clustered)
    least, lag = _int(config, "min-replicas-to-write"), _int(config, "min-replicas-max-lag")
    seen = f"{count(replicas, 'replica')}, min-replicas-to-write {least}, min-replicas-max-lag {lag} s"
    if not least and not replicas and not clustered:
        return Finding("KCG-R08", OK, f"{seen}: nothing to fail over to")
    if not least or not lag:
        return Finding("KCG-R08", WARNING, f"{seen}: a cut-off master goes on answering", _SET_BOTH.format(5))
    good = _int(info, "min_slaves_good_slaves", replicas)
    if good < least:
        mend = f"bring {count(least, 'replica')} back, or until then: CONFIG SET min-replicas-to-write {good}"
        return Finding("KCG-R08", ERROR, f"{seen}: every write is refused now (NOREPLICAS)", mend)
    whose = "the failover time that was given"
    if failover is None and clustered:
        failover, whose = _int(config, "cluster-node-timeout") / 1000, "cluster-node-timeout"
    return _lag(seen, lag, failover, whose)


def _replicas_by_info(info: Mapping[str, str], replicas: int, *, alone: bool) -> Finding:
    """Tell as much as a server says that does not let its settings be asked for."""
    good = info.get("min_slaves_good_slaves")  # there only where min-replicas-to-write is set
    if good is not None:
        seen = f"{count(replicas, 'replica')}, {good} of them good; min-replicas-to-write is set, to what is not told"
        return Finding("KCG-R08", OK, seen)
    if alone:
        return Finding("KCG-R08", OK, "no replica is connected: nothing to fail over to, as far as INFO tells")
    seen = f"{count(replicas, 'replica')}, and min-replicas-to-write is not set, as far as INFO tells"
    return Finding("KCG-R08", WARNING, seen, "set min-replicas-to-write 1 at your provider, and min-replicas-max-lag")


def _lag(seen: str, lag: int, failover: float | None, whose: str) -> Finding:
    """Hold the lag after which a master refuses writes against the time after which another takes over.

    It counts whole seconds, and looks once a second: it may go on for two seconds more than the lag.
    """
    if failover is None:
        told = f"{seen}; it must be 2 s below Sentinel's down-after-milliseconds, which cannot be seen from here"
        return Finding("KCG-R08", NOTE, told, "kcg-cache doctor --failover SECONDS, with what SENTINEL MASTERS says")
    if lag + _GOES_ON > failover:
        told = f"{seen}, not 2 s below {whose} ({duration(failover)}): both may serve for a while"
        good = int(failover) - _GOES_ON
        longer = f"let a failover begin after {lag + _GOES_ON} s or more"
        return Finding("KCG-R08", WARNING, told, _SET_BOTH.format(good) if good > 0 else longer)
    return Finding("KCG-R08", OK, f"{seen}, 2 s or more below {whose} ({duration(failover)})")


def _connections(info: Mapping[str, str]) -> Finding:
    clients, most = _int(info, "connected_clients"), _int(info, "maxclients")
    seen = f"{count(clients, 'client')} of {most or '?'} that it takes (maxclients)"
    refused = _int(info, "rejected_connections")
    if most and clients > most * NEARLY:
        return Finding("KCG-R12", WARNING, seen, f"CONFIG SET maxclients {2 * most}; who holds them: CLIENT LIST")
    if refused:
        told = f"{seen}; it has refused {refused} since it started"
        return Finding("KCG-R12", NOTE, told, f"CONFIG SET maxclients {2 * most}; who held them: its log")
    return Finding("KCG-R12", OK, seen)


def _timeout(config: Mapping[str, str]) -> Finding:
    seconds = _int(config, "timeout")
    if not seconds:
        return Finding("KCG-R09", OK, "timeout is 0: idle clients are left connected")
    seen = f"timeout is {seconds} s: a client that is idle for so long is disconnected"
    mend = "CONFIG SET timeout 0, and CONFIG REWRITE; tcp-keepalive finds the dead ones"
    return Finding("KCG-R09", WARNING if seconds <= 5 else NOTE, seen, mend)


def _keepalive(config: Mapping[str, str]) -> Finding:
    seconds = _int(config, "tcp-keepalive")
    if seconds:
        return Finding("KCG-R10", OK, f"tcp-keepalive is {seconds} s")
    return Finding("KCG-R10", WARNING, "tcp-keepalive is 0", "CONFIG SET tcp-keepalive 300, and CONFIG REWRITE")


def _int(facts: Mapping[str, str], name: str, default: int = 0) -> int:
    value = facts.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() else default
