"""``kcg-cache sql``: the packaged SQL files, verbatim."""

from typing import Annotated

import typer

from kcg_cache import queries
from kcg_cache.cli.options import AsJson, Debug
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import write


def sql(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which file; without it, what there is.", show_default=False)
    ] = None,
    *,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Print a packaged SQL file as it is, for `kcg-cache sql schema | psql`; without a name, list them."""
    output = Output(as_json=as_json)
    if name is None:
        about = {known: _first_comment(known) for known in queries.names()}
        output.show(
            [{"name": known, "about": line, "path": str(queries.path(known))} for known, line in about.items()],
            output.table({"name": "whole", "what it is": "wrap"}, about.items()),
        )
        return
    if name not in queries.names():
        raise typer.BadParameter(f"{name!r} is none of {', '.join(queries.names())}", param_hint="NAME")
    if as_json:
        output.show({"name": name, "path": str(queries.path(name)), "sql": queries.load(name)})
    else:
        write(queries.path(name).read_bytes())


def _first_comment(name: str) -> str:
    """Give the first sentence of a file's head comment."""
    head = []
    for line in queries.load(name).splitlines():
        words = line.removeprefix("--").strip()
        if not line.startswith("--") or not words:
            break
        head.append(words)
    sentence, stop, _ = " ".join(head).partition(". ")
    return sentence + stop.strip()
