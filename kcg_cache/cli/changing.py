"""``kcg-cache promote``, ``archive``, ``enable``, ``disable``: one transaction, its invalidate, the receipt."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, cast

import typer
from rich.text import Text

from kcg_cache import changes, postgres
from kcg_cache.cache import SharedCache
from kcg_cache.changes import ROLES, Archive, Done, Promote, Role, Switch, Wish
from kcg_cache.cli import differences, outcome, withdrawing
from kcg_cache.cli.caches import Database, opened
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop, one_line
from kcg_cache.cli.options import AsJson, Debug, Dsn, Namespace, RedisUrl, WaitForFleet
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import say
from kcg_cache.committing import invalidate_committed
from kcg_cache.errors import StoreError
from kcg_cache.receipt import Invalidation


def _role(text: str | None) -> str | None:
    if text is not None and text.upper() not in ROLES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(ROLES)}")
    return text and text.upper()


Model = Annotated[str, typer.Argument(metavar="MODEL", help="Its model_id.", show_default=False)]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="The version of it.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Do also what is refused as probably a mistake.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, row by row, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where no terminal can be asked.")]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why, for the log of invalidations; without it, what was changed."),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return before the old rows are out of use everywhere.")]


@dataclass(frozen=True, slots=True)
class _Options:
    """What the four commands have in common."""

    dry_run: bool
    yes: bool
    reason: str | None
    no_wait: bool
    wait_for_fleet: float | None
    redis: str | None
    namespace: str | None
    dsn: str
    as_json: bool


def promote(
    model: Model,
    version: Version,
    *,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", callback=_role, help=", ".join(ROLES))],
    demote_to: Annotated[
        str | None,
        typer.Option(
            "--demote-to",
            metavar="ROLE",
            callback=_role,
            help="Keep the present PRIMARY in this role; without it, it is archived.",
        ),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    no_wait: NoWait = False,
    wait_for_fleet: WaitForFleet = None,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Make a version ACTIVE in a role, and have the whole fleet read it.

    A new PRIMARY archives the one before it in the same transaction. Then the shared rows are withdrawn, as invalidate
    does it.
    """
    if demote_to is not None and (role != "PRIMARY" or demote_to == "PRIMARY"):
        raise typer.BadParameter("it is for a new PRIMARY, and names CHALLENGER or SHADOW", param_hint="--demote-to")
    wish = Promote(model, version, cast("Role", role), cast("Role | None", demote_to), force)
    _run(wish, _Options(dry_run, yes, reason, no_wait, wait_for_fleet, redis, namespace, dsn, as_json))


def archive(
    model: Model,
    version: Version,
    *,
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    no_wait: NoWait = False,
    wait_for_fleet: WaitForFleet = None,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Archive a version, and have nobody read it any more.

    Then the shared rows are withdrawn, as invalidate does it.
    """
    options = _Options(dry_run, yes, reason, no_wait, wait_for_fleet, redis, namespace, dsn, as_json)
    _run(Archive(model, version, force), options)


def enable(
    model: Model,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    no_wait: NoWait = False,
    wait_for_fleet: WaitForFleet = None,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Enable a model: workers read its ACTIVE versions again.

    Then the shared rows are withdrawn, as invalidate does it.
    """
    options = _Options(dry_run, yes, reason, no_wait, wait_for_fleet, redis, namespace, dsn, as_json)
    _run(Switch(model, on=True), options)


def disable(
    model: Model,
    *,
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    reason: Reason = None,
    no_wait: NoWait = False,
    wait_for_fleet: WaitForFleet = None,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Disable a model: workers read none of its versions. Refused while enabled models take input of it.

    Then the shared rows are withdrawn, as invalidate does it.
    """
    options = _Options(dry_run, yes, reason, no_wait, wait_for_fleet, redis, namespace, dsn, as_json)
    _run(Switch(model, on=False, force=force), options)


def _run(wish: Wish, options: _Options) -> None:
    if options.no_wait and options.wait_for_fleet is not None:
        raise typer.BadParameter("--no-wait and --wait-for-fleet are two different wishes: give one of them")
    if not (options.yes or options.dry_run or _can_ask(options)):
        raise Stop(ExitCode.USAGE, f"nobody can be asked here: give --yes to {wish}, or --dry-run to see what it does")
    with opened(options.redis, options.namespace, role="operator") as cache:
        if options.dry_run:
            _show(options, wish, _planned(Database(options.dsn), wish), done=False)
            _check_redis(cache)  # it would fail here
        else:
            _do(cache, options, wish)


def _do(cache: SharedCache, options: _Options, wish: Wish) -> None:
    """Ask, unless it is told not to; change, commit, withdraw, and show it."""
    database = Database(options.dsn)
    _check_redis(cache)
    planned = None
    if not options.yes:
        planned = _planned(database, wish)
        _show(options, wish, planned, done=False)
        if not planned.steps:
            return
        _ask(wish)
        _check_redis(cache)  # a person may take long
    done, receipt = _made(database, cache, options, wish, planned)
    withdrawn = None if receipt is None else _in_force(cache, options, receipt)
    _show(options, wish, done, done=receipt is not None, withdrawn=withdrawn, brief=planned is not None)
    if withdrawn is not None and withdrawn.finding:
        raise Stop(withdrawn.code, withdrawn.finding)


def _check_redis(cache: SharedCache) -> None:
    """Fail where the change could not be withdrawn: it is then not to be committed."""
    try:
        cache.check_invalidates()
    except StoreError as error:
        error.add_note("(nothing was changed: what cannot be withdrawn now is not committed)")
        raise


def _planned(database: Database, wish: Wish) -> Done:
    """Do it, look at what came of it, and roll it back."""
    with database.connection() as conn:
        planned = _carried_out(database, conn, wish)
        conn.rollback()
    return planned


def _made(
    database: Database, cache: SharedCache, options: _Options, wish: Wish, planned: Done | None
) -> tuple[Done, Invalidation | None]:
    """Do it, commit and withdraw; no receipt where there was nothing to do. Raises `Stop` when it is not as planned.

    The connection is a new one: that of the plan may have been closed for idleness while a person thought.
    """
    with database.connection() as conn:
        done = _carried_out(database, conn, wish)
        if planned is not None and done != planned:
            conn.rollback()
            raise Stop(ExitCode.FINDING, f"{wish}: the rows were changed meanwhile; nothing was done: look again")
        if not done.steps:
            conn.rollback()
            return done, None
        return done, _committed(cache, options, conn, wish, done)


def _in_force(cache: SharedCache, options: _Options, receipt: Invalidation) -> withdrawing.Withdrawn:
    try:
        return withdrawing.finished(
            Output(as_json=options.as_json),
            cache,
            receipt,
            fleet_seconds=options.wait_for_fleet,
            no_wait=options.no_wait,
        )
    except KeyboardInterrupt:
        say("the change is committed; there is nothing to repeat")
        raise


def _can_ask(options: _Options) -> bool:
    streams = (sys.stdin, sys.stderr, sys.stdout)
    return not options.as_json and all(stream is not None and stream.isatty() for stream in streams)


def _ask(wish: Wish) -> None:
    """Ask; no transaction is open meanwhile, so that nobody waits for a person. Raises `Stop` unless it is a yes."""
    try:
        if typer.confirm(f"{one_line(str(wish))}?", err=True):
            return
    except typer.Abort:  # Ctrl-C, or the end of the input
        raise KeyboardInterrupt from None
    raise Stop(ExitCode.FINDING, "nothing was changed")


def _carried_out(database: Database, conn: Any, wish: Wish) -> Done:
    try:
        return database.interruptible(lambda: changes.carry_out(conn, wish))
    except BaseException:
        _rolled_back(conn)
        raise


def _rolled_back(conn: Any) -> None:
    try:
        conn.rollback()
    except postgres.ERRORS:
        say("warning: the connection was lost; PostgreSQL rolls back what was not committed")


def _committed(cache: SharedCache, options: _Options, conn: Any, wish: Wish, done: Done) -> Invalidation:
    """Commit, then withdraw; where the commit was not answered, PostgreSQL is asked what became of it."""
    reason = options.reason or str(wish)
    transaction = outcome.transaction_of(conn)
    try:
        return cache.commit_and_invalidate(conn, reason=reason, wait=False)
    except postgres.ERRORS as error:
        if not outcome.is_unknown(error):
            raise
        say("the connection was lost while the change was committed: asking PostgreSQL what became of it")
        so = outcome.settled(options.dsn, transaction, error, lambda new: changes.is_so(new, wish, done))
        say("it was committed")
    receipt = invalidate_committed(cache, reason=reason, wait=False)
    if not so:
        raise Stop(
            ExitCode.FINDING,
            f"{wish}: committed, PostgreSQL says, and withdrawn; but the rows are not as it left them: they were "
            "changed again, or it was lost in a crash. Look at them",
        )
    return receipt


# --- what is shown ----------------------------------------------------------------------------------------------------


def _show(
    options: _Options,
    wish: Wish,
    planned: Done,
    *,
    done: bool,
    withdrawn: withdrawing.Withdrawn | None = None,
    brief: bool = False,
) -> None:
    output = Output(as_json=options.as_json)
    document = {
        "change": str(wish),
        "command": {"action": type(wish).__name__.lower(), **asdict(wish)},
        "steps": list(planned.steps),
        "warnings": list(planned.warnings),
        "difference": [change.as_dict() for change in planned.changes],
        "committed": done,
        "invalidation": None if withdrawn is None else withdrawn.document,
    }
    parts = [] if brief else list(_parts(output, wish, planned, done=done))
    output.show(document, *parts, *([] if withdrawn is None else withdrawn.parts))


def _parts(output: Output, wish: Wish, planned: Done, *, done: bool) -> Iterator[Any]:
    yield Text.assemble((one_line(str(wish)), "bold"), (_state(planned, done=done), "dim"))
    yield from (Text(f"  {one_line(step)}") for step in planned.steps)
    yield from (Text(f"  warning: {one_line(warning)}", style="yellow") for warning in planned.warnings)
    yield ""
    if planned.changes:
        yield from output.section("What workers read", *differences.parts(output, planned.changes))
    elif planned.steps:
        yield from output.section("What workers read", "The same as before.")


def _state(planned: Done, *, done: bool) -> str:
    if not planned.steps:
        return "  it is so already: nothing to do"
    return "  committed" if done else "  not done yet"
