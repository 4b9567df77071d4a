"""What happens when Redis does not do what it was asked: one table, and the breaker.

Which failure it was (`symptom`) and what was being done (`Operation`) decide, never a command's name.
"""

import enum
from collections.abc import Callable

from kcg_cache.system import System


class Operation(enum.Enum):
    """What Redis was asked for."""

    READ = "read"
    WAIT = "wait"
    RENEW = "renew"
    PUBLISH = "publish"
    RELEASE = "release"
    INVALIDATE = "invalidate"
    INSPECT = "inspect"


class Behaviour(enum.Enum):
    """What follows."""

    #: Load privately, and leave Redis alone for a breaker window (PROTOCOL R8).
    PRIVATE_AND_OPEN = "private, breaker opens"
    #: Keep the loaded rows privately, with a lease from before the query (PROTOCOL R6); the next call asks Redis again.
    PRIVATE = "private"
    #: Sleep for as long as the stream would have been waited for, then ask again (PROTOCOL R11).
    POLL = "poll"
    #: Count it and go on: what was asked for is not needed for safety, and expires by itself (PROTOCOL R3).
    GO_ON = "go on"
    #: The caller must know (PROTOCOL R9).
    RAISE = "raise"


#: Every symptom that `kcg_cache.redis_errors` gives, and what it means.
SYMPTOMS = {
    "timeout": "no answer within redis_timeout",
    "connection": "refused, reset, closed or unresolvable",
    "pool": "the client's own connection pool is exhausted",
    "loading": "the server is loading its data set, or a script of someone's holds it up",
    "readonly": "the server is a replica, or will not write (failed over, or its disk failed)",
    "replicas": "the server has too few replicas to accept writes (min-replicas-to-write)",
    "cluster": "the cluster does not serve this slot now",
    "denied": "the password or the rights of this user do not suffice",
    "certificate": "TLS was not agreed on: a certificate is missing, or is not believed",
    "memory": "the server is over maxmemory and evicts nothing",
    "incarnation": "the server does not tell run_id and master_replid",
    "reply": "an error or a reply that none of the others is",
}

#: Symptoms of a Redis that does not answer at all: a second call would cost a second deadline.
NO_ANSWER = frozenset({"timeout", "connection", "pool"})

_BY_OPERATION: dict[Operation, Callable[[str], Behaviour]] = {
    Operation.READ: lambda _: Behaviour.PRIVATE_AND_OPEN,
    # A server that answers, and only will not let this user read the stream, still grants and takes fills.
    Operation.WAIT: lambda symptom: Behaviour.PRIVATE_AND_OPEN if symptom in NO_ANSWER else Behaviour.POLL,
    Operation.RENEW: lambda _: Behaviour.GO_ON,
    Operation.PUBLISH: lambda symptom: Behaviour.PRIVATE_AND_OPEN if symptom in NO_ANSWER else Behaviour.PRIVATE,
    Operation.RELEASE: lambda _: Behaviour.GO_ON,
    Operation.INVALIDATE: lambda _: Behaviour.RAISE,
    Operation.INSPECT: lambda _: Behaviour.RAISE,
}

#: symptom × operation → behaviour, complete. `cache` looks up READ, WAIT and PUBLISH; what RENEW and RELEASE (in
#: `filling`), INVALIDATE and INSPECT do is the same for every symptom, and a test holds the table to it.
TABLE = {(symptom, operation): _BY_OPERATION[operation](symptom) for symptom in SYMPTOMS for operation in Operation}


class Breaker:
    """Keeps a dead or hung Redis from costing more than one deadline per window (PROTOCOL R8).

    Closed, everyone may ask. After a failure nobody may for `window` seconds; then one caller may try, and the others
    stay out for another window, until that one succeeds.
    """

    def __init__(self, window: float, system: System) -> None:
        self._window = window
        self._now = system.now
        self._new_lock = system.lock
        self._lock = self._new_lock()
        self._open = False
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether Redis failed last."""
        return self._open

    def allows(self) -> bool:
        """Tell whether to ask Redis; after the window, only the first caller is told so."""
        if not self._open:
            return True
        with self._lock:
            now = self._now()
            if now < self._until:
                return False
            # The others stay out while this caller tries: two would pay two deadlines in one window.
            self._until = now + self._window
            return True

    def failed(self) -> bool:
        """Note a failure; tell whether it is the first."""
        with self._lock:
            first = not self._open
            self._open = True
            self._until = self._now() + self._window
            return first

    def succeeded(self) -> bool:
        """Note that Redis answered; tell whether it had failed before."""
        if not self._open:
            return False
        with self._lock:
            was_open, self._open = self._open, False
            return was_open

    def renew_lock_after_fork(self) -> None:
        """Take a fresh lock: another thread of the parent may have held it at the fork, and is not here to let go."""
        self._lock = self._new_lock()
