"""`Settings`: every setting, its default, its environment variable and what it may be."""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from kcg_cache import keyring, keys, redis_url
from kcg_cache.errors import ConfigurationError, SettingsError

#: The longest read lease, in seconds, and a constant of the protocol (PROTOCOL R7): every invalidate waits it out,
#: whoever the readers are. A value that readers and operators negotiate was lost by eviction, failover and absence.
LEASE_MAX = 1.0
#: What `invalidate` waits from the receipt of its reply: the longest lease, with 2 % for clocks that run apart by 1 %.
INVALIDATE_WAIT = LEASE_MAX * 1.02

PREFIX = "KCG_CACHE_"
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off", ""})
_DAY = 86_400.0
#: What Kubernetes sets in every container beside a Service that is called kcg-cache.
_KUBERNETES = PREFIX + r"(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_.*)?)"


@dataclass(frozen=True, slots=True)
class Settings:
    """How one cache behaves. Times are seconds. A wrong value raises `SettingsError`.

    Built from arguments, or by `from_env` from ``KCG_CACHE_*`` variables with arguments on top.
    """

    #: Where Redis or Valkey is: one server, its Sentinels or a Cluster (`kcg_cache.redis_url`, docs/redis.md).
    redis_url: str = dataclasses.field(default="redis://127.0.0.1:6379/0", repr=False)
    #: The user in Redis, over the URL's; none is the URL's, or Redis's own default user.
    redis_username: str = ""
    #: Its password, over the URL's.
    redis_password: str = dataclasses.field(default="", repr=False)
    #: The file that its password is the first line of: read for every connection, so that it can be changed.
    redis_password_file: str = ""
    #: The file (PEM) of the authorities that sign the server's certificate; none trusts those of the system.
    redis_ca: str = ""
    #: The files (PEM) of this client's own certificate and of its key, for a server that asks for them.
    redis_cert: str = ""
    redis_key: str = ""
    #: The first part of every key: one fleet, one namespace.
    namespace: str = "kcg"
    #: How long an entry is fresh.
    ttl: float = 300.0
    #: How long a process answers from its near copy without asking; 0 asks on every read (PROTOCOL R6).
    lease: float = 1.0
    #: How long the fill lock outlives its holder; it is renewed while the holder lives (PROTOCOL R11).
    lock_ttl: float = 3.0
    #: How long a reader waits for another's fill before it loads for itself; at least 2 × `lock_ttl` (PROTOCOL R11).
    wait_timeout: float = 10.0
    #: The longest that one Redis call may take.
    redis_timeout: float = 0.5
    #: How long Redis is left alone after it failed (PROTOCOL R8).
    breaker_window: float = 2.0
    #: Reload when less than this part of the TTL is left; 0 is off (PROTOCOL R16).
    refresh_ahead: float = 0.0
    #: For how long past its TTL an entry may be served when the load fails; 0 is off (PROTOCOL R15).
    stale_if_error: float = 0.0
    #: Keys that sign and check entries: the first signs, all are accepted; none is off. 16 to 64 bytes each, also as
    #: ``hex:…``, ``base64:…`` or ``file:/path`` (docs/signing.md).
    signing_keys: tuple[bytes, ...] = dataclasses.field(default=(), repr=False)
    #: Take unsigned entries too, while a fleet rolls from none to signing keys (docs/signing.md).
    accept_unsigned: bool = False
    #: The largest payload, in bytes before it is compressed, that is shared (PROTOCOL R14).
    max_payload: int = 32 * 1024 * 1024
    #: "shared", or "bypass": every read from the database, no rows written to Redis (the off switch).
    mode: Literal["shared", "bypass"] = "shared"
    #: Give every read private, mutable, plain rows: slower, for a first release.
    copy_rows: bool = False
    #: What this process is called among the readers of the fleet; none is the name of its program (PROTOCOL, Presence).
    application: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _CHECKS[field.name](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.wait_timeout < 2 * self.lock_ttl:
            raise _wrong(
                "wait_timeout",
                self.wait_timeout,
                f"at least 2 × lock_ttl ({2 * self.lock_ttl:g} s): a killed filler is else answered by a stampede",
            )
        self._check_redis()

    def _check_redis(self) -> None:
        """Raise `SettingsError` for settings of the connection that do not go together."""
        if self.redis_password and self.redis_password_file:
            raise _wrong("redis_password_file", self.redis_password_file, "none, for redis_password is given as well")
        if self.redis_key and not self.redis_cert:
            raise _wrong("redis_key", self.redis_key, "none without redis_cert, the certificate that it is of")
        if not redis_url.parsed(self.redis_url).tls:
            for name in ("redis_ca", "redis_cert", "redis_key"):
                if value := getattr(self, name):
                    shown = without_password(self.redis_url)
                    raise _wrong(name, value, f"none, for it is for TLS: begin redis_url with rediss, not {shown!r}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> Self:
        """Read ``KCG_CACHE_*`` from `environ` (`os.environ`), let `arguments` win, and check it all.

        A ``KCG_CACHE_`` variable of an unknown name is an error too: a misspelt setting would else do nothing.
        """
        environ = os.environ if environ is None else environ
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(arguments) - names)
        if unknown:
            raise SettingsError(f"no setting is called {', '.join(map(repr, unknown))}; there are: {_names(names)}")
        values: dict[str, Any] = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or re.fullmatch(_KUBERNETES, variable):
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in names:
                known = _names({variable_of(name) for name in names})
                raise SettingsError(f"{variable} is no setting of kcg_cache; there are: {known}")
            values[name] = text
        return cls(**(values | arguments))

    def replace(self, **changes: Any) -> Self:
        """Give the same settings with some changed, checked again."""
        return dataclasses.replace(self, **changes)


def variable_of(name: str) -> str:
    """Name the environment variable of a setting."""
    return PREFIX + name.upper()


def without_password(url: str) -> str:
    """Give a URL that may be shown: its password, if there is one, is replaced; so is every query value.

    Up to the last ``@``: a password that holds ``:``, ``@`` or ``/`` and was not escaped is what fails to be read. With
    a ``?`` before that, nobody can tell what is the password's, and no more is shown.
    """
    scheme, marked, rest = url.partition("://")
    before, at, _ = rest.rpartition("@")
    if at and "?" in before:
        return f"{scheme}{marked}***"
    shown = re.sub(r"(?<=://)([^:@/?]*):.*@", r"\1:***@", url, count=1, flags=re.DOTALL)
    return re.sub(r"(?<==)[^&#]*", "***", shown)


class _Url(str):
    """A URL whose repr has no password: in a dump of the settings, in a traceback that tells variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(without_password(str(self)))


class _Password(str):
    """A password whose repr does not show it, in the same places."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _wrong(name: str, value: object, allowed: str) -> SettingsError:
    return SettingsError(f"{variable_of(name)} ({name}) is {value!r}; allowed: {allowed}")


def _seconds(low: float, high: float, extra: str = "") -> Callable[[str, Any], float]:
    def check(name: str, value: Any) -> float:
        allowed = f"seconds, {low:g} to {high:g}{extra}"
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise _wrong(name, value, allowed)
        try:
            number = float(value)
        except ValueError:
            raise _wrong(name, value, allowed) from None
        if not math.isfinite(number) or not low <= number <= high:
            raise _wrong(name, value, allowed)
        return number

    return check


def _fraction(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1:
        raise _wrong(name, value, "a part of the TTL, 0 (off) to below 1")
    return number


def _bytes(name: str, value: Any) -> int:
    try:
        number = -1 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        number = -1
    if not 1 <= number <= 512 * 1024 * 1024:
        raise _wrong(name, value, "bytes, 1 to 536870912 (a Redis value holds no more)")
    return number


def _flag(name: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, bool) or text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise _wrong(name, value, "1, true, yes, on, or 0, false, no, off")


def _mode(name: str, value: Any) -> str:
    if value not in ("shared", "bypass"):
        raise _wrong(name, value, "'shared' or 'bypass'")
    return str(value)


def _namespace(name: str, value: Any) -> str:
    try:
        return keys.checked_name("namespace", value)
    except ConfigurationError as error:
        raise _wrong(name, value, str(error).partition("allowed are ")[2]) from None


def _label(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 100 or not value.isprintable():
        raise _wrong(name, value, "at most 100 characters that can be printed, on one line")
    return value.strip()


def _line(allowed: str, characters: str) -> Callable[[str, Any], str]:
    """Make a check of a text on one line whose every character matches."""

    def check(name: str, value: Any) -> str:
        text = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(text, str) or not re.fullmatch(f"{characters}*", text):
            raise _wrong(name, value, allowed)
        return text

    return check


_PRINTABLE = r"[^\x00-\x1f\x7f]"


def _password(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(f"{_PRINTABLE}*", value):
        raise _wrong(name, "<not shown>", "a password without line breaks and control characters")
    return _Password(value)


def _url(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "<bytes, not shown>" if isinstance(value, bytes) else value, redis_url.ALLOWED)
    try:
        redis_url.parsed(value)
    except ValueError as error:
        raise _wrong(name, without_password(value), f"{redis_url.ALLOWED}; {error}") from None
    return _Url(value)


def _keys(name: str, value: Any) -> tuple[bytes, ...]:
    try:
        return keyring.parsed(value)
    except SettingsError as error:
        # Its text is about the key, and never of it.
        raise SettingsError(f"{variable_of(name)} ({name}): {error}; allowed: {keyring.ALLOWED}") from None


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "redis_url": _url,
    "redis_username": _line("a name without spaces", r"[^\s\x00-\x1f\x7f]"),
    "redis_password": _password,
    "redis_password_file": _line("the path of a file", _PRINTABLE),
    "redis_ca": _line("the path of a file", _PRINTABLE),
    "redis_cert": _line("the path of a file", _PRINTABLE),
    "redis_key": _line("the path of a file", _PRINTABLE),
    "namespace": _namespace,
    "ttl": _seconds(0.01, 30 * _DAY),
    "lease": _seconds(0.0, LEASE_MAX, f" (the protocol's constant: every invalidate waits {INVALIDATE_WAIT:g} s)"),
    "lock_ttl": _seconds(0.05, 3600.0),
    "wait_timeout": _seconds(0.1, _DAY),
    "redis_timeout": _seconds(0.005, 60.0),
    "breaker_window": _seconds(0.0, 3600.0),
    "refresh_ahead": _fraction,
    "stale_if_error": _seconds(0.0, 30 * _DAY),
    "signing_keys": _keys,
    "accept_unsigned": _flag,
    "max_payload": _bytes,
    "mode": _mode,
    "copy_rows": _flag,
    "application": _label,
}
