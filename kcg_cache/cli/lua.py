"""``kcg-cache lua``: the packaged Redis scripts, as they are sent."""

from typing import Annotated

import typer

from kcg_cache import lua as scripts
from kcg_cache.cli.options import AsJson, Debug
from kcg_cache.cli.output import Output
from kcg_cache.cli.packaged import first_sentence, known
from kcg_cache.cli.streams import write


def lua(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Which script; without it, what there is.", show_default=False),
    ] = None,
    *,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Print a packaged Redis script as it is sent, for `redis-cli --eval`; without a name, list them.

    `invalidate` is a public contract that any language may call; the others belong to this release of the library.
    """
    output = Output(as_json=as_json)
    if name is None:
        about = {each: first_sentence(scripts.path(each).read_text(encoding="utf-8")) for each in scripts.names()}
        output.show(
            [{"name": each, "about": line, **_facts(scripts.load(each))} for each, line in about.items()],
            output.table({"name": "whole", "what it does": "wrap"}, about.items()),
        )
        return
    script = scripts.load(known(name, scripts.names()))
    if as_json:
        output.show({"name": name, **_facts(script), "lua": script.text})
    else:
        write(script.text.encode())


def _facts(script: scripts.Script) -> dict[str, str | list[str]]:
    """Tell where a script lies, what Redis knows it by, and what goes in and comes out, in order."""
    return {
        "path": str(scripts.path(script.name)),
        "sha1": script.sha,
        "keys": list(script.keys),
        "args": list(script.args),
        "reply": list(script.replies),
    }
