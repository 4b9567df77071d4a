"""``kcg-cache invalidate``: withdraw the shared rows."""

from typing import Annotated

import typer

from kcg_cache.cli import withdrawing
from kcg_cache.cli.caches import opened
from kcg_cache.cli.failures import Stop
from kcg_cache.cli.options import AsJson, DatasetName, Debug, Namespace, RedisUrl, WaitForFleet
from kcg_cache.cli.output import Output
from kcg_cache.datasets import ACTIVE_VERSIONS


def _not_blank(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("say why: it is what the log of invalidations is read for")
    return text


def invalidate(
    *,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", callback=_not_blank, help="Why; it goes into the log of invalidations."
        ),
    ],
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Return at once, and say from when on no reader can use the old rows."),
    ] = False,
    wait_for_fleet: WaitForFleet = None,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dataset: DatasetName = ACTIVE_VERSIONS.name,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Withdraw the shared rows, after the change is committed: whoever reads then reads the database.

    Returns when that is so in every process on every host, about a second later. When it cannot be confirmed it fails,
    and is to be repeated.
    """
    if no_wait and wait_for_fleet is not None:
        raise typer.BadParameter("--no-wait and --wait-for-fleet are two different wishes: give one of them")
    output = Output(as_json=as_json)
    with opened(redis, namespace, dataset, role="operator") as cache:
        receipt = cache.invalidate(reason=reason, wait=False)
        end = withdrawing.finished(output, cache, receipt, fleet_seconds=wait_for_fleet, no_wait=no_wait)
    output.show(end.document, *end.parts)
    if end.finding:
        raise Stop(end.code, end.finding)
