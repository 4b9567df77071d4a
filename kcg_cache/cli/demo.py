"""``kcg-cache demo``: hands over to `kcg_cache.demo`."""

from typing import Annotated

import typer

from kcg_cache.cli.options import AsJson, Debug, Dsn


def demo(
    *,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="How many processes look up.")] = 6,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="For how long.")] = 20.0,
    plain: Annotated[bool, typer.Option("--plain", help="Write lines on a terminal too, and no live table.")] = False,
    # Never from the environment: there it may be the one that the real fleet uses.
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis", metavar="URL", help="Redis or Valkey to play on; KCG_CACHE_REDIS_URL is not used here."
        ),
    ] = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> int:
    """Watch a fleet of real processes look up while an operator promotes and archives, with every look-up audited.

    Without --redis and --dsn it starts servers of its own (extra `embedded`); with both it plays on those, in a
    database and a namespace of its own. Nothing is left behind. Fails when a promise was broken.
    """
    from kcg_cache.demo import run  # noqa: PLC0415 - what it needs, no other command does

    return run(workers=workers, seconds=seconds, as_json=as_json, plain=plain, redis=redis, dsn=dsn or None)
