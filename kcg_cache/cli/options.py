"""Options that several commands have. An option that is a setting names the setting's variable."""

import re
from dataclasses import fields
from typing import Annotated

import typer

from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.settings import Settings, variable_of

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(ms|s|m|min|h|d|)")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def _debug(context: typer.Context, value: bool) -> None:  # noqa: FBT001 - typer calls it so
    # Before the command's name or after it: one yes is enough.
    if value:
        context.find_root().obj.debug = True


def duration(text: str | float) -> float:
    """Read a time span, in seconds: ``10s``, ``500ms``, ``1.5m``, ``2h``, ``1d``, or a number of seconds."""
    found = _DURATION.fullmatch(str(text).strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time span: give one like 10s, 500ms, 2m or 1h")
    return float(found[1]) * _UNITS[found[2]]


RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        envvar=variable_of("redis_url"),
        help="Redis or Valkey: redis://, unix://, redis+sentinel:// or redis+cluster://; rediss… is over TLS; without "
        f"any, {_DEFAULTS['redis_url']}. A password is safer in {variable_of('redis_password')}: other users see "
        "arguments.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        envvar=variable_of("namespace"),
        help=f"The fleet's part of every key; without any, {_DEFAULTS['namespace']}.",
    ),
]
Dsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        metavar="DSN",
        help="PostgreSQL, as libpq's connection string (keyword=value … or postgresql://…). What it leaves out comes "
        "from libpq's own environment: PGSERVICE, PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGPASSFILE …",
    ),
]
DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset", metavar="NAME", help=f"Which rows; without it, {ACTIVE_VERSIONS.name}.", show_default=False
    ),
]
WaitForFleet = Annotated[
    float | None,
    typer.Option(
        "--wait-for-fleet",
        metavar="TIME",
        parser=duration,
        help="When it is in force, wait so long (10s, 500ms, 2m) for every process that reads to take it up, and name "
        "them; fails when one has not.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as one JSON document.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_debug, help="Show where in the program an error came from (a traceback).")
]
