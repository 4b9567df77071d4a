"""The soak in a short form: every fault once, what is planted is found, nothing is left behind."""

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kcg_cache.embedded import guard
from kcg_cache.system import SYSTEM
from tests.soak import prices, report
from tests.soak.__main__ import main
from tests.soak.audit import MARKER, Audit, model_of
from tests.soak.board import CEILING, COMMITTED, FLOOR, Board
from tests.soak.crew import ROOT, Crew, Member
from tests.soak.faults import all_faults
from tests.soak.plan import Options, Schedule, UsageError
from tests.soak.plants import PLANTS
from tests.soak.proxy import MODES
from tests.soak.servers import find_faketime
from tests.soak.tally import Applied, Tally
from tests.waiting import eventually

# It knows nothing of how the library is installed: once is enough.
pytestmark = pytest.mark.checkout

SHORT = ("--quick", "--no-pairs", "--scale", "0.3", "--workers", "4", "--json")


def soak(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run one, and give its exit code and what it found."""
    ended = subprocess.run([sys.executable, "-m", "tests.soak", *SHORT, *arguments], cwd=ROOT, stdout=-1, check=False)
    return ended.returncode, json.loads(ended.stdout)


# --- soaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("areas", [("redis",), ("database",), ("process", "clock")], ids="-".join)
def test_every_fault_once_and_every_read_is_right(areas: tuple[str, ...]) -> None:
    """Real processes, real servers; after every fault everybody comes to share rows again."""
    names = [name for name, fault in all_faults().items() if fault.area in areas]
    code, facts = soak("--faults", ",".join(names))
    assert (facts["violations"], facts["troubles"]) == ([], [])
    assert code == 0
    left_out = set(facts["left_out"])
    assert left_out == ({"clock_back", "clock_forward"} & set(names) if find_faketime() is None else set())
    assert sorted(facts["schedule"]) == sorted(set(names) - left_out)
    assert facts["reads"] > 100_000
    assert facts["invalidations_under_faults"] >= len(facts["schedule"])
    assert facts["own_uncommitted_rows_seen"] > 0
    for name, seen in facts["faults"].items():
        assert seen["everybody_max_s"] is not None, name
    if "process" in areas:
        assert facts["children"]["processes"] >= 3 * 3
        assert facts["children"]["reads"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        ("old_rows", "script_flush"),
        ("error", "script_flush"),
        ("no_wait", "script_flush"),
        ("unchecked_transactions", "script_flush"),
        ("one_incarnation", "redis_old_rdb"),
        ("no_fence", "filler_stopped"),
    ],
)
def test_what_is_planted_is_found(plant: str, fault: str) -> None:
    """A wrong answer, and a rule of the protocol that is taken away: the audit tells what it is, and fails."""
    code, facts = soak("--faults", fault, "--rounds", "2", "--scale", "1", "--plant", plant)
    assert code == 1
    assert facts["violation_count"] > 0
    assert PLANTS[plant][1] in {finding["kind"] for finding in facts["violations"]}
    assert {"reader", "at", "fault"} <= facts["violations"][0].keys()


@pytest.mark.slow
def test_a_deaf_redis_costs_each_process_one_deadline_per_window_and_one_load_per_lease() -> None:
    """Counted, not timed: failed calls and loads of each worker, against what the protocol allows (R8)."""
    code, facts = soak("--prices", "--faults", "redis_is_deaf")
    assert (facts["violations"], facts["troubles"]) == ([], [])
    assert code == 0
    assert facts["faults"]["redis_is_deaf"]["private_loads"] >= 4
    assert facts["faults"]["redis_is_deaf"]["invalidates_refused"] > 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_soak_that_is_ended(how: signal.Signals) -> None:
    """No process and no file, also of workers that are stopped at that moment."""
    place = Path(tempfile.mkdtemp(prefix="ks"))  # not tmp_path, whose name is too long for a Unix socket
    place.chmod(0o755)
    mark = f"KCG_SOAK_TEST={secrets.token_hex(8)}"
    environment = os.environ | {"TMPDIR": str(place), "KCG_SOAK_TEST": mark.partition("=")[2]}
    arguments = [*SHORT, "--scale", "1000", "--faults", "worker_stopped"]
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.soak", *arguments], cwd=ROOT, env=environment, stdout=-1, stderr=-1
    )
    with started as soaking:
        assert soaking.stderr is not None
        assert b"worker_stopped" in soaking.stderr.readline()
        eventually(lambda: "T" in states_of(guard._descendants(soaking.pid)))
        seen = {soaking.pid, *guard._descendants(soaking.pid)}
        soaking.send_signal(how)
        soaking.communicate()
    eventually(lambda: not states_of(seen).strip("ZX"))
    eventually(lambda: not [entry for entry in Path("/proc").iterdir() if mark.encode() in environment_of(entry)])
    eventually(lambda: not list(place.iterdir()))
    place.rmdir()


def states_of(pids: Any) -> str:
    """Give the states of those processes that there are, a letter for each."""
    found = ""
    for pid in pids:
        with contextlib.suppress(OSError):
            found += Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return found


def environment_of(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


# --- the audit --------------------------------------------------------------------------------------------------------


@pytest.fixture
def board() -> Iterator[Board]:
    """Give a board of two operators on which versions 2 to 5 may have been committed and 3 is in force."""
    with contextlib.closing(Board.make(2)) as board:
        for operator in range(2):
            for word, version in ((CEILING, 5), (COMMITTED, 4), (FLOOR, 3)):
                board.words[board.place(operator) + word] = version
        yield board


def rows(*versions: int) -> list[dict[str, Any]]:
    return [{"model_id": model_of(number), "params": {"v": version}} for number, version in enumerate(versions)]


def judged(board: Board, read: Sequence[Any], **bounds: tuple[int, ...]) -> Counter[str]:
    """Give the kinds of findings about one read."""
    found: list[dict[str, Any]] = []
    audit = Audit(board, found.append, SYSTEM.now)
    newest = bounds.get("newest", (0, 0))
    audit.judge(read, board.floors(), newest, reader="w", committed=bounds.get("committed"))
    assert audit.violations == len(found)
    return Counter(finding["kind"] for finding in found)


@pytest.mark.parametrize(
    ("read", "bounds", "found"),
    [
        (rows(3, 5), {}, {}),
        (rows(2, 5), {}, {"stale": 1}),
        (rows(2, 2), {}, {"stale": 2}),
        (rows(4, 6), {}, {"future": 1}),
        (rows(3, 3), {"newest": (3, 4)}, {"backward": 1}),
        (rows(4, 4), {"newest": (3, 4), "committed": (4, 4)}, {}),
        (rows(3, 4), {"committed": (4, 4)}, {"forced_old": 1}),
        ([*rows(3, 3), {"model_id": MARKER, "params": {"v": 0}}], {}, {"uncommitted": 1}),
        ([*rows(2, 3), {"model_id": MARKER, "params": {"v": 0}}], {}, {"uncommitted": 1, "stale": 1}),
        (rows(3), {}, {"rows": 1}),
        ([], {}, {"rows": 1}),
        ([{"model_id": model_of(0), "params": {}}, *rows(3, 3)[1:]], {}, {"rows": 1}),
    ],
)
def test_a_read_is_held_against_what_was_in_force_before_it_and_committed_before_its_end(
    board: Board, read: Sequence[Any], bounds: dict[str, tuple[int, ...]], found: dict[str, int]
) -> None:
    """For each operator's version by itself; and what is nobody's to read."""
    assert judged(board, read, **bounds) == Counter(found)


def test_what_one_thread_was_given_binds_the_others(board: Board) -> None:
    """The newest versions of a process grow, and one that cannot be does not count."""
    audit = Audit(board, lambda _: None, SYSTEM.now)
    audit.judge(rows(3, 5), board.floors(), audit.newest, reader="w.0")
    audit.judge(rows(4, 3), board.floors(), (0, 0), reader="w.1")
    assert audit.newest == (4, 5)
    audit.judge(rows(99, 5), board.floors(), audit.newest, reader="w.0")
    assert audit.newest == (5, 5)


def test_what_a_transaction_saw_by_itself_binds_nobody(board: Board) -> None:
    """It is the one exception; but others' rows it sees no more than anybody else."""
    found: list[dict[str, Any]] = []
    audit = Audit(board, found.append, SYSTEM.now)
    audit.judge(rows(5, 5), board.floors(), audit.newest, reader="w.0", binds=False)
    assert (audit.newest, found) == ((0, 0), [])
    marked = [*rows(5, 5), {"model_id": MARKER, "params": {"v": 0}}]
    audit.judge(marked, board.floors(), audit.newest, reader="w.0", binds=False)
    assert [finding["kind"] for finding in found] == ["uncommitted"]


def test_another_process_sees_the_board(board: Board) -> None:
    """By the descriptor that it inherits."""
    other = Board(os.dup(board.descriptor), 2, writable=False)
    with contextlib.closing(other):
        board.words[board.place(1) + FLOOR] = 7
        assert other.floors() == (3, 7)
        assert (other.committed(), other.ceilings()) == ((4, 4), (5, 5))
        with pytest.raises(TypeError):
            other.words[0] = 1


# --- what is to be done -----------------------------------------------------------------------------------------------


def steps(seed: int, *, pairs: bool, count: int = 60) -> list[tuple[str, ...]]:
    names = {name: fault.area for name, fault in all_faults().items()}
    return list(itertools.islice(Schedule(list(names), names, seed, pairs).steps(), count))


def test_a_seed_says_which_faults_come_in_which_order() -> None:
    """So that a run can be repeated."""
    assert steps(7, pairs=True) == steps(7, pairs=True)
    assert steps(7, pairs=True) != steps(8, pairs=True)


def test_every_round_has_every_fault_once_and_pairs_are_of_different_areas() -> None:
    """A pair adds a second fault to a step."""
    faults = all_faults()
    each = [step[0] for step in steps(3, pairs=True, count=2 * len(faults))]
    assert Counter(each) == dict.fromkeys(faults, 2)
    together = [step for step in steps(3, pairs=True, count=300) if len(step) == 2]
    assert together
    assert all(faults[one].area != faults[other].area for one, other in together)
    assert all(len(step) == 1 for step in steps(3, pairs=False))


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"operators": 65}, {"minutes": 0.0}, {"minutes": float("nan")}, {"rounds": 0}]
)
def test_an_option_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Options(**wrong)


def test_an_unknown_fault_is_refused_with_the_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and nothing is started."""
    with pytest.raises(SystemExit) as ended:
        main(["--faults", "redis_killed,redis_kiled"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "redis_kiled;" in said
    assert "flushall" in said


def test_the_list_says_what_each_fault_does(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each."""
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(all_faults())


# --- what came out ----------------------------------------------------------------------------------------------------


def window(**counts: int) -> dict[str, Any]:
    return {
        "part": "during",
        "worker": "w",
        "seconds": 7.2,
        "slowest": 0.51,
        "slow": 3,
        "errors": 0,
        "counts": {"store_errors": 0, "renew_errors": 0, "loads": 0, **counts},
    }


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ({"store_errors": 4, "loads": 8}, True),
        ({"store_errors": 6, "renew_errors": 2, "loads": 8}, True),
        ({"store_errors": 5, "loads": 8}, False),
        ({"store_errors": 4, "loads": 9}, False),
    ],
)
def test_a_process_may_cost_one_deadline_per_breaker_window_and_one_load_per_lease(
    counts: dict[str, int], *, kept: bool
) -> None:
    """In seven seconds, with the default settings: four and eight."""
    applied = Applied(1, "redis_is_deaf", 0.0, windows=[window(**counts)])
    (budget,) = prices.budgets(applied)
    assert budget.kept is kept


def test_a_run_without_reads_or_invalidations_or_with_a_trouble_is_not_good() -> None:
    """Nothing is taken for success that shows nothing."""
    tally = Tally()
    assert not tally.good, "nothing was read"
    tally.hear("w1", {"event": "report", "reads": 5, "special": 0, "exempt": 0, "own_writes_seen": 0, "metrics": {}})
    reads_alone = tally.good
    tally.hear("p", {"event": "invalidated", "faults": [0], "repeats": 0})
    both = tally.good
    tally.hear("w1", {"event": "trouble", "what": "a child hung"})
    assert (reads_alone, both, tally.good) == (False, True, False)


def test_what_came_out_goes_between_the_markers_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    """The soak and the price list each have a place, and a second run replaces the first."""
    page = tmp_path / "page.md"
    markers = ("<!-- soak: written by scripts/soak -->\n", "<!-- end of the soak -->\n")
    page.write_text("before\n" + "old\n".join(markers) + "after\n")
    tally = Tally(versions={"server": "9", "postgres": "18"}, applied={1: Applied(1, "flushall", 0.0)})
    for _ in range(2):
        report.record(tally, ["--seed", "3"], of_prices=False, page=page)
    text = page.read_text()
    assert text.startswith("before\n" + markers[0])
    assert text.endswith(markers[1] + "after\n")
    assert "old" not in text
    assert text.count("`scripts/soak --seed 3`") == 1
    assert text.count("| flushall ") == 1
    with pytest.raises(ValueError, match="price list"):
        report.record(tally, [], of_prices=True, page=page)


# --- the proxy --------------------------------------------------------------------------------------------------------


class Echo:
    """A server that answers each line with the same line, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = list(self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listener.accept()[0],), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while line := client.recv(65536):
                self.asked += line
                client.sendall(line)


class Proxied:
    """A proxy in a process of its own, in front of an echo."""

    def __init__(self, crew: Crew, echo: Echo) -> None:
        self._crew = crew
        self._member: Member = crew.start("proxy", "proxy", {"upstream": {"echo": echo.address}, "seed": 1})
        self.echo = echo
        self.port = int(self._answer("ready")["ports"]["echo"])

    def set(self, mode: str, seconds: float = 0.0) -> int:
        self._member.tell(proxy="echo", mode=mode, seconds=seconds)
        return int(self._answer("set")["hits"])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def _answer(self, event: str) -> dict[str, Any]:
        heard = eventually(lambda: [message for _, message in self._crew.listen(0.1)])
        assert heard[0]["event"] == event, self._member.complaints
        return heard[0]


@pytest.fixture
def proxied() -> Iterator[Proxied]:
    """Give a proxy in front of an echo."""
    with contextlib.closing(Echo()) as echo, Crew() as crew:
        yield Proxied(crew, echo)


def test_a_proxy_that_does_nothing_passes_everything_both_ways(proxied: Proxied) -> None:
    """Also more than fits into one buffer, and the end."""
    with proxied.connect() as client:
        much = os.urandom(3_000_000)

        def ask() -> None:
            client.sendall(much)
            client.shutdown(socket.SHUT_WR)

        threading.Thread(target=ask, daemon=True).start()
        got = b""
        while chunk := client.recv(1_000_000):
            got += chunk
        assert got == much
    assert proxied.set("pass") == 0


def test_a_proxy_that_drops_lets_questions_through_and_no_answers(proxied: Proxied) -> None:
    """What was asked happened. When it is over, a connection that lost an answer is reset: the next would be wrong."""
    with proxied.connect() as client, proxied.connect() as other:
        client.sendall(b"1")
        assert client.recv(9) == b"1"
        proxied.set("drop")
        client.sendall(b"2")
        eventually(lambda: proxied.echo.asked == b"12")
        eventually(lambda: proxied.set("drop") >= 1)
        with pytest.raises(ConnectionResetError):
            client.recv(9)
        proxied.set("pass")
        other.sendall(b"3")
        assert other.recv(9) == b"3"


def test_a_proxy_that_delays_brings_everything_in_order(proxied: Proxied) -> None:
    """Every chunk is held back, both ways."""
    with proxied.connect() as client:
        proxied.set("delay", 0.05)
        for number in range(5):
            client.sendall(b"%d" % number)
        got = b""
        while len(got) < 5:
            got += client.recv(9)
        assert got == b"01234"
    assert proxied.set("pass") >= 2


def test_a_deaf_proxy_hears_when_it_is_over(proxied: Proxied) -> None:
    """Nothing arrives until then, and then everything does, of connections made before and meanwhile."""
    with proxied.connect() as before:
        before.sendall(b"1")
        assert before.recv(9) == b"1"
        proxied.set("deaf")
        with proxied.connect() as meanwhile:
            before.sendall(b"2")
            meanwhile.sendall(b"3")
            eventually(lambda: proxied.set("deaf") == 2)  # it knows of both
            assert proxied.echo.asked == b"1"
            assert proxied.set("pass") == 2
            assert (before.recv(9), meanwhile.recv(9)) == (b"2", b"3")


def test_a_proxy_that_half_closes_takes_questions_and_ends_the_answers(proxied: Proxied) -> None:
    """The asker is told that nothing more comes; what it asked, and asks, happens."""
    with proxied.connect() as client:
        proxied.set("half_close")
        client.sendall(b"q" * 1000)  # more than is let through
        while client.recv(65536):
            pass
        client.sendall(b"again")
        eventually(lambda: proxied.echo.asked == b"q" * 1000 + b"again")
        assert proxied.set("pass") >= 1


@pytest.mark.parametrize("mode", ["cut", "refuse"])
def test_a_proxy_that_cuts_or_refuses_resets(proxied: Proxied, mode: str) -> None:
    """In the middle of an answer, or at once; and new connections are good when it is over."""
    proxied.set(mode)

    def ask() -> None:
        with proxied.connect() as client:
            client.sendall(b"q" * 1000)
            while client.recv(65536):
                pass

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask()
    assert proxied.set("pass") == 1
    with proxied.connect() as client:
        client.sendall(b"1")
        assert client.recv(9) == b"1"


def test_a_proxy_whose_server_is_gone_resets(proxied: Proxied) -> None:
    """As a host does on which nobody listens; it may come before connect() has returned."""
    proxied.echo.close()
    with pytest.raises(ConnectionResetError), proxied.connect() as client:
        client.recv(9)


def test_every_fault_between_is_a_mode_that_the_proxy_knows() -> None:
    """A mode that is misspelt would do nothing."""
    modes = {fault._mode for fault in all_faults().values() if hasattr(fault, "_mode")}
    assert modes == set(MODES) - {"pass"}
