"""The simulated Redis answers as a real one does: the same scripts, the same damage, the same replies."""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from kcg_cache import Settings, codec
from kcg_cache.answers import Current, Fill, Floor, Grant, Question, Report, Wait
from kcg_cache.embedded import EmbeddedValkey
from kcg_cache.errors import StoreError
from kcg_cache.keys import Keys
from kcg_cache.store import INLINE, Store
from tests.conftest import real_client
from tests.simulation.network import Network
from tests.simulation.redis_server import CommandError
from tests.simulation.world import World

# It tests a tool of the checkout: once is enough.
pytestmark = pytest.mark.checkout

#: Times that the two servers tell, in µs or ms, may differ by what a busy machine takes between the two questions.
_APART_US = 5_000_000
_SETTINGS = Settings(namespace="same", ttl=300, lock_ttl=60, wait_timeout=120, stale_if_error=30, max_payload=5000)


class _Direct:
    """The simulated server without its network: no fate, no time."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.connection_pool = self
        self.connection_kwargs = {"socket_timeout": 0.5, "retry": None}

    def execute_command(self, *command: Any, **_options: Any) -> Any:
        try:
            return self._network.master.execute(*command)
        except CommandError as error:
            if str(error).startswith("NOSCRIPT"):
                raise redis.exceptions.NoScriptError(str(error)) from None
            raise redis.ResponseError(str(error)) from None


@dataclass
class Pair:
    """A real and a simulated server that are asked the same."""

    real: Store
    simulated: Store
    network: Network
    client: Any

    def both(self, ask: str, *arguments: Any, **named: Any) -> tuple[Any, Any]:
        """Ask both for the same; a `StoreError` is an answer too."""
        self.tune()
        return tuple(_answer(store, ask, arguments, named) for store in (self.real, self.simulated))

    def tune(self) -> None:
        """Set the simulated clock by the real one's."""
        seconds, micros = self.client.time()
        self.network.offset += seconds + micros / 1e6 - self.network.clock()

    def command(self, *words: Any) -> tuple[Any, Any]:
        """Run one command on both."""
        self.tune()
        try:
            there: Any = self.client.execute_command(*words, NEVER_DECODE=True)
        except redis.ResponseError as error:
            there = str(error).partition(" ")[0]
        try:
            here: Any = self.network.master.execute(*words)
        except CommandError as error:
            here = str(error).partition(" ")[0]
        return there, here


def _answer(store: Store, ask: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return getattr(store, ask)(*arguments, **named)
    except StoreError as error:
        return error.symptom


@pytest.fixture
def pair(valkey_server: EmbeddedValkey) -> Iterator[Pair]:
    """Give both, empty."""
    client = real_client(valkey_server.url)
    client.flushall()
    world = World(0)
    network = Network(world, offset=0.0, rate=1.0)
    settings = _SETTINGS.replace(namespace=f"same-{secrets.token_hex(4)}")
    yield Pair(Store(client, "rows", settings), Store(_Direct(network), "rows", settings), network, client)
    client.close()


@pytest.mark.parametrize("seed", range(40))
def test_the_same_questions_get_the_same_answers(pair: Pair, seed: int) -> None:
    """Scripts in any order, with grants that are held, lost and mixed up, and foreign things under every key."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    held: list[tuple[Grant, Grant]] = []
    tokens = [f"{number:032x}" for number in range(4)]
    payloads = [codec.encode("rows", [{"number": number}]) for number in range(3)]
    payloads.append(codec.encode("rows", [{"pad": chance.randbytes(5000).hex()}]))
    assert len(payloads[3].data) > _SETTINGS.max_payload  # packed, too
    floors: list[tuple[Floor, Floor]] = []
    for store in (pair.real, pair.simulated):
        store.inline = 0 if seed % 2 else INLINE
    for step in range(60):
        doing = chance.choice(
            ("read", "read", "read", "publish", "renew", "release", "invalidate", "inspect", "damage")
        )
        if doing == "read":
            floor = chance.choice(floors) if floors and chance.random() < 0.3 else None
            answers = _read_both(pair, chance, tokens, payloads, floor)
            there, here = answers
            _same_answer(there, here, step)
            if isinstance(there, Fill):
                held.append((there.grant, here.grant))
            if not isinstance(there, str):
                floors.append((there.floor, here.floor))
        elif doing in ("publish", "renew", "release") and held:
            _with_the_lock(pair, chance, doing, chance.choice(held), payloads)
        elif doing == "invalidate":
            there, here = pair.both("invalidate", who="w", host="h", reason="r")
            assert (there.existed, there.digest, there.fill_cancelled, there.logged) == (
                here.existed,
                here.digest,
                here.fill_cancelled,
                here.logged,
            )
        elif doing == "damage":
            words = _damage(chance, pair.real.keys)
            there, here = pair.command(*words)
            assert _kind(there) == _kind(here), (step, words)
        assert _told(pair.real) == _told(pair.simulated), step


def _read_both(
    pair: Pair, chance: random.Random, tokens: list[str], payloads: list[codec.Payload], floor: Any
) -> tuple[Any, Any]:
    pair.tune()
    now, token = chance.random() < 0.3, chance.choice(tokens)
    known = chance.choice([None, *(payload.digest for payload in payloads)])
    max_age = None if now or chance.random() < 0.7 else chance.choice((0.0, 1000.0))
    floors = floor or (None, None)
    report = _report(chance)
    questions = [
        Question(token=token, known=known, now=now, max_age=max_age, resolved=resolved, report=report)
        for resolved in floors
    ]
    there = _answer(pair.real, "read", (questions[0],), {})
    here = _answer(pair.simulated, "read", (questions[1],), {})
    return there, here


def _with_the_lock(
    pair: Pair, chance: random.Random, doing: str, grants: tuple[Grant, Grant], payloads: list[codec.Payload]
) -> None:
    pair.tune()
    if doing == "renew":
        assert pair.real.renew(grants[0]) == pair.simulated.renew(grants[1])
    elif doing == "release":
        assert pair.real.release(grants[0], "test", by="b") == pair.simulated.release(grants[1], "test", by="b")
    else:
        payload, source = chance.choice(payloads), chance.choice(("7/a", "8/b"))
        fields: Any = {"load_us": 5, "source": source, "signature": "s", "by": "b", "report": _report(chance)}
        there = pair.real.publish(grants[0], payload, **fields)
        here = pair.simulated.publish(grants[1], payload, **fields)
        assert (there is None) == (here is None)
        if there is not None and here is not None:
            assert there.previous_source == here.previous_source
            assert abs(there.at - here.at) < _APART_US


def _report(chance: random.Random) -> Report | None:
    return chance.choice((None, Report(f"{chance.randrange(3):016x}", 7, b'{"host":"h"}')))


def _told(store: Store) -> dict[bytes, tuple[bytes, bytes, bool, bytes]]:
    """Give the fleet but for its times: answer, digest, whether there is a loaded_at, and what was said."""
    told = {}
    for reader, record in store.presences().items():
        _, kind, digest, loaded_at, _, presence = record.split(b"|", 5)
        told[reader] = kind, digest, loaded_at == b"", presence
    return told


def _damage(chance: random.Random, keys: Keys) -> tuple[Any, ...]:
    key = chance.choice((keys.entry, keys.lock, keys.events, keys.invalidations, keys.fleet))
    field = chance.choice(("digest", "payload", "format", "loaded_at", "load_us", "source", "signature", "incarnation"))
    return chance.choice(
        (
            ("DEL", key),
            ("SET", key, "foreign"),
            ("SET", key, "foreign", "PX", 50_000),
            ("PERSIST", keys.entry),
            ("PERSIST", keys.lock),
            ("PEXPIRE", keys.entry, 20_000),
            ("PEXPIRE", keys.lock, 10_000),
            ("HSET", keys.entry, field, chance.choice(("", "junk", "12345", "9" * 20))),
            ("HDEL", keys.entry, field),
            ("PTTL", key),
            ("EXISTS", key),
        )
    )


def _kind(reply: Any) -> Any:
    """Give what must be the same: an error's code, a reply's value, or that a time to live is one."""
    if reply == b"OK":
        return True  # what the client makes of it
    return "time" if isinstance(reply, int) and reply > 1 else reply


def _same_answer(there: Any, here: Any, step: int) -> None:
    assert type(there) is type(here), (step, there, here)
    if isinstance(there, str):
        assert there == here
        return
    assert there.note == here.note, step
    assert (there.floor.value == "0") == (here.floor.value == "0"), step
    entries = (there.entry, here.entry) if isinstance(there, Current) else (there.fallback, here.fallback)
    assert (entries[0] is None) == (entries[1] is None), step
    if entries[0] is not None:
        one, other = entries
        assert (one.digest, one.format, one.source, one.signature, one.payload) == (
            other.digest,
            other.format,
            other.source,
            other.signature,
            other.payload,
        )
        assert one.fresh == pytest.approx(other.fresh, abs=_APART_US / 1e6)
        assert one.life == pytest.approx(other.life, abs=_APART_US / 1e6)
    if isinstance(there, Wait):
        assert there.lock_left == pytest.approx(here.lock_left, abs=_APART_US / 1e6)
        assert (there.last_event == b"") == (here.last_event == b"")
        assert (there.last_event == b"0-0") == (here.last_event == b"0-0")


def test_times_to_live_of_absent_and_lasting_keys_are_told_alike(pair: Pair) -> None:
    """-2 and -1."""
    key = pair.real.keys.lock
    assert pair.command("PTTL", key) == (-2, -2)
    pair.command("SET", key, "x")
    assert pair.command("PTTL", key) == (-1, -1)


def test_a_hash_is_counted_drawn_from_and_given_whole_alike(pair: Pair) -> None:
    """The commands of the fleet; what is drawn is some of the fields with their values, or all."""
    key = pair.real.keys.fleet
    assert pair.command("HLEN", key) == (0, 0)
    assert pair.command("HRANDFIELD", key, 3, "WITHVALUES") == ([], [])
    pair.command("HSET", key, "a", "1", "b", "2", "c", "3")
    assert pair.command("HLEN", key) == (3, 3)
    for count in (2, 3, 5):
        for drawn in pair.command("HRANDFIELD", key, count, "WITHVALUES"):
            flat = [part for pair in drawn for part in pair] if isinstance(drawn[0], list) else drawn
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            assert len(fields) == min(count, 3)
            assert fields.items() <= {b"a": b"1", b"b": b"2", b"c": b"3"}.items()
    assert pair.real.presences() == pair.simulated.presences() == {b"a": b"1", b"b": b"2", b"c": b"3"}
    pair.command("SET", key, "x")
    assert pair.command("HLEN", key) == ("WRONGTYPE", "WRONGTYPE")
    assert pair.real.presences() == pair.simulated.presences() == {}


def test_what_the_simulation_does_not_have_is_an_error_and_no_guess() -> None:
    """A script that begins to use another command fails at once."""
    with pytest.raises(CommandError, match="the simulation does not have it"):
        Network(World(0), offset=0.0, rate=1.0).master.execute("SORT", "key")
