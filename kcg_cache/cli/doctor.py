"""``kcg-cache doctor``: what will bite in production, and how to mend it."""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import kcg_cache
from kcg_cache.cli import shown
from kcg_cache.cli.caches import Database
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import one_line
from kcg_cache.cli.options import AsJson, Debug, Dsn, Namespace, RedisUrl
from kcg_cache.cli.output import Output
from kcg_cache.datasets import ACTIVE_VERSIONS
from kcg_cache.doctor import Diagnosis, Finding, Severity, visit
from kcg_cache.rights import ROLES
from kcg_cache.settings import Settings, without_password

_STYLES = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "bold yellow",
    Severity.ERROR: "bold red",
}
_ONLY = ("redis", "postgres")


def _one_of(allowed: Sequence[str]) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        for word in given if isinstance(given, list) else [given]:
            if word is not None and word not in allowed:
                raise typer.BadParameter(f"{word!r} is none of {', '.join(allowed)}")
        return given

    return check


def doctor(  # noqa: PLR0913 - each is an option
    *,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="|".join(_ONLY), callback=_one_of(_ONLY), help="Leave the other server out of it."
        ),
    ] = None,
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="|".join(ROLES),
            callback=_one_of(ROLES),
            help="Whose work this user of Redis does; may be given several times. Without it, everyone's.",
        ),
    ] = None,
    failover: Annotated[
        float | None,
        typer.Option(
            "--failover",
            metavar="S",
            min=0.0,
            help="Seconds until a master that is gone is replaced (Sentinel's down-after-milliseconds).",
        ),
    ] = None,
    worst_first: Annotated[
        bool, typer.Option("--worst-first", help="Order by severity, and not by what is looked at.")
    ] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Show only what is not ok.")] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> ExitCode:
    """Check what will bite in production: both servers, rights, replicas, deadlines, tables, the rows and the fleet.

    It changes nothing. Each finding has a code that docs/doctor.md explains. A server that does not answer ends with
    its own exit code; all else is checked still. Exit code 1 for a warning or an error, 0 for notes.
    """
    output = Output(as_json=as_json)
    options: dict[str, Any] = {"redis_url": redis, "namespace": namespace}
    settings = Settings.from_env(None, **{name: value for name, value in options.items() if value is not None})
    database = Database(dsn)
    with _progress() as step:
        diagnosis = database.interruptible(
            lambda: visit(
                settings,
                database.connection,
                roles=roles or ROLES,
                failover=failover,
                only=only,
                step=step,
            )
        )
    code = _code(diagnosis)
    document = _document(settings, diagnosis, code)
    output.show(document, *_parts(output, document, diagnosis, worst_first=worst_first, problems=problems))
    return code


def _code(diagnosis: Diagnosis) -> ExitCode:
    if diagnosis.redis_failed is not None:
        return ExitCode.REDIS
    if diagnosis.postgres_failed is not None:
        return ExitCode.POSTGRES
    return ExitCode.FINDING if diagnosis.worst >= Severity.WARNING else ExitCode.OK


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show a person at a terminal what is being asked."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(Text(f"{text} …"))


def _document(settings: Settings, diagnosis: Diagnosis, code: ExitCode) -> dict[str, Any]:
    counts = Counter(finding.severity for finding in diagnosis.findings)
    return {
        "dataset": ACTIVE_VERSIONS.name,
        "namespace": settings.namespace,
        "redis": without_password(settings.redis_url),
        "database": diagnosis.source,
        "version": kcg_cache.__version__,
        "worst": diagnosis.worst.word,
        "exit_code": int(code),
        "counts": {severity.word: counts[severity] for severity in Severity},
        "redis_latency_seconds": diagnosis.redis_latency,
        "postgres_latency_seconds": diagnosis.postgres_latency,
        "findings": [finding.as_dict() for finding in diagnosis.findings],
    }


def _parts(
    output: Output, document: dict[str, Any], diagnosis: Diagnosis, *, worst_first: bool, problems: bool
) -> Iterator[Any]:
    place = f"{document['dataset']} in namespace {document['namespace']} at {document['redis']}"
    yield Text(one_line(place), style="bold")
    yield ""
    findings = [each for each in diagnosis.findings if not problems or each.severity is not Severity.OK]
    if worst_first:
        findings.sort(key=lambda each: -each.severity)  # stable: what belongs together stays so
        for severity, group in groupby(findings, key=lambda each: each.severity):
            yield from output.section(severity.word.capitalize(), _lines(list(group)))
    else:
        for area, group in groupby(findings, key=lambda each: each.check.area):
            yield from output.section(area, _lines(list(group)))
    yield _summary(document["counts"], diagnosis)


def _lines(findings: list[Finding]) -> Table:
    """Give a line for what is well, and below each of the others why it matters and what mends it."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    # What could not be checked for one and the same reason is told once.
    for _, group in groupby(findings, key=lambda each: (each.seen, each.mend) if _unchecked(each) else each.code):
        finding, *more = group
        word = Text(finding.severity.word, style=_STYLES[finding.severity])
        if more:
            titles = ", ".join([finding.check.title, *(each.check.title for each in more)])
            grid.add_row(word, f"{finding.code} to {more[-1].code[4:]}", Text(f"{one_line(finding.seen)} ({titles})"))
            continue
        told = Text()
        told.append(f"{finding.check.title}: ", style="" if finding.severity is Severity.OK else "bold")
        told.append(one_line(finding.seen))
        if finding.mend:
            told.append(f"\n{finding.check.why}", style="dim")
            told.append(f"\n→ {one_line(finding.mend)}", style="cyan")
        grid.add_row(word, finding.code, told)
    return grid


def _unchecked(finding: Finding) -> bool:
    return finding.seen.startswith("not checked")


def _summary(counts: dict[str, int], diagnosis: Diagnosis) -> Text:
    told = [shown.count(counts["error"], "error"), shown.count(counts["warning"], "warning")]
    told += [shown.count(counts["note"], "note"), f"{counts['ok']} ok"]
    summary = Text(", ".join(told), style=_STYLES[diagnosis.worst])
    if diagnosis.worst > Severity.NOTE:
        summary.append("; each code has a section in docs/doctor.md", style="dim")
    return summary
