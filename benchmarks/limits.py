"""What one Redis carries, as formulas with the recorded figures in them: the table of docs/scaling.md."""

from typing import Any

from benchmarks.results import Table, amount, duration

#: Processes of the fleets that the table is made for.
FLEETS = (100, 1_000, 10_000)
#: What a core is planned to be used, so that there is room for a fill, a restart and a slow neighbour.
PLANNED = 0.5
_GIGABIT = 1e9 / 8


def limits(fleet: dict[str, Any], scaling: dict[str, Any], wave: dict[str, Any]) -> Table:
    """Make the table of the figures that the benchmarks `fleet`, `scaling` and `wave` recorded."""
    fastest, steady = fleet["the same, as fast as it goes"], fleet["256 readers"]
    idle = fleet["no reader"]
    core = fastest["core"] / fastest["questions"]
    received, sent = ((steady[way] - idle[way]) / steady["questions"] for way in ("bytes_in", "bytes_out"))
    replicated = scaling["replication, present=True"]
    copied = replicated["replicated"] / replicated["questions"]
    rows = [
        _row("questions a second", "P × D ÷ lease", "lease 1 s, D = 1", lambda p: f"{p:,}"),
        _row("share of one core, steady", f"questions × {duration(core)}", "", lambda p: f"{p * core:.1%}"),
        _row("network in, steady", f"questions × {amount(received)}", "", lambda p: f"{amount(p * received)}/s"),
        _row("network out, steady", f"questions × {amount(sent)}", "", lambda p: f"{amount(p * sent)}/s"),
        _row(
            "to each replica, and to an AOF", f"questions × {amount(copied)}", "", lambda p: f"{amount(p * copied)}/s"
        ),
        _row("connections", "P × caches with a URL each", "one", lambda p: f"{p:,}"),
        _row(
            "memory for connections",
            f"connections × {amount(fleet['memory per reader'])}",
            "",
            lambda p: amount(p * fleet["memory per reader"]),
        ),
    ]
    for size in ("M", "L"):
        waves = wave[f"{size}, 1 Gbit/s"]
        entry = waves[0]["payload"]
        each = waves[0]["bytes_out"] / len(waves[0]["arrivals"])
        busy = min(one["server"] / len(one["arrivals"]) for one in waves)
        rows += [
            _row(
                f"bytes after an invalidate, {size}",
                f"P × {amount(each)}",
                f"entry of {amount(entry)}",
                lambda p, each=each: amount(p * each),
            ),
            _row(
                f"… on a wire of 1 Gbit/s, {size}",
                "bytes ÷ 125 MB/s",
                "",
                lambda p, each=each: duration(p * each / _GIGABIT),
            ),
            _row(
                f"… of the server's core, {size}", f"P × {duration(busy)}", "", lambda p, busy=busy: duration(p * busy)
            ),
        ]
    head = ("what", "formula", "with", *(f"P = {processes:,}" for processes in FLEETS))
    return Table("P processes, each with one cache of each of D datasets", head, tuple(rows))


def _row(what: str, formula: str, given: str, figure: Any) -> tuple[str, ...]:
    return (what, formula, given, *(figure(processes) for processes in FLEETS))


def readers_of_a_core(fleet: dict[str, Any]) -> int:
    """Give how many processes with one dataset each use a core as much as planned."""
    fastest = fleet["the same, as fast as it goes"]
    return int(PLANNED * fastest["questions"] / fastest["core"])
