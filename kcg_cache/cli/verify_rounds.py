"""``kcg-cache verify --watch``: one comparison after the other, a line each."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from kcg_cache import postgres
from kcg_cache.cli import shown
from kcg_cache.cli.events import short
from kcg_cache.cli.failures import code_of, lines_of, one_line
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import check_reader, write
from kcg_cache.errors import DatasetError, StoreError
from kcg_cache.verification import Verification

#: What a round may end in, and the next one not.
_FAILURES: tuple[type[Exception], ...] = (StoreError, DatasetError, *postgres.ERRORS)
#: Seconds after which it is noticed that nobody reads the lines any more.
_SLICE = 0.5


def rounds(
    output: Output,
    look: Callable[[], Verification],
    document_of: Callable[[Verification], dict[str, Any]],
    seconds: float,
    *,
    quiet: bool,
) -> None:
    """Look, tell, wait `seconds`, for ever. A server that fails is told in a line, and asked again the next time."""
    lines = _Lines(output, quiet=quiet)
    try:
        while True:
            try:
                found = look()
            except _FAILURES as error:
                lines.failed(error)
            else:
                lines.found(found, document_of(found))
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, _SLICE))
                check_reader()
    finally:
        lines.end()


class _Lines:
    """The lines; on a terminal the last one is written over for as long as nothing changes but the time."""

    def __init__(self, output: Output, *, quiet: bool) -> None:
        self._output = output
        self._quiet = quiet
        self._over = output.terminal and not output.as_json
        self._last: tuple[object, ...] | None = None
        self._rounds = 0
        self._open = False

    def found(self, found: Verification, document: dict[str, Any]) -> None:
        """Tell of a comparison."""
        readers = found.readers
        reading = [getattr(readers, name) for name in ("same", "as_entry", "private", "following", "behind")]
        told = f"database {short(found.database.digest)}, {shown.count(len(found.database.rows), 'row')}"
        if found.shared is not None and found.absence is None and found.shared.digest != found.database.digest:
            told += f"; shared {short(found.shared.digest)}"
        if found.shared is not None and found.shared.refused is not None and found.absence is None:
            told += f"; {found.shared.refused.text}"
        told += f"; {shown.count(sum(map(len, reading)), 'reader')}"
        told += f", {len(readers.behind)} on other rows" if readers.behind else ""
        told += f", {len(readers.silent)} silent" if readers.silent else ""
        rows = [change["row"] for change in document["differences"]]
        told += f"; differ: {', '.join(rows)}" if rows else ""
        self._tell(shown.moment(found.at_us)[:19], found.outcome, told, document, agrees=found.agrees)

    def failed(self, error: Exception) -> None:
        """Tell of a server that failed; the time is this host's."""
        now = datetime.now(UTC)
        line = lines_of(error)[0]
        document = {"time": now.isoformat(), "outcome": "failed", "exit_code": int(code_of(error)), "error": line}
        self._tell(f"{now:%Y-%m-%d %H:%M:%S}", "failed", line, document, agrees=False)

    def end(self) -> None:
        """End the line that would have been written over."""
        if self._open:
            self._open = False
            write(b"\n")

    def _tell(self, at: str, outcome: str, told: str, document: dict[str, Any], *, agrees: bool) -> None:
        again = self._last == (outcome, told)
        self._rounds = self._rounds + 1 if again else 1
        self._last = (outcome, told)
        if self._quiet and agrees:
            self.end()
            return
        line = f"{at}  {outcome:<14}  {one_line(told)}"
        if not self._over:
            self._output.more(document, Text(line))
            return
        line += f"  (round {self._rounds})" if again else ""
        if not again:
            self.end()
        # Blanks to the end, and no escape sequence: what was longer before must go.
        most = self._output.width - 1
        cut = line if cell_len(line) <= most else f"{set_cell_size(line, most - 1)}…"
        self._open = True  # first: Ctrl-C may come as soon as the line is seen
        write(f"\r{set_cell_size(cut, most)}".encode(errors="backslashreplace"))
