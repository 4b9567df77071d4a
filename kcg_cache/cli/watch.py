"""``kcg-cache watch``: keep the shared rows true to the database, whoever changes it."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from kcg_cache.cli import health, shown, systemd
from kcg_cache.cli.caches import Database, opened
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.failures import Stop as End
from kcg_cache.cli.failures import one_line
from kcg_cache.cli.options import AsJson, Debug, Dsn, Namespace, RedisUrl, duration
from kcg_cache.cli.output import Output
from kcg_cache.cli.streams import say, write
from kcg_cache.errors import ConfigurationError
from kcg_cache.listening import KEEPALIVE, Stop
from kcg_cache.system import SYSTEM
from kcg_cache.watcher import Event, Health, Watcher

#: Seconds that it is given to end in order: a server that hangs does not keep it.
_GRACE = 10.0
_STYLES = {"invalidated": "bold yellow", "polling": "yellow", "rows_refused": "bold red"}
_LOST, _BACK = ("postgres_lost", "redis_lost"), ("postgres_back", "redis_back")


def watch(  # noqa: PLR0913 - a command's options are its arguments
    *,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="TIME", parser=duration, help="How often it looks when nobody tells it to (5s, 1m)."
        ),
    ] = 5.0,
    redis: RedisUrl = None,
    namespace: Namespace = None,
    dsn: Dsn = "",
    once: Annotated[bool, typer.Option("--once", help="Look once, whoever else watches, and end.")] = False,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="FILE", help="Write here, every two seconds or so, how it is."),
    ] = None,
    healthcheck: Annotated[
        bool, typer.Option("--healthcheck", help="Tell by --state's file whether the watcher that writes it is well.")
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Compare the rows of PostgreSQL with the shared ones, and invalidate where they differ, whoever changed them.

    It looks after every notification (kcg-cache sql notify), at every interval, and when either server is back.
    Several may run side by side: one is on duty, the others stand by. It tells what happens, a line for each event.

    SIGTERM ends it in order. It tells systemd how it is, and with --state a container's health check.
    """
    if healthcheck:
        _check(state, as_json=as_json)
        return
    voice = _Voice(as_json=as_json)
    with opened(redis, namespace, role="watcher") as cache, contextlib.closing(Stop()) as stop:
        told = _Health(state, cache.settings.namespace)
        database = Database(dsn, fallback_application_name="kcg-cache-watch", **KEEPALIVE)
        watcher = Watcher(cache, database.connection, interval=interval, stop=stop, on_event=voice, on_beat=told)
        if once:
            watcher.once()
            return
        try:
            _until_told(stop, watcher.run, database.hang_up)
        finally:
            told.ended()


def _check(state: Path | None, *, as_json: bool) -> None:
    """Say in a line whether a watcher is well. Raises `End` when it is not."""
    if state is None:
        raise typer.BadParameter("--healthcheck needs --state, the file that the watcher writes")
    well, why = health.judged(state, SYSTEM)
    line = (
        json.dumps({"healthy": well, "why": why}) if as_json else one_line(f"{'well' if well else 'not well'}: {why}")
    )
    write(line.encode(errors="replace") + b"\n")
    if not well:
        raise End(ExitCode.FINDING)


class _Voice:
    """Writes an event as one line on stdout, with the host's time."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def __call__(self, event: Event) -> None:
        at = datetime.now(UTC)
        if self._as_json:
            document = {"at": at.isoformat(), "event": event.name, "text": event.text, "details": event.details}
            write(json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
            return
        style = "bold red" if event.name in _LOST else "green" if event.name in _BACK else _STYLES.get(event.name, "")
        line = Text.assemble(
            (shown.moment(round(at.timestamp() * 1e6)), "dim"), "  ", (one_line(event.text), style), _facts(event)
        )
        Output(as_json=False).show(None, line)


def _facts(event: Event) -> str:
    """Tell the rest of an event in a few words."""
    details = event.details
    if "digest" not in details:
        return ""
    digest = (details["digest"] or "none")[: shown.SHORT]
    replaced = (details.get("replaced") or "")[: shown.SHORT]
    what = f"{one_line(replaced)} → {digest}" if replaced else digest
    return f"  {what}  ({', '.join(details['causes'])})"


class _Health:
    """Tells systemd and the state file how the watcher is."""

    def __init__(self, path: Path | None, namespace: str) -> None:
        self._path = path
        self._namespace = namespace
        self._ready = False
        self._written = False
        self._refused = False

    def __call__(self, now: Health) -> None:
        status = f"STATUS={health.said(now.state)}, {shown.count(now.rounds, 'look')}, " + shown.count(
            now.invalidations, "invalidate"
        )
        ready = ["READY=1"] if not self._ready and now.state in ("on_duty", "standing_by") else []
        self._ready = self._ready or bool(ready)
        systemd.notify(*ready, status, "WATCHDOG=1")
        if self._path is not None:
            beat = {"beat": SYSTEM.now(), "at": datetime.now(UTC).isoformat(), "pid": os.getpid()}
            self._write(self._path, {**beat, "namespace": self._namespace, **now._asdict()})

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        """Write the state. One that can never be written is an error; a disk that is full later on keeps nobody."""
        try:
            health.written(path, document)
        except ConfigurationError as error:
            if not self._written:
                raise
            if not self._refused:
                say(f"warning: {error} (it watches on)")
            self._refused = True
        else:
            self._written, self._refused = True, False

    def ended(self) -> None:
        """Leave nothing that looks alive."""
        systemd.notify("STOPPING=1")
        if self._path is not None:
            with contextlib.suppress(OSError):  # what cannot be taken away is found silent
                self._path.unlink()


def _until_told(stop: Stop, work: Callable[[], None], hang_up: Callable[[], None]) -> None:
    """Do `work` on a thread until SIGTERM or SIGINT; `hang_up` on a statement that keeps it then.

    On a thread, for the driver does not come back to Python before PostgreSQL has answered.

    Raises what `work` raises; `KeyboardInterrupt` after SIGINT.
    """
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised on the main thread, below
            errors.append(error)
        finally:
            done.set()

    with _signals(stop) as came:
        threading.Thread(target=run, name="kcg_cache-watch", daemon=True).start()
        while not done.wait(1.0):
            if came and SYSTEM.now() - came[0][1] > _GRACE:
                break
            if came:
                hang_up()
    if errors:
        raise errors[0]
    if any(number == signal.SIGINT for number, _ in came):
        raise KeyboardInterrupt


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[list[tuple[int, float]]]:
    """Let SIGTERM and SIGINT set `stop` within the block; give which came, and when."""
    came: list[tuple[int, float]] = []

    def handle(number: int, _frame: Any) -> None:
        came.append((number, SYSTEM.now()))
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
