"""One rule broken on purpose, and the smallest exploration that shows what then happens.

The names are what `Config.mutation` and `Config.without` may be.
"""

from dataclasses import replace
from typing import NamedTuple

from tests.model.config import Config, budget


class Mutation(NamedTuple):
    """A broken rule."""

    rule: str
    what: str
    #: Where it shows.
    config: Config


def _shown(name: str, rule: str, what: str, *workers: tuple[str, ...], **options: object) -> tuple[str, Mutation]:
    amounts = {key: value for key, value in options.items() if isinstance(value, int) and not isinstance(value, bool)}
    amounts = {key: value for key, value in amounts.items() if key not in {"tries", "operator_in"}}
    rest = {key: value for key, value in options.items() if key not in amounts}
    config = Config(f"mutation {name}", workers, budget(**amounts), mutation=name)
    return name, Mutation(rule, what, replace(config, **rest))  # type: ignore[arg-type]


#: Every mutation that PROTOCOL names, in its order; then some of our own.
MUTATIONS: dict[str, Mutation] = dict(
    [
        _shown(
            "entry_incarnation_unchecked", "R2, R10", "`read` serves an entry of another incarnation",
            ("pp",), commit=1, invalidate=1, save=1, failover=1,
        ),
        _shown(
            "invalidate_keeps_lock", "R3", "`invalidate` deletes only the entry",
            ("p",), ("p",), commit=1, invalidate=1,
        ),
        _shown(
            "publish_without_token", "R3", "`publish` does not compare the token",
            ("pf",), ("f",), commit=1, clock=1, lock_ends=1,
        ),
        _shown(
            "publish_without_grant", "R3", "`publish` does not compare the grant time",
            ("p",), ("p",), commit=1, invalidate=1, duplicate=1,
        ),
        _shown(
            "publish_without_incarnation", "R3", "`publish` does not compare the incarnation, and stores the server's",
            ("p",), ("p",), commit=1, invalidate=1, save=1, failover=1,
        ),
        _shown(
            "loaded_at_from_publish", "R5", "`loaded_at` is taken when the rows are published",
            ("p",), ("f",), commit=1,
        ),
        _shown(
            "rejected_filler_keeps", "R4", "a rejected filler keeps its copy",
            ("pp",), commit=1, invalidate=1,
        ),
        _shown(
            "lease_from_reply", "R6", "a lease counts from the reply",
            ("ppp",), commit=1, invalidate=1,
        ),
        _shown("no_wait", "R7", "`invalidate()` does not wait", ("pp",), commit=1, invalidate=1),
        _shown(
            "wait_from_call", "R7", "`invalidate()` waits from its call on, not from its reply",
            ("ppp",), commit=1, invalidate=1,
        ),
        _shown(
            "lost_invalidate_succeeds", "R9", "an invalidate that is lost is reported as a success",
            ("pp",), commit=1, invalidate=1, lose=1,
        ),
        _shown(
            "renew_creates", "R3", "`renew` creates the lock that is gone",
            ("p",), ("p",), commit=1, invalidate=1, renew=1,
        ),
        _shown(
            "xread_from_dollar", "R11", "a waiter reads the events from what is the newest when it begins to wait",
            ("p",), ("p",), events=True,
        ),
        _shown(
            "forced_joins_older_fill", "R2, R12", "a forced read takes the rows of a fill that began before it",
            ("p",), ("f",), commit=1,
        ),
        _shown(
            "plain_joins_running_fill", "R12", "a plain read takes what another thread's slow read gets",
            ("p", "p"), ("p",), commit=1, invalidate=1,
        ),
        _shown("publishes_tainted", "R13", "a tainted filler publishes", ("P",)),
        _shown("keeps_tainted", "R13", "a tainted caller's rows become the near copy", ("P",)),
        _shown("hands_tainted_on", "R13", "a tainted caller's rows go to the threads behind it", ("P", "p")),
        _shown("private_skips_taint_check", "R13", "a private load does not ask whose transaction it is",
            ("P",), lose=1),
        _shown(
            "older_reply_replaces", "R6", "a reply to an older request replaces the near copy",
            ("pp", "f"), commit=1,
        ),
        _shown(
            "giving_up_keeps_near_copy", "R4", "giving up does not drop the near copy",
            ("ppp", "f"), commit=1, evict=1, tries=1,
        ),
        _shown(
            "no_floor_after_private_rows", "R8", "after private rows nothing newer is asked for",
            ("pp",), ("p",), commit=1, cut=1,
        ),
        _shown(
            "fallback_lease_from_failure", "R6, R15", "a fallback's lease counts from the failure of the load",
            ("ppp",), commit=1, invalidate=1, age=1, load_fails=1, stale_if_error=True,
        ),
        _shown(
            "incarnation_is_run_id", "R10", "the incarnation is run_id alone, which comes back by a failback",
            ("pp",), commit=1, invalidate=1, failover=2,
        ),
        _shown(
            "incarnation_is_replid", "R10", "the incarnation is master_replid alone, which comes back from an RDB file",
            ("pp",), commit=1, invalidate=1, save=1, restart=1,
        ),
        _shown(
            "now_is_the_clock", "R2", "*now* is the clock's time, whatever entry and lock say",
            ("p",), ("f",), commit=1, clock=1,
        ),
    ]
)  # fmt: skip

#: What the implementation adds to the rules; left out by `Config.without`, it must be right too.
VARIANTS = {
    "same_entry_shortcut": "`Near.keep`: a reply about the very entry that is kept only lengthens its lease",
    "replaces": "`Near.keep`: a refresh-ahead's rows follow the entry that it refreshes, whenever that arrived",
    "forget": "`Near.forget`: after one's own invalidate the near copy goes, without a debt",
    "handover": "private and given-up rows go to threads that were queueing before their first statement",
    "debt_floor_taken_over": "a call without a floor takes over what another thread resolved for the debt",
}
