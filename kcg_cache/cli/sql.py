"""``kcg-cache sql``: the packaged SQL files, verbatim."""

from typing import Annotated

import typer

from kcg_cache import queries
from kcg_cache.cli.options import AsJson, Debug
from kcg_cache.cli.output import Output
from kcg_cache.cli.packaged import first_sentence, known
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
        about = {each: first_sentence(queries.load(each)) for each in queries.names()}
        output.show(
            [{"name": each, "about": line, "path": str(queries.path(each))} for each, line in about.items()],
            output.table({"name": "whole", "what it is": "wrap"}, about.items()),
        )
        return
    known(name, queries.names())
    if as_json:
        output.show({"name": name, "path": str(queries.path(name)), "sql": queries.load(name)})
    else:
        write(queries.path(name).read_bytes())
