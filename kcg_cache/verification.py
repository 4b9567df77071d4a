"""Database, Redis and fleet held against each other by content. It changes nothing, fills nothing, and uses no cache.

The rows are read on the caller's connection as a fill would read them, so that the same content has the same digest.
What is not the same is looked at again before it is believed: a change that is committed and about to be invalidated,
a fill that runs, a reader within its lease are no faults.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from kcg_cache import codec, fleet, postgres
from kcg_cache.answers import Entry, State
from kcg_cache.datasets import Dataset
from kcg_cache.errors import EntryError
from kcg_cache.fleet import Fleet, Reader
from kcg_cache.refusal import NO_TIME, Refusal, refusal, whole_number
from kcg_cache.settings import INVALIDATE_WAIT, Settings
from kcg_cache.snapshot import Snapshot
from kcg_cache.store import Store
from kcg_cache.system import System

#: How often it is looked, at most, and the seconds between two looks. All of them take longer than any lease.
LOOKS = 5
PAUSE = 0.6
#: Redis's answer for the remaining life of a key that is not there.
_NO_KEY = -2

#: The rows are the same everywhere; or nothing is shared now; or the shared ones are others than the database's; or
#: no reader takes the entry that is there; or the shared rows are right, and a reader goes on reading others.
Outcome = Literal["same", "nothing shared", "different", "refused", "readers differ"]
#: Why no entry counts: there is none, it is another server's or of before a restart, or its time is over.
Absence = Literal["missing", "incarnation", "expired"]


class Rows(NamedTuple):
    """The database's rows, as a fill would share them."""

    digest: str
    rows: tuple[Any, ...]
    #: Which database: system identifier and name; '' for a dataset that is no PostgreSQL's.
    source: str
    #: Why these rows would be shared with nobody: "standby", …; None if they would.
    taint: str | None
    #: Params that had to be mended, a line each.
    mended: tuple[str, ...]
    #: Of the payload, in bytes, before it is compressed.
    size: int
    #: Seconds that the loader took.
    seconds: float


class Shared(NamedTuple):
    """The entry that is in Redis."""

    digest: str
    #: Redis server time, in µs, at which its load began; None for what is no time.
    loaded_at_us: int | None
    format: str
    source: str
    #: Seconds since its load began, and until its TTL (negative past it); None where its times are none.
    age: float | None
    fresh: float | None
    #: Its rows; None where they cannot be read, or were not fetched.
    rows: tuple[Any, ...] | None
    #: Why no reader takes it.
    refused: Refusal | None


class Readers(NamedTuple):
    """Who reads, held against the database's rows."""

    #: On the database's rows; on those of the entry, where these are others; on rows that they share with nobody, or
    #: on none yet; within the lease of rows from before, so that they follow.
    same: tuple[Reader, ...]
    as_entry: tuple[Reader, ...]
    private: tuple[Reader, ...]
    following: tuple[Reader, ...]
    #: On other rows than the entry's for longer than any lease.
    behind: tuple[Reader, ...]
    #: Past their lease: whatever they had, they have to ask before they read.
    silent: tuple[Reader, ...]
    unreadable: int


#: The lists of `Readers`.
STANDINGS = ("same", "as_entry", "private", "following", "behind", "silent")


class Verification(NamedTuple):
    """What a comparison found. Times are Redis server time, in µs."""

    outcome: Outcome
    at_us: int
    #: How often it was looked, and whether nothing was under way at the last look.
    looks: int
    settled: bool
    #: Whether a fill was running then.
    filling: bool
    database: Rows
    #: The entry, whether it counts or not; None where there is none.
    shared: Shared | None
    absence: Absence | None
    readers: Readers

    @property
    def agrees(self) -> bool:
        """Whether nobody reads other rows than the database's; nothing shared is no fault."""
        return self.outcome in ("same", "nothing shared")


def database_rows(dataset: Dataset, conn: Any, system: System) -> Rows:
    """Read the rows on `conn` (as `SharedCache.read` takes it), as a fill would.

    Raises what the connection and the loader raise, and `DatasetError` for rows that cannot be shared.
    """
    mended: list[str] = []
    with postgres.lent(conn, transactional=dataset.transactional) as connection:
        began = system.now()
        origin = postgres.Origin(None, "")
        if not dataset.transactional:
            loaded = dataset.loaded(connection)
        else:
            with postgres.own_transaction_ended(connection):
                origin = postgres.origin(connection)
                loaded = dataset.loaded(connection)
        seconds = system.now() - began
    payload = codec.encode(dataset.name, dataset.decoded(loaded, mended.append), dataset.row_type)
    return Rows(payload.digest, payload.rows, origin.source, origin.taint, tuple(mended), payload.size, seconds)


class Verifier:
    """Compares one dataset; see `SharedCache.verify`."""

    def __init__(self, store: Store, dataset: Dataset, settings: Settings, system: System) -> None:
        self._store = store
        self._dataset = dataset
        self._settings = settings
        self._system = system

    def verify(self, conn: Any, progress: Callable[[str], None] = lambda _: None) -> Verification:
        """Look until what is found is certain, or `LOOKS` times; tell `progress` what is being done.

        Raises `StoreError`, and what `database_rows` raises.
        """
        before: Verification | None = None
        #: Readers on other rows: since when, on this host's clock, on which.
        others: dict[str, tuple[str, float]] = {}
        for look in range(1, LOOKS + 1):
            progress("reading the database and Redis" if look == 1 else f"not the same yet: look {look} of {LOOKS}")
            found = self._look(conn, look, others)
            settled_again = (
                found.settled
                and before is not None
                and before.settled
                and _compared(found) == _compared(before)
                and not found.readers.following
            )
            if (found.agrees and not found.readers.following) or (not found.agrees and settled_again):
                return found
            before = found
            if look < LOOKS:
                self._system.sleep(PAUSE)
        return found

    def peek(self) -> Snapshot | str:
        """Give the rows that are shared now, or why readers would take none; change nothing. Raises `StoreError`."""
        for _ in range(LOOKS):
            shared, absence, fetched = self._shared(self._store.inspect(1))
            if not fetched:
                continue  # it was another by the time its payload was fetched
            if shared is not None and shared.refused is not None:
                return shared.refused.text
            if shared is None or shared.rows is None:
                return "nothing is shared"
            if absence is not None:
                return "what is shared is past its TTL"
            now = self._system.now
            return Snapshot(
                shared.rows, shared.digest, shared.loaded_at_us, "redis", False, True, shared.age or 0.0, now(), now
            )
        return "it changes faster than it can be fetched"

    def _look(self, conn: Any, look: int, others: dict[str, tuple[str, float]]) -> Verification:
        before = self._store.inspect(1)
        database = database_rows(self._dataset, conn, self._system)
        after = self._store.inspect(fleet.SEARCHED)
        shared, absence, fetched = self._shared(after)
        everyone = fleet.seen(after, self._store.presences())
        readers = self._readers(everyone, database.digest, None if absence else shared, others)
        if absence is not None:
            outcome: Outcome = "nothing shared"
        elif shared is not None and shared.refused is not None:
            outcome = "refused"
        else:
            outcome = "same" if shared is not None and shared.digest == database.digest else "different"
        if outcome in ("same", "nothing shared") and readers.behind:
            outcome = "readers differ"
        filling = _fill_runs(before) or _fill_runs(after)
        changed = before.entry != after.entry or not fetched
        # One whose load began after the database was asked may hold what was committed since.
        newer = shared is not None and (shared.loaded_at_us or 0) >= before.at
        return Verification(
            outcome=outcome,
            at_us=after.at,
            looks=look,
            settled=not (filling or changed or newer),
            filling=_fill_runs(after),
            database=database,
            shared=shared,
            absence=absence,
            readers=readers,
        )

    def _shared(self, state: State) -> tuple[Shared | None, Absence | None, bool]:
        """Give the entry, why it does not count, and whether its payload could still be fetched."""
        if state.entry_ttl_ms == _NO_KEY:
            return None, "missing", True
        get = state.entry.get
        refused = refusal(state, self._dataset.name, self._settings)
        loaded_at, load = (whole_number(get(name, ""), below=NO_TIME) for name in ("loaded_at", "load_us"))
        fresh = None
        if loaded_at is not None and load is not None:
            fresh = self._settings.ttl - (state.at - loaded_at - load) / 1e6
            if state.entry_ttl_ms >= 0:
                fresh = min(fresh, state.entry_ttl_ms / 1000 - self._settings.stale_if_error)
        rows, fetched = None, True
        if refused is None:
            payload = self._store.payload(_entry(state))
            if payload is None:
                fetched = False
            else:
                rows, refused = self._decoded(state, payload)
        shared = Shared(
            digest=get("digest", ""),
            loaded_at_us=loaded_at,
            format=get("format", ""),
            source=get("source", ""),
            age=None if loaded_at is None else max(0, state.at - loaded_at) / 1e6,
            fresh=fresh,
            rows=rows,
            refused=refused,
        )
        if refused is not None and refused.reason == "incarnation":
            return shared, "incarnation", fetched
        if refused is None and fresh is not None and fresh <= 0:
            return shared, "expired", fetched
        return shared, None, fetched

    def _decoded(self, state: State, payload: bytes) -> tuple[tuple[Any, ...] | None, Refusal | None]:
        """Give the rows of a payload, or why no reader takes them."""
        limit, row_type = self._settings.max_payload, self._dataset.row_type
        try:
            digest = state.entry["digest"]
            return codec.decode(payload, state.entry["format"], digest, row_type, max_payload=limit), None
        except EntryError as error:
            return None, Refusal(error.reason, str(error))

    def _readers(
        self, everyone: Fleet, digest: str, entry: Shared | None, others: dict[str, tuple[str, float]]
    ) -> Readers:
        found: dict[str, list[Reader]] = {}
        now = self._system.now()
        for reader in everyone.readers:
            if reader.silent_at(everyone.at_us):
                standing = "silent"
            elif reader.private_since_us is not None or reader.digest is None:
                standing = "private"
            elif reader.digest == digest:
                standing = "same"
            elif entry is not None and entry.refused is None and reader.digest == entry.digest:
                standing = "as_entry"
            else:
                rows, since = others.get(reader.id, ("", now))
                if rows != reader.digest:
                    since = now
                others[reader.id] = (reader.digest, since)
                # It has asked since, and was given these rows again; or others than the entry's, which was there.
                stays = now - since > INVALIDATE_WAIT or everyone.standing(reader) == "lagging"
                standing = "behind" if stays else "following"
            found.setdefault(standing, []).append(reader)
        same, as_entry, private, following, behind, silent = (tuple(found.get(name, ())) for name in STANDINGS)
        return Readers(same, as_entry, private, following, behind, silent, everyone.unreadable)


def _compared(found: Verification) -> tuple[Any, ...]:
    """Give what has to be found twice before it is believed."""
    shared = found.shared
    return found.outcome, found.database.digest, None if shared is None else (shared.digest, shared.loaded_at_us)


def _fill_runs(state: State) -> bool:
    return state.lock is not None and state.lock.incarnation == state.incarnation


def _entry(state: State) -> Entry:
    get = state.entry.get
    return Entry(
        digest=get("digest", ""),
        format=get("format", ""),
        loaded_at=get("loaded_at", ""),
        load_us=get("load_us", ""),
        source=get("source", ""),
        signature=get("signature", ""),
        incarnation=get("incarnation", ""),
        age=0.0,
        fresh=0.0,
        life=0.0,
        payload=b"",
    )
