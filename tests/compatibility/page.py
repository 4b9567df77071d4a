"""The table of docs/servers.md, made of docs/compatibility/servers.json."""

import json
from collections.abc import Sequence
from typing import Any

from tests.compatibility.runs import ROOT, Result

RECORD = ROOT / "docs" / "compatibility" / "servers.json"
PAGE = ROOT / "docs" / "servers.md"
_BEGIN, _END = "<!-- made by scripts/compatibility --record -->\n", "<!-- end -->\n"


def recorded() -> Any:
    """Give what was recorded."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def record(versions: dict[str, str], results: Sequence[Result]) -> None:
    """Keep results as the record, and show them on the page."""
    document = {"versions": versions, "servers": [result.as_dict() for result in results]}
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")


def with_table(page: str, document: Any) -> str:
    """Give the page with the table of a record in its place."""
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"docs/servers.md lacks {_BEGIN.strip()} … {_END.strip()}"
    return f"{before}{_BEGIN}{table(document)}{_END}{after}"


def table(document: Any) -> str:
    """Give a record as Markdown: what it was made with, the table, and what each server does not hold."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines = [
        f"With {versions}:",
        "",
        "| server | from | passed | skipped | failed | verdict |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(server) for server in document["servers"]),
        "",
    ]
    for server in document["servers"]:
        lines += _remarks(server)
    return "\n".join(lines).rstrip("\n") + "\n"


def _row(server: Any) -> str:
    skipped, failed = sum(server["skipped"].values()), len(server["failed"])
    verdict = "does not hold" if failed else "too old: refused as it should be" if server["too_old"] else "holds"
    cells = (f"{server['server']} {server['version']}", server["origin"], server["passed"], skipped, failed, verdict)
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |"


def _remarks(server: Any) -> list[str]:
    """Give why tests were skipped or failed."""
    why = [f"{reason} ({count} skipped)" for reason, count in server["skipped"].items()]
    why += [f"`{test}` failed: {line}" for test, line in server["failed"].items()]
    return [f"- {server['server']} {server['version']}: {_escaped(each)}" for each in why]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
