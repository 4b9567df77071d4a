"""The table of docs/servers.md, made of docs/compatibility/servers.json."""

import json
from collections.abc import Sequence
from typing import Any

from tests.compatibility.runs import ROOT, Result

RECORD = ROOT / "docs" / "compatibility" / "servers.json"
PAGE = ROOT / "docs" / "servers.md"
#: In this order they stand in the table.
SERVERS = ("Redis", "Valkey", "PostgreSQL")
#: What a kind of server is spoken to with.
DRIVERS = {"redis": ("Python", "redis-py"), "postgres": ("Python", "psycopg2", "libpq")}
_BEGIN, _END = "<!-- made by scripts/compatibility --record -->\n", "<!-- end -->\n"


def recorded() -> Any:
    """Give what was recorded."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def record(results: Sequence[Result]) -> None:
    """Keep results in the record, each in the place of what it said of that server, and show all of it on the page."""
    known = recorded()["servers"] if RECORD.exists() else []
    servers = {(server["server"], server["version"]): server for server in known}
    servers |= {(result.server, result.version): result.as_dict() for result in results}
    document = {"servers": sorted(servers.values(), key=_place)}
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")


def _place(server: Any) -> tuple[int, tuple[int, ...]]:
    """Give where a server stands in the table."""
    return SERVERS.index(server["server"]), tuple(int(part) for part in server["version"].split("."))


def with_table(page: str, document: Any) -> str:
    """Give the page with the table of a record in its place."""
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"docs/servers.md lacks {_BEGIN.strip()} … {_END.strip()}"
    return f"{before}{_BEGIN}{table(document)}{_END}{after}"


def table(document: Any) -> str:
    """Give a record as Markdown: the table, and what each server does not hold."""
    lines = [
        "| server | from | with | commands too | passed | skipped | failed | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(server) for server in document["servers"]),
        "",
    ]
    for server in document["servers"]:
        lines += _remarks(server)
    return "\n".join(lines).rstrip("\n") + "\n"


def _row(server: Any) -> str:
    skipped, failed = sum(server["skipped"].values()), len(server["failed"])
    verdict = "does not hold" if failed else "too old: refused as it should be" if server["too_old"] else "holds"
    drivers = ", ".join(f"{name} {server['versions'][name]}" for name in DRIVERS[server["kind"]])
    commands = "yes" if server["commands"] else "the doctor"
    name = f"{server['server']} {server['version']}"
    cells = (name, server["origin"], drivers, commands, server["passed"], skipped, failed, verdict)
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells) + " |"


def _remarks(server: Any) -> list[str]:
    """Give why tests were skipped or failed."""
    why = [f"{reason} ({count} skipped)" for reason, count in server["skipped"].items()]
    why += [f"`{test}` failed: {line}" for test, line in server["failed"].items()]
    return [f"- {server['server']} {server['version']}: {_escaped(each)}" for each in why]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
