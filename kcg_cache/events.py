"""Every event that the log may tell: its stable name, its level and what it means, in one list.

docs/logging.md is held to it by a test, and so is every line of code that logs.
"""

import logging


class Event:
    """What one line of the log is about."""

    __slots__ = ("details", "ends", "level", "limited", "meaning")

    def __init__(
        self, level: int, meaning: str, details: tuple[str, ...] = (), *, limited: bool = True, ends: str = ""
    ) -> None:
        self.level = level
        #: What happened, and what to do if anything.
        self.meaning = meaning
        #: The names of its details (`kcg_details`), which are kept from version to version.
        self.details = details
        #: Whether no more than `log.LINES` a minute are written: what a lasting or flapping fault could repeat. What an
        #: operator does himself is written each time.
        self.limited = limited
        #: It says that another event is over, and is written where that one was.
        self.ends = ends


EVENTS = {
    "invalidated": Event(
        logging.INFO,
        "somebody withdrew the shared rows, and Redis confirmed it",
        ("who", "host", "reason", "existed", "digest"),
        limited=False,
    ),
    "invalidate_failed": Event(
        logging.ERROR,
        "an invalidate was not confirmed: repeat it until it is (R9)",
        ("reason", "error"),
        limited=False,
    ),
    "redis_failed": Event(
        logging.WARNING,
        "Redis failed at something; the message says at what, and what the cache does instead (R8). Once for each "
        "operation and symptom, until the operation works again",
        ("error",),
    ),
    "redis_back": Event(
        logging.INFO, "Redis answers again, after a `redis_failed`", limited=False, ends="redis_failed"
    ),
    "tainted": Event(
        logging.WARNING,
        "a caller reads inside a transaction, or on a standby, whose rows may be shared with nobody (R13). Once for "
        "each reason",
        ("reason",),
    ),
    "entry_rejected": Event(
        logging.WARNING,
        "the shared entry is corrupt, foreign, unsigned, too large or of an unknown format, and counts as none (R14). "
        "Once for each reason",
    ),
    "bad_params": Event(logging.WARNING, "a row's params are no JSON object, and became {}"),
    "foreign_source": Event(
        logging.ERROR,
        "another database filled this namespace before: two environments share it, or it was moved (R13). Once for "
        "each pair",
        ("before", "now"),
    ),
    "oversized": Event(
        logging.ERROR,
        "the rows are over max_payload and are not shared: every process loads for itself (R14). Once",
        ("bytes", "max_payload"),
    ),
    "load_failed": Event(
        logging.WARNING, "a load failed, and the rows before it were served in its place (R15, R16)", ("error",)
    ),
    "renew_failed": Event(
        logging.WARNING, "a fill lock could not be renewed; the next time may do (R3). Once, until one does", ("error",)
    ),
    "release_failed": Event(
        logging.WARNING, "a fill lock could not be given back, and expires by itself (R11)", ("error",)
    ),
    "lock_lost": Event(
        logging.INFO, "an invalidate, an expiry or a restart took a fill lock: the fill will be rejected (R3)"
    ),
    "exporter_failed": Event(
        logging.WARNING,
        "what exports the metrics raised: they may be wrong, and reads go on. Once",
        ("error",),
    ),
}
#: Details that any limited event may have: how many lines of it were left out before this one, and for how many seconds
#: none is written after it (see `log.LINES`).
SUPPRESSED, SILENT_FOR = "suppressed", "silent_for"
