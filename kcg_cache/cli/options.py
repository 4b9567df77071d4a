"""Options that several commands have. An option that is a setting names the setting's variable."""

from dataclasses import fields
from typing import Annotated

import typer

from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.settings import Settings, variable_of

_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def _debug(context: typer.Context, value: bool) -> None:  # noqa: FBT001 - typer calls it so
    # Before the command's name or after it: one yes is enough.
    if value:
        context.find_root().obj.debug = True


RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        envvar=variable_of("redis_url"),
        help=f"Redis or Valkey, redis://, rediss:// or unix://; without any, {_DEFAULTS['redis_url']}. "
        "A password is safer in the variable: other users see arguments.",
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
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as one JSON document.")]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_debug, help="Show where in the program an error came from (a traceback).")
]
