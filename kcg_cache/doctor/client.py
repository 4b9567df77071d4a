"""This host's settings against what was measured. Pure."""

import statistics
from collections.abc import Iterator, Sequence

from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding, unchecked
from kcg_cache.redis_url import parsed
from kcg_cache.settings import Settings
from kcg_cache.units import count, duration


def examine(settings: Settings, pings: Sequence[float], load: float | None) -> Iterator[Finding]:
    """Look at the deadlines; `pings` and `load` (how long the last load took) are seconds, empty or None if unknown."""
    yield _redis_timeout(settings, pings)
    yield _waiting(settings, load)
    yield _ttl(settings, load)
    yield _mode(settings)
    yield _lease(settings)
    yield _addresses(settings)


def _redis_timeout(settings: Settings, pings: Sequence[float]) -> Finding:
    timeout = settings.redis_timeout
    if not pings:
        return unchecked("KCG-C01", f"redis_timeout is {duration(timeout)}, and no latency could be measured")
    median, late = statistics.median(pings), sum(ping >= timeout / 2 for ping in pings)
    seen = f"redis_timeout is {duration(timeout)}; the median of {len(pings)} pings is {duration(median)}"
    mend = f"KCG_CACHE_REDIS_TIMEOUT={max(2 * timeout, 10 * median):.3g}, or find what is slow: SLOWLOG GET 10"
    if median >= timeout:
        return Finding("KCG-C01", ERROR, f"{seen}: Redis counts as down", mend)
    # One late ping is a scheduler's whim; a tenth of them is not.
    if median >= timeout / 4 or late > len(pings) / 10:
        return Finding("KCG-C01", WARNING, f"{seen}, and {late} took half of the deadline", mend)
    return Finding("KCG-C01", OK, seen)


def _waiting(settings: Settings, load: float | None) -> Finding:
    wait, lock = settings.wait_timeout, settings.lock_ttl
    seen = f"wait_timeout is {duration(wait)}, lock_ttl {duration(lock)}"
    if load is None:
        return unchecked("KCG-C02", f"{seen}, and no load is known that they could be held against")
    seen += f"; the last load took {duration(load)}"
    mend = f"KCG_CACHE_WAIT_TIMEOUT={max(3 * load, wait):.3g} on every process, and EXPLAIN ANALYZE the load"
    if load >= wait:
        return Finding("KCG-C02", ERROR, seen, mend)
    if load >= wait / 2:
        return Finding("KCG-C02", WARNING, seen, mend)
    if load >= lock:
        mend = (
            f"KCG_CACHE_LOCK_TTL={2 * load:.3g}: a loader that is paused for lock_ttl loses its lock, and loads again"
        )
        return Finding("KCG-C02", NOTE, f"{seen}: it lives by renewing its lock", mend)
    return Finding("KCG-C02", OK, seen)


def _ttl(settings: Settings, load: float | None) -> Finding:
    ttl = settings.ttl
    seen = f"ttl is {duration(ttl)}"
    if load is not None and load >= ttl / 4:
        mend = (
            f"KCG_CACHE_TTL={20 * load:.3g}, or KCG_CACHE_REFRESH_AHEAD=0.2: one process then loads while all read on"
        )
        return Finding("KCG-C03", WARNING, f"{seen}, and a load takes {duration(load)} of it", mend)
    if ttl > 86_400:
        mend = "KCG_CACHE_TTL=300, or have `kcg-cache watch` run: a change nobody invalidated stays for that long"
        return Finding("KCG-C03", NOTE, seen, mend)
    if ttl < 5:
        return Finding(
            "KCG-C03", NOTE, seen, "KCG_CACHE_TTL=300: an invalidate is what makes changes seen, not the TTL"
        )
    return Finding("KCG-C03", OK, seen)


def _mode(settings: Settings) -> Finding:
    if settings.mode == "bypass":
        mend = "unset KCG_CACHE_MODE, once the reason for switching the cache off is gone"
        return Finding("KCG-C04", WARNING, "KCG_CACHE_MODE is bypass: the cache is switched off here", mend)
    return Finding("KCG-C04", OK, "shared")


def _lease(settings: Settings) -> Finding:
    if settings.lease == 0:
        return Finding("KCG-C05", NOTE, "lease is 0", "KCG_CACHE_LEASE=1.0: an invalidate waits that second out anyway")
    return Finding("KCG-C05", OK, f"lease is {duration(settings.lease)}")


def _addresses(settings: Settings) -> Finding:
    """Look at what the URL names: one server, or those who tell where it is."""
    place = parsed(settings.redis_url)
    if place.form == "single":
        told = f"one server: a call takes {duration(settings.redis_timeout)} at most"
        return Finding("KCG-C06", OK, told + (", over TLS" if place.tls else ""))
    number = len(place.addresses)
    who = (
        f"{count(number, 'Sentinel')} of {place.service}" if place.form == "sentinel" else count(number, "cluster node")
    )
    most = duration((number + 1) * settings.redis_timeout)
    told = f"{who}: a call takes {most} at most, {duration(settings.redis_timeout)} for each address and for the master"
    told += ", over TLS" if place.tls else ""
    if number == 1:
        mend = "KCG_CACHE_REDIS_URL=…://host1:port,host2:port,host3:port…, unless this name leads to all that are up"
        return Finding("KCG-C06", NOTE, told, mend)
    return Finding("KCG-C06", OK, told)
