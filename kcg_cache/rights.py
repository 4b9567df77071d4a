"""What each role's work needs of a user in Redis, as commands and as the words of an ACL. Pure."""

from typing import Final

from kcg_cache import lua
from kcg_cache.keys import Keys

Command = tuple[str, ...]

ROLES: Final = ("worker", "operator", "watcher", "viewer")

#: What the scripts of a role run on which key, and what is sent beside them; the words after the key are only filled
#: in so that the server finds the keys. A test holds it against the scripts.
_SCRIPTS = {
    "worker": ("read", "publish", "renew", "release"),
    "operator": ("invalidate",),
    "viewer": ("inspect",),
    "watcher": ("watch", "unwatch"),
}
#: Scripts that only read: they are run in the form that may only read, so a viewer's keys need not be writable.
READ_ONLY: Final = frozenset({"inspect", "rights"})


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
        ("HMGET", entry, "digest"),
        ("PTTL", entry),
        ("GET", lock),
        ("PTTL", lock),
        *((verb, key, *ends) for verb, ends in _LOOKED_THROUGH for key in (events, invalidations)),
        ("XREAD", "COUNT", "1", "BLOCK", "1", "STREAMS", events, invalidations, "0", "0"),
        ("HGETALL", keys.fleet),
    )


#: How a stream is read back: from its newest entry, and one entry by its id.
_LOOKED_THROUGH = (("XREVRANGE", ("+", "-")), ("XRANGE", ("-", "+")))


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
    verbs = ("EVALSHA_RO", "EVAL_RO") if name in READ_ONLY else ("EVALSHA", "EVAL")
    return tuple((verb, f"{name}.lua", str(len(named)), *named) for verb in verbs)


def named(command: Command, keys: Keys) -> str:
    """Name a command with its script, or its key's last part: ``EVALSHA read.lua``, ``HSET entry``."""
    if command[0].startswith("EVAL"):
        return f"{command[0]} {command[1]}"
    key = next((word for word in command if word in keys), None)
    return command[0] if key is None else f"{command[0]} {key.rpartition(':')[2]}"


def all_commands(keys: Keys) -> tuple[Command, ...]:
    """Give the commands of every role, each once."""
    listed = [command for role in ROLES for command in commands_of(role, keys)]
    return tuple(dict.fromkeys([*listed, *presence_of(keys)]))


# --- as an ACL --------------------------------------------------------------------------------------------------------

#: What a connection sends before and beside our commands: redis-py tells its own name (servers before 7.2 do not know
#: the word) and the client's, and asks whether the server lives.
_CONNECTING = ("ping", "client|setname")
_SINCE_7_2 = ("client|setinfo",)
#: What redis-py's cluster client asks: where the slots are, which words of a command are its keys; and the word that it
#: sends while a slot moves.
_IN_A_CLUSTER = ("cluster|slots", "command", "asking")

#: Commands that only read a key, and those that only write it; any other is said to do both.
_READS = frozenset(
    {"eval_ro", "evalsha_ro", "exists", "get", "hget", "hgetall", "hlen", "hmget", "hrandfield", "hstrlen", "pttl"}
    | {"xrange", "xread", "xrevrange"}
)
_WRITES = frozenset({"del", "hset", "hdel", "pexpire", "set", "xadd"})


def granted(role: str, keys: Keys) -> tuple[Command, ...]:
    """Give every command that a user of this role is to have.

    An operator looks before it withdraws, and at the fleet afterwards; what a worker tells of itself is a worker's.
    """
    listed = commands_of(role, keys)
    if role == "worker":
        listed += presence_of(keys)
    if role == "operator":
        listed += commands_of("viewer", keys)
    return tuple(dict.fromkeys(listed))


def key_rules(role: str, keys: Keys) -> tuple[str, ...]:
    """Give a role's rules for keys, in order: ``%R~`` for a key that it only reads, ``%RW~`` where it also writes."""
    access: dict[str, set[str]] = {}
    for command in granted(role, keys):
        verb = command[0].lower()
        kinds = {"R"} if verb in _READS else {"W"} if verb in _WRITES else {"R", "W"}
        for key in set(command[1:]).intersection(keys):
            access.setdefault(key, set()).update(kinds)
    return tuple(f"%{''.join(sorted(access[key]))}~{key}" for key in keys if key in access)


def command_rules(role: str, *, modern: bool = True, cluster: bool = False, select: bool = False) -> tuple[str, ...]:
    """Give a role's rules for commands. `modern`: a server of 7.2 or later. `select`: its database is not number 0."""
    words = [command[0].lower() for command in granted(role, _ANY)]
    words += [*_CONNECTING, *(_SINCE_7_2 if modern else ())]
    words += [*(_IN_A_CLUSTER if cluster else ()), *(("select",) if select else ())]
    return tuple(f"+{word}" for word in dict.fromkeys(words))


_ANY = Keys.of("any", "any")
