"""After the deletion: wait until it is in force, and until the fleet has taken it up; the receipt for both."""

import sys
import time
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from kcg_cache.cache import SharedCache
from kcg_cache.cli import shown
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import one_line
from kcg_cache.cli.output import Fit, Output
from kcg_cache.cli.streams import say
from kcg_cache.errors import StoreError
from kcg_cache.fleet import FleetReceipt, Reader
from kcg_cache.receipt import Invalidation

_FRAME = 0.05  # seconds
#: What each list of a `FleetReceipt` means, the one to look at first at the top, and its colour.
_UPTAKE = {
    "lagging": ("was given old rows: report it", "bold red"),
    "pending": ("not yet", "yellow"),
    "silent": ("silent", "dim"),
    "new": ("on the new rows", "green"),
}
_COLUMNS: dict[str, Fit] = {
    "host": "wrap",
    "application": "wrap",
    "": "whole",
    "processes": "wrap",
    "last seen": "right",
}


class Withdrawn(NamedTuple):
    """How it ended."""

    #: The receipt as JSON-able values; its ``fleet`` is None when that was not waited for, or could not be asked.
    document: dict[str, Any]
    #: The same for a screen.
    parts: list[Any]
    code: ExitCode
    #: The line that says why the code is not 0; '' where it is.
    finding: str


def finished(
    output: Output, cache: SharedCache, receipt: Invalidation, *, fleet_seconds: float | None, no_wait: bool
) -> Withdrawn:
    """Wait for what is to be waited for after an ``invalidate(wait=False)``, and give the receipt.

    Until it is in force, unless `no_wait`; then for the fleet, at most `fleet_seconds`, unless that is None. On Ctrl-C
    it is said on stderr how far it came.
    """
    if not receipt.logged:
        say("warning: the deletion is confirmed, but the server had no room to log it (maxmemory?)")
    fleet: FleetReceipt | None = None
    code, finding = ExitCode.OK, ""
    try:
        if not no_wait:
            _wait(receipt)
        if fleet_seconds is not None:
            fleet = _wait_for_fleet(cache, receipt, fleet_seconds)
            finding = _missing(fleet, fleet_seconds)
    except StoreError as error:
        finding = f"{_done(receipt)}; but who has taken it up cannot be told: {one_line(str(error))}"
    except KeyboardInterrupt:
        say(_done(receipt))
        raise
    if finding:
        code = ExitCode.FINDING
    document = receipt.as_dict() | {"fleet": None if fleet is None else fleet.as_dict()}
    parts = output.section("Withdrawn", output.facts(_facts(receipt)))
    if fleet is not None:
        parts += output.section("Fleet", output.facts(_counts(fleet)), *_table(output, fleet))
    return Withdrawn(document, parts, code, finding)


# --- in force ---------------------------------------------------------------------------------------------------------


def _wait(receipt: Invalidation) -> None:
    """Wait until it is in force; a person at a terminal sees for how long yet."""
    if not _watched():
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


def _watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _done(receipt: Invalidation) -> str:
    moment = shown.moment(receipt.in_force_at_us)
    if receipt.in_force:
        return f"deleted, and in force since {moment}: nobody can read the old rows"
    return f"deleted, but in force only from {moment} on: until then old rows may be read"


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


# --- taken up ---------------------------------------------------------------------------------------------------------


def _wait_for_fleet(cache: SharedCache, receipt: Invalidation, seconds: float) -> FleetReceipt:
    """Wait until the fleet has taken it up; a person at a terminal sees who has not yet."""
    if not _watched():
        return cache.wait_for_fleet(receipt, seconds)
    console = Console(stderr=True, highlight=False)
    with Live(Text("waiting for the fleet"), console=console, transient=True, auto_refresh=False) as live:

        def progress(fleet: FleetReceipt) -> None:
            # One line, whatever the width.
            text = Text(_progress(fleet), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)

        return cache.wait_for_fleet(receipt, seconds, progress=progress)


def _progress(fleet: FleetReceipt) -> str:
    active = len(fleet.new) + len(fleet.pending) + len(fleet.lagging)
    told = f"waiting for the fleet: {len(fleet.new)} of {active} on the new rows"
    missing = [*fleet.lagging, *fleet.pending]
    return told + (f"; not yet: {', '.join(map(_named, missing))}" if missing else "")


def _named(reader: Reader) -> str:
    doing = {"FILL": " (loads)", "WAIT": " (waits)"}.get(reader.kind, "")
    return f"{one_line(reader.host) or '?'}:{_process(reader)}{doing}"


def _process(reader: Reader) -> str:
    return "?" if reader.pid is None else str(reader.pid)


def _missing(fleet: FleetReceipt, seconds: float) -> str:
    """Say why the fleet has not taken it up; '' when it has."""
    if fleet.complete:
        return ""
    if fleet.lagging:
        return (
            f"{shown.count(len(fleet.lagging), 'process was', 'processes were')} given old rows after the deletion, "
            f"which must not be: {', '.join(map(_named, fleet.lagging))}; please report it"
        )
    if not fleet.pending:
        return _done(fleet.invalidation)
    return (
        f"{shown.count(len(fleet.pending), 'process was', 'processes were')} not on the new rows after "
        f"{shown.duration(seconds)}: {', '.join(map(_named, fleet.pending))}"
    )


def _counts(fleet: FleetReceipt) -> Iterator[tuple[str, str | Text]]:
    seen = len(fleet.new) + len(fleet.pending) + len(fleet.lagging)
    new = f"{len(fleet.new)} of {shown.count(seen, 'process', 'processes')}"
    yield "on the new rows", new if seen else "nobody yet: no process has asked since"
    if fleet.pending:
        yield "not yet", Text(shown.count(len(fleet.pending), "process", "processes"), style="bold yellow")
    if fleet.lagging:
        yield "given old rows", Text(shown.count(len(fleet.lagging), "process", "processes"), style="bold red")
    if fleet.silent:
        count = shown.count(len(fleet.silent), "process", "processes")
        yield "silent", f"{count}, idle or dead: what they read next are the new rows"
    if fleet.unreadable:
        yield "unreadable", f"{shown.count(fleet.unreadable, 'record')} of who knows what"


def _place(reader: Reader) -> tuple[str, str]:
    return reader.host, reader.application


def _table(output: Output, fleet: FleetReceipt) -> Iterator[Any]:
    rows: list[tuple[str | Text, ...]] = []
    for uptake, (meaning, style) in _UPTAKE.items():
        for (host, application), readers in groupby(getattr(fleet, uptake), key=_place):
            found = list(readers)
            processes = ", ".join(map(_process, found))
            ago = shown.duration(max(0, fleet.at_us - max(reader.seen_us for reader in found)) / 1e6)
            rows.append((host or "?", application or "?", Text(meaning, style=style), processes, f"{ago} ago"))
    if rows:
        yield output.table(_COLUMNS, rows)
