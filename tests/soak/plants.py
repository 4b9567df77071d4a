"""Faults of the cache itself, planted to see that the audit finds them: a soak that cannot fail would prove nothing.

The first are single answers that a reader is given; the others are rules of the protocol that are taken away, so that
the fault has to come about by itself.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from kcg_cache import SharedCache, lua, postgres, receipt
from tests.soak.audit import MARKER
from tests.soak.board import Board

#: What each plant is, and the finding that it must lead to.
PLANTS = {
    "old_rows": ("a look-up returns rows from before an invalidate that had returned", "stale"),
    "older_rows_again": ("a look-up returns older rows than the one before it", "backward"),
    "rows_of_tomorrow": ("a look-up returns a version that nobody has committed", "future"),
    "foreign_row": ("a look-up returns an uncommitted row of somebody else", "uncommitted"),
    "error": ("a look-up raises an error of Redis", "exception"),
    "no_wait": ("invalidate does not wait out the leases (R7)", "stale"),
    "long_lease": ("a worker's lease lasts three seconds (R6)", "stale"),
    "unchecked_transactions": ("nobody asks whether a transaction may be shared from (R13)", "uncommitted"),
    "one_incarnation": ("a restarted server is taken for the one before (R10)", "stale"),
    "no_fence": ("publish does not look at the lock (R3)", "stale"),
}
#: What is taken away in every process, and not in one worker.
EVERYWHERE = frozenset({"no_wait", "unchecked_transactions", "one_incarnation", "no_fence"})


_LOOK_UPS_LATER = 50


def rule_removed(plant: str | None) -> None:
    """Take a rule away in this process, before it makes its cache."""
    if plant == "no_wait":
        receipt.Invalidation.wait = lambda self: self  # type: ignore[method-assign]
    elif plant == "unchecked_transactions":
        asked = postgres.origin
        postgres.origin = lambda conn: asked(conn)._replace(taint=None)
    elif plant == "one_incarnation":
        _scripts("return run_id .. '/' .. replid", "return 'one/one'")
    elif plant == "no_fence":
        _scripts("return value == expected and lock ~= nil and lock.incarnation == incarnation()", "return true")


def _scripts(old: str, new: str) -> None:
    """Replace a part of every script that has it."""
    load = lua.load.__wrapped__

    def changed(name: str) -> lua.Script:
        script = load(name)
        text = script.text.replace(old, new)
        return script._replace(text=text, sha=_sha(text))

    lua.load = changed  # type: ignore[assignment]


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def lengthened(made: SharedCache) -> None:
    """Let a cache's lease last three seconds, which no setting allows."""
    object.__setattr__(made.settings, "lease", 3.0)


def planted(plant: str | None, board: Board) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """Give what is done, once, to the rows of a look-up."""
    if plant not in ("old_rows", "older_rows_again", "rows_of_tomorrow", "foreign_row", "error"):
        return None
    first: list[Sequence[Any]] = []
    due = 0

    def once(rows: Sequence[Any]) -> Sequence[Any]:
        nonlocal due
        if not first:
            first.append(rows)
        bounds = board.floors() if plant == "old_rows" else [row["params"]["v"] for row in rows]
        due += any(bound > row["params"]["v"] for bound, row in zip(bounds, first[0], strict=False))
        # Not at once: an invalidate may be returning in the middle of this very look-up.
        if due != _LOOK_UPS_LATER:
            return rows
        if plant == "error":
            raise ConnectionError("planted")
        if plant == "rows_of_tomorrow":
            return [{**rows[0], "params": {"v": 10**9}}, *rows[1:]]
        if plant == "foreign_row":
            return [*rows, {"model_id": MARKER, "params": {"v": 0}}]
        return first[0]

    return once
