"""Sentinel and Cluster in a short form (scripts/failover is the long one): masters fail, and every read is right."""

import contextlib
import dataclasses
import selectors
import socket
from typing import Any

import pytest

from tests.soak.crew import Crew
from tests.soak.tally import Applied
from tests.topology import cluster, figures, network, outages, play, sentinel
from tests.topology.__main__ import main
from tests.topology.nodes import FAR, NEAR
from tests.topology.probe import TAKEN, Change, Probe

# It knows nothing of how the library is installed: once is enough.
pytestmark = [pytest.mark.checkout, pytest.mark.slow, pytest.mark.beside]

#: One near who asks every time, one far, one near with a lease.
FLEET = play.Fleet(workers=3, operators=1, seed=2, pairs=False, quick=True)
#: For outages that are over by themselves: what comes after them need not be long.
BRISK = dataclasses.replace(FLEET, scale=0.3)
#: A master that is cut off goes on for three seconds at most, and no other is chosen before five.
SAFE = sentinel.Timing(down_after=5000, min_replicas=1, max_lag=1)
#: It goes on for as long as it is cut off.
UNSAFE = sentinel.Timing(down_after=1000, min_replicas=0)


def played(dsn: str, timing: sentinel.Timing | None, *names: str, fleet: play.Fleet = FLEET) -> dict[str, Any]:
    """Play these outages with Sentinels of this timing, or in a Cluster, and give what came out."""
    known = outages.OF_CLUSTERS if timing is None else outages.OF_SENTINELS
    faults = [known[name] for name in names]

    def topology(crew: Crew) -> Any:
        return cluster.started(crew, cluster.Timing()) if timing is None else sentinel.started(crew, timing)

    return figures.document(play.run(fleet, topology, faults, lambda _: None, dsn=dsn))


def test_no_read_is_stale_beside_a_master_that_is_cut_off(pg_dsn: str) -> None:
    """It serves readers until it misses its replicas; then they ask the Sentinels, and nobody sees a withdrawn row."""
    found = played(pg_dsn, SAFE, "partitioned")
    assert (found["violations"], found["troubles"], found["good"]) == ([], [], True)
    (outage,) = found["outages"]
    assert outage["invalidates_refused"] > 0
    assert outage["private_loads"] > 0


def test_without_min_replicas_readers_beside_it_are_served_withdrawn_rows(pg_dsn: str) -> None:
    """What the setting is for, and that the audit sees it."""
    found = played(pg_dsn, UNSAFE, "partitioned")
    assert not found["good"]
    assert found["troubles"] == []
    assert {finding["kind"] for finding in found["violations"]} == {"stale"}
    (outage,) = found["outages"]
    assert outage["both_s"] > 0
    assert outage["stale"] > 0


def test_no_read_is_stale_when_the_master_is_killed(pg_dsn: str) -> None:
    """An invalidate that returned may not have reached the replica that takes over: its copy is of another master."""
    found = played(pg_dsn, sentinel.Timing(down_after=1000), "killed", fleet=BRISK)
    assert (found["violations"], found["troubles"], found["good"]) == ([], [], True)
    assert found["outages"][0]["named_s"] is not None


def test_no_read_is_stale_in_a_cluster_whose_slot_moves_and_whose_master_is_killed(pg_dsn: str) -> None:
    """While keys are on two nodes scripts are refused, which is an outage like another."""
    found = played(pg_dsn, None, "slot_moved", "slot_moved_at_once", "failed_over", "killed", fleet=BRISK)
    assert (found["violations"], found["troubles"], found["good"]) == ([], [], True)
    assert found["unlogged"] == 0
    by_name = {outage["outage"]: outage for outage in found["outages"]}
    assert {
        what for what in by_name["slot_moved"]["refusals"] if "the cluster does not serve the key now" not in what
    } == set()
    assert by_name["slot_moved"]["invalidates_refused"] > 0


# --- its parts --------------------------------------------------------------------------------------------------------


def test_a_relay_cuts_by_user_and_nobody_is_told() -> None:
    """What one that is cut says arrives when the cut is over; others do not notice."""
    with selectors.DefaultSelector() as selector, socket.create_server(("127.0.0.1", 0)) as behind:
        relay = network.Relay(behind.getsockname(), selector)

        def heard(server: socket.socket) -> bytes:
            """Let the relay do all that it has to, and give what has come."""
            while events := selector.select(0.2):
                for key, mask in events:
                    key.data(mask)
            try:
                return server.recv(100)
            except BlockingIOError:
                return b""

        with contextlib.ExitStack() as stack:
            clients, servers = {}, {}
            for user in (NEAR, FAR):
                client = clients[user] = stack.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
                client.sendall(f"*3\r\n$4\r\nAUTH\r\n${len(user)}\r\n{user}\r\n$1\r\nx\r\n".encode())
                for key, mask in selector.select(30):
                    key.data(mask)
                server = servers[user] = stack.enter_context(behind.accept()[0])
                server.setblocking(False)
                assert heard(server).startswith(b"*3")
            assert relay.cut(frozenset({FAR})) == 1
            clients[FAR].sendall(b"from far")
            clients[NEAR].sendall(b"from near")
            assert (heard(servers[NEAR]), heard(servers[FAR])) == (b"from near", b"")
            assert relay.cut(frozenset()) == 0
            assert heard(servers[FAR]) == b"from far"
            relay.close()


def test_the_probe_tells_for_how_long_two_took_writes() -> None:
    """Of spans that overlap, also where one lies within another."""
    probe = Probe([None, None, None])  # type: ignore[list-item]
    probe.changes = [Change(1, 0, TAKEN), Change(4, 1, TAKEN), Change(6, 0, "NOREPLICAS"), Change(5, 2, TAKEN)]
    probe.changes += [Change(5.5, 2, "ReadOnlyError")]
    assert probe.taken(0, 2, 9) == [(2, 6)]
    assert probe.taken(1, 2, 9) == [(4, 9)]
    assert probe.both_took(2, 9) == 2 + 0.5
    assert probe.both_took(7, 9) == 0


def test_the_tables_have_a_row_for_each_outage() -> None:
    """Times are of the outage's beginning; what did not happen is a dash."""
    tally = play.Watched()
    tally.applied[1] = Applied(1, "partitioned", 1.0)
    tally.seen[1] = play.Seen(10.0, named=2.5, taken={0: [(0.0, 1.25)], 1: [(2.5, 9.0)]}, stale=[(3.0, 0.5, "w0.0")])
    tally.left_out["handed_back"] = "this server's Sentinel cannot"
    lines = figures.lines(figures.document(tally))
    (row,) = [line for line in lines if line.startswith("| `partitioned`")]
    assert row.split(" | ")[1:6] == ["2.50 s", "1.25 s", "–", "1", "0.50 s"]
    assert lines[-1] == "- left out: handed_back: this server's Sentinel cannot"


def test_the_command_lists_outages_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it does."""
    assert main(["cluster", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(outages.OF_CLUSTERS)
    for wrong in (["cluster", "--outages", "no_such"], ["sentinel", "--workers", "0"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
