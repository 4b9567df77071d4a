"""The scripts of one dataset on one server: bytes in, typed outcomes out.

Every decision is one script (PROTOCOL R1), every call is bounded by the client's timeouts, and every error of the
driver leaves here as one of ours (`kcg_cache.redis_errors`), with the symptom that `kcg_cache.outage` decides by.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from redis.exceptions import NoPermissionError, NoScriptError

from kcg_cache import clients, keys, lua
from kcg_cache.answers import (
    Answer,
    Current,
    Deleted,
    Entry,
    Fill,
    Floor,
    Grant,
    Logged,
    NotAllowed,
    Published,
    Question,
    Report,
    State,
    Stream,
    Wait,
)
from kcg_cache.codec import Payload
from kcg_cache.errors import StoreRefused, StoreReplyError
from kcg_cache.redis_errors import DRIVER_ERRORS, mapped
from kcg_cache.settings import Settings
from kcg_cache.system import SYSTEM

_T = TypeVar("_T")

#: Bytes of payload that an answer of read.lua holds at most: one round trip for what is small. A larger one is fetched
#: by a plain command, for Lua copies it several times: with megabytes, and a whole fleet that asks at once, the
#: server's one thread would be busy for longer than `redis_timeout`.
INLINE = 64 * 1024
#: Symptoms of a server that may have been replaced by another: it is asked anew where the next call goes.
ELSEWHERE = frozenset({"timeout", "connection", "replicas", "readonly", "loading", "cluster"})
#: How often a payload is fetched that was changed in between, before the script is to give it whatever its size.
FETCHES = 3
#: What is fetched: which entry it is, and its payload.
_FETCHED = ("digest", "loaded_at", "incarnation", "payload")


class Store:
    """The scripts of one dataset on one server. Every method raises `StoreError`, and nothing else of the driver's."""

    def __init__(
        self,
        client_or_url: Any,
        dataset: str,
        settings: Settings,
        *,
        now: Callable[[], float] = SYSTEM.now,
        asked: Callable[[], object] = lambda: None,
    ) -> None:
        self._now = now
        #: Called before each `read` script is sent.
        self._asked = asked
        self.keys = keys.Keys.of(settings.namespace, dataset)
        #: The KEYS of each script, as sent.
        self._key_names: dict[str, list[bytes]] = {}
        self._settings = settings
        #: The largest payload that is not fetched by itself.
        self.inline = INLINE
        self._own_client = isinstance(client_or_url, str)
        if isinstance(client_or_url, str):
            self._client = clients.connect(settings.replace(redis_url=client_or_url))
        else:
            self._client = clients.given(client_or_url)
        #: Seconds that one call is meant to take at most: the deadline for each address that it may try.
        allowed = settings.redis_timeout * self._client.addresses
        longest = self._client.bound
        if longest is None or longest > allowed * 1.001:
            bound = "has no timeout" if longest is None else f"may take {longest:g} s for one call"
            tried = "" if self._client.addresses == 1 else f" for each of {self._client.addresses} addresses"
            warnings.warn(
                f"the Redis client given to kcg_cache {bound}, more than redis_timeout={settings.redis_timeout:g} s"
                f"{tried}: a hung Redis holds a read up for that long. Give a URL, or a client with socket_timeout, "
                "socket_connect_timeout and retry=Retry(NoBackoff(), 0)",
                clients.ClientTimeoutWarning,
                stacklevel=3,
            )
        self._socket_timeout = self._client.socket_timeout or math.inf
        #: Seconds that one call may wait for an event: less than would be taken for a server that does not answer.
        self._longest_block = min(self._settings.redis_timeout, self._socket_timeout) / 2
        self._fixed = {
            "ttl_ms": _ms(settings.ttl),
            "stale_ms": _ms(settings.stale_if_error),
            "lock_ttl_ms": _ms(settings.lock_ttl),
            "refresh_ms": int(settings.ttl * settings.refresh_ahead * 1000),
            "max_payload": settings.max_payload,
        }

    def read(self, question: Question) -> Answer:
        """Ask whether the caller's copy is current, and what to do if not (PROTOCOL R2).

        A payload over `inline` is fetched after the answer. If the entry is another by then, the question is put again.
        """
        for _ in range(FETCHES):
            answer = self._ask(question, self.inline)
            entry = answer.entry if isinstance(answer, Current) else answer.fallback
            if entry is None or entry.payload != b"":
                return answer
            payload = self.payload(entry)
            if payload:
                entry = entry._replace(payload=payload)
                return answer._replace(entry=entry) if isinstance(answer, Current) else answer._replace(fallback=entry)
        # It changes faster than it is fetched: what one script gives, nobody changes in between.
        return self._ask(question, self._settings.max_payload)

    def _ask(self, question: Question, inline: int) -> Answer:
        """Run the script once; a payload of b"" is yet to be fetched."""
        self._asked()
        resolved = question.resolved
        return self._run(
            "read",
            {
                "known": question.known or "",
                "floor_kind": "now" if question.now else "any" if question.max_age is None else "age",
                "age_us": 0 if question.max_age is None else int(question.max_age * 1e6),
                "resolved": resolved.value if resolved else "",
                "resolved_incarnation": resolved.incarnation if resolved else "",
                "token": question.token,
                "rejected": question.rejected or "",
                "inline": inline,
                **self._fixed,
                **self._presence(question.report),
            },
            lambda reply: _answer(reply, question.token),
        )

    def _presence(self, report: Report | None) -> dict[str, str | bytes | int]:
        if report is None:
            return _NO_PRESENCE
        return {
            "fleet": self.keys.fleet,
            "reader": report.reader,
            "held_us": report.held_us,
            "presence": report.presence,
        }

    def payload(self, entry: Entry) -> bytes | None:
        """Fetch the payload of this very entry; None when there is another by now, or none.

        It decides nothing: the script has, and named by digest, `loaded_at` and incarnation what it decided on (R1).
        """
        try:
            found = self._call("HMGET", self.keys.entry, *_FETCHED)
        except StoreReplyError as error:
            if _foreign_type(error):  # a foreign key came in its place: the script says what that means (R14)
                return None
            raise
        if not (
            isinstance(found, (list, tuple))
            and len(found) == len(_FETCHED)
            and all(part is None or isinstance(part, bytes) for part in found)
        ):
            # Another command's answer, then (see `_run`).
            self._forget_connections()
            raise StoreReplyError(f"HMGET gave {type(found).__name__}, not {_FETCHED}", symptom="reply")
        *identity, payload = found
        named = [part.encode(errors="surrogateescape") for part in (entry.digest, entry.loaded_at, entry.incarnation)]
        return payload if identity == named else None

    def await_event(self, after: bytes, seconds: float) -> None:
        """Return when the events stream has more than `after`, or after about `seconds` (PROTOCOL R11).

        It ends before half of any timeout that the client has.
        """
        block = max(1, int(min(seconds, self._longest_block) * 1000))
        self._call("XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", self.keys.events, after)

    def publish(
        self,
        grant: Grant,
        payload: Payload,
        *,
        load_us: int,
        source: str,
        signature: str,
        by: str,
        report: Report | None = None,
    ) -> Published | None:
        """Store what the holder of the lock loaded; None is REJECTED (PROTOCOL R3)."""
        return self._run(
            "publish",
            {
                "expected": grant.value,
                "digest": payload.digest,
                "format": payload.format,
                "load_us": load_us,
                "source": source,
                "signature": signature,
                "ttl_ms": self._fixed["ttl_ms"] + self._fixed["stale_ms"],
                "by": by,
                "events_cap": keys.EVENTS_KEPT,
                "events_ttl_ms": keys.EVENTS_TTL_MS,
                "payload": payload.data,
                **self._presence(report),
            },
            _published,
        )

    def renew(self, grant: Grant) -> bool:
        """Keep the lock for another `lock_ttl`; False when it is lost (PROTOCOL R3)."""
        return self._run(
            "renew",
            {"expected": grant.value, "lock_ttl_ms": self._fixed["lock_ttl_ms"]},
            lambda reply: bool(reply["status"] == b"RENEWED"),
        )

    def release(self, grant: Grant, reason: str, *, by: str) -> bool:
        """Give the lock back and wake the waiters; False when it was lost (PROTOCOL R11)."""
        return self._run(
            "release",
            {
                "expected": grant.value,
                "reason": reason,
                "by": by,
                "events_cap": keys.EVENTS_KEPT,
                "events_ttl_ms": keys.EVENTS_TTL_MS,
            },
            lambda reply: bool(reply["status"] == b"RELEASED"),
        )

    def invalidate(self, *, who: str, host: str, reason: str) -> Deleted:
        """Delete entry and lock together, then log it (PROTOCOL R3, R7)."""
        return self._run(
            "invalidate",
            {
                "who": who,
                "host": host,
                "reason": reason,
                "events_cap": keys.EVENTS_KEPT,
                "events_ttl_ms": keys.EVENTS_TTL_MS,
                "invalidations_cap": keys.INVALIDATIONS_KEPT,
            },
            _deleted,
        )

    def watch(self, holder: str, ttl_ms: int) -> bool:
        """Claim the watch for `ttl_ms`, or keep it; False while it is another's (`lua/watch.lua`)."""
        return self._run(
            "watch", {"holder": holder, "ttl_ms": ttl_ms}, lambda reply: reply["status"] in (b"CLAIMED", b"KEPT")
        )

    def unwatch(self, holder: str) -> bool:
        """Give the watch back at once; False when it was another's by now."""
        return self._run("unwatch", {"holder": holder}, lambda reply: bool(reply["status"] == b"RELEASED"))

    def inspect(self, events: int) -> State:
        """Look at what is there; the newest `events` of each stream."""
        return self._look("inspect", {"count": events}, _state)

    def check_deletes(self) -> None:
        """Do what an invalidate does first: delete the key that never exists (PROTOCOL R2).

        Raises `StoreError` where that is refused: by a replica, a master cut off from its replicas, or for want of
        rights.
        """
        self._call("DEL", self.keys.guard)

    def presences(self) -> Mapping[bytes, bytes]:
        """Give what every reader told of itself last, by reader; none where a foreign type stands in its place."""
        try:
            found = self._call("HGETALL", self.keys.fleet)
        except StoreReplyError as error:
            if not _foreign_type(error):
                raise
            return {}  # the next reader replaces it
        if isinstance(found, list):  # a client that leaves it as Redis sends it
            found = dict(zip(found[::2], found[1::2], strict=False))
        if not (isinstance(found, dict) and all(isinstance(part, bytes) for pair in found.items() for part in pair)):
            self._forget_connections()  # another command's answer, then (see `_run`)
            raise StoreReplyError(f"HGETALL gave {type(found).__name__}, not a hash", symptom="reply")
        return found

    def server(self, *sections: str) -> dict[str, str]:
        """Give what INFO says, as text; without `sections` of the server, memory, replication and clients."""
        facts: dict[str, str] = {}
        for section in sections or ("server", "memory", "replication", "clients"):
            # The client parses INFO into a dict by itself.
            facts |= {str(name): str(value) for name, value in self._call("INFO", section).items()}
        return facts

    def ask(self, *command: str) -> Any:
        """Ask something that only reads, for people who look after the server; `NotAllowed` where it will not say.

        The answer is as the driver gives it. Raises `StoreError` for a server that does not answer at all.
        """
        try:
            return self._call(*command)
        except (StoreRefused, StoreReplyError) as error:
            if isinstance(error, StoreRefused) and not isinstance(error.__cause__, NoPermissionError):
                raise  # a wrong password: nothing at all is for this user
            return NotAllowed(str(error.__cause__ or error))

    def config(self, *names: str) -> dict[str, str] | NotAllowed:
        """Give these settings of the server that it has, as text; `NotAllowed` where CONFIG is not for this user."""
        flat = self.ask("CONFIG", "GET", *names)
        if isinstance(flat, NotAllowed):
            return flat
        return _pairs(flat)

    def time_us(self) -> int | NotAllowed:
        """Give the server's time in microseconds."""
        answer = self.ask("TIME")
        if isinstance(answer, NotAllowed):
            return answer
        seconds, micros = answer
        return _int(seconds) * 1_000_000 + _int(micros)

    def may(self, commands: Sequence[Sequence[str]]) -> tuple[bool | None, ...]:
        """Tell for each command whether this user may run it, and run none; None where the server cannot tell.

        A script asks, which needs no right but to run scripts; where that is missing, ACL DRYRUN.
        """
        told = self._told_by_script(commands)
        if None in told:
            user = self.ask("ACL", "WHOAMI")
            if not isinstance(user, NotAllowed):
                for place, command in enumerate(commands):
                    if told[place] is None:
                        answer = self.ask("ACL", "DRYRUN", _text(user), *command)
                        told[place] = None if isinstance(answer, NotAllowed) else answer == b"OK"
        return tuple(told)

    def _told_by_script(self, commands: Sequence[Sequence[str]]) -> list[bool | None]:
        """Ask in the form that may only read, and where this user may not use that, in the other."""
        denied: set[str] = set()
        for forms in (("evalsha_ro", "eval_ro"), ("evalsha", "eval")):
            run = self._run_looking if forms[0].endswith("_ro") else self._run
            try:
                answers: Any = run("rights", {"commands": json.dumps(commands)}, lambda reply: reply["answers"])
            except StoreRefused as error:
                # Of the two that run a script the one that is named, or both where it is about keys.
                named = [form for form in forms if f"'{form}'" in str(error)]
                denied.update(named or forms)
            except StoreReplyError:
                continue
            else:
                return [{b"1": True, b"0": False}.get(answer) for answer in answers]
        return [False if command[0].lower() in denied else None for command in commands]

    def whole_entry(self) -> dict[str, bytes]:
        """Give the fields of the entry with its payload, as they are; {} for none, or for a key of another type."""
        names = ("digest", "format", "payload")
        found = self.ask("HMGET", self.keys.entry, *names)
        if isinstance(found, NotAllowed):
            return {}
        return {name: value for name, value in zip(names, found, strict=True) if isinstance(value, bytes)}

    def digest(self) -> str | None:
        """Give the digest of the entry as it is, whether readers take it or not; None for none. A worker may ask."""
        try:
            found = self._call("HMGET", self.keys.entry, "digest")
        except StoreReplyError as error:
            if not _foreign_type(error):
                raise
            return None
        return self._understood(lambda: None if found[0] is None else _text(_bytes(found[0])), "HMGET")

    def logged(self, stream: Stream, count: int, *, before: str = "") -> tuple[Logged, ...] | None:
        """Give the newest `count` entries of a stream, or those before the id `before`, newest first.

        None where no stream but something else stands under its key.
        """
        newest = f"({before}" if before else "+"
        return self._entries("XREVRANGE", getattr(self.keys, stream), newest, "-", "COUNT", count)

    def has_logged(self, stream: Stream, entry_id: str) -> bool:
        """Tell whether a stream still has the entry of this id."""
        return bool(self._entries("XRANGE", getattr(self.keys, stream), entry_id, entry_id, "COUNT", 1))

    def logged_after(
        self, after: Mapping[Stream, str], count: int, seconds: float = 0.0
    ) -> dict[Stream, tuple[Logged, ...]]:
        """Give up to `count` entries of each stream after the id that `after` names for it, oldest first.

        It waits for about `seconds` while there are none, and ends before half of any timeout that the client has.
        Where something else than a stream stands under a key, it gives none of it, and does not wait.
        """
        block = ("BLOCK", max(1, int(min(seconds, self._longest_block) * 1000))) if seconds > 0 else ()
        names = [getattr(self.keys, stream) for stream in after]
        try:
            reply = self._call("XREAD", "COUNT", count, *block, "STREAMS", *names, *after.values())
        except StoreReplyError as error:
            if not _foreign_type(error):
                raise
            if len(after) == 1:
                return {}
            alone = [self.logged_after({stream: entry_id}, count) for stream, entry_id in after.items()]
            return {stream: entries for found in alone for stream, entries in found.items()}
        found = self._understood(lambda: dict(reply.items() if isinstance(reply, dict) else reply or ()), "XREAD")
        by_name = {name.encode(): stream for stream, name in zip(after, names, strict=True)}
        return self._understood(lambda: {by_name[name]: _logged(entries) for name, entries in found.items()}, "XREAD")

    def _entries(self, *command: Any) -> tuple[Logged, ...] | None:
        try:
            reply = self._call(*command)
        except StoreReplyError as error:
            if _foreign_type(error):
                return None
            raise
        return self._understood(lambda: _logged(reply), command[0])

    def _understood(self, understood: Callable[[], _T], command: str) -> _T:
        """Give what is made of an answer; one that cannot be is another command's (see `_run`)."""
        try:
            return understood()
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            self._forget_connections()
            raise StoreReplyError(f"{command} gave something else: {error}", symptom="reply") from error

    def remove(self) -> int:
        """Delete every key of this dataset for good, the log of invalidations too; give how many there were.

        For the demo, which takes everything of its own away with it. To withdraw rows is `invalidate`.
        """
        return int(self._call("UNLINK", *self.keys))

    def close(self) -> None:
        """Close the connections of a client that was made here; it opens new ones when it is used again."""
        if self._own_client:
            self._client.close()

    def _look(
        self, name: str, values: Mapping[str, str | bytes | int], understood: Callable[[dict[str, Any]], _T]
    ) -> _T:
        """Run a script that only reads, in the form that may only read: that of a user who may change nothing.

        Where a server does not know that form, or a user has only the right to the other, it is run in the other.
        """
        try:
            return self._run_looking(name, values, understood)
        except (StoreRefused, StoreReplyError) as error:
            if not re.search(_LOOKING_REFUSED, str(error)):
                raise
            try:
                return self._run(name, values, understood)
            except StoreRefused:
                raise error from error.__cause__  # which names what a user who only looks has to have

    def _run_looking(
        self, name: str, values: Mapping[str, str | bytes | int], understood: Callable[[dict[str, Any]], _T]
    ) -> _T:
        return self._run(name, values, understood, form="_RO")

    def _run(
        self,
        name: str,
        values: Mapping[str, str | bytes | int],
        understood: Callable[[dict[str, Any]], _T],
        *,
        form: Literal["", "_RO"] = "",
    ) -> _T:
        """Run a script and give what `understood` makes of its reply; in the `form` "_RO" it can write nothing."""
        script = lua.load(name)
        key_names = self._key_names.get(name)
        if key_names is None:
            key_names = self._key_names[name] = script.named(self.keys)
        arguments = script.arguments(values)
        try:
            answer = self._call(f"EVALSHA{form}", script.sha, len(key_names), *key_names, *arguments)
        except StoreReplyError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
            # Not run, for the server does not have it (a restart, SCRIPT FLUSH): send the text, which it keeps.
            answer = self._call(f"EVAL{form}", script.text, len(key_names), *key_names, *arguments)
        try:
            return understood(script.reply(answer))
        except StoreReplyError:
            self._forget_connections()
            raise
        except (ValueError, TypeError, AttributeError) as error:
            # Parts that are not what the header says: not this script's answer, then. The next one on the same
            # connection may be someone else's, too.
            self._forget_connections()
            raise StoreReplyError(f"{name}.lua gave something else: {error}", symptom="reply") from error

    def _call(self, *command: Any) -> Any:
        """Send one command.

        A connection that was closed under us is tried once more: every command may run twice (a token that holds the
        lock is granted it again; deletions are idempotent; a publish that ran is then rejected, and read back). Not
        when half of the deadline has passed: it would be another one (R8).
        """
        began = self._now()
        for last in (False, True):
            try:
                return self._client.execute(self.keys.entry, *command)
            except DRIVER_ERRORS as error:
                ours = mapped(error)
                if ours.symptom in ELSEWHERE:
                    self._client.look_again(ours.symptom)
                late = self._now() - began > self._settings.redis_timeout / 2
                if last or late or ours.symptom != "connection":
                    raise ours from error
            except BaseException:
                # A signal's (Ctrl-C, a task's time limit), between the question and its answer. The client has put the
                # connection back, and the next question on it would be given this one's answer.
                self._forget_connections()
                raise
        raise AssertionError

    def _forget_connections(self) -> None:
        """Close the client's idle connections: one of them may hold an answer that nobody waited for."""
        self._client.forget()


#: How a server says that scripts are not to be run in the form that may only read: no such right, or no such command.
_LOOKING_REFUSED = r"(?i)'eval(sha)?_ro' command|unknown command.{0,3}eval(sha)?_ro"

#: The arguments of a caller that leaves no presence.
_NO_PRESENCE: dict[str, str | bytes | int] = {"fleet": "", "reader": "", "held_us": 0, "presence": b""}


def _answer(reply: Mapping[str, Any], token: str) -> Answer:
    if _text(reply["asked"]) != token:
        raise ValueError("the answer to another question")
    incarnation = _text(reply["incarnation"])
    floor = Floor(_text(reply["floor"]), incarnation)
    note = _text(reply["note"])
    entry = _entry(reply, incarnation) if reply["copy"] else None
    match reply["kind"]:
        case b"SAME" | b"ROWS" if entry is not None:
            return Current(entry, floor, note)
        case b"FILL":
            granted_at, granted_when = _text(reply["grant"]), _text(reply["granted_when"])
            return Fill(Grant(token, granted_at, incarnation, granted_when), entry, floor, note)
        case b"WAIT":
            return Wait(_int(reply["lock_left_ms"]) / 1000, _bytes(reply["last_event"]), entry, floor, note)
    raise ValueError(f"the kind {reply['kind']!r}")


def _published(reply: Mapping[str, Any]) -> Published | None:
    if reply["status"] != b"PUBLISHED":
        return None
    return Published(_int(reply["time"]), _text(reply["previous_source"]))


def _deleted(reply: Mapping[str, Any]) -> Deleted:
    return Deleted(
        at=_int(reply["time"]),
        existed=reply["existed"] == b"1",
        digest=_text(reply["digest"]) or None,
        fill_cancelled=reply["fill_cancelled"] == b"1",
        logged=reply["logged"] == b"1",
    )


def _state(reply: Mapping[str, Any]) -> State:
    lock = _text(reply["lock"]).split("|")
    return State(
        at=_int(reply["time"]),
        incarnation=_text(reply["incarnation"]),
        entry=_pairs(reply["entry"]),
        entry_ttl_ms=_int(reply["entry_ttl_ms"]),
        payload_bytes=_int(reply["payload_bytes"]),
        lock=Grant(*lock) if len(lock) == 4 else None,
        lock_ttl_ms=_int(reply["lock_ttl_ms"]),
        events=tuple(_pairs(fields) for _, fields in reply["events"]),
        invalidations=tuple(_pairs(fields) for _, fields in reply["invalidations"]),
    )


def _entry(reply: Mapping[str, Any], incarnation: str) -> Entry:
    loaded_at = _text(reply["loaded_at"])
    return Entry(
        digest=_text(reply["digest"]),
        format=_text(reply["format"]),
        loaded_at=loaded_at,
        load_us=_text(reply["load_us"]),
        source=_text(reply["source"]),
        signature=_text(reply["signature"]),
        incarnation=incarnation,
        age=max(0, _int(reply["time"]) - _int(loaded_at)) / 1e6,
        fresh=_int(reply["fresh_ms"]) / 1000,
        life=_int(reply["life_ms"]) / 1000,
        payload=_bytes(reply["payload"]) if reply["copy"] == b"rows" else None,
    )


def _logged(reply: Any) -> tuple[Logged, ...]:
    # The client gives a dict of the fields, or, where it does not read the answer, a flat list; None for a deleted one.
    return tuple(
        Logged(
            _text(entry_id),
            {_text(name): _text(value) for name, value in fields.items()}
            if isinstance(fields, dict)
            else _pairs(fields),
        )
        for entry_id, fields in reply
        if entry_id is not None and fields is not None
    )


def _foreign_type(error: StoreReplyError) -> bool:
    return "WRONGTYPE" in str(error)


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [_text(part) for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _text(raw: bytes) -> str:
    # What someone else wrote may be no UTF-8; it must come back as the same bytes, or it would not match its own.
    return raw.decode(errors="surrogateescape")


def _bytes(part: Any) -> bytes:
    if not isinstance(part, bytes):
        raise TypeError(f"{type(part).__name__} for bytes")
    return part


def _int(part: Any) -> int:
    number = int(part)
    if not -(2**63) <= number < 2**63:  # a float would overflow by it, and none of our scripts counts so far
        raise ValueError(f"a number of {number.bit_length()} bits")
    return number


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
