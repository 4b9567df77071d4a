"""``kcg-cache log``: the real command line against a real server, also while that is restarted, trimmed or emptied."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from rich.cells import cell_len

from kcg_cache import Settings, SharedCache
from kcg_cache.answers import Logged, Stream
from kcg_cache.cli.exits import ExitCode
from kcg_cache.cli.log import moment_of
from kcg_cache.embedded import start_valkey
from kcg_cache.history import Happening, _Timeline
from kcg_cache.keys import Keys
from kcg_cache.settings import variable_of
from tests import test_cli
from tests.doubles import Source, once
from tests.programs import NOBODY
from tests.schemas import valid
from tests.test_cli import ANSI, Cli

pytestmark = pytest.mark.operators

cli = test_cli.cli

_SECONDS = 60.0


@dataclass
class Shared:
    """A worker and the streams it writes."""

    cache: SharedCache
    source: Source
    client: Any
    keys: Keys

    def fill(self, version: int = 0) -> str:
        """Load the rows, as of another version if one is given, and give their digest."""
        self.source.version = version or self.source.version
        return self.cache.read(None).digest

    def invalidate(self, reason: str) -> str:
        """Withdraw the rows, and give their digest."""
        receipt = self.cache.invalidate(reason=reason, wait=False)
        return receipt.digest or ""

    def add(self, stream: Stream, fields: Mapping[Any, Any], **options: Any) -> str:
        """Write whatever into a stream, and give the entry's id."""
        return str(self.client.xadd(getattr(self.keys, stream), fields, **options).decode())


@contextlib.contextmanager
def sharing(url: str, namespace: str) -> Iterator[Shared]:
    source = Source()
    cache = SharedCache(url, source.dataset("active_versions"), Settings(namespace=namespace))
    with redis.Redis.from_url(url) as client:
        yield Shared(cache, source, client, Keys.of(namespace, "active_versions"))
    cache.close()


@pytest.fixture
def shared(redis_url: str, namespace: str) -> Iterator[Shared]:
    with sharing(redis_url, namespace) as shared:
        yield shared


@dataclass
class Follower:
    """A ``log --follow`` that runs, and the lines that it writes."""

    process: Any
    out: "queue.Queue[str]" = field(default_factory=queue.Queue)
    err: "queue.Queue[str]" = field(default_factory=queue.Queue)

    def next(self) -> str:
        """Give its next line."""
        return self.out.get(timeout=_SECONDS)

    def next_json(self) -> Any:
        """Give its next line, which is a document that the schema knows."""
        entry = json.loads(self.next())
        valid("log", entry, part="entry")
        return entry

    def said(self, text: str) -> None:
        """Return when it has said this on stderr, next."""
        assert text in self.err.get(timeout=_SECONDS)

    def end(self, number: int = signal.SIGINT) -> int:
        """End it with a signal; give its exit code."""
        self.process.send_signal(number)
        return int(self.process.wait(_SECONDS))


@contextlib.contextmanager
def following(cli: Cli, *arguments: str, may_say_more: bool = False) -> Iterator[Follower]:
    """Run ``log --follow`` in a pipe; nothing that it says is lost, and in the end all was asked for."""
    process = cli.start("log", "--follow", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    follower = Follower(process)

    def pump(stream: Any, lines: "queue.Queue[str]") -> None:
        for line in stream:
            lines.put(line)

    threads = [
        threading.Thread(target=pump, args=args)
        for args in ((process.stdout, follower.out), (process.stderr, follower.err))
    ]
    for thread in threads:
        thread.start()
    try:
        yield follower
        process.kill()
        process.wait(_SECONDS)
        for thread in threads:
            thread.join()
        assert list(follower.out.queue) == []
        assert may_say_more or list(follower.err.queue) == []
    finally:
        process.kill()
        for thread in threads:
            thread.join()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def document(cli: Cli, *arguments: str) -> Any:
    """Give what ``log --json`` writes, which the schema knows."""
    found = cli.json("log", *arguments)
    valid("log", found)
    return found


def entries(cli: Cli, *arguments: str) -> list[Any]:
    return list(document(cli, *arguments)["entries"])


# --- what is told -----------------------------------------------------------------------------------------------------


def test_an_invalidate_and_its_next_fill_tell_of_each_other(cli: Cli, shared: Shared) -> None:
    """Who, when, why, from where, what it replaced, from when in force, and how soon which rows were there again."""
    old = shared.fill(1)
    shared.invalidate("승격 다크베셀 v2")
    new = shared.fill(2)
    first, invalidation, second = entries(cli)
    assert [first["kind"], invalidation["kind"], second["kind"]] == ["fill", "invalidation", "fill"]
    assert re.fullmatch(rf".+ \(pid {os.getpid()}\)", invalidation["who"])
    assert (invalidation["reason"], invalidation["digest"]) == ("승격 다크베셀 v2", old)
    assert (invalidation["existed"], invalidation["fill_cancelled"]) == (True, False)
    at = datetime.fromisoformat(invalidation["time"])
    assert datetime.fromisoformat(invalidation["in_force_at"]) == at + timedelta(seconds=1.02)
    assert invalidation["host"] == first["by"].rpartition(":")[0]
    back = invalidation["fill"]
    assert (back["id"], back["digest"], back["changed"]) == (second["id"], new, True)
    took = (datetime.fromisoformat(second["time"]) - at).total_seconds()
    assert back["after_seconds"] == second["invalidation"]["after_seconds"] == pytest.approx(took)
    assert second["invalidation"]["reason"] == "승격 다크베셀 v2"
    assert (first["digest"], second["digest"], second["digest_before"]) == (old, new, old)
    assert second["by"] == f"{invalidation['host']}:{os.getpid()}"
    assert second["bytes"] > 0
    assert second["load_seconds"] >= 0


def test_two_invalidates_before_a_fill_both_tell_of_it(cli: Cli, shared: Shared) -> None:
    """The second finds no entry and withdraws nothing; the rows are back for both at the same moment."""
    shared.fill()
    shared.invalidate("one")
    shared.invalidate("two")
    shared.fill()
    _, one, two, fill = entries(cli)
    assert (one["existed"], two["existed"], two["digest"]) == (True, False, None)
    assert one["fill"]["id"] == two["fill"]["id"] == fill["id"]
    assert one["fill"]["changed"] is False
    assert fill["invalidation"]["id"] == two["id"]


def test_a_cancelled_fill_and_one_that_failed_are_told(cli: Cli, shared: Shared) -> None:
    """An invalidate says that it stopped a fill; a fill that gave its lock back says why."""
    shared.source.after_read = once(lambda: shared.invalidate("in the middle"))
    shared.fill()

    def fail() -> None:
        raise LookupError

    shared.invalidate("again")
    shared.source.before_read = fail
    with pytest.raises(LookupError):
        shared.fill()
    invalidation, fill, _, release = entries(cli)
    assert (invalidation["fill_cancelled"], invalidation["existed"]) == (True, False)
    assert fill["kind"] == "fill"
    assert (release["kind"], release["reason"], release["by"]) == ("release", "failed", fill["by"])
    lines = cli("log").out.splitlines()
    assert "cancelled a fill that ran" in lines[0]
    assert "a fill gave up: failed" in lines[3]


def test_fills_that_are_forgotten_are_not_called_none(cli: Cli, shared: Shared) -> None:
    """The record outlives the events: of an invalidate from before them nobody knows the next fill."""
    shared.fill()
    shared.invalidate("long ago")
    shared.fill()
    shared.client.delete(shared.keys.events)
    (alone,) = entries(cli)
    assert (alone["reason"], alone["fill"], alone["fill_known"]) == ("long ago", None, False)
    shared.invalidate("just now")
    old, new = entries(cli)
    assert (old["fill_known"], new["fill"], new["fill_known"]) == (False, None, True)
    assert "no rows yet" in cli("log").out.splitlines()[1]


def test_the_record_may_be_lost_and_the_events_still_tell(cli: Cli, shared: Shared) -> None:
    """Without the stream of invalidations the events say who, where and why."""
    shared.fill()
    shared.invalidate("kept in the events")
    shared.client.set(shared.keys.invalidations, "no stream")
    ended = cli("log", "--json")
    assert ended.code == 0
    assert "no stream but something else stands under the key of the invalidations" in ended.err
    found = json.loads(ended.out)
    valid("log", found)
    assert found["no_stream"] == ["invalidations"]
    assert [entry["kind"] for entry in found["entries"]] == ["fill", "invalidation"]
    told = found["entries"][1]
    assert (told["reason"], told["stream"], told["fill_cancelled"]) == ("kept in the events", "events", None)


def test_more_than_a_page_of_invalidations_is_read(cli: Cli, shared: Shared) -> None:
    """Fills cannot push an invalidate out, and all of many are there, once each and in order."""
    for number in range(300):
        shared.invalidate(f"number {number}")
    for _ in range(700):
        shared.add("events", {"event": "filled", "digest": "ab", "by": "x:1"}, maxlen=512, approximate=False)
    found = document(cli, "--limit", "5000", "--only", "invalidations")
    assert [entry["reason"] for entry in found["entries"]] == [f"number {number}" for number in range(300)]
    assert not found["entries"][0]["fill_known"]
    assert found["more"] is False


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_limit_keeps_the_newest_and_says_that_there_is_more(cli: Cli, shared: Shared) -> None:
    """The newest stands last, whatever the limit; none at all is an answer, too."""
    for number in range(4):
        shared.invalidate(f"number {number}")
    found = document(cli, "--limit", "2")
    assert [entry["reason"] for entry in found["entries"]] == ["number 2", "number 3"]
    assert (found["more"], found["limit"]) == (True, 2)
    assert document(cli)["more"] is False
    assert document(cli, "--limit", "0")["entries"] == []


def test_only_leaves_the_others_out(cli: Cli, shared: Shared) -> None:
    """Invalidations alone still tell of the fill that came after, and fills of the invalidate before."""
    shared.fill()
    shared.invalidate("x")
    shared.fill()
    (invalidation,) = entries(cli, "--only", "invalidations")
    assert invalidation["fill"]["digest"]
    before, after = entries(cli, "--only", "fills")
    assert (before["invalidation"], after["invalidation"]["reason"]) == (None, "x")


def test_since_takes_a_span_or_a_time(cli: Cli, shared: Shared) -> None:
    """Older ones are left out; a time without an offset is UTC."""
    seconds, _ = shared.client.time()
    hour_ago = (seconds - 3600) * 1000
    old = {"time": str(hour_ago * 1000), "who": "a", "host": "b", "reason": "an hour ago", "digest": ""}
    shared.add("invalidations", old, id=f"{hour_ago}-1")
    shared.invalidate("now")
    half = datetime.fromtimestamp(seconds - 1800, UTC)
    for since in ("30min", "0.5h", "1800", half.isoformat(), half.replace(tzinfo=None).isoformat(" ")):
        assert [entry["reason"] for entry in entries(cli, "--since", since)] == ["now"]
    for since in ("2h", "1d"):
        assert [entry["reason"] for entry in entries(cli, "--since", since)] == ["an hour ago", "now"]


@pytest.mark.parametrize(
    "arguments",
    [("--since", "yesterday"), ("--since", "5 weeks"), ("--since", ""), ("--only", "all"), ("--limit", "-1")],
    ids=" ".join,
)
def test_wrong_usage_is_said(cli: Cli, arguments: tuple[str, str]) -> None:
    """A word that means nothing is an error of usage, in one line."""
    ended = cli("log", *arguments)
    assert ended.code == ExitCode.USAGE
    assert arguments[0] in test_cli.one_line(ended)


def test_a_time_is_read() -> None:
    """With and without an offset; what is none is none."""
    assert moment_of("2026-11-25T06:00:00+09:00") == datetime(2026, 11, 24, 21, tzinfo=UTC)
    assert moment_of("2026-11-25") == datetime(2026, 11, 25, tzinfo=UTC)
    assert moment_of("0001-01-01T00:00+09:00") is None
    assert moment_of("soon") is None


# --- garbage ----------------------------------------------------------------------------------------------------------

_GARBAGE: list[Mapping[Any, Any]] = [
    {"foo": "bar"},
    {b"\xff\xfe": b"\xff"},
    {"event": "filled"},
    {"event": "filled", "time": "soon", "load_us": "-1", "bytes": "9" * 5000, "digest": "\x1b[2J", "by": "\u202e"},
    {"event": "filled", "time": "7999999999999999", "load_us": "٣", "loaded_at": "9" * 20},
    {"event": "invalidated", "reason": "[bold]:smile:\x1b[31m"},
    {"event": "released", "reason": "x\ny" * 3000},
    {"event": "\x07"},
    {"who": "somebody"},
    {"time": "٣", "existed": "2", "fill_cancelled": "yes", "digest": "가" * 500, "reason": " "},
    {"time": "1", "who": "", "host": "", "reason": "", "digest": "", "existed": "1", "fill_cancelled": "1"},
]


@pytest.mark.parametrize("stream", ["events", "invalidations"])
def test_garbage_is_shown_and_nothing_breaks(cli: Cli, shared: Shared, stream: Stream) -> None:
    """What others wrote is there, each entry once, in every form, and commands no terminal."""
    for fields in _GARBAGE:
        shared.add(stream, fields)
    shared.add(stream, {"foo": "far ahead"}, id="18446744073709551615-1")
    found = document(cli)
    assert len(found["entries"]) == len(_GARBAGE) + 1
    assert found["entries"][0]["fields"] == {"foo": "bar"}
    assert found["entries"][1]["fields"] == {"\udcff\udcfe": "\udcff"}
    assert found["entries"][-1]["time"] is None
    lines = cli("log").out.splitlines()
    assert len(lines) == len(_GARBAGE) + 1
    assert lines[0].endswith("foo=bar")
    assert not any(re.search(r"[\x00-\x1f\x7f\u202e]", line) for line in lines)
    assert max(map(len, lines)) < 3000
    with following(cli, "--limit", "100", "--json") as follower:
        for _ in range(len(_GARBAGE) + 1):
            follower.next_json()
        assert follower.end() == ExitCode.INTERRUPTED
    assert "\x1b[2J" not in cli.screen("log", columns=60)


# --- on a terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_a_terminal_shows_it_in_columns_and_no_wider(cli: Cli, shared: Shared, columns: int) -> None:
    """Whatever the width, lines fit, and Korean reasons stand where the others do."""
    shared.fill(1)
    shared.invalidate("승격 " + "조업 모델 " * 12)
    shared.fill(2)
    shared.invalidate("promoted " + "dark vessel " * 12)
    lines = ANSI.sub("", cli.screen("log", columns=columns)).splitlines()
    assert max(map(cell_len, lines)) <= columns
    (korean,) = [line for line in lines if "승격" in line and "invalidated" in line]
    (english,) = [line for line in lines if "promoted" in line and "invalidated" in line]
    assert cell_len(korean[: korean.index("승격")]) == cell_len(english[: english.index("promoted")])
    assert "when (UTC)" in lines[0]


def test_no_colour_where_it_is_not_wanted(cli: Cli, shared: Shared) -> None:
    """NO_COLOR and pipes get text."""
    shared.invalidate("x")
    assert "\x1b" in cli.screen("log")
    assert "\x1b" not in cli.screen("log", NO_COLOR="1") + cli("log").out


def test_times_are_absolute_and_relative(cli: Cli, shared: Shared) -> None:
    """A line in a pipe has both, in columns."""
    shared.invalidate("x")
    (line,) = cli("log").out.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} +[\d.]+ m?s ago  invalidated  x; by ", line)


def test_nothing_is_no_failure(cli: Cli) -> None:
    """An empty log says so, and a program finds an empty list."""
    assert cli("log").out == "Nothing that is remembered.\n"
    assert document(cli)["entries"] == []


def test_follow_on_a_terminal_goes_on_in_the_same_columns(cli: Cli, shared: Shared) -> None:
    """The heading stands once; what comes stands under what was there; Ctrl-C ends it without a word."""
    shared.invalidate("첫째")
    with cli.on_terminal("log", "--follow", columns=90, NO_COLOR="1") as terminal:
        terminal.until("no rows yet")
        shared.invalidate("second")
        terminal.until("second")
        terminal.process.send_signal(signal.SIGINT)
        screen = terminal.rest()
        assert terminal.process.wait() == ExitCode.INTERRUPTED
    assert screen.count("when (UTC)") == 1
    assert "Traceback" not in screen
    places = [
        cell_len(line[: line.index(word)])
        for word in ("첫째", "second")
        for line in screen.splitlines()
        if word in line
    ]
    assert len(set(places)) == 1


# --- --follow ---------------------------------------------------------------------------------------------------------


def test_follow_shows_what_was_and_then_what_comes(cli: Cli, shared: Shared) -> None:
    """Each event once, as it happens; a fill tells which invalidate it is the first after, and how soon."""
    old = shared.fill(1)
    with following(cli, "--json") as follower:
        assert follower.next_json()["digest"] == old
        shared.invalidate("one")
        seen = follower.next_json()
        assert (seen["kind"], seen["reason"], seen["digest"], seen["fill"]) == ("invalidation", "one", old, None)
        new = shared.fill(2)
        fill = follower.next_json()
        assert (fill["digest"], fill["digest_before"]) == (new, old)
        assert fill["invalidation"]["id"] == seen["id"]
        shared.invalidate("two")
        assert follower.next_json()["reason"] == "two"
        assert follower.end() == ExitCode.INTERRUPTED


def test_follow_shows_only_what_is_asked_for(cli: Cli, shared: Shared) -> None:
    """Without what was before, and without fills."""
    shared.invalidate("before")
    with following(cli, "--limit", "1", "--only", "invalidations") as follower:
        assert "before" in follower.next()
        shared.fill()
        shared.invalidate("then")
        assert "then" in follower.next()
        assert follower.end() == ExitCode.INTERRUPTED


def test_many_at_once_are_followed_in_pages(cli: Cli, shared: Shared) -> None:
    """More than a page that comes while it is stopped is there, in order, each once."""
    # Stopped for longer than a call may take, it may say that Redis did not answer.
    with following(cli, "--json", may_say_more=True) as follower:
        shared.invalidate("first")
        assert follower.next_json()["reason"] == "first"
        follower.process.send_signal(signal.SIGSTOP)
        for number in range(300):
            shared.invalidate(f"number {number}")
        follower.process.send_signal(signal.SIGCONT)
        told: list[str] = []
        while len(told) < 300:
            told.append(follower.next_json()["reason"])
        assert told == [f"number {number}" for number in range(300)]
        assert follower.end() == ExitCode.INTERRUPTED


def _restarted_server(tmp_path: Path, *options: str) -> Any:
    return start_valkey(directory=tmp_path / "valkey", options=options)


def test_follow_survives_a_restart_that_lost_everything(cli: Cli, namespace: str) -> None:
    """It says that Redis is gone and is back, tells of the gap in each stream, and goes on."""
    with start_valkey() as server, sharing(server.url, namespace) as shared:
        there = Cli({**cli.environment, variable_of("redis_url"): server.url})
        shared.fill()
        shared.invalidate("before")
        with following(there, "--json") as follower:
            assert [follower.next_json()["kind"] for _ in range(2)] == ["fill", "invalidation"]
            server.kill()
            follower.said("it is asked again until it answers")
            server.restart()
            follower.said("another server, or was restarted")
            assert [follower.next_json()["kind"] for _ in range(2)] == ["gap", "gap"]
            shared.cache.invalidate(reason="after", wait=False)
            assert follower.next_json()["reason"] == "after"
            assert follower.end() == ExitCode.INTERRUPTED


def test_follow_survives_a_restart_that_lost_nothing(cli: Cli, namespace: str, tmp_path: Path) -> None:
    """With its streams on disk there is no gap, and what came in between is told."""
    with (
        _restarted_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server,
        sharing(server.url, namespace) as shared,
    ):
        there = Cli({**cli.environment, variable_of("redis_url"): server.url})
        shared.invalidate("before")
        with following(there, "--json") as follower:
            assert follower.next_json()["reason"] == "before"
            server.kill()
            follower.said("it is asked again until it answers")
            server.restart()
            shared.invalidate("after")
            follower.said("another server, or was restarted")
            assert follower.next_json()["reason"] == "after"
            assert follower.end() == ExitCode.INTERRUPTED


def _trim(shared: Shared) -> None:
    for number in range(5):
        shared.add("invalidations", {"reason": f"number {number}"})
    shared.client.xtrim(shared.keys.invalidations, maxlen=2, approximate=False)


def _make_anew(shared: Shared) -> None:
    shared.client.delete(shared.keys.invalidations)
    # As after a clock that stepped back: these ids are lower than the one that was read last.
    for number in (3, 4):
        shared.add("invalidations", {"reason": f"number {number}"}, id=f"{number}-1")


@pytest.mark.parametrize("how", [_trim, _make_anew], ids=["trimmed", "made anew"])
def test_a_gap_is_told_and_what_is_left_follows_once(cli: Cli, shared: Shared, how: Callable[[Shared], None]) -> None:
    """Whoever reads on knows that something may be missing; the rest is told, also with ids from before."""
    with following(cli, "--json") as follower:
        shared.add("invalidations", {"reason": "first"})
        assert follower.next_json()["reason"] == "first"
        pipeline = shared.client.pipeline(transaction=True)  # nobody reads in between
        how(Shared(shared.cache, shared.source, _Piped(pipeline), shared.keys))
        pipeline.execute()
        gap = follower.next_json()
        assert (gap["kind"], gap["stream"]) == ("gap", "invalidations")
        assert [follower.next_json()["reason"] for _ in range(2)] == ["number 3", "number 4"]
        shared.add("invalidations", {"reason": "last"}, id="*")
        assert follower.next_json()["reason"] == "last"
        assert follower.end() == ExitCode.INTERRUPTED


@dataclass
class _Piped:
    """A client whose commands go into a transaction."""

    pipeline: Any

    def xadd(self, *args: Any, **kwargs: Any) -> bytes:
        self.pipeline.xadd(*args, **kwargs)
        return b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipeline, name)


def test_a_foreign_key_in_the_place_of_a_stream_is_waited_out(cli: Cli, shared: Shared) -> None:
    """While something else stands there the other stream is followed; the next invalidate makes it anew."""
    shared.client.set(shared.keys.invalidations, "no stream")
    with following(cli, "--json") as follower:
        follower.said("no stream but something else stands")
        shared.add("events", {"event": "released", "reason": "failed", "by": "x:1"})
        assert follower.next_json()["kind"] == "release"
        shared.invalidate("repaired")
        assert follower.next_json()["reason"] == "repaired"
        assert follower.end() == ExitCode.INTERRUPTED


def test_follow_ends_when_its_reader_has_gone(cli: Cli, shared: Shared) -> None:
    """`kcg-cache log --follow | head -1` ends by itself, and not only at the next event."""
    shared.invalidate("x")
    reader, writer = os.pipe()
    with cli.start("log", "--follow", stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        assert b"invalidated" in os.read(reader, 65536)
        os.close(reader)
        _, err = process.communicate(timeout=_SECONDS)
    assert (process.returncode, err) == (ExitCode.CLOSED_PIPE, b"")


def test_a_password_that_no_longer_suffices_ends_it(cli: Cli, namespace: str) -> None:
    """Asking again and again would not help: an operator has to act, and the exit code says whose fault it is."""
    with start_valkey() as server, sharing(server.url, namespace) as shared:
        there = Cli({**cli.environment, variable_of("redis_url"): server.url})
        shared.invalidate("x")
        with following(there) as follower:
            assert "invalidated" in follower.next()
            shared.client.execute_command("ACL", "SETUSER", "default", "-xread")
            assert follower.process.wait(_SECONDS) == ExitCode.REDIS
            follower.said("the user's password or rights do not suffice")


@pytest.mark.parametrize("arguments", [(), ("--follow",), ("--json",), ("--since", "1h")], ids=" ".join)
def test_redis_down_from_the_beginning_is_a_failure(cli: Cli, arguments: tuple[str, ...]) -> None:
    """What cannot begin fails in one line: --follow waits only for what it has already seen."""
    ended = cli("log", *arguments, "--redis", NOBODY)
    assert ended.code == ExitCode.REDIS
    assert "Redis: not reachable" in test_cli.one_line(ended)


# --- the order, without servers ---------------------------------------------------------------------------------------


def _told(happenings: list[Happening]) -> list[str]:
    return [happening.fields.get("reason") or happening.fields.get("digest", "") for happening in happenings]


def test_an_invalidate_whose_halves_come_apart_is_told_once() -> None:
    """Its entry in one stream may be read before the one in the other: whichever comes second is known."""
    fields = {"time": "5000", "who": "w", "host": "h", "reason": "r", "digest": "d"}
    record, event = Logged("5-0", fields), Logged("5-0", {"event": "invalidated", **fields})
    for first, second in (((record,), ()), ((), (event,))), (((), (event,)), ((record,), ())):
        timeline = _Timeline()
        assert _told(timeline.add(*first)) == ["r"]
        assert _told(timeline.add(*second)) == []
        assert _told(timeline.add([record], [event])) == []


def test_after_a_gap_a_fill_is_no_longer_the_first() -> None:
    """What may be missing is not concluded from."""
    timeline = _Timeline()
    timeline.add([Logged("5-0", {"who": "w"})], [])
    timeline.forget_open()
    (fill,) = timeline.add([], [Logged("9-0", {"event": "filled", "digest": "d"})])
    assert (fill.after, fill.digest_before) == (None, None)
