"""``kcg-cache acl``: the rights of each role in Redis, as commands or as lines of an ACL file. No server is asked."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from kcg_cache.cli.options import AsJson, Debug, Namespace
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import say, write
from kcg_cache.keys import Keys
from kcg_cache.rights import ROLES, command_rules, key_rules
from kcg_cache.settings import Settings

#: The oldest server of each kind of line: 7.0 is the oldest that the library works with.
SERVERS = ("7.0", "7.2")
_HASH = re.compile(r"[0-9a-f]{64}")
#: What a user may be called here: Redis takes anything without spaces, and both shells and ACL files take these.
_USER = re.compile(r"[A-Za-z0-9_.@:-]{1,200}")


def _roles(given: list[str]) -> list[str]:
    for role in given:
        if role not in ROLES:
            raise typer.BadParameter(f"{role!r} is none of {', '.join(ROLES)}")
    return given


def _server(text: str) -> str:
    if text not in SERVERS:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(SERVERS)}")
    return text


class User(NamedTuple):
    """One user of Redis, as the words that make it."""

    role: str
    name: str
    keys: tuple[str, ...]
    commands: tuple[str, ...]
    #: SHA-256 of its password in hex; None where it is not ours to set.
    hash: str | None

    @property
    def command(self) -> str:
        """The command that makes the user, or gives it these rights and no others; it may be repeated.

        Without a password, a user that is there keeps its own, and stays on or off.
        """
        begun = ["reset", "on", f"#{self.hash}"] if self.hash else ["resetkeys", "clearselectors", "-@all"]
        return " ".join(["ACL SETUSER", self.name, *begun, *self._rules])

    @property
    def line(self) -> str:
        """The line of an ACL file, which is all that is known of a user: without a password it is off."""
        begun = ["on", f"#{self.hash}"] if self.hash else ["off"]
        return " ".join(["user", self.name, "reset", *begun, *self._rules])

    @property
    def _rules(self) -> tuple[str, ...]:
        return ("resetchannels", *self.keys, *self.commands)

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON-able values."""
        return {
            "role": self.role,
            "user": self.name,
            "keys": list(self.keys),
            "commands": list(self.commands),
            "sets_password": self.hash is not None,
            "setuser": self.command,
            "line": self.line,
        }


def acl(
    roles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ROLE]...",
            callback=lambda given: _roles(given or []),
            help=f"{', '.join(ROLES)}; without any, all.",
        ),
    ] = None,
    *,
    namespace: Namespace = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", metavar="NAME", help="Only this one's keys (repeatable); without it, every dataset's."
        ),
    ] = None,
    user: Annotated[
        str, typer.Option("--user", metavar="NAME", help="The user's name; {namespace} and {role} are filled in.")
    ] = "{namespace}-{role}",
    aclfile: Annotated[bool, typer.Option("--aclfile", help="Lines for the file that `aclfile` names.")] = False,
    password_file: Annotated[
        str | None,
        typer.Option(
            "--password-file",
            metavar="FILE",
            help="Whose first line is the user's password ('-': stdin); only its SHA-256 is printed. For one role.",
        ),
    ] = None,
    password_hash: Annotated[
        str | None, typer.Option("--password-sha256", metavar="HEX", help="The same, made elsewhere. For one role.")
    ] = None,
    server: Annotated[
        str,
        typer.Option("--server", metavar="VERSION", callback=_server, help="The oldest server: 7.0, or 7.2 and later."),
    ] = SERVERS[-1],
    cluster: Annotated[bool, typer.Option("--cluster", help="With what a client of Redis Cluster asks.")] = False,
    select: Annotated[
        bool, typer.Option("--select", help="With SELECT: the URL names another database than 0.")
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Print what each role may do in Redis, as commands for `kcg-cache acl worker | redis-cli`. No server is asked.

    Each line gives a user exactly these rights, and may be run again after an upgrade. Passwords are not touched unless
    one is given: a user that is there keeps its own, and a new one is off until `ACL SETUSER NAME on >PASSWORD`.

    Whether a user has a role's rights on a real server: `kcg-cache doctor --for ROLE`.
    """
    wanted = list(dict.fromkeys(roles or ROLES))
    settings = Settings.from_env(None, **({} if namespace is None else {"namespace": namespace}))
    hashed = _hash(wanted, password_file, password_hash)
    names = _names(user, settings.namespace, wanted)
    datasets = list(dict.fromkeys(dataset or []))
    keys = [Keys.of(settings.namespace, name) for name in datasets] or [Keys.patterns_of(settings.namespace)]
    users = [
        User(
            role,
            name,
            tuple(rule for each in keys for rule in key_rules(role, each)),
            command_rules(role, modern=server != SERVERS[0], cluster=cluster, select=select),
            hashed,
        )
        for role, name in zip(wanted, names, strict=True)
    ]
    if as_json:
        Output(as_json=True).show(
            {
                "namespace": settings.namespace,
                "datasets": datasets or None,
                "server": server,
                "users": [each.as_dict() for each in users],
            }
        )
        return
    write("".join(f"{each.line if aclfile else each.command}\n" for each in users).encode())
    if hashed is None:
        say(
            "no password was given: in an ACL file these users are off"
            if aclfile
            else "passwords are left as they are: a new user is off until `ACL SETUSER NAME on >PASSWORD`"
        )


def _hash(roles: list[str], file: str | None, given: str | None) -> str | None:
    """Give the SHA-256 of the one password, or None where there is none; raise typer's error of usage."""
    if file is None and given is None:
        return None
    if len(roles) != 1 or (file is not None and given is not None):
        raise typer.BadParameter("one password is for one role: name that role", param_hint="--password-file")
    if given is not None:
        if not _HASH.fullmatch(given):
            raise typer.BadParameter("64 digits of 0-9a-f are wanted", param_hint="--password-sha256")
        return given
    assert file is not None
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file!r} cannot be read: {error.strerror}", param_hint="--password-file") from error
    password = raw.split(b"\n", 1)[0].removesuffix(b"\r")
    if not password:
        raise typer.BadParameter(f"the first line of {file!r} is empty", param_hint="--password-file")
    return hashlib.sha256(password).hexdigest()


def _names(pattern: str, namespace: str, roles: list[str]) -> list[str]:
    """Give a user's name for each role; raise typer's error of usage."""
    names = [pattern.replace("{namespace}", namespace).replace("{role}", role) for role in roles]
    if not all(map(_USER.fullmatch, names)) or len(set(names)) != len(names):
        raise typer.BadParameter(
            f"{pattern!r}: letters, digits and '_.@:-', and {{role}} in it where there are several", param_hint="--user"
        )
    return names
