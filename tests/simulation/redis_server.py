"""A Redis in virtual time: the commands that the scripts and the store use, the real Lua, and nothing else.

Values are immutable, so that a copy of the whole state costs nothing: a replica's lag, an RDB file and a failover are
old states. `tests/test_simulated_redis.py` holds it to a real server.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import lupa.lua51  # type: ignore[import-untyped]

#: A key's value (bytes, a hash as a dict that is never changed, a stream as a tuple) and when it expires, in ms.
Value = tuple[Any, float]
State = dict[bytes, Value]
_NEVER = float("inf")
_WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class CommandError(Exception):
    """An error reply."""


def fresh_id(random: Any) -> str:
    """Draw a run_id or a master_replid."""
    return f"{random.getrandbits(160):040x}"


class Node:
    """One server: its ids, its clock and its keys. Every command is atomic."""

    def __init__(self, run_id: str, replid: str, clock: Callable[[], float]) -> None:
        self.run_id = run_id
        self.replid = replid
        self.clock = clock
        self.keys: State = {}
        self.scripts: dict[bytes, Any] = {}
        #: Called after each XADD, so that blocked readers hear of it.
        self.on_event: Callable[[], None] = lambda: None
        #: Whether INFO is refused (an ACL).
        self.silent = False
        self._now_us = 0
        self._lua = _Lua(self._command)

    # --- the clock and the keys -----------------------------------------------------------------------------------

    @property
    def _now_ms(self) -> int:
        return self._now_us // 1000

    def get(self, key: bytes, kind: type) -> Any:
        """Give a live key's value, or None."""
        value = self._live(key)
        if value is not None and not isinstance(value, kind):
            raise CommandError(_WRONGTYPE)
        return value

    def _live(self, key: bytes) -> Any:
        found = self.keys.get(key)
        if found is None:
            return None
        if self._now_ms > found[1]:
            del self.keys[key]
            return None
        return found[0]

    def _put(self, key: bytes, value: Any) -> None:
        expires = self.keys[key][1] if self._live(key) is not None else _NEVER
        self.keys[key] = value, expires

    # --- commands -------------------------------------------------------------------------------------------------

    def execute(self, *command: Any) -> Any:
        """Run one command from a client; raise `CommandError` for an error reply."""
        self._now_us = int(self.clock() * 1e6)  # within a script time stands still
        return self._command(*(_bytes(word) for word in command))

    def _command(self, name: bytes, *words: bytes) -> Any:
        method = getattr(self, f"_do_{name.decode().lower()}", None)
        if method is None:
            raise CommandError(f"ERR unknown command {name!r}: the simulation does not have it")
        try:
            return method(*words)
        except (TypeError, ValueError) as error:
            raise CommandError(f"ERR wrong arguments for {name!r}: {error}") from error

    def _do_time(self) -> list[bytes]:
        return [b"%d" % (self._now_us // 1_000_000), b"%d" % (self._now_us % 1_000_000)]

    def _do_info(self, *sections: bytes) -> bytes:
        if self.silent:
            raise CommandError("NOPERM this user has no permissions to run the 'info' command")
        told = {
            b"server": f"# Server\r\nrun_id:{self.run_id}\r\n",
            b"replication": f"# Replication\r\nrole:master\r\nmaster_replid:{self.replid}\r\n",
        }
        return "\r\n".join(told[section] for section in sections).encode()

    def _do_del(self, *keys: bytes) -> int:
        return sum(self._live(key) is not None and self.keys.pop(key) is not None for key in keys)

    _do_unlink = _do_del

    def _do_exists(self, key: bytes) -> int:
        return int(self._live(key) is not None)

    def _do_get(self, key: bytes) -> Any:
        return self.get(key, bytes)

    def _do_set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        expires = _NEVER
        if options:
            px, ms = options
            if px.upper() != b"PX":
                raise CommandError("ERR syntax error")
            expires = self._now_ms + int(ms)
        self.keys[key] = value, expires
        return b"OK"

    def _do_pttl(self, key: bytes) -> int:
        if self._live(key) is None:
            return -2
        expires = self.keys[key][1]
        return -1 if expires == _NEVER else int(expires - self._now_ms)

    def _do_pexpire(self, key: bytes, ms: bytes) -> int:
        value = self._live(key)
        if value is None:
            return 0
        if int(ms) <= 0:
            del self.keys[key]
        else:
            self.keys[key] = value, self._now_ms + int(ms)
        return 1

    def _do_persist(self, key: bytes) -> int:
        value = self._live(key)
        if value is None or self.keys[key][1] == _NEVER:
            return 0
        self.keys[key] = value, _NEVER
        return 1

    def _do_hget(self, key: bytes, field: bytes) -> Any:
        return (self.get(key, dict) or {}).get(field)

    def _do_hmget(self, key: bytes, *fields: bytes) -> list[Any]:
        found = self.get(key, dict) or {}
        return [found.get(field) for field in fields]

    def _do_hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in (self.get(key, dict) or {}).items() for part in pair]

    def _do_hlen(self, key: bytes) -> int:
        return len(self.get(key, dict) or {})

    def _do_hrandfield(self, key: bytes, count: bytes, withvalues: bytes) -> list[bytes]:
        if withvalues.upper() != b"WITHVALUES" or int(count) < 0:
            raise CommandError("ERR syntax error")
        # The oldest ones: as likely as any others, and the same in every run.
        return [part for pair in list((self.get(key, dict) or {}).items())[: int(count)] for part in pair]

    def _do_hstrlen(self, key: bytes, field: bytes) -> int:
        return len((self.get(key, dict) or {}).get(field) or b"")

    def _do_hset(self, key: bytes, *pairs: bytes) -> int:
        before = self.get(key, dict) or {}
        after = before | dict(zip(pairs[::2], pairs[1::2], strict=True))
        self._put(key, after)
        return len(after) - len(before)

    def _do_hdel(self, key: bytes, field: bytes) -> int:
        before = self.get(key, dict) or {}
        if field not in before:
            return 0
        after = {name: value for name, value in before.items() if name != field}
        if after:
            self._put(key, after)
        else:
            del self.keys[key]
        return 1

    def _do_xadd(self, key: bytes, *words: bytes) -> bytes:
        maxlen, about, cap, star, *fields = words
        if (maxlen, about, star) != (b"MAXLEN", b"~", b"*"):
            raise CommandError("ERR syntax error")
        stream = self.get(key, tuple) or ()
        new = self._now_ms, 0
        if stream and stream[-1][0] >= new:
            new = stream[-1][0][0], stream[-1][0][1] + 1
        stream = (*stream, (new, tuple(fields)))
        if len(stream) > int(cap) + 100:  # about: a real one trims whole nodes
            stream = stream[-int(cap) :]
        self._put(key, stream)
        self.on_event()
        return b"%d-%d" % new

    def _do_xrevrange(self, key: bytes, _end: bytes, _start: bytes, _count: bytes, count: bytes) -> list[Any]:
        stream = self.get(key, tuple) or ()
        return [[b"%d-%d" % number, list(fields)] for number, fields in reversed(stream[-int(count) :])]

    def last_id(self, key: bytes) -> bytes:
        """Give the id that `$` stands for when a reader begins to wait."""
        stream = self.get(key, tuple)
        return b"%d-%d" % stream[-1][0] if stream else b"0-0"

    def newer(self, key: bytes, after: bytes) -> list[Any] | None:
        """Give what XREAD would give at once; None where it would block."""
        self._now_us = int(self.clock() * 1e6)
        first, _, second = after.partition(b"-")
        if not (first + second).isdigit():
            raise CommandError("ERR Invalid stream ID specified as stream command argument")
        bound = int(first), int(second or 0)
        stream = self.get(key, tuple) or ()
        found = [entry for entry in stream if entry[0] > bound][:1]
        return [[key, [[b"%d-%d" % number, list(fields)] for number, fields in found]]] if found else None

    # --- scripts --------------------------------------------------------------------------------------------------

    def _do_eval(self, text: bytes, count: bytes, *words: bytes) -> Any:
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.scripts[sha] = text
        return self._do_evalsha(sha, count, *words)

    def _do_evalsha(self, sha: bytes, count: bytes, *words: bytes) -> Any:
        text = self.scripts.get(sha)
        if text is None:
            raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
        return self._lua.run(text, words[: int(count)], words[int(count) :])


class _Lua:
    """Lua 5.1 with the part of Redis's API that the scripts use."""

    def __init__(self, command: Callable[..., Any]) -> None:
        self._command = command
        self._runtime = lua = _runtime()
        self._bind = lua.globals()

    def run(self, text: bytes, keys: tuple[bytes, ...], arguments: tuple[bytes, ...]) -> Any:
        chunk = _compiled(text)
        lua = self._runtime
        bound = lua.globals()
        bound[b"KEYS"] = lua.table_from(keys)
        bound[b"ARGV"] = lua.table_from(arguments)
        _CURRENT.append(self)
        try:
            return _reply(chunk())
        finally:
            _CURRENT.pop()

    def call(self, *words: Any) -> Any:
        return self._given(self._command(*map(_word, words)))

    def pcall(self, *words: Any) -> Any:
        try:
            return self.call(*words)
        except CommandError as error:
            return self._runtime.table_from({b"err": str(error).encode()})

    def _given(self, value: Any) -> Any:
        if value is None:
            return False
        if isinstance(value, list):
            return self._runtime.table_from([self._given(inner) for inner in value])
        return value


#: The server whose script runs: one runtime serves them all, for making one costs more than a whole run.
_CURRENT: list[_Lua] = []


@functools.cache
def _runtime() -> Any:
    lua = lupa.lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False, register_eval=False)
    lua.globals()[b"redis"] = lua.table_from(
        {
            # Looked up at each call: which server it is changes.
            b"call": lambda *words: _CURRENT[-1].call(*words),  # noqa: PLW0108
            b"pcall": lambda *words: _CURRENT[-1].pcall(*words),  # noqa: PLW0108
            b"error_reply": lambda text: lua.table_from({b"err": text}),
        }
    )
    return lua


@functools.cache
def _compiled(text: bytes) -> Any:
    return _runtime().execute(b"return function() " + text + b"\nend")


def _word(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return b"%.17g" % value
    return b"%d" % value


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _reply(value: Any) -> Any:
    """Turn what a script returned into what a client gets, as Redis does."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, (int, float)):
        return int(value)
    if isinstance(value, bytes):
        return value
    if value[b"err"] is not None:
        raise CommandError(value[b"err"].decode())
    found = []
    for number in range(1, len(value) + 1):
        inner = value[number]
        if inner is None:
            break
        found.append(_reply(inner))
    return found
