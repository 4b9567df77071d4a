"""`Watcher`: keeps the shared rows true to the database, whoever changed that (``kcg-cache watch``).

A notification says "look now" and proves nothing: the truth is the content. A *round* reads the rows, looks at the
entry, and invalidates where they differ. There is one at the start, after notifications, at every interval, when
either server is back, and when the watch is taken over from another watcher.

What makes a round right, whoever changes or fills in the meantime: it reads the rows **before** it looks at the entry.

- The entry is older than our rows: they differ, and it is withdrawn.
- The entry is newer than our rows: they differ at worst, and one invalidate was not needed. The next round finds them
  equal; whatever changed the rows after we read them has its own notification, or the next interval.
- There is no entry, and a fill is in flight: its snapshot may be from before the change that we were told of, or that
  we were not there to be told of. So a round after a notification, or after a time without a connection, withdraws the
  fill's lock too. One at the interval does not, or no load that takes longer than the interval would ever be shared:
  what such a fill publishes is compared at the next one.
- There is neither: whoever reads next loads.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from kcg_cache import codec, postgres
from kcg_cache.backoff import Backoff
from kcg_cache.cache import SharedCache
from kcg_cache.errors import ConfigurationError, DatasetError, InvalidateError, StandbyError, StoreError
from kcg_cache.listening import Connect, Listener, Stop, listening
from kcg_cache.system import SYSTEM, System

#: Seconds that the watch outlives its last renewal, and how often in that time it is renewed: also how soon a server
#: that was restarted is noticed when nothing else asks it anything.
WATCH_TTL = 6.0
BEATS = 3
#: Seconds for which notifications are gathered before a round: a burst of commits is one reason to look.
GATHER = 0.05


class Event(NamedTuple):
    """Something that an operator may want to know."""

    #: ``listening``, ``polling``, ``on_duty``, ``standing_by``, ``equal``, ``nothing_shared``, ``invalidated``,
    #: ``rows_refused``, ``postgres_lost``, ``postgres_back``, ``redis_lost``, ``redis_back``.
    name: str
    text: str
    #: JSON-able.
    details: dict[str, Any]


class Health(NamedTuple):
    """How the watcher is, after each turn of its loop."""

    #: ``starting``, ``on_duty``, ``standing_by``, ``postgres_lost``, ``redis_lost``.
    state: str
    #: Whether notifications come through.
    hears: bool
    rounds: int
    invalidations: int
    #: Digest of the rows at the last round, and when that ended on `System.now`; None before the first. The digest is
    #: None, too, where they cannot be shared.
    digest: str | None
    round_at: float | None


#: How PostgreSQL fails: one that has become a standby is as good as gone.
_LOST: tuple[type[Exception], ...] = (*postgres.ERRORS, StandbyError)
#: Why a round is due after which a fill in flight may not go on.
_MISSED = frozenset({"start", "notification", "PostgreSQL is back", "Redis is back", "takeover"})


class Watcher:
    """One watcher of one dataset. `run` returns when `stop` is set; several may run side by side, one is on duty.

    `interval` is in seconds. `on_event` is told what happens, `on_beat` how it is, every two seconds or so.
    """

    #: Seconds that its watch outlives its last renewal.
    ttl = WATCH_TTL

    def __init__(
        self,
        cache: SharedCache,
        connect: Connect,
        *,
        interval: float,
        stop: Stop,
        on_event: Callable[[Event], None],
        on_beat: Callable[[Health], None] = lambda _health: None,
        system: System = SYSTEM,
    ) -> None:
        given: Any = interval
        if not (isinstance(given, (int, float)) and 0.1 <= given <= 86_400):
            raise ConfigurationError(f"the interval is {interval!r}; allowed: 0.1 to 86400 seconds")
        self._cache, self._connect, self._stop, self._system = cache, connect, stop, system
        self._interval, self._ttl = interval, self.ttl
        self._on_event, self._on_beat = on_event, on_beat
        self._holder = system.token()
        self._due: list[str] = ["start"]
        #: The newest notification's payload, for the log of invalidations.
        self._payload = ""
        self._started = False
        self._next_round = 0.0
        self._next_check = 0.0
        self._on_duty: bool | None = None
        self._redis_retry = Backoff(system)
        self._postgres_retry = Backoff(system)
        self._told: tuple[str, ...] = ()
        self._refused = ""
        self._told_hearing: bool | None = None
        self._told_duty: bool | None = None
        self._health = Health("starting", hears=False, rounds=0, invalidations=0, digest=None, round_at=None)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until `stop` is set. Raises `StandbyError` when the server is one at the start."""
        try:
            while not self._stop.is_set():
                try:
                    with listening(self._connect, self._stop, self._system) as listener:
                        self._connected(listener)
                        while not self._stop.is_set():
                            self._turn(listener)
                except _LOST as error:
                    if isinstance(error, StandbyError) and not self._started:
                        raise
                    self._postgres_lost(error)
        finally:
            self._give_back()

    def once(self) -> None:
        """Make one round, whoever else watches. Raises what either server's failure is."""
        with self._connect() as connection:
            connection.autocommit = True
            listener = Listener(connection, self._stop, self._system)
            listener.check()
            self._round(listener)

    def _connected(self, listener: Listener) -> None:
        self._started = True
        if self._postgres_retry.failing:
            self._because("PostgreSQL is back")
        self._next_check = self._system.now() + self._ttl / BEATS
        self._health = self._health._replace(hears=listener.hears)
        if listener.hears is self._told_hearing:
            return
        self._told_hearing = listener.hears
        if listener.hears:
            self._tell("listening", "listening for changes", interval_seconds=self._interval)
        else:
            self._tell(
                "polling",
                f"warning: no notification comes through (a pooler that pools transactions?), so every change is found "
                f"at the interval of {self._interval:g} s only: give the server's own address",
                interval_seconds=self._interval,
            )

    def _turn(self, listener: Listener) -> None:
        """Claim the watch, make the round that is due, and wait for the next reason."""
        if self._system.now() >= self._next_check:
            listener.check()
            self._next_check = self._system.now() + self._ttl / BEATS
        try:
            self._claim()
            if self._on_duty:
                if self._due:
                    self._round(listener)
                elif self._system.now() >= self._next_round:
                    self._because("interval")
                    self._round(listener)
        except (StoreError, InvalidateError) as error:
            self._redis_lost(error)
            self._beat("redis_lost")
            self._noting(listener, self._redis_retry.next())
            return
        # Not before a look has succeeded: a server that lets us in and refuses each statement is not back, nor is one
        # that answers and refuses the invalidate.
        if self._redis_retry.over():
            self._tell("redis_back", "Redis is back")
        if self._postgres_retry.over():
            self._tell("postgres_back", "PostgreSQL is back")
        self._beat("on_duty" if self._on_duty else "standing_by")
        beat = self._ttl / BEATS
        left = max(0.0, min(beat, self._next_round - self._system.now()) if self._on_duty else beat)
        heard = listener.wait(left)
        if heard is None or not self._on_duty:
            return  # whoever is on duty has heard it, too; if that one dies, a takeover begins with a round
        self._heard(heard.payload)
        self._noting(listener, GATHER)

    def _noting(self, listener: Listener, seconds: float) -> None:
        heard = listener.gather(seconds)
        if heard is not None:
            self._heard(heard.payload)

    def _heard(self, payload: str) -> None:
        self._payload = payload
        self._because("notification")

    def _because(self, cause: str) -> None:
        """Let a round be due, and remember why."""
        if cause not in self._due:
            self._due.append(cause)

    # --- who is on duty ---------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        ours = self._cache.watch(self._holder, self._ttl)
        if self._redis_retry.failing:
            self._because("Redis is back")
        if ours == self._on_duty:
            return
        if ours and self._on_duty is not None:
            self._because("takeover")
        self._on_duty = ours
        if ours is self._told_duty:
            return
        self._told_duty = ours
        if ours:
            self._tell("on_duty", "on duty")
        else:
            self._tell("standing_by", "standing by: another watcher is on duty")

    def _give_back(self) -> None:
        """Let another watcher take over at once; when Redis does not answer, it does when the time is up."""
        self._on_duty = None
        with contextlib.suppress(StoreError):
            self._cache.unwatch(self._holder)

    # --- a round ----------------------------------------------------------------------------------------------------

    def _round(self, listener: Listener) -> None:
        """Compare and withdraw. What was due is no longer when this returns; what fails leaves it due."""
        causes, payload = tuple(self._due), self._payload
        began = self._system.now()
        digest = self._digest(listener.connection)
        self._compared(digest, causes, payload)
        self._health = self._health._replace(digest=digest)
        self._due.clear()
        self._payload = ""
        self._next_round = began + self._interval
        self._health = self._health._replace(rounds=self._health.rounds + 1, round_at=self._system.now())

    def _digest(self, connection: Any) -> str | None:
        """Read the rows and give their digest; None, told once, for rows that cannot be shared anyway."""
        dataset = self._cache.dataset
        try:
            loaded = dataset.loaded(connection)
            rows = dataset.decoded(loaded, lambda _mended: None)
            digest = codec.encode(dataset.name, rows, dataset.row_type).digest
        except DatasetError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                self._tell("rows_refused", f"the rows cannot be shared, nor compared: {error}", error=str(error))
            return None
        self._refused = ""
        return digest

    def _compared(self, digest: str | None, causes: tuple[str, ...], payload: str) -> None:
        """Withdraw what is shared where it is not what the rows are; rows that cannot be shared (None) never are it."""
        state = self._cache.inspect(1)
        # An entry of another incarnation is none to any reader (R10); a key that holds no entry of ours has no digest.
        shared = state.entry.get("digest") if state.entry.get("incarnation") == state.incarnation else None
        filling = state.lock_ttl_ms != -2
        if shared is not None and shared != digest:
            why = "the rows are not the shared ones" if digest else "the rows cannot be shared any more"
        elif filling and not _MISSED.isdisjoint(causes):
            why = "a fill in flight may have read before the change"
        else:
            name, text = ("nothing_shared", "nothing is shared") if shared is None else ("equal", "equal")
            if digest is not None and self._told != (name, digest):
                self._told = (name, digest)
                self._tell(name, text, digest=digest, causes=list(causes))
            return
        about = f"{', '.join(causes)}{f' {payload}' if payload else ''}"
        receipt = self._cache.invalidate(reason=f"watch: {why} ({about})", wait=False)
        self._health = self._health._replace(invalidations=self._health.invalidations + 1)
        now = ("invalidated", str(digest), str(shared))
        again, self._told = self._told == now, now
        self._tell(
            "invalidated",
            f"invalidated: {why}"
            + (" (again: is this namespace filled from another database, too?)" if again and shared else ""),
            digest=digest,
            replaced=shared,
            causes=list(causes),
            notification=payload or None,
            fill_cancelled=receipt.fill_cancelled,
            in_force_at=receipt.in_force_at.isoformat(),
        )

    # --- faults -----------------------------------------------------------------------------------------------------

    def _postgres_lost(self, error: Exception) -> None:
        """Give the watch back, for another watcher may reach the server; then wait before the next try."""
        if self._stop.is_set():
            return  # what failed was cancelled so that it ends
        if not self._postgres_retry.failing:
            self._tell("postgres_lost", f"PostgreSQL: {error}".strip(), error=str(error).strip())
        self._give_back()
        self._beat("postgres_lost")
        self._stop.wait(self._postgres_retry.next())

    def _redis_lost(self, error: Exception) -> None:
        if not self._redis_retry.failing:
            self._tell("redis_lost", str(error), error=str(error))

    def _tell(self, name: str, text: str, **details: Any) -> None:
        self._on_event(Event(name, text, details))

    def _beat(self, state: str) -> None:
        self._health = self._health._replace(state=state)
        self._on_beat(self._health)
