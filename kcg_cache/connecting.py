"""What a connection to Redis is made with: deadlines, credentials, TLS and a name in CLIENT LIST."""

import contextlib
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kcg_cache.errors import ConfigurationError
from kcg_cache.redis_url import Place
from kcg_cache.settings import Settings, variable_of
from kcg_cache.system import SYSTEM

#: redis-py 8 tells the server its release, and reads that from the disk for every connection that it makes: half of
#: what connecting costs, unless it is told. Older releases do not know the word.
_DRIVER = {"driver_info": redis.DriverInfo(lib_version=redis.__version__)} if hasattr(redis, "DriverInfo") else {}
#: A password file is a line; what is longer is another file.
_MOST = 64 * 1024


def arguments(place: Place, settings: Settings) -> dict[str, Any]:
    """Give redis-py's keyword arguments for connections to `place`, without its address; settings win over the URL.

    Raises `ConfigurationError` for files of certificates that cannot be used.
    """
    timeout = settings.redis_timeout
    given = dict(place.options)
    name = given.pop("client_name", "")
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **_DRIVER,
        **given,
        **_credentials(place, settings),
        **(_tls(place, settings) if place.tls else {}),
        "redis_connect_func": _introducing(name, settings, own_handshake=place.form != "cluster"),
    }


def for_sentinels(place: Place, arguments: dict[str, Any]) -> dict[str, Any]:
    """Give the same for the Sentinels, whose users are others."""
    of_master = ("credential_provider", "max_connections", "health_check_interval")
    asking = {name: value for name, value in arguments.items() if name not in of_master}
    return asking | _hidden(place.sentinel_username, place.sentinel_password)


# --- credentials ----------------------------------------------------------------------------------------------------


def _credentials(place: Place, settings: Settings) -> dict[str, Any]:
    username = settings.redis_username or place.username
    if settings.redis_password_file:
        provider = _PasswordFile(username, Path(settings.redis_password_file))
        try:
            provider.get_credentials()
        except redis.AuthenticationError as error:
            raise ConfigurationError(str(error)) from error
        return {"credential_provider": provider}
    return _hidden(username, settings.redis_password or place.password)


def _hidden(username: str | None, password: str | None) -> dict[str, Any]:
    """Give credentials in a way that `repr` does not show: redis-py 6 writes those of a Sentinel into its errors."""
    if not username and not password:
        return {}
    return {"credential_provider": redis.UsernamePasswordCredentialProvider(username, password)}


class _PasswordFile(redis.CredentialProvider):
    """A password that is read anew for every connection, so that it can be changed while processes run."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Give user and password, as redis-py sends them; raise its `AuthenticationError` where there is none."""
        password = self._password()
        return (self._username, password) if self._username else (password,)

    def _password(self) -> str:
        where = f"{variable_of('redis_password_file')} {str(self._path)!r}"
        try:
            with self._path.open(encoding="utf-8") as file:
                password = file.read(_MOST).removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise redis.AuthenticationError(f"{where} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise redis.AuthenticationError(f"{where} is no text (UTF-8)") from error
        if not password or "\n" in password or len(password) >= _MOST:
            raise redis.AuthenticationError(f"{where} must hold the password as its only line")
        return password


# --- TLS ------------------------------------------------------------------------------------------------------------

_FILES = {"redis_ca": "ssl_ca_certs", "redis_cert": "ssl_certfile", "redis_key": "ssl_keyfile"}


def _tls(place: Place, settings: Settings) -> dict[str, Any]:
    """Give what TLS is spoken with, tried on this host first; the server may still be another's."""
    given = {word: getattr(settings, name) for name, word in _FILES.items() if getattr(settings, name)}
    files = {word: given.get(word) or place.options.get(word) for word in _FILES.values()}
    named = {
        word: f"{variable_of(name)} {files[word]!r}" if word in given else f"{word} {files[word]!r} of redis_url"
        for name, word in _FILES.items()
    }
    for word, path in files.items():
        if path:
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                raise ConfigurationError(
                    f"{named[word]} cannot be read: {error.strerror}; give the path of a PEM file that "
                    f"{SYSTEM.user()} may read"
                ) from error
    if files["ssl_keyfile"] and not files["ssl_certfile"]:
        raise ConfigurationError(f"{named['ssl_keyfile']} is a key without its certificate: give redis_cert, too")
    context = ssl.create_default_context()
    if files["ssl_ca_certs"]:
        try:
            context.load_verify_locations(cafile=files["ssl_ca_certs"])
        except ssl.SSLError as error:
            raise ConfigurationError(f"{named['ssl_ca_certs']} holds no certificate (PEM): {error.reason}") from error
    if files["ssl_certfile"]:
        try:
            # A key that is encrypted and whose password is not given would else be asked for on the terminal.
            password = place.options.get("ssl_password", "")
            context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"], lambda: password)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"{named['ssl_certfile']} and its key are no pair (PEM), or the key's ssl_password is another: {error}"
            ) from error
    return {"ssl": True, **given}


# --- the name in CLIENT LIST ----------------------------------------------------------------------------------------


def name_of(settings: Settings) -> str:
    """Give what this process is called in CLIENT LIST: ``kcg-cache:PROGRAM:PID``, of characters that Redis takes."""
    program = re.sub(r"[^!-~]+", "-", settings.application or SYSTEM.program())
    return f"kcg-cache:{program}:{SYSTEM.pid()}"


def _introducing(name: str, settings: Settings, *, own_handshake: bool) -> Callable[[Any], None]:
    """Make what redis-py calls on a new connection: it is given its name, if this user may.

    With `own_handshake` redis-py leaves the handshake to it, too; its cluster client has done that before.
    """

    def introduce(connection: Any) -> None:
        if own_handshake:
            connection.on_connect()
        connection.send_command("CLIENT", "SETNAME", name or name_of(settings), check_health=False)
        # A name is for people: a user without the right to give one works without.
        with contextlib.suppress(redis.ResponseError):
            connection.read_response()

    return introduce
