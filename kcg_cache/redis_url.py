"""The forms in which a Redis is given: one URL, read into what its client is made of. Pure: nothing is looked up."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

Form = Literal["single", "sentinel", "cluster"]

#: Every scheme: its form, and whether it is spoken over TLS.
SCHEMES: dict[str, tuple[Form, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("single", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
#: What a URL may be, for whoever wrote one that cannot be read.
ALLOWED = (
    "redis://[user:password@]host[:port][/db], unix://[user:password@]/path, "
    "redis+sentinel://[user:password@]host[:port],…/service[/db], or redis+cluster://[user:password@]host[:port],…; "
    "with rediss instead of redis it is spoken over TLS"
)
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_ESCAPE = "one of : / ? # @ % or a comma in a name or password must be percent-escaped"
# Compiled when a URL is read first, not at import.
_HOST = r"[^\s,:/?#@\[\]]+"
_ADDRESS = r"[0-9A-Fa-f:.]+(%[\w.~-]+)?"


class Place(NamedTuple):
    """Where a Redis is, as its URL says. `repr` shows no password."""

    form: Form
    tls: bool
    #: Host and port: of the server, of the Sentinels, or of some of the cluster's nodes; none for a Unix socket.
    addresses: tuple[tuple[str, int], ...] = ()
    #: The path of a Unix socket.
    socket: str = ""
    #: The name that the Sentinels have for the master.
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    #: What else redis-py is to be told, as its keyword arguments.
    options: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        hidden = ("password", "sentinel_password", "options")
        shown = (f"{name}={value!r}" for name, value in self._asdict().items() if name not in hidden)
        return f"Place({', '.join(shown)})"


def parsed(url: str) -> Place:
    """Read a URL; raise `ValueError` that says what is wrong with it, and shows none of what may be secret."""
    scheme, marked, rest = url.partition("://")
    scheme = scheme.lower()
    if not marked or scheme not in SCHEMES:
        raise ValueError(f"its scheme must be one of {', '.join(SCHEMES)}")
    form, tls = SCHEMES[scheme]
    if "#" in rest:
        raise ValueError(f"it holds a #: {_ESCAPE}")
    rest, _, query = rest.partition("?")
    options = _options(query, form, tls=tls)
    authority, slash, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    if "@" in userinfo or ("@" in path and scheme != "unix"):
        raise ValueError(f"it holds more than one @: {_ESCAPE}")
    username, _, password = userinfo.partition(":") if at else ("", "", "")
    parts: dict[str, Any] = {
        "form": form,
        "tls": tls,
        "username": _once(options, "username", unquote(username)),
        "password": _once(options, "password", unquote(password)),
    }
    in_query = options.pop("db", None)
    if scheme == "unix":
        if hosts or not path:
            raise ValueError("a Unix socket needs its whole path, with three slashes: unix:///run/redis.sock")
        return Place(**parts, socket=unquote(slash + path), db=in_query or 0, options=options)
    if form == "sentinel":
        service, _, path = path.partition("/")
        parts["service"] = unquote(service)
        if not parts["service"].strip():
            raise ValueError("the name that the Sentinels have for the master is missing: …host:port/SERVICE")
        parts |= {name: options.pop(name, None) for name in ("sentinel_username", "sentinel_password")}
    in_path = _db(path.removesuffix("/"))
    if in_path is not None and in_query is not None:
        raise ValueError("the database is given twice, in the path and as ?db=")
    db = in_query or in_path or 0
    if form == "cluster" and db:
        raise ValueError("a cluster has database 0 only")
    if form == "single" and not hosts:
        hosts = "localhost"
    addresses = tuple(_address(host, _PORTS[form]) for host in hosts.split(","))
    if form == "single" and len(addresses) > 1:
        raise ValueError("several addresses are for redis+sentinel:// or redis+cluster://")
    return Place(**parts, addresses=addresses, db=db, options=options)


def _once(options: dict[str, Any], name: str, in_authority: str) -> str | None:
    """Take a user or password from before the host or from the query; raise `ValueError` where both have one."""
    in_query = options.pop(name, None)
    if in_query is not None and in_authority:
        raise ValueError(f"{name} is given twice, before the host and as ?{name}=")
    return in_query or in_authority or None


def _address(text: str, port: int) -> tuple[str, int]:
    """Read ``host``, ``host:port``, ``[IPv6]`` or ``[IPv6]:port``."""
    if text.startswith("["):
        host, closed, end = text[1:].partition("]")
        if not closed or not re.fullmatch(_ADDRESS, unquote(host)) or (end and not end.startswith(":")):
            raise ValueError("an IPv6 address is written as [address]:port")
        host, marked, number = unquote(host), end[:1], end[1:]
    else:
        host, marked, number = text.partition(":")
        host = unquote(host)
        if number.count(":"):
            raise ValueError(f"a port must be a number; an IPv6 address is written as [address]:port; {_ESCAPE}")
        if not re.fullmatch(_HOST, host):
            raise ValueError("a host name is missing or is none")
    if not marked:
        return host, port
    if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= 65535):
        raise ValueError(f"a port must be a number, 1 to 65535; {_ESCAPE}")
    return host, int(number)


def _db(text: str) -> int | None:
    if not text:
        return None
    return _count(unquote(text), "the database in the path")


# --- the query ------------------------------------------------------------------------------------------------------


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"{name} must be a number, 0 or more")
    return int(text)


def _seconds(text: str, name: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise ValueError(f"{name} must be seconds, above 0")
    return seconds


def _flag(text: str, name: str) -> bool:
    lowered = text.lower()
    if lowered not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError(f"{name} must be true or false")
    return lowered in ("1", "true", "yes", "on")


def _text(text: str, _name: str) -> str:
    return text


def _verified(text: str, name: str) -> str:
    if text not in ("none", "optional", "required"):
        raise ValueError(f"{name} must be none, optional or required")
    return text


_Reader = Callable[[str, str], Any]
_ALL: dict[str, _Reader] = {
    "client_name": _text,
    "db": _count,
    "max_connections": _count,
    "password": _text,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _flag,
    "socket_timeout": _seconds,
    "username": _text,
}
#: What redis-py's cluster client does not pass on to its nodes.
_NO_CLUSTER: dict[str, _Reader] = {"health_check_interval": _count}
_SENTINEL: dict[str, _Reader] = {"sentinel_password": _text, "sentinel_username": _text}
_TLS: dict[str, _Reader] = {
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_cert_reqs": _verified,
    "ssl_certfile": _text,
    "ssl_check_hostname": _flag,
    "ssl_keyfile": _text,
    "ssl_password": _text,
}


def options_of(form: Form, *, tls: bool) -> tuple[str, ...]:
    """Name what a URL's query may hold."""
    return tuple(sorted(_readers(form, tls=tls)))


def _readers(form: Form, *, tls: bool) -> dict[str, _Reader]:
    return (
        _ALL
        | ({} if form == "cluster" else _NO_CLUSTER)
        | (_SENTINEL if form == "sentinel" else {})
        | (_TLS if tls else {})
    )


def _options(query: str, form: Form, *, tls: bool) -> dict[str, Any]:
    """Read the query; raise `ValueError` for an option that there is none of, is given twice or has no value."""
    readers = _readers(form, tls=tls)
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in readers:
            # An option's name is shown only where it can be nothing else: not the rest of a password with a "?".
            plain = "@" not in query and re.fullmatch(r"[A-Za-z_-]{1,40}", name)
            wrong = f"no option is called {name!r}" if plain else f"its query holds what is no option ({_ESCAPE})"
            tls_only = " without TLS (rediss)" if name in _TLS else ""
            raise ValueError(f"{wrong}{tls_only}; there are: {', '.join(sorted(readers))}")
        if name in found:
            raise ValueError(f"the option {name} is given twice")
        if not value:
            raise ValueError(f"the option {name} has no value")
        found[name] = readers[name](value, name)
    return found
