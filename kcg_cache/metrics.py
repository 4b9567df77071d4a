"""The counters: every one named and explained, in one place."""

import threading

#: Each counter and what one more of it means.
COUNTERS = {
    "reads_near": "covered reads: answered from the near copy, without socket or lock (approximate under threads)",
    "reads_redis": "reads answered from the shared entry",
    "reads_database": "reads answered by a load of their own",
    "reads_handed_over": "reads answered by the private load of a thread that this one was queueing behind (R12)",
    "lease_renewals": "reads whose near copy Redis confirmed as current (SAME)",
    "scripts_read": "`read` scripts sent",
    "loads": "loads from the database begun, of every kind",
    "load_errors": "loads that raised",
    "fills_published": "fills that Redis took (PUBLISHED)",
    "fills_rejected": "fills that were overtaken by an invalidate, an expired lock or a new incarnation (REJECTED, R3)",
    "fills_given_up": "reads that were rejected three times and returned their own load (R4)",
    "fills_oversized": "fills whose payload is over max_payload (R14)",
    "fills_unanswered": "fills whose publish was not answered or not taken by Redis (R6)",
    "locks_lost": "fill locks found lost while renewing (R3)",
    "renew_errors": "renewals that Redis did not answer; the next one may",
    "release_errors": "locks that could not be released; they expire by themselves",
    "waits": "reads that waited for another's fill (R11)",
    "wait_timeouts": "reads that waited for wait_timeout and loaded for themselves (R11)",
    "private_loads": "loads that were shared with nobody because Redis did not serve (R8)",
    "tainted_reads": "loads on a connection whose transaction or server may not be shared from (R13)",
    "entries_rejected": "shared entries that were corrupt, foreign, unsigned, oversized or of an unknown format (R14)",
    "store_errors": "Redis calls that failed, of every kind",
    "breaker_opened": "times that Redis was left alone for a breaker window (R8)",
    "stale_served": "reads answered past the TTL because the load failed (R15)",
    "refreshes": "fills begun ahead of expiry (R16)",
    "near_dropped": "near copies dropped because an older request's reply came after them (R6)",
    "foreign_sources": "fills that found another database's name in the namespace (R13)",
    "bad_params": "rows whose params were no JSON object and became {}",
    "invalidations": "invalidates confirmed",
    "invalidate_errors": "invalidates that could not be confirmed (R9)",
}


class Metrics:
    """The counters of one cache in one process. Reading is free; counting off the covered path takes a lock."""

    def __init__(self) -> None:
        #: Added to without a lock: under the interpreter's own lock an addition is lost very rarely, and a lock on the
        #: covered path would cost more than the read.
        self.reads_near = 0
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Count one more `name`; an unknown name raises `KeyError`."""
        with self._lock:
            self._counts[name] += 1

    def as_dict(self) -> dict[str, int]:
        """Give all the counts as of now."""
        with self._lock:
            return self._counts | {"reads_near": self.reads_near}

    def __getitem__(self, name: str) -> int:
        return self.as_dict()[name]

    def renew_lock_after_fork(self) -> None:
        """Take a fresh lock: another thread of the parent may have held it at the fork, and is not here to let go."""
        self._lock = threading.Lock()
