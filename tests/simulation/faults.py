"""What can go wrong in a run: each fault by its name, what it does, and how it passes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.redis_server import Node
    from tests.simulation.run import Run

#: Errors that a server answers with while it cannot serve.
_REFUSALS = ("LOADING", "READONLY", "NOREPLICAS", "OOM", "NOPERM", "CLUSTERDOWN", "MISCONF", "BUSY")
#: Parts of an entry that any reader can tell to be damaged, or that no promise hangs on.
_FIELDS = (b"payload", b"digest", b"format", b"incarnation", b"source", b"load_us")
#: Parts of which only a signature tells.
_SIGNED_FIELDS = (b"loaded_at", b"signature")
_JUNK = (b"", b"-inf", b"nan", b"\xff", b"12345", b"7999999999999999", b"9" * 20)


def _down(run: "Run") -> None:
    run.network.mode = "down"
    run.network.reset_connections()
    state = {} if run.world.chance(0.5) else run.old_state()
    replid = run.network.master.replid if state and run.world.chance(0.5) else None

    def up() -> None:
        run.network.restart(state, replid=replid)
        run.network.mode = "up"

    run.later(run.world.between(0.01, 8.0), "Redis is up again", up)


def _crash(run: "Run") -> None:
    """Restart at once: most callers see a reset connection and no outage."""
    run.network.restart({} if run.world.chance(0.3) else run.old_state())


def _hung(run: "Run") -> None:
    run.network.mode = "hung"

    def go_on() -> None:
        run.network.mode = "up"
        run.network.reachable_again()

    run.later(run.world.between(0.1, 8.0), "Redis goes on", go_on)


def _refusing(run: "Run") -> None:
    run.network.mode = run.world.random.choice(_REFUSALS)

    def serve() -> None:
        run.network.mode = "up"

    run.later(run.world.between(0.05, 5.0), "Redis serves again", serve)


def _silent(run: "Run") -> None:
    node = run.network.master
    node.silent = True

    def tell() -> None:
        node.silent = False

    run.later(run.world.between(0.05, 4.0), "INFO is allowed again", tell)


def _failover(run: "Run") -> None:
    run.network.fail_over(run.old_state())


def _flush(run: "Run") -> None:
    run.network.master.keys.clear()


def _script_flush(run: "Run") -> None:
    run.network.master.scripts.clear()


def _decisive(node: "Node") -> list[bytes]:
    """Give the keys that something hangs on; the fleet's is no draw, and is damaged whenever one of these is."""
    return sorted(key for key in node.keys if not key.endswith(b":fleet"))


def _replace_fleet(node: "Node", value: bytes | None) -> None:
    for key in [key for key in node.keys if key.endswith(b":fleet")]:
        if value is None:
            del node.keys[key]
        else:
            node.keys[key] = value, node.keys[key][1]


def _evict(run: "Run") -> None:
    _replace_fleet(run.network.master, None)
    keys = _decisive(run.network.master)
    if keys:
        del run.network.master.keys[run.world.random.choice(keys)]


def _reset(run: "Run") -> None:
    run.network.reset_connections()


def _corrupt(run: "Run") -> None:
    node, random = run.network.master, run.world.random
    _replace_fleet(node, b"what somebody else keeps here")
    keys = _decisive(node)
    if not keys:
        return
    key = random.choice(keys)
    value, expires = node.keys[key]
    if not isinstance(value, dict) or random.random() < 0.2:
        node.keys[key] = b"what somebody else keeps here", expires
        return
    name = random.choice(_FIELDS + (_SIGNED_FIELDS if run.plan.settings.signing_keys else ()))
    if name in (b"load_us", b"loaded_at"):
        run.audit.times_doubtful = True
    way = random.random()
    if way < 0.3 or not value.get(name):
        damaged = {field: part for field, part in value.items() if field != name}
    elif way < 0.6:
        damaged = {**value, name: random.choice(_JUNK)}
    else:
        raw = bytearray(value[name])
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
        damaged = {**value, name: bytes(raw)}
    node.keys[key] = damaged, expires


def _clock_back(run: "Run") -> None:
    run.audit.times_doubtful = True
    run.network.offset -= run.world.between(0.001, 100.0)


def _clock_ahead(run: "Run") -> None:
    run.audit.times_doubtful = True
    run.network.offset += run.world.between(0.001, 100.0)


def _cut(run: "Run") -> None:
    process = run.someone()
    run.network.cut.add(process.name)

    def heal() -> None:
        run.network.cut.discard(process.name)
        run.network.reachable_again()

    run.later(run.world.between(0.1, 8.0), f"{process.name} is reachable again", heal)


def _kill(run: "Run") -> None:
    run.kill(run.someone())


def _pause(run: "Run") -> None:
    run.someone().pause(run.world.between(0.05, 12.0))


def _kill_operator(run: "Run") -> None:
    run.kill_operator()


def _database_down(run: "Run") -> None:
    run.database.down = True

    def up() -> None:
        run.database.down = False

    run.later(run.world.between(0.01, 5.0), "the database is up again", up)


def _database_slow(run: "Run") -> None:
    before = run.database.slowness
    run.database.slowness = (0.2, 6.0)

    def quick() -> None:
        run.database.slowness = before

    run.later(run.world.between(0.5, 8.0), "the database is quick again", quick)


def _database_failing(run: "Run") -> None:
    run.database.failing = 0.5

    def sound() -> None:
        run.database.failing = 0.0

    run.later(run.world.between(0.1, 5.0), "the database fails no more", sound)


FAULTS: dict[str, Callable[["Run"], None]] = {
    "redis down": _down,
    "redis crash": _crash,
    "redis hung": _hung,
    "redis refusing": _refusing,
    "INFO denied": _silent,
    "failover": _failover,
    "FLUSHALL": _flush,
    "SCRIPT FLUSH": _script_flush,
    "eviction": _evict,
    "connections reset": _reset,
    "corruption": _corrupt,
    "clock back": _clock_back,
    "clock ahead": _clock_ahead,
    "partition": _cut,
    "kill": _kill,
    "pause": _pause,
    "operator killed": _kill_operator,
    "database down": _database_down,
    "database slow": _database_slow,
    "database failing": _database_failing,
}
