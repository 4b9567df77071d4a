"""`SharedCache`: the way of one read. The only place where the parts are wired together.

The steps, numbered as in docs/architecture.md:

1. `read` is called.
2. The near copy is valid and young enough: its snapshot is the answer. No lock, no socket.
3. One thread of the process asks Redis (`read.lua`); a forced read asks for itself, at once.
4. SAME renews the lease; ROWS are decoded and kept; WAIT waits on the events stream and goes to 3.
5. FILL: the lock is renewed while the loader reads the database; the payload is published.
6. PUBLISHED: kept. REJECTED: to 3, three times at most.
7. Redis failed at any step: the outage table decides; mostly a private load, kept for one lease.
"""

import os
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from kcg_cache import codec, committing, fleet, postgres
from kcg_cache.answers import Answer, Current, Entry, Fill, Floor, Question, State, Wait
from kcg_cache.datasets import ACTIVE_VERSIONS, Dataset
from kcg_cache.errors import ConfigurationError, EntryError, InvalidateError, StoreError
from kcg_cache.exporting import ExportedMetrics
from kcg_cache.filling import FillLock
from kcg_cache.fleet import Fleet, FleetReceipt
from kcg_cache.log import Log
from kcg_cache.metrics import Levels
from kcg_cache.near import Debt, Near, NearCopy, Start
from kcg_cache.outage import TABLE, Behaviour, Breaker, Operation
from kcg_cache.presence import Presence
from kcg_cache.receipt import Invalidation
from kcg_cache.rows import thawed
from kcg_cache.settings import INVALIDATE_WAIT, Settings
from kcg_cache.snapshot import Snapshot
from kcg_cache.store import Store
from kcg_cache.system import SYSTEM, Lock, System

if TYPE_CHECKING:
    from kcg_cache.history import History
    from kcg_cache.verification import Verification

#: How often a rejected filler starts over, and how often one read is told a corrupt entry (PROTOCOL R4, R14).
TRIES = 3
_Given = ParamSpec("_Given")
_Gives = TypeVar("_Gives")
#: Seconds that nobody waits for: more would not be told apart from "any age".
_LONGEST_AGE = 1e9


class _Permit:
    """The right of one thread of the process to take the slow path; given back once, by whoever is first."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._held = False

    def acquire(self, seconds: float) -> bool:
        self._held = self._lock.acquire(timeout=seconds)
        return self._held

    def release(self) -> None:
        if self._held:
            self._held = False
            self._lock.release()


@dataclass(slots=True, eq=False)
class _Call:
    """What one slow read has come to so far."""

    conn: Any
    force: bool
    max_age: float | None
    started: float
    deadline: float
    permit: _Permit
    token: str
    #: The floor that this call's answers resolved, and the debt that it was resolved under.
    floor: Floor | None = None
    floor_debt: Debt | None = None
    #: An entry that was corrupt (R14).
    rejected: str | None = None
    #: The near copy turned out to be of another format: ask as if there were none.
    unknown: bool = False
    #: Why the script did not accept the entry that is there (R14).
    note: str = ""
    #: Answers that were not to be believed, and fills that were rejected.
    disbelieved: int = 0
    rejections: int = 0
    #: Rows that Redis offered in case the load fails (R15), and the copy that they would be kept as.
    fallback: NearCopy | None = None
    #: The rows of a rejected fill, and when its first statement was sent (R4).
    given_up: tuple[Snapshot, float] | None = None
    #: Seconds that it waited for others' fills; None if it did not (R11).
    waited: float | None = None


class _Loaded(NamedTuple):
    """What a loader gave, encoded and read back: everyone gets what the payload says, the loader too."""

    payload: codec.Payload
    first_statement_at: float
    seconds: float
    source: str
    taint: str | None = None


@dataclass(slots=True, eq=False)
class _Handover:
    """Private rows that threads which were queueing before their first statement may take (R12)."""

    first_statement_at: float
    snapshot: Snapshot = field(repr=False)


class SharedCache:
    """One dataset's rows, shared by every process that uses the same Redis and namespace.

    `redis` is a URL or any sync redis-py client; `dataset` says what is cached; `settings` default to the environment's
    (`Settings.from_env`). It may be used from any number of threads, and across forks. With `present=False` it leaves
    no presence in the fleet: for a tool that reads once.

    Raises `ConfigurationError` at once for an asyncio client, a wrong setting or a bad name; it connects at first use.
    """

    def __init__(
        self,
        redis: Any = None,
        dataset: Dataset = ACTIVE_VERSIONS,
        settings: Settings | None = None,
        *,
        present: bool = True,
        system: System = SYSTEM,
    ) -> None:
        self.settings = Settings.from_env() if settings is None else settings
        self.dataset = dataset
        self._system = system
        self._now = system.now
        self._near = Near(system)
        self._breaker = Breaker(self.settings.breaker_window, system)
        self._log = log = Log(dataset.name, system.stopwatch)
        #: What was counted: docs/metrics.md.
        self.metrics = ExportedMetrics(
            self.settings.namespace,
            dataset.name,
            # Neither knows this cache: it goes when its last user lets go of it.
            partial(_levels, self._near, self._breaker, self.settings, system),
            lambda error: log.once("exporter_failed", "", "an exporter of the metrics raised", error=error),
        )
        self._store = Store(
            self.settings.redis_url if redis is None else redis,
            dataset.name,
            self.settings,
            now=system.now,
            asked=partial(self.metrics.add, "scripts_read"),
        )
        self._presence = Presence(self.settings, self.metrics, system) if present else None
        self._slow = system.lock()
        self._handover: _Handover | None = None
        self._bypass = self.settings.mode == "bypass"
        self._copy_rows = self.settings.copy_rows
        _CACHES.add(self)

    # --- steps 1 and 2 ----------------------------------------------------------------------------------------------

    def read(self, conn: Any, *, force: bool = False, max_age: float | None = None) -> Snapshot:
        """Give the dataset's rows: every read that begins after an invalidate returned sees what was committed before.

        `conn` is an open connection for the loader, or a callable that returns a context manager of one, which a hit
        does not call. `force` reads the database whatever is cached, and refreshes the shared copy. `max_age`, in
        seconds, is the oldest that the rows may be.

        Raises what the loader and its connection raise; `DatasetError` for rows that cannot be shared;
        `ConfigurationError` for wrong arguments. A Redis that fails raises nothing (PROTOCOL R8).
        """
        given: Any = max_age
        if given is not None and not (isinstance(given, (int, float)) and 0 <= given <= _LONGEST_AGE):
            raise ConfigurationError(f"max_age is {max_age!r}; allowed: seconds, 0 to {_LONGEST_AGE:g}, or None")
        copy = self._near.copy
        if (
            copy is not None
            and not force
            and self._now() < copy.valid_until
            and (max_age is None or copy.snapshot.age <= max_age)
        ):
            self.metrics.reads_near += 1
            return copy.snapshot if not self._copy_rows else _thawed(copy.snapshot)
        snapshot = self._read_slowly(conn, force=force, max_age=max_age)
        return snapshot if not self._copy_rows else _thawed(snapshot)

    def _read_slowly(self, conn: Any, *, force: bool, max_age: float | None) -> Snapshot:
        if self._bypass:
            try:
                return self._bypassing(conn)
            finally:
                self.metrics.tell()
        started = self._now()
        call = _Call(
            conn=conn,
            force=force,
            max_age=max_age,
            started=started,
            deadline=started + self.settings.wait_timeout,
            permit=_Permit(self._slow),
            token=self._system.token(),
        )
        try:
            if force:
                return self._ask(call)  # at once: it may join no plain read's fill that began before it (R12)
            if not call.permit.acquire(self.settings.wait_timeout):
                self.metrics.add("wait_timeouts")
                return self._load_privately(call)
            return self._answered_while_queueing(call) or self._ask(call)
        finally:
            call.permit.release()
            if call.waited is not None:
                self.metrics.observe("lock_wait", call.waited)
            self.metrics.tell()

    def _answered_while_queueing(self, call: _Call) -> Snapshot | None:
        """Give what another thread left for those behind it, if this call may have it (R12)."""
        copy = self._near.copy
        if (
            copy is not None
            and self._now() < copy.valid_until
            and (call.max_age is None or copy.snapshot.age <= call.max_age)
        ):
            self.metrics.reads_near += 1
            return copy.snapshot
        handover = self._handover
        if handover is not None:
            # Only rows whose database read began after this call did: a copy that was loaded before may miss what an
            # invalidate that returned before this call withdrew.
            if call.started < handover.first_statement_at:
                self.metrics.add("reads_handed_over")
                return handover.snapshot
            self._handover = None
        return None

    # --- steps 3 and 4 ----------------------------------------------------------------------------------------------

    def _ask(self, call: _Call) -> Snapshot:
        while True:
            if not self._breaker.allows():
                return self._load_privately(call)
            start = self._near.start()
            question = self._question(call, start)
            try:
                answer = self._timed(Operation.READ, self._store.read, question)
            except StoreError as error:
                self._on_error(Operation.READ, error)
                return self._load_privately(call)
            self._on_answer()
            self._on_told(question, answer)
            self._note(call, answer.note)
            if not call.force or call.floor != answer.floor:
                call.floor, call.floor_debt = answer.floor, start.debt
            if start.debt is not None and call.floor_debt is start.debt:
                self._near.resolve(start.debt, answer.floor)
            snapshot: Snapshot | None
            match answer:
                case Current():
                    snapshot = self._take(call, start, answer)
                case Wait():
                    snapshot = self._wait(call, start, answer)
                case Fill():
                    snapshot = self._fill(call, start, answer)
            if snapshot is not None:
                return snapshot

    def _question(self, call: _Call, start: Start) -> Question:
        floor, copy = call.floor, start.copy or call.fallback
        if start.debt is not call.floor_debt and not call.force:
            # This process was given private rows in the meantime: a floor from before them does not cover them. A
            # call without a floor of its own takes over what the debt has resolved (R8). A forced read keeps its own,
            # or each of many would load anew whenever another's reply came too late (Promise 2); see `_take`.
            floor = start.debt.floor if start.debt is not None and call.max_age is None else None
        known = copy.snapshot.digest if copy is not None and not call.unknown else None
        presence = self._presence
        return Question(
            token=call.token,
            known=known,
            now=call.force or start.debt is not None,
            max_age=call.max_age,
            resolved=floor,
            rejected=call.rejected,
            report=None if presence is None else presence.report(known, start.copy, start.sent_at),
        )

    def _on_told(self, question: Question, answer: Answer) -> None:
        """Note that Redis knows what this process told with its question."""
        if self._presence is not None and question.report is not None:
            self._presence.told(question.report, answer.entry.digest if isinstance(answer, Current) else None)

    def _take(self, call: _Call, start: Start, answer: Current) -> Snapshot | None:
        """Keep the rows of a SAME or ROWS and answer; None to ask again about a corrupt entry."""
        copy = self._believed(call, start, answer.entry)
        if copy is None:
            call.disbelieved += 1
            return self._load_privately(call) if call.disbelieved >= TRIES else None
        self.metrics.add("lease_renewals" if answer.entry.payload is None else "reads_redis")
        if start.debt is None or call.floor_debt is start.debt:
            self._keep(copy, start)
        else:
            # A forced read's floor is of its first script, and does not cover private rows that came after that.
            self._near.drop()
            self.metrics.add("near_dropped")
        # Redis was asked, so this one answer says so; the covered reads after it say near.
        return copy.snapshot.given_by("redis")

    def _believed(self, call: _Call, start: Start, entry: Entry) -> NearCopy | None:
        """Check and decode an entry; None, counted and noted in the call, for one that is not to be believed (R14)."""
        held = next((c for c in (start.copy, call.fallback) if c and c.snapshot.digest == entry.digest), None)
        try:
            claim = entry.claim(self.settings.namespace, self.dataset.name)
            unsigned = self.settings.accept_unsigned
            codec.check_signature(self.settings.signing_keys, entry.signature, claim, unsigned=unsigned)
            if entry.payload is not None:
                limit = self.settings.max_payload
                rows = codec.decode(entry.payload, entry.format, entry.digest, self.dataset.row_type, max_payload=limit)
            elif held is not None and codec.meaning(held.format) == codec.meaning(entry.format):
                rows = held.snapshot.rows
            else:
                # The digest is that of our rows, the format another: the same bytes, other values.
                call.unknown = True
                return None
        except EntryError as error:
            self._reject(error.reason, str(error))
            call.rejected = entry.identity
            return None
        snapshot = Snapshot(
            rows=rows,
            digest=entry.digest,
            loaded_at_us=int(entry.loaded_at),
            source="near",
            stale=entry.fresh <= 0,
            shared=True,
            age_then=entry.age,
            as_of=start.sent_at,
            clock=self._now,
        )
        # From the moment the request was sent (R6): an invalidate may have run between its answer and now, and waits
        # one lease from its own reply. Past the TTL it is a fallback's end that bounds it.
        remaining = entry.fresh if entry.fresh > 0 else entry.life
        valid_until = start.sent_at + min(self.settings.lease, remaining)
        return NearCopy(snapshot, entry.format, valid_until, entry.full_identity)

    def _keep(self, copy: NearCopy, start: Start, *, replaces: str | None = None) -> None:
        self._on_rows(copy.snapshot)
        if not self._near.keep(copy, start.sent_at, meets=start.debt, replaces=replaces):
            self.metrics.add("near_dropped")

    def _on_rows(self, snapshot: Snapshot) -> None:
        if self._presence is not None:
            self._presence.holds(snapshot.digest, snapshot.as_of)

    def _wait(self, call: _Call, start: Start, answer: Wait) -> Snapshot | None:
        """Wait for someone else's fill; None to ask again, or the answer when the time is up (R11)."""
        self._offer(call, start, answer.fallback)
        left = call.deadline - self._now()
        if left <= 0:
            self.metrics.add("wait_timeouts")
            if call.given_up is not None:
                return self._give_up(call)
            return self._load_privately(call)
        self.metrics.add("waits")
        # Not past the lock's own end: when its holder was killed, no event comes.
        seconds = min(left, answer.lock_left + 0.001, self.settings.redis_timeout / 2)
        began = self._system.stopwatch()
        goes_on = self._waited(answer.last_event, seconds)
        call.waited = (call.waited or 0.0) + self._system.stopwatch() - began
        return None if goes_on else self._load_privately(call)

    def _waited(self, last_event: bytes, seconds: float) -> bool:
        """Wait for the next event, or so long; tell whether to ask again."""
        if not last_event:  # this user may not read the stream, or it is none
            self._system.sleep(seconds)
            return True
        try:
            self._store.await_event(last_event, seconds)
            self._log.over("redis_failed", Operation.WAIT.value)
        except StoreError as error:
            if self._on_error(Operation.WAIT, error) is not Behaviour.POLL:
                return False
            self._system.sleep(seconds)
        return True

    # --- steps 5 and 6 ----------------------------------------------------------------------------------------------

    def _fill(self, call: _Call, start: Start, answer: Fill) -> Snapshot | None:
        """Load under the lock that is ours, publish, keep; None to start over after a rejection."""
        self._offer(call, start, answer.fallback)
        fallback = call.fallback
        ahead = fallback is not None and not fallback.snapshot.stale
        if ahead and fallback is not None:
            # Refresh-ahead (R16): everyone else goes on reading, the other threads of this process too.
            self.metrics.add("refreshes")
            self._keep(fallback, start)
            call.permit.release()
        lock = FillLock(
            self._store,
            answer.grant,
            lock_ttl=self.settings.lock_ttl,
            by=f"{self._system.host()}:{self._system.pid()}",
            system=self._system,
            metrics=self.metrics,
            log=self._log,
        )
        try:
            with lock:
                loaded = self._load(call.conn, call.permit, lock, prefer_fallback=ahead)
                if loaded is None:
                    return self._fall_back(call, error=None)
                if loaded.taint is not None:
                    return self._tainted(loaded)
                if loaded.payload.size > self.settings.max_payload:
                    return self._oversized(lock, loaded)
                return self._publish(call, start, answer, lock, loaded)
        except Exception as error:
            if call.fallback is None or isinstance(error, ConfigurationError):
                raise
            return self._fall_back(call, error=error)

    def _publish(self, call: _Call, start: Start, answer: Fill, lock: FillLock, loaded: _Loaded) -> Snapshot | None:
        grant, load_us = answer.grant, round(loaded.seconds * 1e6)
        claim = codec.Claim(
            self.settings.namespace,
            self.dataset.name,
            loaded.payload.format,
            loaded.source,
            loaded.payload.digest,
            grant.granted_at,
            str(load_us),
            grant.incarnation,
        )
        publish_sent_at = self._now()
        presence, digest = self._presence, loaded.payload.digest
        report = None if presence is None else presence.report(digest, None, publish_sent_at, always=True)
        try:
            published = self._timed(
                Operation.PUBLISH,
                lock.publish,
                loaded.payload,
                load_us=load_us,
                source=loaded.source,
                signature=codec.sign(self.settings.signing_keys, claim),
                report=report,
            )
        except StoreError as error:
            # Whether it is shared is not known: a private load, whose lease counts from before its query (R6).
            self._on_error(Operation.PUBLISH, error)
            self.metrics.add("fills_unanswered")
            return self._kept_privately(loaded)
        self._log.over("redis_failed", Operation.PUBLISH.value)
        if published is None:
            self.metrics.add("fills_rejected")
            call.rejections += 1
            call.given_up = self._private_snapshot(loaded), loaded.first_statement_at
            call.token = self._system.token()
            return self._give_up(call) if call.rejections >= TRIES else None
        if presence is not None and report is not None:
            presence.told(report, digest)
        self.metrics.add("fills_published")
        self.metrics.add("reads_database")
        self._check_source(loaded.source, published.previous_source)
        snapshot = Snapshot(
            rows=loaded.payload.rows,
            digest=loaded.payload.digest,
            loaded_at_us=int(grant.granted_at),
            source="near",
            stale=False,
            shared=True,
            age_then=max(0, published.at - int(grant.granted_at)) / 1e6,
            as_of=publish_sent_at,
            clock=self._now,
        )
        identity = f"{loaded.payload.digest}:{grant.granted_at}:{grant.incarnation}"
        valid_until = publish_sent_at + min(self.settings.lease, self.settings.ttl)
        copy = NearCopy(snapshot, loaded.payload.format, valid_until, identity)
        # The lease counts from the publish; the order of copies from the read that was granted the lock, because the
        # rows are no newer than that (R6). Those of a refresh-ahead follow the entry that it refreshes.
        replaces = call.fallback.identity if call.fallback is not None else None
        self._keep(copy, start, replaces=replaces)
        return snapshot.given_by("database")

    def _give_up(self, call: _Call) -> Snapshot:
        """Return the last rejected fill's rows: read after this call began, kept by nobody (R4)."""
        assert call.given_up is not None
        snapshot, first_statement_at = call.given_up
        self.metrics.add("fills_given_up")
        self.metrics.add("reads_database")
        self._near.drop()
        self._handover = _Handover(first_statement_at, snapshot)
        return snapshot

    def _oversized(self, lock: FillLock, loaded: _Loaded) -> Snapshot:
        lock.release("oversized")
        self.metrics.add("fills_oversized")
        self._log.once(
            "oversized",
            "",
            "the payload is over max_payload, so every process loads for itself: raise KCG_CACHE_MAX_PAYLOAD",
            bytes=loaded.payload.size,
            max_payload=self.settings.max_payload,
        )
        return self._kept_privately(loaded)

    def _offer(self, call: _Call, start: Start, entry: Entry | None) -> None:
        """Keep what Redis offers in case the load fails; an entry that is not to be believed is no offer (R14)."""
        # The latest answer alone counts: what it no longer offers was withdrawn, or filled anew, in the meantime.
        call.fallback = self._believed(call, start, entry) if entry is not None else None

    def _fall_back(self, call: _Call, *, error: Exception | None) -> Snapshot:
        """Serve the offered rows: of a refresh that did not come about (R16), or past the TTL because a load failed."""
        copy = call.fallback
        assert copy is not None
        if error is not None:
            self._log.event("load_failed", "the load failed; the rows before it are served", error=error)
        if copy.snapshot.stale:
            self.metrics.add("stale_served")
        else:
            self.metrics.add("reads_redis")
        # It keeps the lease of the read that delivered it, however long the load took to fail (R15).
        self._near.keep(copy, copy.snapshot.as_of, meets=None)
        return copy.snapshot.given_by("redis")

    # --- step 7, and what every load shares -------------------------------------------------------------------------

    def _load_privately(self, call: _Call) -> Snapshot:
        """Load for this process alone, and keep the rows for at most one lease (R8)."""
        self.metrics.add("private_loads")
        try:
            loaded = self._load(call.conn, call.permit)
        except Exception as error:
            if call.fallback is None or isinstance(error, ConfigurationError):
                raise
            return self._fall_back(call, error=error)
        assert loaded is not None
        if loaded.taint is not None:
            return self._tainted(loaded)
        return self._kept_privately(loaded)

    def _kept_privately(self, loaded: _Loaded) -> Snapshot:
        snapshot = self._private_snapshot(loaded)
        valid_until = loaded.first_statement_at + self.settings.lease
        self._near.keep_private(
            NearCopy(snapshot.given_by("near"), loaded.payload.format, valid_until, None),
            loaded.first_statement_at,
        )
        self._on_rows(snapshot)
        self._handover = _Handover(loaded.first_statement_at, snapshot)
        self.metrics.add("reads_database")
        return snapshot

    def _tainted(self, loaded: _Loaded) -> Snapshot:
        """Give a caller what its own transaction sees, and nobody else anything of it (R13)."""
        self.metrics.add("reads_database")
        return self._private_snapshot(loaded)

    def _private_snapshot(self, loaded: _Loaded) -> Snapshot:
        return Snapshot(
            rows=loaded.payload.rows,
            digest=loaded.payload.digest,
            loaded_at_us=None,
            source="database",
            stale=False,
            shared=False,
            age_then=0.0,
            as_of=loaded.first_statement_at,
            clock=self._now,
        )

    def _bypassing(self, conn: Any) -> Snapshot:
        loaded = self._load(conn)
        assert loaded is not None
        self.metrics.add("reads_database")
        return self._private_snapshot(loaded)

    def _load(
        self,
        given: Any,
        permit: _Permit | None = None,
        lock: FillLock | None = None,
        *,
        prefer_fallback: bool = False,
    ) -> _Loaded | None:
        """Read the database on the caller's connection; None for a tainted one where the fallback serves better.

        Whoever holds `permit` and `lock` gives both back before tainted rows are read.
        Raises what the connection and the loader raise, and `DatasetError`.
        """
        self.metrics.add("loads")
        began = self._system.stopwatch()
        transactional = self.dataset.transactional
        try:
            with postgres.lent(given, transactional=transactional) as conn:
                first_statement_at = self._now()
                taint, source = None, ""
                if not transactional:
                    rows = self.dataset.loaded(conn)
                else:
                    with postgres.own_transaction_ended(conn):
                        origin = postgres.origin(conn)
                        taint, source = origin.taint, origin.source
                        if taint is not None:
                            self._on_taint(taint)
                            # Before the rows are read: a caller inside its transaction holds up nobody (R13).
                            if lock is not None:
                                self.metrics.add("fills_tainted")
                                lock.release(f"tainted: {taint}")
                            if permit is not None:
                                permit.release()
                            if prefer_fallback:
                                return None
                        rows = self.dataset.loaded(conn)
                seconds = self._now() - first_statement_at
            decoded = self.dataset.decoded(rows, self._report)
            payload = codec.encode(self.dataset.name, decoded, self.dataset.row_type)
        except Exception:
            self.metrics.add("load_errors")
            raise
        finally:
            self.metrics.observe("load_duration", self._system.stopwatch() - began)
        return _Loaded(payload, first_statement_at, seconds, source, taint)

    # --- invalidate -------------------------------------------------------------------------------------------------

    def invalidate(self, *, reason: str | None = None, wait: bool = True) -> Invalidation:
        """Withdraw the shared rows: every read that begins after this returns sees what was committed before it began.

        Call it after the commit. With `wait` it returns when that holds, about a second later (PROTOCOL R7); without,
        at once, and the receipt says from when. `reason` goes to the log of invalidations.

        Raises `InvalidateError` when Redis did not confirm it (PROTOCOL R9); it may be repeated.
        """
        if reason is not None and not isinstance(reason, str):
            raise ConfigurationError(f"reason is {type(reason).__name__}; allowed: text, or None")
        who = f"{self._system.user()} (pid {self._system.pid()})"
        host = self._system.host()
        sent_at = self._now()
        try:
            deleted = self._timed(
                Operation.INVALIDATE,
                self._store.invalidate,
                who=who,
                host=host,
                reason=(reason or "").encode(errors="replace").decode(),
            )
        except StoreError as error:
            self.metrics.add("invalidate_errors")
            self.metrics.add("store_errors", Operation.INVALIDATE.value, error.symptom)
            self.metrics.tell()
            self._log.event("invalidate_failed", "not confirmed", reason=reason, error=error)
            raise InvalidateError(
                f"the invalidate of {self.dataset.name!r} is not confirmed, and readers may use the old rows for up to "
                f"their TTL: repeat it until it succeeds. {error}"
            ) from error
        answered_at = self._now()
        self.metrics.add("invalidations")
        self.metrics.observe("invalidation_in_force", answered_at - sent_at + INVALIDATE_WAIT)
        self._near.forget()
        self.metrics.tell()
        receipt = Invalidation(
            dataset=self.dataset.name,
            who=who,
            host=host,
            reason=reason,
            when_us=deleted.at,
            existed=deleted.existed,
            digest=deleted.digest,
            fill_cancelled=deleted.fill_cancelled,
            logged=deleted.logged,
            # The script ran after the request was sent: so the server's clock now shows at most this much more.
            in_force_at_us=deleted.at + round((answered_at - sent_at + INVALIDATE_WAIT) * 1e6),
            in_force_local=answered_at + INVALIDATE_WAIT,
            system=self._system,
        )
        self._log.event(
            "invalidated",
            "entry and fill lock deleted",
            who=who,
            host=host,
            reason=reason,
            existed=deleted.existed,
            digest=deleted.digest,
        )
        return receipt.wait() if wait else receipt

    def check_invalidates(self) -> None:
        """Raise `StoreError` where an invalidate would fail now: before a change, which it would come too late for."""
        self._store.inspect(1)
        self._store.check_deletes()

    def commit_and_invalidate(self, conn: Any, *, reason: str | None = None, wait: bool = True) -> Invalidation:
        """Commit the transaction that is open on `conn`, then invalidate; see `invalidate` for the rest.

        A connection in autocommit has committed already. Nothing is committed or invalidated when `conn` is no
        connection or its transaction has failed (`ConfigurationError`). When the commit fails its error comes as it is
        and nothing is invalidated; where it may have been done all the same (the connection was lost) a note on the
        error says what to do. When it is committed and the invalidate fails: `CommittedNotInvalidated`, with what to
        run.
        """
        return committing.commit_and_invalidate(self, conn, reason=reason, wait=wait)

    def invalidating(
        self, conn: Any, *, reason: str | None = None, wait: bool = True
    ) -> AbstractContextManager[committing.Change]:
        """Commit and invalidate at the end of a ``with`` block that changes rows on `conn`.

        It yields an object whose `receipt` is there after the block. An error in the block rolls the transaction back,
        with what it held before the block, and nothing is invalidated. Raises as `commit_and_invalidate`.
        """
        return committing.invalidating(self, conn, reason=reason, wait=wait)

    # --- for people -------------------------------------------------------------------------------------------------

    def inspect(self, events: int = 10) -> State:
        """Look at what Redis holds for this dataset; raises `StoreError`."""
        return self._store.inspect(events)

    def watch(self, holder: str, seconds: float) -> bool:
        """Claim the watch of this dataset for so long, or keep it; False while it is another's. Raises `StoreError`."""
        return self._store.watch(holder, max(1, round(seconds * 1000)))

    def unwatch(self, holder: str) -> bool:
        """Give the watch back at once; False when it was another's by now. Raises `StoreError`."""
        return self._store.unwatch(holder)

    def server(self) -> dict[str, str]:
        """Give what the server says of itself (INFO); raises `StoreError`."""
        return self._store.server()

    def shared_digest(self) -> str | None:
        """Give the digest of what is shared now, whether readers take it or not; None for none. Raises `StoreError`."""
        return self._store.digest()

    def peek(self) -> Snapshot | str:
        """Give the rows that are shared now, or say why a reader would take none; a viewer's rights suffice.

        Nothing is changed, and no near copy kept. Raises `StoreError`.
        """
        from kcg_cache.verification import Verifier  # noqa: PLC0415 - a worker never asks, and would pay for it at import

        return Verifier(self._store, self.dataset, self.settings, self._system).peek()

    def lacking(self, role: str) -> tuple[str, ...]:
        """Name what a role ("worker", …) needs and this user of Redis may not do; () where the server does not tell.

        Raises `StoreError`.
        """
        from kcg_cache import rights  # noqa: PLC0415 - a worker never asks, and would pay for it at import

        commands = rights.granted(role, self._store.keys)
        told = zip(commands, self._store.may(commands), strict=True)
        return tuple(dict.fromkeys(rights.named(command, self._store.keys) for command, may in told if may is False))

    def history(self) -> "History":
        """Give a reader of what happened: invalidates, who did them and what came of them, and fills."""
        from kcg_cache.history import History  # noqa: PLC0415 - a worker never asks, and would pay for it at import

        return History(self._store, self._system)

    def verify(self, conn: Any, progress: Callable[[str], None] = lambda _: None) -> "Verification":
        """Hold the database's rows, the shared ones and the fleet's against each other, by content; change nothing.

        `conn` as in `read`. What is not the same is looked at again, for some seconds: a change that is being
        invalidated, a fill, a reader within its lease are no faults. `progress` is told what is being done.

        Raises `StoreError`, what the loader and its connection raise, and `DatasetError`.
        """
        from kcg_cache.verification import Verifier  # noqa: PLC0415 - as above

        return Verifier(self._store, self.dataset, self.settings, self._system).verify(conn, progress)

    def fleet(self) -> Fleet:
        """Look at who reads this dataset, as each told with its last question; raises `StoreError`."""
        state = self._store.inspect(fleet.SEARCHED)
        return fleet.seen(state, self._store.presences())

    def wait_for_fleet(
        self, receipt: Invalidation, seconds: float, *, progress: Callable[[FleetReceipt], None] | None = None
    ) -> FleetReceipt:
        """Wait until every reader that is seen has taken up an invalidate, at most for `seconds`; tell who has.

        The invalidate is in force by itself (`Invalidation.wait`), whatever the fleet tells: this shows who reads the
        new rows already. `progress` is given every look. It ends when the invalidate is in force and nobody is pending.

        Raises `StoreError` when the time ended while Redis could not be asked; `ConfigurationError` for what is no
        time, or for a receipt of another dataset.
        """
        given: Any = seconds
        if not (isinstance(given, (int, float)) and 0 <= given <= _LONGEST_AGE):
            raise ConfigurationError(f"seconds is {seconds!r}; allowed: seconds, 0 to {_LONGEST_AGE:g}")
        if receipt.dataset != self.dataset.name:
            raise ConfigurationError(f"the receipt is of {receipt.dataset!r}; this cache is of {self.dataset.name!r}")
        return fleet.wait(self.fleet, receipt, seconds, self._system, progress)

    def close(self) -> None:
        """Close the connections that this cache opened; they open again at the next use. A passed client is left."""
        self._store.close()

    # --- faults, counted and logged once ----------------------------------------------------------------------------

    def _on_error(self, operation: Operation, error: StoreError) -> Behaviour:
        behaviour = TABLE[error.symptom, operation]
        self.metrics.add("store_errors", operation.value, error.symptom)
        if behaviour is Behaviour.PRIVATE_AND_OPEN and self._breaker.failed():
            self.metrics.add("breaker_opened")
        about = f"{operation.value}: {error.symptom}"
        self._log.once("redis_failed", about, f"{operation.value}: {behaviour.value}", error=error)
        return behaviour

    def _timed(
        self, operation: Operation, call: Callable[_Given, _Gives], *given: _Given.args, **named: _Given.kwargs
    ) -> _Gives:
        """Measure a call of Redis, also one that fails."""
        began = self._system.stopwatch()
        try:
            return call(*given, **named)
        finally:
            self.metrics.observe("redis_call_duration", self._system.stopwatch() - began, operation.value)

    def _on_answer(self) -> None:
        self._log.over("redis_failed", Operation.READ.value)
        if self._breaker.succeeded():
            self._log.event("redis_back", "Redis answers again")

    def _on_taint(self, taint: str) -> None:
        self.metrics.add("tainted_reads", taint)
        self._log.once(
            "tainted",
            taint,
            "rows of this connection are given to its caller alone: read outside the transaction, on the primary",
            reason=taint,
        )

    def _note(self, call: _Call, note: str) -> None:
        """Log and count, once a call, an entry that the script itself did not accept as one of ours (R14)."""
        if note in ("type", "malformed", "ahead", "oversized") and note != call.note:
            call.note = note
            self._reject(note, f"the entry was not accepted: {note}")

    def _reject(self, reason: str, message: str) -> None:
        self.metrics.add("entries_rejected", reason)
        self._log.once("entry_rejected", reason, message)

    def _report(self, message: str) -> None:
        self.metrics.add("bad_params")
        if self._bypass:  # every read loads: the same row would be told of on every one
            self._log.once("bad_params", message, message)
        else:
            self._log.event("bad_params", message)

    def _check_source(self, source: str, previous: str) -> None:
        # A user who may not ask for the system identifier says "unknown": then the names must do.
        same = previous.partition("/")[2] == source.partition("/")[2] if "unknown" in previous + source else False
        if previous and previous != source and not same:
            self.metrics.add("foreign_sources")
            self._log.once(
                "foreign_source",
                f"{previous} {source}",
                "this namespace was filled from another database: two environments share it, or it was moved",
                before=previous,
                now=source,
            )

    def _renew_locks_after_fork(self) -> None:
        self._slow = self._system.lock()
        self._near.renew_lock_after_fork()
        self._breaker.renew_lock_after_fork()
        self._log.renew_lock_after_fork()
        self.metrics.begin_anew_after_fork()
        if self._presence is not None:
            self._presence.begin_anew()


def _levels(near: Near, breaker: Breaker, settings: Settings, system: System) -> Levels:
    """Give the gauges of one cache, as of now."""
    levels = {
        "breaker_open": float(breaker.open),
        "ttl_seconds": settings.ttl,
        "stale_if_error_seconds": settings.stale_if_error,
    }
    copy = near.copy
    if copy is not None:
        # After its lease a copy is not served any more: what nobody reads does not grow old.
        served_at = min(system.stopwatch(), copy.valid_until)
        levels["served_age_seconds"] = max(0.0, copy.snapshot.age_then + served_at - copy.snapshot.as_of)
    return levels


def _thawed(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, rows=tuple(map(thawed, snapshot.rows)))


#: Every cache of this process, so that a forked child can give each fresh locks (PROTOCOL R12).
_CACHES: "weakref.WeakSet[SharedCache]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for cache in list(_CACHES):
        cache._renew_locks_after_fork()  # noqa: SLF001 - the same module


os.register_at_fork(after_in_child=_after_fork_in_child)
