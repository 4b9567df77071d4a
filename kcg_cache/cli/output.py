"""Results → stdout: tables and text for people, or one JSON document. Everything else goes to stderr."""

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kcg_cache import codec
from kcg_cache.cli.failures import one_line, visible
from kcg_cache.cli.streams import write

#: Columns where there is no terminal: whoever filters lines wants every record on one, whole.
_NO_TERMINAL = 10_000

#: How a column gives way to a narrow terminal: not before all others (``right``: likewise, and its cells stand at the
#: right), over several lines, or by losing its end.
Fit = Literal["whole", "right", "wrap", "cut"]


class _Paper(io.StringIO):
    """What rich draws on: it looks like stdout, and is written there by `write`, which knows how that may fail."""

    @property
    def encoding(self) -> str:  # type: ignore[override] # io's stubs let it be written, its streams do not
        """Which characters there are."""
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether there are colours."""
        return sys.stdout is not None and sys.stdout.isatty()


class Output:
    """What one command says. It is written in one go, at the end: a command that fails before leaves stdout empty."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._paper = _Paper()
        #: Whether a person looks at it: it then fits the terminal's width.
        self.terminal = self._paper.isatty()
        colours = None if os.environ.get("NO_COLOR") else "auto"
        self._console = Console(
            file=self._paper,
            color_system=colours,  # type: ignore[arg-type]
            width=None if self.terminal else _NO_TERMINAL,
            markup=False,
            emoji=False,
            highlight=False,
        )

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self._console.width

    def table(self, columns: Mapping[str, Fit], rows: Iterable[Sequence[str | Text]]) -> Table:
        """Give a table with these headings."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for heading, fit in columns.items():
            # Where a terminal is too narrow, columns that may wrap give way before those that may not.
            table.add_column(
                heading,
                justify="right" if fit == "right" else "left",
                no_wrap=fit in ("whole", "right"),
                overflow="fold" if fit == "wrap" else "ellipsis",
            )
        fits = columns.values()
        for row in rows:
            table.add_row(
                *(_cut(text(cell)) if fit == "cut" else text(cell) for fit, cell in zip(fits, row, strict=True))
            )
        return table

    def facts(self, facts: Iterable[tuple[str, str | Text]]) -> Table:
        """Give names and values in two columns."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in facts:
            grid.add_row(text(name), text(value))
        return grid

    def section(self, heading: str, *parts: Table | Text | str) -> list[Any]:
        """Give a heading with what belongs to it, indented."""
        return [Text(heading, style="bold"), *(self.indented(part, 2) for part in parts), Text("")]

    def indented(self, part: Table | Text | str, columns: int) -> Padding:
        """Give something further to the right."""
        return Padding(text(part) if isinstance(part, str) else part, (0, 0, 0, columns))

    def json_text(self, value: object) -> Text:
        """Give a JSON value over several lines, coloured."""
        spelt = Text(visible(_dumped(value), keep="\n"))
        JSONHighlighter().highlight(spelt)
        return spelt

    def show(self, document: object, *parts: Any) -> None:
        """Write the result: `document` with ``--json``, `parts` (tables, text) without."""
        if self.as_json:
            # A lone surrogate (text that was no UTF-8) becomes \udcXX, which is JSON's own escape for it.
            write(_dumped(document).encode("utf-8", "backslashreplace") + b"\n")
            return
        for part in parts:
            self._console.print(text(part) if isinstance(part, str) else part)
        drawn = self._paper.getvalue()
        lines = "".join(f"{line.rstrip()}\n" for line in drawn.splitlines())
        write(lines.encode(self._paper.encoding, "backslashreplace"))


def text(cell: str | Text) -> Text:
    """Give text that a terminal shows as it is, on one line."""
    return cell if isinstance(cell, Text) else Text(one_line(cell))


def _cut(cell: Text) -> Text:
    cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell


def _dumped(value: object) -> str:
    # On a stack of its own, as the rows were read: params may be nested as deeply as that allows.
    return str(codec.on_own_stack(lambda: json.dumps(value, ensure_ascii=False, indent=2)))
