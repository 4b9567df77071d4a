"""``kcg-cache invalidate``: withdraw the shared rows."""

import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from kcg_cache.cli import shown
from kcg_cache.cli.caches import opened
from kcg_cache.cli.options import AsJson, DatasetName, Debug, Namespace, RedisUrl
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import say
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.receipt import Invalidation

_FRAME = 0.05  # seconds


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
    output = Output(as_json=as_json)
    with opened(redis, namespace, dataset) as cache:
        receipt = cache.invalidate(reason=reason, wait=False)
        if not receipt.logged:
            say("warning: the deletion is confirmed, but the server had no room to log it (maxmemory?)")
        if not no_wait:
            try:
                _wait(receipt)
            except KeyboardInterrupt:
                then = shown.moment(receipt.in_force_at_us)
                say(f"deleted, but in force only from {then} on: until then old rows may be read")
                raise
    output.show(receipt.as_dict(), *output.section("Withdrawn", output.facts(_facts(receipt))))


def _wait(receipt: Invalidation) -> None:
    """Wait until it is in force; a person at a terminal sees for how long yet."""
    if sys.stderr is None or not sys.stderr.isatty():
        receipt.wait()
        return
    total = receipt.in_force_in
    columns = (
        TextColumn("waiting until every reader's lease has ended"),
        BarColumn(),
        TextColumn("{task.fields[left]:.1f} s"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, left=total)
        while (left := receipt.in_force_in) > 0:
            progress.update(task, completed=total - left, left=left)
            time.sleep(min(left, _FRAME))


def _facts(receipt: Invalidation) -> Iterator[tuple[str, str]]:
    yield "dataset", receipt.dataset
    yield "who", f"{receipt.who} on {receipt.host}"
    yield "reason", receipt.reason or "(no reason)"
    yield "when", shown.moment(receipt.when_us)
    replaced = f"the entry with digest {receipt.digest or '?'}" if receipt.existed else "nothing: there was no entry"
    yield "withdrew", replaced + (", and a fill that was running" if receipt.fill_cancelled else "")
    if receipt.in_force:
        yield "in force", f"since {shown.moment(receipt.in_force_at_us)}"
    else:
        soon = shown.duration(receipt.in_force_in)
        yield "in force", f"from {shown.moment(receipt.in_force_at_us)} on, in {soon}; until then old rows may be read"
