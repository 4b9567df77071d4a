"""The command: scripts/failover."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tests.soak.crew import Crew
from tests.soak.faults import Fault
from tests.soak.plan import UsageError
from tests.topology import cluster, figures, outages, play, sentinel
from tests.topology.nodes import FAR, NEAR

_INTERRUPTED = 130
_OUTAGES: Mapping[str, Mapping[str, Fault]] = {"sentinel": outages.OF_SENTINELS, "cluster": outages.OF_CLUSTERS}
_SIDES = {"far": (FAR,), "near": (NEAR,), "both": (NEAR, FAR)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play; 0 if every read was right, 1 if not, 2 for a wrong command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(given)
    known = _OUTAGES[options.topology]
    if options.list:
        for name, fault in known.items():
            sys.stdout.write(f"{name:26} {fault.what}\n")
        return 0
    names = [name.strip() for name in options.outages.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no outage is called {', '.join(unknown)}; there are: {', '.join(known)}")
    try:
        fleet = play.Fleet(
            workers=options.workers, operators=options.operators, seed=options.seed, pairs=False, quick=options.quick
        )
        faults = [known[name] for name in names or known]
        sides = _SIDES[options.operators_are]
        tally = play.run(fleet, _topology(options), faults, _say, operators=sides, plain=options.plain)
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        _say("interrupted")
        return _INTERRUPTED
    found = figures.document(tally)
    if options.record:
        figures.record(found, options.record, given)
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else "\n".join(figures.lines(found)) + "\n")
    return 0 if tally.good else 1


def _topology(options: argparse.Namespace) -> Callable[[Crew], AbstractContextManager[Any]]:
    if options.topology == "cluster":
        timing_of_cluster = cluster.Timing(options.node_timeout, options.min_replicas or 0, options.max_lag)
        return lambda crew: cluster.started(crew, timing_of_cluster)
    least = 1 if options.min_replicas is None else options.min_replicas
    timing = sentinel.Timing(options.down_after, least, options.max_lag)
    return lambda crew: sentinel.started(crew, timing)


def _say(line: str) -> None:
    if line.startswith("VIOLATION"):  # hundreds, where they are to be expected; the document has them
        return
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/failover",
        description="Let masters of a Sentinel or Cluster topology fail under a fleet of real processes, and audit "
        "every read (docs/failover.md).",
        epilog="Exit codes: 0 every read was right, 1 one was not, or something hung, 2 wrong usage, 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("topology", choices=sorted(_OUTAGES), help="a master, two replicas, three Sentinels; or a Cluster of 3 + 3")
    add("--outages", metavar="A,B", default="", help="these, in this order (all)")
    add("--workers", metavar="N", type=int, default=6, help="worker processes, every other one beside the master (6)")
    add("--operators", metavar="N", type=int, default=2, help="operators, each with a model of its own (2)")
    add("--operators-are", choices=sorted(_SIDES), default="far", help="on which side of a partition (far)")
    add("--seed", metavar="N", type=int, default=2, help="odd ones sign entries (2)")
    add("--down-after", metavar="MS", type=int, default=4000, help="Sentinel's down-after-milliseconds (4000)")
    add("--node-timeout", metavar="MS", type=int, default=2000, help="a Cluster's cluster-node-timeout (2000)")
    add("--min-replicas", metavar="N", type=int, help="min-replicas-to-write (1; of a Cluster 0)")
    add("--max-lag", metavar="S", type=int, default=2, help="min-replicas-max-lag (2)")
    add("--plain", action="store_true", help="give the fleet redis-py's own clients in place of a URL")
    add("--quick", action="store_true", help="short leases and locks; the servers need not be whole at the end")
    add("--record", metavar="NAME", help="write what came out into docs/failover.md, in the place of this name")
    add("--json", action="store_true", help="give what came out as JSON on standard output")
    add("--list", action="store_true", help="list the outages and do nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
