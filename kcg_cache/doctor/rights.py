"""What each role's work needs of a user in Redis, and whether this user has it. Pure."""

from collections.abc import Collection, Iterator, Mapping

from kcg_cache.answers import NotAllowed
from kcg_cache.doctor.findings import ERROR, NOTE, OK, Finding, unchecked
from kcg_cache.keys import Keys

Command = tuple[str, ...]

_CODES = {"worker": "KCG-A01", "operator": "KCG-A02", "viewer": "KCG-A03"}
ROLES = tuple(_CODES)

#: What the scripts of a role run on which key, and what is sent beside them; the words after the key are only filled
#: in so that the server finds the keys. A test holds it against the scripts.
_SCRIPTS = {
    "worker": ("read", "publish", "renew", "release"),
    "operator": ("invalidate",),
    "viewer": ("inspect",),
}


def scripts_of(role: str) -> tuple[str, ...]:
    """Name the scripts that a role runs."""
    return _SCRIPTS[role]


def commands_of(role: str, keys: Keys) -> tuple[Command, ...]:
    """Give every command that a role's work sends, or that its scripts run as this user."""
    entry, lock, events, invalidations, guard = keys.entry, keys.lock, keys.events, keys.invalidations, keys.guard
    scripts = (("EVALSHA", "0" * 40, "1", entry), ("EVAL", "return 1", "1", entry))
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
    )


def all_commands(keys: Keys) -> tuple[Command, ...]:
    """Give the commands of every role, each once."""
    return tuple(dict.fromkeys(command for role in ROLES for command in commands_of(role, keys)))


def examine(told: Mapping[Command, bool | None] | NotAllowed, keys: Keys, wanted: Collection[str]) -> Iterator[Finding]:
    """Look at each role's rights; those of a role that is not `wanted` of this user are only told."""
    for role, code in _CODES.items():
        if isinstance(told, NotAllowed):
            yield unchecked(code, f"neither scripts nor ACL DRYRUN are for this user ({told.why})")
            continue
        commands = commands_of(role, keys)
        lacking = [command for command in commands if told.get(command) is False]
        unknown = [command for command in commands if told.get(command) is None]
        if lacking:
            named = ", ".join(dict.fromkeys(_named(command, keys) for command in lacking))
            words = " ".join(dict.fromkeys(f"+{command[0].lower()}" for command in lacking))
            mend = f"ACL SETUSER … {words} ~{_pattern(keys)}, then ACL SAVE or your users file"
            if role in wanted:
                yield Finding(code, ERROR, f"this user may not: {named}", mend)
            else:
                yield Finding(code, NOTE, f"this user may not (and need not, by --for): {named}", mend)
        elif unknown:
            yield unchecked(code, f"this server does not tell of {', '.join(_named(each, keys) for each in unknown)}")
        else:
            yield Finding(code, OK, f"this user has all {len(commands)} of them")


def _pattern(keys: Keys) -> str:
    """Give the pattern of all keys of the dataset, as an ACL has it."""
    return keys.entry.rpartition(":")[0] + ":*"


def _named(command: Command, keys: Keys) -> str:
    """Name a command with its key's last part: ``HSET entry``."""
    key = next((word for word in command if word in keys), None)
    return command[0] if key is None else f"{command[0]} {key.rpartition(':')[2]}"
