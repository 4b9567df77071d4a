"""What each role's work needs of a user in Redis, and whether this user has it. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from kcg_cache import lua
from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding, Severity, unchecked
from kcg_cache.keys import Keys

Command = tuple[str, ...]

#: The finding of each role.
CODES = {"worker": "KCG-A01", "operator": "KCG-A02", "viewer": "KCG-A03", "watcher": "KCG-A05"}
ROLES = tuple(CODES)

#: What the scripts of a role run on which key, and what is sent beside them; the words after the key are only filled
#: in so that the server finds the keys. A test holds it against the scripts.
_SCRIPTS = {
    "worker": ("read", "publish", "renew", "release"),
    "operator": ("invalidate",),
    "viewer": ("inspect",),
    "watcher": ("watch", "unwatch"),
}


def scripts_of(role: str) -> tuple[str, ...]:
    """Name the scripts that a role runs."""
    return _SCRIPTS[role]


def commands_of(role: str, keys: Keys) -> tuple[Command, ...]:
    """Give every command that a role's work sends, or that its scripts run as this user."""
    entry, lock, events, invalidations, guard = keys.entry, keys.lock, keys.events, keys.invalidations, keys.guard
    scripts = tuple(call for name in _SCRIPTS[role] for call in _calls(name, keys))
    log: tuple[Command, ...] = (("XADD", events, "*", "a", "b"), ("PEXPIRE", events, "1"), ("DEL", events))
    if role == "worker":
        return (
            *scripts,
            ("DEL", guard),
            ("TIME",),
            ("INFO", "server", "replication"),
            ("HMGET", entry, "digest"),
            ("EXISTS", entry),
            ("PTTL", entry),
            ("PEXPIRE", entry, "1"),
            ("HSTRLEN", entry, "payload"),
            ("HGET", entry, "payload"),
            ("DEL", entry),
            ("HSET", entry, "digest", "x"),
            ("GET", lock),
            ("SET", lock, "x", "PX", "1"),
            ("PTTL", lock),
            ("PEXPIRE", lock, "1"),
            ("DEL", lock),
            ("XREVRANGE", events, "+", "-"),
            ("XREAD", "COUNT", "1", "BLOCK", "1", "STREAMS", events, "0"),
            *log,
        )
    if role == "operator":
        return (
            *scripts,
            ("DEL", guard),
            ("TIME",),
            ("HGET", entry, "digest"),
            ("DEL", entry),
            ("DEL", lock),
            *log,
            ("XADD", invalidations, "*", "a", "b"),
            ("DEL", invalidations),
        )
    if role == "watcher":
        # It looks as a viewer does, and withdraws as an operator does.
        return (
            *scripts,
            ("DEL", guard),
            ("GET", keys.watch),
            ("SET", keys.watch, "x", "PX", "1"),
            ("PTTL", keys.watch),
            ("PEXPIRE", keys.watch, "1"),
            ("DEL", keys.watch),
            *commands_of("operator", keys),
            *commands_of("viewer", keys),
        )
    return (
        *scripts,
        ("TIME",),
        ("INFO", "server", "replication"),
        ("HGET", entry, "digest"),
        ("HSTRLEN", entry, "payload"),
        ("PTTL", entry),
        ("GET", lock),
        ("PTTL", lock),
        ("XREVRANGE", events, "+", "-"),
        ("XREVRANGE", invalidations, "+", "-"),
        ("HGETALL", keys.fleet),
    )


def presence_of(keys: Keys) -> tuple[Command, ...]:
    """Give what a worker's scripts run so that it is seen in the fleet: whatever of it is refused is refused alone."""
    fleet = keys.fleet
    return (
        ("HSET", fleet, "a", "b"),
        ("PEXPIRE", fleet, "1"),
        ("HLEN", fleet),
        ("HRANDFIELD", fleet, "1", "WITHVALUES"),
        ("HDEL", fleet, "a"),
        ("DEL", fleet),
    )


def _calls(name: str, keys: Keys) -> tuple[Command, ...]:
    """Give the two commands that run a script, with its name for its text or digest: they are asked about, not sent."""
    named = [key.decode() for key in lua.load(name).named(keys)]
    return tuple((verb, f"{name}.lua", str(len(named)), *named) for verb in ("EVALSHA", "EVAL"))


def all_commands(keys: Keys) -> tuple[Command, ...]:
    """Give the commands of every role, each once."""
    listed = [command for role in ROLES for command in commands_of(role, keys)]
    return tuple(dict.fromkeys([*listed, *presence_of(keys)]))


def examine(told: Mapping[Command, bool | None], keys: Keys, wanted: Collection[str]) -> Iterator[Finding]:
    """Look at each role's rights; those of a role that is not `wanted` of this user are only told."""
    for role, code in CODES.items():
        yield _judged(code, commands_of(role, keys), told, keys, ERROR if role in wanted else NOTE)
    yield _judged("KCG-A04", presence_of(keys), told, keys, WARNING if "worker" in wanted else NOTE)


def _judged(
    code: str, commands: Sequence[Command], told: Mapping[Command, bool | None], keys: Keys, severity: Severity
) -> Finding:
    lacking = [command for command in commands if told.get(command) is False]
    unknown = [command for command in commands if told.get(command) is None]
    if lacking:
        named = ", ".join(dict.fromkeys(_named(command, keys) for command in lacking))
        more = ", and what else is not told" if unknown else ""
        words = " ".join(dict.fromkeys(f"+{command[0].lower()}" for command in lacking))
        if severity is NOTE:
            return Finding(code, NOTE, f"this user may not (and need not, by --for): {named}{more}")
        mend = f"ACL SETUSER … {words} ~{_pattern(keys)}, then ACL SAVE or your users file"
        return Finding(code, severity, f"this user may not: {named}{more}", mend)
    if unknown:
        return unchecked(code, f"this server does not tell of {', '.join(_named(each, keys) for each in unknown)}")
    return Finding(code, OK, f"this user has all {len(commands)} of them")


def _pattern(keys: Keys) -> str:
    """Give the pattern of all keys of the dataset, as an ACL has it."""
    return keys.entry.rpartition(":")[0] + ":*"


def _named(command: Command, keys: Keys) -> str:
    """Name a command with its script, or its key's last part: ``EVALSHA read.lua``, ``HSET entry``."""
    if command[0] in ("EVALSHA", "EVAL"):
        return f"{command[0]} {command[1]}"
    key = next((word for word in command if word in keys), None)
    return command[0] if key is None else f"{command[0]} {key.rpartition(':')[2]}"
