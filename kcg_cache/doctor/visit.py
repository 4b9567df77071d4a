"""One visit: ask both servers, look at all that they told, and go on with the other when one does not answer."""

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kcg_cache import postgres
from kcg_cache.answers import NotAllowed
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.doctor import client, entry, fleet, looking, models, postgres_server, redis_server, rights, tables
from kcg_cache.doctor.findings import CHECKS, ERROR, Finding, Severity, unchecked
from kcg_cache.errors import StoreError
from kcg_cache.presence import SETTINGS
from kcg_cache.refusal import NO_TIME, whole_number
from kcg_cache.rights import ROLES
from kcg_cache.settings import Settings
from kcg_cache.store import Store
from kcg_cache.version import __version__

#: Seconds that a doctor waits for an answer, at least: a slow Redis is to be measured, not missed.
PATIENCE = 3.0
_ORDER = {code: place for place, code in enumerate(CHECKS)}
_REDIS = tuple(code for code in CHECKS if code[4] in "RAEF" and code != "KCG-R01")
_POSTGRES = tuple(code for code in CHECKS if code[4] in "PD" and code != "KCG-P01")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What came of a visit."""

    findings: tuple[Finding, ...]
    #: Why a server could not be asked; None for one that answered, or that was not to be asked.
    redis_failed: str | None
    postgres_failed: str | None
    #: Which database this host's connection names, ``7301234567890/kcg``; None where it did not answer.
    source: str | None
    #: Seconds: the median of the round trips; None where none was measured.
    redis_latency: float | None
    postgres_latency: float | None

    @property
    def worst(self) -> Severity:
        """The severity that matters most."""
        return max((finding.severity for finding in self.findings), default=Severity.OK)


def visit(
    settings: Settings,
    connect: looking.Connect,
    *,
    roles: Collection[str] = ROLES,
    failover: float | None = None,
    only: str | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Examine the servers that `settings` and `connect` name.

    `roles`: those whose rights this user should have. `failover`: seconds until the Redis is failed over, if known.
    `only`: "redis" or "postgres". `step` is told what comes next. Raises nothing for a server that does not answer.
    """
    redis = database = None
    redis_failed = postgres_failed = None
    if only != "postgres":
        step("asking Redis")
        patient = settings.replace(redis_timeout=max(settings.redis_timeout, PATIENCE))
        store = Store(settings.redis_url, ACTIVE_VERSIONS.name, patient)
        try:
            redis = looking.redis(store)
        except StoreError as error:
            redis, redis_failed = None, " ".join(str(error).split())
        finally:
            store.close()
    if only != "redis":
        step("asking PostgreSQL")
        try:
            database = looking.database(connect)
        except postgres.ERRORS as error:
            postgres_failed = " ".join(" ".join([str(error), *getattr(error, "__notes__", ())]).split())
    source = None if database is None or isinstance(database.source, looking.Failed) else database.source
    pings = () if redis is None or isinstance(redis.pings, NotAllowed) else redis.pings

    findings: list[Finding] = []
    if redis is not None:
        store_keys = store.keys
        findings += redis_server.examine(redis, failover)
        findings += rights.examine(redis.rights, store_keys, roles)
        findings += entry.examine(redis.state, redis.entry, ACTIVE_VERSIONS.name, settings, source)
    elif redis_failed is not None:
        findings += _unanswered("KCG-R01", redis_failed, _REDIS, 'redis-cli -u "$KCG_CACHE_REDIS_URL" PING')
    findings += client.examine(settings, pings, _last_load(redis, database))
    if database is not None:
        findings += _of_database(database, settings)
    elif postgres_failed is not None:
        findings += _unanswered("KCG-P01", postgres_failed, _POSTGRES, 'psql "$DSN" -c "SELECT 1"')
    if redis is not None:
        findings += fleet.examine(redis.readers, own_settings(settings), __version__)
    return Diagnosis(
        findings=tuple(sorted(findings, key=lambda each: _ORDER[each.code])),
        redis_failed=redis_failed,
        postgres_failed=postgres_failed,
        source=source,
        redis_latency=statistics.median(pings) if pings else None,
        postgres_latency=statistics.median(database.rounds) if database is not None else None,
    )


def own_settings(settings: Settings) -> dict[str, Any]:
    """Give this host's settings as a process tells them (`kcg_cache.presence`)."""
    told = {name: getattr(settings, name) for name in (*SETTINGS, "lease")}
    return {**told, "signed": bool(settings.signing_keys)}


def _of_database(facts: looking.PostgresFacts, settings: Settings) -> Iterator[Finding]:
    yield from postgres_server.examine(facts.server, facts.pooling, facts.rounds, facts.ahead, facts.asked_for)
    yield from tables.columns(facts.columns, facts.server["role"])
    yield tables.one_primary(facts.indexes)
    if isinstance(facts.plan, looking.Failed):
        yield unchecked("KCG-P10", facts.plan.why)
    else:
        yield tables.plan(facts.plan, facts.columns)
    yield tables.triggers(facts.triggers)
    if isinstance(facts.loaded, looking.Failed):
        yield unchecked("KCG-D01", facts.loaded.why)
        yield unchecked("KCG-D05", facts.loaded.why)
    else:
        yield models.mended(facts.loaded.mended, facts.loaded.rows)
        yield entry.measured("KCG-D05", facts.loaded.size, settings)
    if isinstance(facts.models, looking.Failed):
        for code in ("KCG-D02", "KCG-D03", "KCG-D04"):
            yield unchecked(code, facts.models.why)
        return
    yield models.primaries(facts.models)
    if isinstance(facts.dependencies, looking.Failed):
        for code in ("KCG-D03", "KCG-D04"):
            yield unchecked(code, facts.dependencies.why)
    else:
        yield from models.dependencies(facts.models, facts.dependencies)


def _last_load(redis: redis_server.RedisFacts | None, database: looking.PostgresFacts | None) -> float | None:
    """Give how long the longest known load took, in seconds: the entry's, or the one that was just made."""
    known = []
    if redis is not None and not isinstance(redis.state, NotAllowed):
        micros = whole_number(redis.state.entry.get("load_us", ""), below=NO_TIME)
        if micros is not None:
            known.append(micros / 1e6)
    if database is not None and isinstance(database.loaded, looking.Loaded):
        known.append(database.loaded.seconds)
    return max(known, default=None)


def _unanswered(code: str, why: str, rest: Sequence[str], mend: str) -> Iterator[Finding]:
    yield Finding(code, ERROR, why, mend)
    area = {"KCG-R01": "Redis", "KCG-P01": "PostgreSQL"}[code]
    yield from (unchecked(each, f"{area} did not answer") for each in rest)
