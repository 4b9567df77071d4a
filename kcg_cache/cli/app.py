"""The commands, and the one exit that all of them take."""

import contextlib
import errno
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import kcg_cache
from kcg_cache.cli import journal
from kcg_cache.cli.acl import acl
from kcg_cache.cli.changing import archive, disable, enable, promote
from kcg_cache.cli.demo import demo
from kcg_cache.cli.doctor import doctor
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop, code_of, lines_of, one_line
from kcg_cache.cli.fleet import fleet
from kcg_cache.cli.invalidate import invalidate
from kcg_cache.cli.log import log
from kcg_cache.cli.lua import lua
from kcg_cache.cli.options import Debug
from kcg_cache.cli.reload import reload
from kcg_cache.cli.show import show
from kcg_cache.cli.sql import sql
from kcg_cache.cli.status import status
from kcg_cache.cli.streams import say, write
from kcg_cache.cli.verify import verify
from kcg_cache.cli.watch import watch

PROGRAM = "kcg-cache"
#: typer's own errors of usage, by the one name that is public; which module defines them depends on its release.
_WRONG_USAGE: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


@dataclass(slots=True)
class Session:
    """What the command line said before any command began."""

    journal: journal.Journal
    debug: bool = False


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run the command; what an interrupt has to tell (as: committed, not yet invalidated) is told.

        typer makes a bare exit code of a KeyboardInterrupt that reaches it.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Stop(ExitCode.INTERRUPTED, " ".join(getattr(interrupt, "__notes__", ()))) from interrupt

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help, and below it the table of exit codes."""
        super().format_help(ctx, formatter)
        grid = Table.grid(padding=(0, 2))
        for code in ExitCode:
            grid.add_row(Text(str(code.value), justify="right"), Text(code.meaning))
        console = Console(highlight=False)
        console.print(" Exit codes", style="bold")
        console.print(grid)


app = typer.Typer(cls=_Group, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        write(f"{PROGRAM} {kcg_cache.__version__}\n".encode())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _group(
    context: typer.Context,
    *,
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Look at the shared cache of detection-model versions, and withdraw what is in it.

    Results are on stdout, everything else on stderr. KCG_CACHE_* variables are the settings; options win over them.
    """
    if context.invoked_subcommand is None:
        with contextlib.redirect_stdout(sys.stderr):
            typer.echo(context.get_help())
        raise Stop(ExitCode.USAGE)


def _help_of(command: Callable[..., Any]) -> str:
    """Give a command's docstring with a line for each paragraph: where lines end is the terminal's to say."""
    paragraphs = inspect.getdoc(command) or ""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs.split("\n\n"))


for _command in (
    show,
    status,
    fleet,
    verify,
    log,
    invalidate,
    promote,
    archive,
    enable,
    disable,
    reload,
    watch,
    doctor,
    acl,
    sql,
    lua,
    demo,
):
    app.command(help=_help_of(_command), epilog=f"Exit codes: {PROGRAM} --help")(_command)


def run(arguments: Sequence[str]) -> ExitCode | int:
    """Run one command line and give its exit code; what went wrong stands on stderr, a line for each cause."""
    with journal.kept() as kept:
        session = Session(kept)
        try:
            command = typer.main.get_command(app)
            given = command.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=session)
        except SystemExit as end:
            # The writer of the help gives up so when its reader is gone; nothing of ours does.
            return (
                ExitCode.CLOSED_PIPE
                if _pipe_closed(end)
                else end.code
                if isinstance(end.code, int)
                else ExitCode.INTERNAL
            )
        except _WRONG_USAGE as error:
            return _misused(error)
        except BaseException as error:  # noqa: BLE001 - the one exit
            return _failed(error, session)
        for failure in kept.redis_failures:
            say(f"warning: {lines_of(failure)[0]} (it went on without)")
        return given if isinstance(given, int) else ExitCode.OK


def _misused(error: Any) -> ExitCode:
    command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
    say(f"{one_line(error.format_message())} (see {command} --help)")
    return ExitCode.USAGE


def _failed(error: BaseException, session: Session) -> ExitCode:
    if session.debug:
        traceback.print_exception(error)
    # When Redis failed before, this is what came of it: Redis is what the operator has to look at first.
    failures = [*session.journal.redis_failures, error]
    for failure in failures:
        for line in lines_of(failure):
            say(line)
    code = code_of(failures[0])
    if code is ExitCode.INTERNAL and not session.debug:
        say(f"`{PROGRAM} --debug …` shows where; please report it")
    return code


def _pipe_closed(end: BaseException) -> bool:
    before: BaseException | None = end
    while before is not None:
        if isinstance(before, OSError) and before.errno == errno.EPIPE:
            return True
        before = before.__context__
    return False
