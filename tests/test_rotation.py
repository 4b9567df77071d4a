"""A fleet that rolls to signing keys and from key to key, host by host: no wrong row, and how many loads it costs.

Every second of the ticked clock each host reads once: its lease is over, so it asks. Redis's own clock does not come
near the TTL; what expires is invalidated here.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Backend
from tests.doubles import version_of

if TYPE_CHECKING:
    from kcg_cache import SharedCache

pytestmark = pytest.mark.once

OLD, NEW = b"old-key-old-key-old-key-old-key!", b"new-key-new-key-new-key-new-key!"
HOSTS = 6

Step = dict[str, Any]


class Rolling:
    """A fleet of a few hosts, each with settings of its own."""

    def __init__(self, backend: Backend, first: Step) -> None:
        self.backend = backend
        self.hosts: list[SharedCache] = [backend.worker(**first) for _ in range(HOSTS)]
        self.second()

    def second(self) -> int:
        """Let a second pass, and every host read; give how many loads that took."""
        before = self.backend.source.loads
        self.backend.system.tick(1.1)
        for host in self.hosts:
            assert version_of(host.read(None)) == self.backend.source.version
        assert all(host.metrics["private_loads"] == 0 for host in self.hosts)
        return self.backend.source.loads - before

    def changed(self) -> int:
        """Change the rows and invalidate, as an expiry would; the same, from the last host on, which fills now."""
        self.backend.source.version += 1
        self.hosts[-1].invalidate(wait=False)
        self.hosts.reverse()
        loads = self.second()
        self.hosts.reverse()
        return loads

    def roll(self, step: Step, each: Callable[[], int]) -> list[int]:
        """Give one host after the other the step's settings; give what `each` tells after each."""
        told = []
        for place in range(HOSTS):
            self.hosts[place] = self.backend.worker(**step)
            told.append(each())
        return told


def extra(backend: Backend, steps: Sequence[Step]) -> tuple[list[int], list[int]]:
    """Roll through the steps; give the loads after each host, and those after each host and a change of the rows."""
    quiet = Rolling(backend, steps[0])
    loads = [count for step in steps[1:] for count in quiet.roll(step, quiet.second)]
    backend.client.delete(backend.keys.entry)
    busy = Rolling(backend, steps[0])
    return loads, [count for step in steps[1:] for count in busy.roll(step, busy.changed)]


def test_a_roll_to_signing_that_accepts_unsigned_entries_first_costs_no_load(backend: Backend) -> None:
    """But the one of a host that demands, where an unsigned entry is still there: none, if the rows changed since."""
    steps: list[Step] = [{}, {"signing_keys": (OLD,), "accept_unsigned": True}, {"signing_keys": (OLD,)}]
    quiet, busy = extra(backend, steps)
    assert quiet == [0] * HOSTS + [1] + [0] * (HOSTS - 1)
    assert busy == [1] * HOSTS * 2


def test_a_roll_to_signing_at_once_costs_one_more_load_for_each_fill_of_a_host_without_keys(backend: Backend) -> None:
    """Two for each expiry or invalidate while it lasts, and no more: who has no keys takes the signed one."""
    quiet, busy = extra(backend, [{}, {"signing_keys": (OLD,)}])
    assert quiet == [1] + [0] * (HOSTS - 1)
    assert busy == [2] * (HOSTS - 1) + [1]


def test_a_roll_back_to_none_costs_no_load(backend: Backend) -> None:
    """The same steps the other way round."""
    steps: list[Step] = [{"signing_keys": (OLD,)}, {"signing_keys": (OLD,), "accept_unsigned": True}, {}]
    quiet, busy = extra(backend, steps)
    assert quiet == [0] * HOSTS * 2
    assert busy == [1] * HOSTS * 2


def test_a_rotation_by_a_list_costs_no_load(backend: Backend) -> None:
    """Accept the new key everywhere, sign with it everywhere, then drop the old one.

    The entry that the old key signed goes with the last step, if nothing has replaced it: one load.
    """
    keys = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]
    quiet, busy = extra(backend, [{"signing_keys": step} for step in keys])
    assert quiet == [0] * HOSTS * 2 + [1] + [0] * (HOSTS - 1)
    assert busy == [1] * HOSTS * 3


def test_a_rotation_without_a_list_is_a_fight_in_which_no_row_is_wrong(backend: Backend) -> None:
    """Each side refuses, and replaces, the other's entry: while both read, up to one load for each host and lease."""
    rolling = Rolling(backend, {"signing_keys": (OLD,)})
    told = rolling.roll({"signing_keys": (NEW,)}, rolling.second)
    # The new ones read first, then the old ones: each side loads once a second.
    assert told == [2] * (HOSTS - 1) + [1]
    rolling.hosts = [backend.worker(signing_keys=((OLD,), (NEW,))[place % 2]) for place in range(HOSTS)]
    assert [rolling.second() for _ in range(3)] == [HOSTS] * 3
