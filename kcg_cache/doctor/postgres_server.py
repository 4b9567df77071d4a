"""The PostgreSQL server, and what stands before it. Pure: it looks at rows of sql/doctor_server.sql."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from kcg_cache.doctor.redis_server import clock
from kcg_cache.postgres import Pooling
from kcg_cache.units import duration

#: The oldest whose functions suffice, as server_version_num has it.
OLDEST = 130_000
#: Seconds of median latency from which on the server is in another place, most likely.
FAR = 0.02


def examine(
    server: Mapping[str, Any], pooling: Pooling, rounds: Sequence[float], ahead: float, asked_for: float
) -> Iterator[Finding]:
    """Look at the server; `rounds` are how long a question took, `ahead` by how much its clock is, all in seconds."""
    yield Finding("KCG-P01", OK, f"database {server['database']} answers {server['role']}")
    yield _version(server)
    yield _latency(rounds)
    yield _primary(server)
    yield _pooling(pooling)
    yield _isolation(server)
    yield _identity(server)
    yield clock("KCG-P13", "PostgreSQL", ahead, asked_for)


def _version(server: Mapping[str, Any]) -> Finding:
    seen = f"PostgreSQL {server['version']}"
    if server["version_number"] < OLDEST:
        return Finding("KCG-P02", ERROR, seen, "upgrade to PostgreSQL 13 or later")
    return Finding("KCG-P02", OK, seen)


def _latency(rounds: Sequence[float]) -> Finding:
    median, most = statistics.median(rounds), max(rounds)
    seen = f"median {duration(median)}, longest {duration(most)} of {len(rounds)} questions"
    if median >= FAR:
        return Finding("KCG-P03", NOTE, seen, "run this on a worker's host; place the database in the workers' zone")
    return Finding("KCG-P03", OK, seen)


def _primary(server: Mapping[str, Any]) -> Finding:
    if server["in_recovery"]:
        mend = "connect to the primary: target_session_attrs=read-write with every host in host=a,b"
        return Finding("KCG-P04", ERROR, "this server is a standby (pg_is_in_recovery)", mend)
    return Finding("KCG-P04", OK, "a primary")


def _pooling(pooling: Pooling) -> Finding:
    if pooling is Pooling.TRANSACTION:
        seen = "a pooler lends one server process to several clients (pgbouncer: pool_mode=transaction)"
        mend = "give `kcg-cache watch` the server's own port; workers may stay behind the pooler, if it has one server"
        return Finding("KCG-P05", NOTE, seen, mend)
    if pooling is Pooling.SESSION:
        return Finding("KCG-P05", OK, "a pooler is in between, and was not seen to pool by transactions")
    return Finding("KCG-P05", OK, "no pooler in between")


def _isolation(server: Mapping[str, Any]) -> Finding:
    isolation = server["default_isolation"]
    seen = f"default_transaction_isolation is {isolation}"
    if isolation in ("read committed", "read uncommitted"):
        return Finding("KCG-P06", OK, seen)
    mend = f"ALTER ROLE {server['role']} SET default_transaction_isolation = 'read committed', or read in autocommit"
    return Finding("KCG-P06", WARNING, seen, mend)


def _identity(server: Mapping[str, Any]) -> Finding:
    if server["may_identify"]:
        return Finding("KCG-P12", OK, "this role may ask which cluster this is")
    mend = f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO {server['role']}"
    return Finding("KCG-P12", NOTE, f"role {server['role']} may not run pg_control_system()", mend)
