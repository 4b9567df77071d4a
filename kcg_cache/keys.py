"""Every key that kcg_cache has in Redis: its name, its type, how long it lives and which script writes it.

All keys of one dataset carry one hash tag, so that every script is single-slot in Redis Cluster. The names never
change between versions of the library (PROTOCOL, Words): one deletion reaches every version.

==================  ======  ===========================  =========================================================
key                 type    lives                        written by
==================  ======  ===========================  =========================================================
``…:entry``         hash    ``ttl + stale_if_error``     publish; deleted by invalidate
``…:lock``          string  ``lock_ttl``, renewed        read (grants), renew; deleted by publish, release, invalidate
``…:events``        stream  one day after the last one   publish, release, invalidate: wakes waiters, no evidence
``…:invalidations`` stream  for good, capped             invalidate: who, where, why, when
``…:fleet``         hash    one hour after the last one  read, publish: who reads; no evidence, and never a KEY (below)
``…:watch``         string  the watch's ttl, renewed     watch; deleted by unwatch: which watcher reads the database
``…:guard``         none    never exists                 every script that decides deletes it first (R2)
==================  ======  ===========================  =========================================================

The fleet's key is given to the scripts as an argument: a user without rights to one of a script's KEYS is refused the
whole script, and nobody shall need rights to a key that decides nothing.
"""

import re
from typing import NamedTuple

from kcg_cache.errors import ConfigurationError

#: What a namespace or a dataset may be called: no braces (they are the hash tag), no colon (the separator), no glob.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")

#: Entries that the events stream keeps, about. It shows recent history and wakes waiters; it proves nothing.
EVENTS_KEPT = 512
#: Entries that the stream of invalidations keeps, about: fills cannot push them out.
INVALIDATIONS_KEPT = 2048
#: Milliseconds that the events stream outlives its last event.
EVENTS_TTL_MS = 86_400_000
#: Microseconds after which a reader that does not ask is forgotten; readers that the fleet's hash holds at most.
#: (The scripts have both, `lua/_prelude.lua`.)
FLEET_FORGET_US = 900_000_000
FLEET_MAX = 4096


def checked_name(kind: str, name: str) -> str:
    """Give `name` back, or raise `ConfigurationError` that says what a `kind` ("dataset", …) may be called."""
    if NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{kind} {name!r}: allowed are 1 to 100 letters, digits, '_', '.' and '-', the first a letter or digit"
        )
    return name


class Keys(NamedTuple):
    """The keys of one dataset in one namespace."""

    entry: str
    lock: str
    events: str
    invalidations: str
    guard: str
    fleet: str
    watch: str

    @classmethod
    def of(cls, namespace: str, dataset: str) -> "Keys":
        """Name the keys; raise `ConfigurationError` on a name that would not be a safe part of a key."""
        return cls._tagged(f"{{{checked_name('namespace', namespace)}:{checked_name('dataset', dataset)}}}")

    @classmethod
    def patterns_of(cls, namespace: str) -> "Keys":
        """Give the glob patterns of the keys of every dataset in a namespace; raise as `of`."""
        return cls._tagged(f"{{{checked_name('namespace', namespace)}:*}}")

    @classmethod
    def _tagged(cls, tag: str) -> "Keys":
        return cls(
            entry=f"{tag}:entry",
            lock=f"{tag}:lock",
            events=f"{tag}:events",
            invalidations=f"{tag}:invalidations",
            guard=f"{tag}:guard",
            fleet=f"{tag}:fleet",
            watch=f"{tag}:watch",
        )
