"""The live table (extra ``cli``: rich)."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kcg_cache.demo.lines import counts_of, reach_of
from kcg_cache.demo.tally import VIOLATIONS, Tally

#: The longest that the screen stays as it is, in seconds.
_EVERY = 0.125
_CHANGES_SHOWN = 6


class Screen:
    """Shows one line per worker, the operator's last changes, and the counts; gives the terminal back as it was."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._next = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Show a line above the table, for good."""
        self._live.console.print(Text(line, style="dim"))

    def show(self, tally: Tally, now: float) -> None:
        """Draw the table anew, if it is time."""
        if now < self._next:
            return
        self._next = now + _EVERY
        elapsed = min(self._seconds, now - tally.began) if tally.began else 0.0
        head = Text.assemble(
            ("kcg_cache demo", "bold"),
            f"   {', '.join(tally.servers.values())}   {elapsed:4.1f} of {self._seconds:g} s",
        )
        foot = Text("* still on the generation before, under its read lease of at most 1 s", style="dim")
        empty = Text()
        frame = Group(head, empty, _workers(tally), foot, empty, _changes(tally), empty, _counts(tally))
        self._live.update(frame, refresh=True)


def _workers(tally: Tally) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    table.add_column("worker", no_wrap=True)
    table.add_column("pid", justify="right")
    # As wide as the widest version: the table does not jump when the model changes.
    table.add_column(tally.model, min_width=13, no_wrap=True)
    for title in ("gen.", "look-ups/s", "near copy", "Redis", "database"):
        table.add_column(title, justify="right", no_wrap=True)
    for worker in tally.workers.values():
        behind = worker.generation < tally.generation
        table.add_row(
            worker.name,
            str(worker.pid),
            Text("died", style="bold red") if worker.died else worker.primaries.get(tally.model, "-"),
            Text(f"{worker.generation}{'*' if behind else ' '}", style="yellow" if behind else "green"),
            f"{worker.rate:,.0f}",
            f"{worker.count('near'):,}",
            f"{worker.count('redis'):,}",
            f"{worker.count('database'):,}",
        )
    return table


def _changes(tally: Tally) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True, min_width=7)
    table.add_column(no_wrap=True, min_width=34)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for change in tally.changes[-_CHANGES_SHOWN:]:
        how_far = Text(reach_of(tally, change))
        if change.returned_at is None:
            how_far = Text(f"invalidating: {how_far}", style="yellow")
        table.add_row(Text(f"{change.committed_at - tally.began:.2f} s", style="dim"), how_far, change.what)
    return table


def _counts(tally: Tally) -> Text:
    wrong = any(map(tally.total, VIOLATIONS)) or tally.total("loads") > tally.loads_allowed
    return Text(counts_of(tally), style="bold red" if wrong else "bold green")
