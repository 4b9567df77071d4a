"""The doctor's checks, one by one: facts in, findings out."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kcg_cache import Settings, codec, lua, rights
from kcg_cache.answers import NotAllowed, State
from kcg_cache.doctor import (
    CHECKS,
    Finding,
    Severity,
    client,
    entry,
    fleet,
    models,
    postgres_server,
    redis_server,
    tables,
    visit,
)
from kcg_cache.doctor.rights import examine
from kcg_cache.keys import Keys
from kcg_cache.postgres import Pooling
from kcg_cache.rows import Dependency

pytestmark = pytest.mark.once

OK, NOTE, WARNING, ERROR = Severity
KEYS = Keys.of("kcg", "active_versions")
DENIED = NotAllowed("no permissions")
INFO = {
    "redis_version": "7.2.4",
    "valkey_version": "9.1.2",
    "role": "master",
    "connected_slaves": "0",
    "maxmemory": "1000000000",
    "maxmemory_policy": "noeviction",
    "used_memory": "2000000",
    "evicted_keys": "0",
    "connected_clients": "8",
    "maxclients": "10000",
    "rejected_connections": "0",
    "rdb_last_bgsave_status": "ok",
    "aof_last_write_status": "ok",
    "aof_enabled": "0",
    "cluster_enabled": "0",
}
CONFIG = {
    "min-replicas-to-write": "0",
    "min-replicas-max-lag": "10",
    "timeout": "0",
    "tcp-keepalive": "300",
    "save": "",
    "cluster-node-timeout": "15000",
}
SOURCE = "7301234567890/kcg"


def by_code(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Give findings by their code; none comes twice."""
    listed = list(findings)
    found = {finding.code: finding for finding in listed}
    assert len(found) == len(listed)
    return found


def severity_of(finding: Finding, *words: str) -> Severity:
    """Give its severity; it says what it saw in these words, and what is to be done about what is wrong."""
    assert all(word in finding.seen for word in words), finding.seen
    assert finding.mend or finding.severity <= NOTE
    assert "\n" not in finding.seen + finding.mend + finding.check.why
    return finding.severity


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.checkout
def test_every_code_has_its_section_in_the_docs_and_none_is_left_over() -> None:
    """The page explains each code under its title, in the order of the table."""
    page = (Path(__file__).parent.parent / "docs" / "doctor.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (KCG-\S+): (.+)$", page, re.MULTILINE)
    assert sections == [(code, check.title) for code, check in CHECKS.items()]


@pytest.mark.checkout
def test_every_code_that_the_code_names_is_in_the_table_and_is_used() -> None:
    """A finding of an unknown code would fail only when it is shown."""
    here = Path(visit.__globals__["__file__"]).parent
    named = {
        code
        for path in here.glob("*.py")
        if path.name != "findings.py"
        for code in re.findall(r"KCG-[A-Z]\d\d", path.read_text(encoding="utf-8"))
    }
    assert named == set(CHECKS)


# --- rights -----------------------------------------------------------------------------------------------------------


def run_by(script: str) -> set[str]:
    """Name the commands that a script runs, its prelude's included where it calls it."""
    body = lua.load(script).text
    return set(re.findall(r"redis\.p?call\('(\w+)'", body))


@pytest.mark.parametrize("role", rights.ROLES)
def test_the_rights_of_a_role_are_what_its_scripts_run(role: str) -> None:
    """A script that runs another command needs another right."""
    asked = {command[0] for command in rights.commands_of(role, KEYS)}
    if role == "worker":
        asked |= {command[0] for command in rights.presence_of(KEYS)}
    needed = set().union(*(run_by(script) for script in rights.scripts_of(role)))
    # The prelude stands before scripts that do not use all of it.
    fleet = {"HSET", "HLEN", "HRANDFIELD", "HDEL"}
    unused = {"viewer": {"XADD", "DEL", "PEXPIRE"} | fleet, "watcher": fleet}.get(role, set())
    assert needed - unused <= asked
    assert asked >= ({"EVAL_RO", "EVALSHA_RO"} if role == "viewer" else {"EVAL", "EVALSHA"})


def test_every_role_has_the_scripts_that_there_are() -> None:
    """A new script belongs to somebody's work; the doctor's own to nobody's."""
    assert sorted(name for role in rights.ROLES for name in rights.scripts_of(role)) == sorted(
        set(lua.names()) - {"rights"}
    )


def test_rights_of_which_some_are_not_told_are_lacking_all_the_same() -> None:
    """Whoever may not run scripts can do no work, whatever else he may."""
    told: dict[tuple[str, ...], bool | None] = dict.fromkeys(rights.all_commands(KEYS))
    told |= {command: False for command in told if command[0].startswith("EVAL")}
    found = by_code(examine(told, KEYS, rights.ROLES))
    assert severity_of(found["KCG-A02"], "EVALSHA invalidate.lua, EVAL invalidate.lua, and what else") == ERROR
    assert found["KCG-A01"].severity == found["KCG-A03"].severity == ERROR
    assert severity_of(found["KCG-A04"], "not checked") == NOTE


def test_a_worker_that_may_not_leave_its_presence_is_told_of() -> None:
    """It works all the same, and nobody sees it."""
    told: dict[tuple[str, ...], bool | None] = dict.fromkeys(rights.all_commands(KEYS), True)
    told[("HSET", KEYS.fleet, "a", "b")] = False
    found = by_code(examine(told, KEYS, rights.ROLES))
    assert severity_of(found.pop("KCG-A04"), "HSET fleet") == WARNING
    assert {finding.severity for finding in found.values()} == {OK}
    assert by_code(examine(told, KEYS, ("operator",)))["KCG-A04"].severity == NOTE


def test_a_right_that_is_lacking_is_named_with_its_command() -> None:
    """Whoever mends it copies the words; who need not have it is told, and no more."""
    told: dict[tuple[str, ...], bool | None] = dict.fromkeys(rights.all_commands(KEYS), True)
    lacking = next(command for command in told if command[0] == "HSET")
    told[lacking] = False
    found = by_code(examine(told, KEYS, rights.ROLES))
    assert severity_of(found["KCG-A01"], "HSET entry") == ERROR
    assert "+hset ~{kcg:active_versions}:*" in found["KCG-A01"].mend
    assert found["KCG-A02"].severity == found["KCG-A03"].severity == OK
    assert by_code(examine(told, KEYS, ("viewer",)))["KCG-A01"].severity == NOTE


def test_rights_that_cannot_be_asked_for_are_not_checked() -> None:
    """That is no fault, and no all-clear."""
    told: dict[tuple[str, ...], bool | None] = dict.fromkeys(rights.all_commands(KEYS))
    for found in by_code(examine(told, KEYS, rights.ROLES)).values():
        assert severity_of(found, "not checked", "PEXPIRE" if found.code == "KCG-A04" else "TIME") == NOTE


# --- the Redis server -------------------------------------------------------------------------------------------------


def facts(
    info: Mapping[str, str] | NotAllowed = INFO,
    config: Mapping[str, str] | NotAllowed = CONFIG,
    pings: tuple[float, ...] | NotAllowed = (0.001,) * 20,
    ahead: float | NotAllowed = 0.0,
) -> redis_server.RedisFacts:
    return redis_server.RedisFacts(
        pings=pings, info=info, config=config, ahead=ahead, asked_for=0.001, rights={}, state=DENIED
    )


def redis(failover: float | None = None, **given: Any) -> dict[str, Finding]:
    return by_code(redis_server.examine(facts(**given), failover))


def test_a_server_as_it_should_be_has_nothing_to_mend() -> None:
    """Every check is told of, and each is ok."""
    found = redis()
    assert set(found) == {code for code in CHECKS if code.startswith("KCG-R")}
    assert {finding.severity for finding in found.values()} == {OK}


def test_a_server_that_tells_nothing_is_not_checked_and_nothing_breaks() -> None:
    """A managed service does not let its settings be asked for."""
    found = redis(info=DENIED, config=DENIED, pings=DENIED, ahead=DENIED)
    assert set(found) == {code for code in CHECKS if code.startswith("KCG-R")}
    assert found.pop("KCG-R01").severity == OK
    for finding in found.values():
        assert severity_of(finding, "not checked", "no permissions") == NOTE


@pytest.mark.parametrize(
    ("changes", "code", "severity", "words"),
    [
        ({"redis_version": "6.2.14", "valkey_version": ""}, "KCG-R02", ERROR, "Redis 6.2.14"),
        ({"redis_version": "unstable"}, "KCG-R02", NOTE, "not checked"),
        ({"role": "slave", "master_host": "10.0.0.7", "master_port": "6380"}, "KCG-R04", ERROR, "10.0.0.7:6380"),
        ({"maxmemory_policy": "allkeys-lfu"}, "KCG-R05", WARNING, "allkeys-lfu"),
        ({"maxmemory_policy": "allkeys-lfu", "maxmemory": "0"}, "KCG-R05", OK, "without a limit"),
        ({"maxmemory_policy": "volatile-ttl"}, "KCG-R05", NOTE, "volatile-ttl"),
        ({"maxmemory_policy": "volatile-ttl", "evicted_keys": "17"}, "KCG-R05", WARNING, "17 keys"),
        ({"used_memory": "950000000"}, "KCG-R06", WARNING, "950 MB of 1 GB"),
        ({"used_memory": "1100000000"}, "KCG-R06", WARNING, "0 B free"),
        ({"used_memory": "1100000000", "maxmemory_policy": "volatile-lru"}, "KCG-R06", ERROR, "0 B free"),
        ({"maxmemory": "0"}, "KCG-R06", NOTE, "without a limit"),
        (
            {"maxmemory": "0", "used_memory": "950", "total_system_memory": "1000"},
            "KCG-R06",
            WARNING,
            "a host of 1 kB",
        ),
        ({"rdb_last_bgsave_status": "err"}, "KCG-R07", ERROR, "MISCONF"),
        ({"aof_last_write_status": "err"}, "KCG-R07", ERROR, "MISCONF"),
        ({"aof_enabled": "1", "latest_fork_usec": "900"}, "KCG-R07", NOTE, "AOF"),
        ({"aof_enabled": "1", "latest_fork_usec": "450000"}, "KCG-R07", WARNING, "450 ms"),
        ({"connected_slaves": "2"}, "KCG-R08", WARNING, "2 replicas, min-replicas-to-write 0"),
        ({"cluster_enabled": "1"}, "KCG-R08", WARNING, "0 replicas"),
        ({"connected_clients": "9500"}, "KCG-R12", WARNING, "9500 clients of 10000"),
        ({"rejected_connections": "3"}, "KCG-R12", NOTE, "refused 3"),
    ],
)
def test_what_info_says_is_judged(changes: dict[str, str], code: str, severity: Severity, words: str) -> None:
    """One fact is as it should not be, and the others are not blamed for it."""
    found = redis(info={**INFO, **changes})
    assert severity_of(found[code], words) == severity
    others = {each for each, finding in found.items() if finding.severity > NOTE} - {code}
    assert others <= ({"KCG-R05"} if code == "KCG-R06" else set())


@pytest.mark.parametrize(
    ("changes", "code", "severity", "words"),
    [
        ({"timeout": "3"}, "KCG-R09", WARNING, "3 s"),
        ({"timeout": "300"}, "KCG-R09", NOTE, "300 s"),
        ({"tcp-keepalive": "0"}, "KCG-R10", WARNING, "0"),
        ({"save": "3600 1"}, "KCG-R07", NOTE, "save 3600 1"),
        ({"min-replicas-to-write": "1"}, "KCG-R08", ERROR, "NOREPLICAS"),
    ],
)
def test_what_config_says_is_judged(changes: dict[str, str], code: str, severity: Severity, words: str) -> None:
    """One setting is as it should not be."""
    found = redis(config={**CONFIG, **changes})
    assert severity_of(found.pop(code), words) == severity
    assert {finding.severity for finding in found.values()} == {OK}


@pytest.mark.parametrize(
    ("info", "config", "failover", "severity", "words"),
    [
        ({}, {}, None, NOTE, "down-after-milliseconds"),
        ({}, {}, 30.0, OK, "below the failover time that was given (30 s)"),
        ({}, {}, 12.0, OK, "2 s or more below"),
        ({}, {}, 11.0, WARNING, "not 2 s below the failover time that was given (11 s)"),
        ({}, {"min-replicas-max-lag": "1"}, 2.9, WARNING, "not 2 s below"),
        ({}, {"min-replicas-max-lag": "0"}, 30.0, WARNING, "max-lag 0"),
        ({"min_slaves_good_slaves": "0"}, {}, 30.0, ERROR, "NOREPLICAS"),
        ({"cluster_enabled": "1"}, {}, None, OK, "cluster-node-timeout (15 s)"),
        ({"cluster_enabled": "1"}, {"cluster-node-timeout": "5000"}, None, WARNING, "cluster-node-timeout (5 s)"),
    ],
)
def test_the_lag_is_held_against_the_failover_time(
    info: dict[str, str], config: dict[str, str], failover: float | None, severity: Severity, words: str
) -> None:
    """A master that refuses writes only after another has taken over is an old master that answers (R2)."""
    found = redis(
        failover,
        info={**INFO, "connected_slaves": "1", **info},
        config={**CONFIG, "min-replicas-to-write": "1", **config},
    )
    assert severity_of(found["KCG-R08"], words) == severity


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({}, OK, "nothing to fail over to"),
        ({"connected_slaves": "1"}, WARNING, "not set"),
        ({"connected_slaves": "1", "min_slaves_good_slaves": "1"}, OK, "1 of them good"),
        ({"role": "slave"}, NOTE, "ask its master"),
    ],
)
def test_without_config_the_replicas_are_told_from_info(
    changes: dict[str, str], severity: Severity, words: str
) -> None:
    """A server that sets min-replicas-to-write counts the good ones."""
    assert severity_of(redis(info={**INFO, **changes}, config=DENIED)["KCG-R08"], words) == severity


def test_a_clock_that_is_ahead_and_a_server_far_away_are_noted() -> None:
    """Neither breaks a promise: the clocks need not agree, and a slow server is slow."""
    found = redis(ahead=75.0, pings=(0.05,) * 20)
    assert severity_of(found["KCG-R11"], "1 min 15 s ahead of this host's") == NOTE
    assert severity_of(found["KCG-R03"], "median 50 ms") == NOTE
    assert severity_of(redis(ahead=-3.0)["KCG-R11"], "3 s behind") == NOTE


# --- the entry --------------------------------------------------------------------------------------------------------

ROWS = [{"id": number, "params": {"a": "x" * 40}} for number in range(200)]
PAYLOAD = codec.encode("active_versions", ROWS)
KEY = b"k" * 16


def state_of(payload: codec.Payload = PAYLOAD, *, key: bytes | None = None, **changes: Any) -> State:
    """Give the state of a Redis whose entry holds the payload."""
    fields = {
        "digest": payload.digest,
        "format": payload.format,
        "loaded_at": "1700000000000000",
        "load_us": "2000",
        "incarnation": "run/repl",
        "source": SOURCE,
        "signature": "",
    }
    if key is not None:
        claim = codec.Claim("kcg", "active_versions", *(fields[name] for name in codec.Claim._fields[2:]))
        fields["signature"] = codec.sign((key,), claim)
    state = State(
        at=1700000001000000,
        incarnation="run/repl",
        entry={**fields, **changes.pop("fields", {})},
        entry_ttl_ms=1000,
        payload_bytes=len(payload.data),
        lock=None,
        lock_ttl_ms=-2,
        events=(),
        invalidations=(),
    )
    return state._replace(**changes)


def look(state: State | NotAllowed, source: str | None = SOURCE, **settings: Any) -> dict[str, Finding]:
    payload = {"digest": PAYLOAD.digest.encode(), "format": PAYLOAD.format.encode(), "payload": PAYLOAD.data}
    return by_code(entry.examine(state, payload, "active_versions", Settings(**settings), source))


def test_an_entry_as_it_should_be_is_ok() -> None:
    """Its size is that of the rows, before they are packed."""
    found = look(state_of())
    assert {finding.severity for finding in found.values()} == {OK}
    assert set(found) == {"KCG-E01", "KCG-E02", "KCG-E03", "KCG-E04"}
    assert PAYLOAD.format.endswith("+zstd")
    assert "the rows take 13.7 kB of 33.6 MB" in found["KCG-E02"].seen


def test_no_entry_is_no_fault() -> None:
    """The next reader fills it."""
    found = look(state_of(entry={}, entry_ttl_ms=-2))
    assert {code: finding.severity for code, finding in found.items()} == {"KCG-E01": OK, "KCG-E04": OK}


@pytest.mark.parametrize(
    ("fields", "code", "severity", "words"),
    [
        ({"format": "msgpack"}, "KCG-E01", ERROR, "msgpack"),
        ({"loaded_at": "soon"}, "KCG-E01", ERROR, "no number"),
        ({"incarnation": "old/repl"}, "KCG-E01", NOTE, "before its restart or failover"),
        ({"signature": "00"}, "KCG-E03", WARNING, "this host has no keys"),
        ({"source": "7999/kcg"}, "KCG-E04", ERROR, "7999/kcg"),
        ({"source": "unknown/kcg"}, "KCG-E04", OK, "this host's too"),
    ],
)
def test_an_entry_that_readers_refuse_is_told_of(
    fields: dict[str, str], code: str, severity: Severity, words: str
) -> None:
    """With the reason that `kcg-cache status` gives."""
    assert severity_of(look(state_of(fields=fields))[code], words) == severity


def test_rows_that_are_near_or_over_max_payload_are_told_of() -> None:
    """It is their size before they are packed that counts, and no more of a frame is unpacked than that."""
    assert severity_of(look(state_of(), max_payload=14_000)["KCG-E02"], "13.7 kB of 14 kB") == WARNING
    assert severity_of(look(state_of(), max_payload=13_000)["KCG-E02"], "more than max_payload (13 kB)") == ERROR
    assert look(state_of(), max_payload=13_000)["KCG-E01"].severity == OK


def test_a_payload_that_cannot_be_decoded_is_told_of() -> None:
    """The script does not look at it: each reader finds out, and loads."""
    payload = {"digest": PAYLOAD.digest.encode(), "format": b"orjson", "payload": b"[]"}
    found = by_code(entry.examine(state_of(), payload, "active_versions", Settings(), None))
    assert severity_of(found["KCG-E01"], "is not the one of digest") == ERROR


def test_signatures_are_held_against_this_hosts_keys() -> None:
    """Signed by another key, or not at all, is refused; signed by ours is fine."""
    keys: dict[str, Any] = {"signing_keys": (KEY,)}
    assert severity_of(look(state_of(key=KEY), **keys)["KCG-E03"], "one of this host's keys") == OK
    assert severity_of(look(state_of(key=b"o" * 16), **keys)["KCG-E03"], "none of this host's keys") == ERROR
    assert severity_of(look(state_of(), **keys)["KCG-E03"], "not signed") == ERROR
    keys["accept_unsigned"] = True
    assert severity_of(look(state_of(), **keys)["KCG-E03"], "not signed, and this host accepts") == WARNING
    assert severity_of(look(state_of(key=KEY), **keys)["KCG-E03"], "keys, and this host accepts") == WARNING
    assert severity_of(look(state_of(key=b"o" * 16), **keys)["KCG-E03"], "none of this host's keys") == ERROR


@pytest.mark.parametrize(
    ("sources", "severity", "words"),
    [
        (["1/a", "1/a"], OK, "1/a"),
        (["2/a", "1/a", "1/a"], WARNING, "once"),
        (["1/a", "2/a", "1/a"], ERROR, "back and forth"),
        ([], OK, "nobody"),
    ],
)
def test_fills_from_two_databases_are_told_of(sources: list[str], severity: Severity, words: str) -> None:
    """Once may have been a move; back and forth is two environments in one namespace."""
    events = tuple({"event": "filled", "source": source} for source in reversed(sources))
    state = state_of(entry={}, entry_ttl_ms=-2, events=events)
    assert severity_of(look(state, source=None)["KCG-E04"], words) == severity


def test_an_entry_that_cannot_be_looked_at_is_not_checked() -> None:
    """A user without INFO learns nothing of it."""
    for finding in look(DENIED).values():
        assert severity_of(finding, "not checked") == NOTE


# --- deadlines --------------------------------------------------------------------------------------------------------


def deadlines(
    pings: tuple[float, ...] = (0.001,) * 20, load: float | None = 0.1, **settings: Any
) -> dict[str, Finding]:
    return by_code(client.examine(Settings(**settings), pings, load))


def test_the_default_settings_are_ok_beside_fast_servers() -> None:
    """Nothing is to be mended."""
    assert {finding.severity for finding in deadlines().values()} == {OK}


@pytest.mark.parametrize(
    ("given", "code", "severity", "words"),
    [
        ({"pings": (0.6,) * 20}, "KCG-C01", ERROR, "counts as down"),
        ({"pings": (0.2,) * 20}, "KCG-C01", WARNING, "median of 20 pings is 200 ms"),
        ({"pings": (0.001,) * 17 + (0.3,) * 3}, "KCG-C01", WARNING, "3 took half of the deadline"),
        ({"pings": (0.001,) * 19 + (0.3,)}, "KCG-C01", OK, "500 ms"),
        ({"pings": ()}, "KCG-C01", NOTE, "not checked"),
        ({"load": 11.0}, "KCG-C02", ERROR, "took 11 s"),
        ({"load": 6.0}, "KCG-C02", WARNING, "wait_timeout is 10 s"),
        ({"load": 4.0}, "KCG-C02", NOTE, "renewing its lock"),
        ({"load": None}, "KCG-C02", NOTE, "not checked"),
        ({"load": 3.0, "ttl": 10}, "KCG-C03", WARNING, "a load takes 3 s"),
        ({"ttl": 100_000}, "KCG-C03", NOTE, "1 d 3 h"),
        ({"ttl": 1}, "KCG-C03", NOTE, "1 s"),
        ({"mode": "bypass"}, "KCG-C04", WARNING, "switched off"),
        ({"lease": 0}, "KCG-C05", NOTE, "lease is 0"),
        ({}, "KCG-C06", OK, "one server: a call takes 500 ms at most"),
        ({"redis_url": "rediss://h"}, "KCG-C06", OK, "over TLS"),
        ({"redis_url": "redis+sentinel://a/m"}, "KCG-C06", NOTE, "1 Sentinel of m: a call takes 1 s at most"),
        ({"redis_url": "redis+sentinel://a,b,c/m"}, "KCG-C06", OK, "3 Sentinels of m: a call takes 2 s at most"),
        ({"redis_url": "redis+cluster://a"}, "KCG-C06", NOTE, "1 cluster node: a call takes 1 s at most"),
        ({"redis_url": "rediss+cluster://a,b"}, "KCG-C06", OK, "2 cluster nodes: a call takes 1.5 s at most"),
    ],
)
def test_deadlines_are_held_against_what_was_measured(
    given: dict[str, Any], code: str, severity: Severity, words: str
) -> None:
    """One late ping of twenty is no finding; three are."""
    assert severity_of(deadlines(**given)[code], words) == severity


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

SERVER = {
    "version": "18.6",
    "version_number": 180_006,
    "database": "kcg",
    "role": "worker",
    "in_recovery": False,
    "default_isolation": "read committed",
    "may_identify": True,
}


@pytest.mark.parametrize(
    ("changes", "pooling", "code", "severity", "words"),
    [
        ({}, Pooling.NONE, "KCG-P01", OK, "database kcg answers worker"),
        ({"version": "12.9", "version_number": 120_009}, Pooling.NONE, "KCG-P02", ERROR, "12.9"),
        ({"in_recovery": True}, Pooling.NONE, "KCG-P04", ERROR, "standby"),
        ({}, Pooling.TRANSACTION, "KCG-P05", NOTE, "pool_mode=transaction"),
        ({}, Pooling.SESSION, "KCG-P05", OK, "a pooler is in between"),
        ({"default_isolation": "serializable"}, Pooling.NONE, "KCG-P06", WARNING, "serializable"),
        ({"may_identify": False}, Pooling.NONE, "KCG-P12", NOTE, "pg_control_system"),
    ],
)
def test_what_the_server_says_is_judged(
    changes: dict[str, Any], pooling: Pooling, code: str, severity: Severity, words: str
) -> None:
    """One fact is as it should not be, and the others are ok."""
    found = by_code(postgres_server.examine({**SERVER, **changes}, pooling, [0.001] * 8, 0.0, 0.001))
    assert severity_of(found.pop(code), words) == severity
    assert {finding.severity for finding in found.values()} == {OK}


def test_a_plan_that_reads_all_of_a_large_table_is_noted() -> None:
    """A small table may well be read as a whole."""
    node = {"Node Type": "Seq Scan", "Relation Name": "detection_model_versions"}
    plan = {"Node Type": "Sort", "Plans": [{"Node Type": "Hash Join", "Plans": [{"Node Type": "Hash"}, node]}]}
    for size, severity in ((8192, OK), (50_000_000, NOTE)):
        columns = [{"table_name": "detection_model_versions", "table_bytes": size}]
        assert severity_of(tables.plan(plan, columns), "Seq Scan") == severity
    by_index = {**node, "Node Type": "Index Scan", "Index Name": "an_index"}
    assert severity_of(tables.plan(by_index, columns), "Index Scan by an_index") == OK
    assert severity_of(tables.plan({"Node Type": "Result"}, []), "a way of its own") == OK


def trigger(table: str, *changes: str, enabled: str = "A", for_each: str = "STATEMENT") -> dict[str, Any]:
    told = {f"on_{change}": change in changes for change in tables.CHANGES}
    return {"table_name": table, "name": f"kcg_notify_{table}", "enabled": enabled, "for_each": for_each, **told}


def test_triggers_are_enough_when_every_change_of_every_table_is_told_of() -> None:
    """One trigger for all changes, or one for each."""
    whole = [trigger(table, *tables.CHANGES) for table in tables.WATCHED]
    single = [trigger(table, change) for table in tables.WATCHED for change in tables.CHANGES]
    assert tables.triggers(whole).severity == tables.triggers(single).severity == OK
    assert severity_of(tables.triggers([]), "none is installed") == NOTE
    assert severity_of(tables.triggers(whole[1:]), "detection_models: nothing tells of every INSERT") == WARNING
    assert severity_of(tables.triggers(single[1:]), "detection_models: nothing tells of every INSERT") == WARNING
    asleep = [{**each, "enabled": "D"} for each in whole]
    assert severity_of(tables.triggers(asleep), "kcg_notify_detection_models is disabled") == WARNING
    origin = [{**each, "enabled": "O"} for each in whole]
    assert severity_of(tables.triggers(origin), "off under replication") == WARNING
    rows = [{**each, "for_each": "ROW"} for each in whole]
    assert severity_of(tables.triggers(rows), "for each row") == NOTE


# --- the rows ---------------------------------------------------------------------------------------------------------


def model(name: str, primaries: int = 1, *, enabled: bool = True) -> dict[str, Any]:
    return {"model_id": name, "is_enabled": enabled, "active": primaries, "primaries": primaries}


@pytest.mark.parametrize(
    ("found", "severity", "words"),
    [
        ([model("a"), model("b", 0, enabled=False)], OK, "1 enabled model, each"),
        ([model("a"), model("b", 0)], WARNING, "no ACTIVE PRIMARY version: b"),
        ([model("a", 2), model("b", 0)], ERROR, "several ACTIVE PRIMARY versions: a"),
        ([model("a", enabled=False)], NOTE, "no model is enabled"),
        ([model(f"m{number}", 0) for number in range(9)], WARNING, "m4, and 4 more"),
    ],
)
def test_models_without_a_primary_are_told_of(found: list[dict[str, Any]], severity: Severity, words: str) -> None:
    """Of enabled models; a long list is counted."""
    assert severity_of(models.primaries(found), words) == severity


def edges(*pairs: str) -> list[Dependency]:
    return [Dependency(pair[0], pair[1], "x") for pair in pairs]


@pytest.mark.parametrize(
    ("pairs", "severity", "words"),
    [
        (["ab", "bc"], OK, "2 dependencies"),
        (["ad"], WARNING, "a needs d"),
        (["da", "dz"], OK, "0 dependencies"),
        (["az", "ad"], ERROR, "a needs z"),
    ],
)
def test_dependencies_that_lead_nowhere_are_told_of(pairs: list[str], severity: Severity, words: str) -> None:
    """What a disabled model needs is nobody's matter."""
    known = [model("a"), model("b"), model("c"), model("d", enabled=False)]
    found = by_code(models.dependencies(known, edges(*pairs)))
    assert severity_of(found["KCG-D03"], words) == severity
    assert found["KCG-D04"].severity == OK


@pytest.mark.parametrize(
    ("pairs", "cycle"),
    [
        ([], []),
        (["ab", "ac", "bd", "cd"], []),
        (["ab", "ba"], ["a", "b", "a"]),
        (["ab", "bc", "cd", "db"], ["b", "c", "d", "b"]),
        (["aa"], ["a", "a"]),
    ],
)
def test_a_cycle_is_found_and_named(pairs: list[str], cycle: list[str]) -> None:
    """A diamond is none."""
    assert models.a_cycle(edges(*pairs)) == cycle


def test_a_long_chain_is_no_matter() -> None:
    """However long it is: no recursion."""
    chain = [Dependency(f"{number:06}", f"{number + 1:06}", "x") for number in range(20_000)]
    assert models.a_cycle(chain) == []


def test_mended_params_are_told_with_their_rows() -> None:
    """The id is what whoever mends it needs."""
    assert severity_of(models.mended([], 3), "3 ACTIVE versions, each") == OK
    assert severity_of(models.mended(["params of row id=7 became {}: no object"], 3), "id=7") == WARNING


# --- the fleet --------------------------------------------------------------------------------------------------------


def reader(**changes: Any) -> fleet.Reader:
    usual = fleet.Reader(
        host="a",
        pid=7,
        application="predict",
        version="0.1.0",
        lease=1.0,
        settings={"ttl": 300.0, "signed": False},
        standing="current",
        since=60.0,
    )
    return usual._replace(**changes)


def crowd(*readers: fleet.Reader) -> dict[str, Finding]:
    own = {"ttl": 300, "lease": 1.0, "signed": False, "mode": "shared"}
    return by_code(fleet.examine(readers, own, "0.1.0"))


def test_a_fleet_that_is_of_one_mind_is_ok() -> None:
    """300 and 300.0 are the same setting; a silent process counts as safe."""
    found = crowd(reader(), reader(pid=8, standing="silent"))
    assert {finding.severity for finding in found.values()} == {OK}
    assert found["KCG-F03"].seen == "2 processes: 1 current, 1 silent"


@pytest.mark.parametrize(
    ("changes", "code", "severity", "words"),
    [
        ({"settings": {"ttl": 60.0, "signed": False}}, "KCG-F01", WARNING, "ttl is 300 (2), 60 (1)"),
        ({"settings": {"ttl": 300.0, "signed": True}}, "KCG-F01", WARNING, "signed is False (2), True (1)"),
        ({"lease": 0.5}, "KCG-F01", WARNING, "lease is 1 (2), 0.5 (1)"),
        ({"version": "0.2.0"}, "KCG-F02", WARNING, "mixed: 0.1.0 (2), 0.2.0 (1)"),
        ({"standing": "lagging", "host": "b"}, "KCG-F03", WARNING, "lagging: predict 7 on b (for 1 min)"),
        ({"standing": "private", "pid": None, "application": ""}, "KCG-F03", WARNING, "private: process ? on a"),
    ],
)
def test_one_that_differs_from_the_others_is_told_of(
    changes: dict[str, Any], code: str, severity: Severity, words: str
) -> None:
    """With what it has, and how many have the other."""
    found = crowd(reader(), reader(pid=8), reader(**changes))
    assert severity_of(found.pop(code), words) == severity
    assert {finding.severity for finding in found.values()} == {OK}


def test_a_host_that_differs_from_its_fleet_is_told_of() -> None:
    """The operator's own environment is another than the workers'."""
    found = crowd(reader(settings={"ttl": 60.0}, version="0.9.0"))
    assert severity_of(found["KCG-F01"], "ttl is 60 in the fleet, 300 here") == WARNING
    assert severity_of(found["KCG-F02"], "0.9.0") == NOTE


def test_a_fleet_that_nobody_knows_of_is_not_checked() -> None:
    """Neither where it may not be looked at, nor where nobody was seen."""
    for finding in fleet.examine(DENIED, {}, "0.1.0"):
        assert severity_of(finding, "not checked", "no permissions") == NOTE
    for finding in fleet.examine([], {}, "0.1.0"):
        assert severity_of(finding, "not checked", "no process") == NOTE
