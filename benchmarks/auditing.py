"""What readers and operators do while reads are audited: one that is older than the last returned invalidate is stale.

All of it runs in the processes of a `crew`. A spot is one cache, with a namespace of its own, that an operator
withdraws and readers read; the spots of one process share its database. An operator commits, withdraws, and only then
writes the generation on the board; a reader looks at the board first, and then reads. So whatever it gets that is older
than what it saw there was withdrawn before it asked.
"""

import collections
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.candidates import Candidate, Place
from benchmarks.crew import Local, clock
from benchmarks.rows import generation_of

#: Between two tries of something that failed, in seconds.
_AGAIN = 0.02


@dataclass(slots=True)
class Audit:
    """What one reader got, or several of them together."""

    reads: int = 0
    stale: int = 0
    #: The longest time after an invalidate had returned at which rows from before it were still served, in seconds.
    longest: float = 0.0
    #: What reads raised, by type.
    errors: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, other: "Audit") -> None:
        """Count another reader's too."""
        self.reads += other.reads
        self.stale += other.stale
        self.longest = max(self.longest, other.longest)
        self.errors += other.errors


@dataclass(slots=True)
class Withdrawals:
    """What one operator did."""

    #: Invalidates that returned.
    done: int = 0
    #: What invalidates raised, by type; each was repeated.
    errors: collections.Counter[str] = field(default_factory=collections.Counter)


def open_spots(local: Local, kind: type[Candidate], places: Sequence[Place]) -> None:
    """Make a candidate for each spot."""
    local.things["spots"] = [kind(place) for place in places]


def read_on(local: Local, first: int, pause: float) -> Audit:
    """Read all spots in turn until the board says stop, and audit every read; `first` is the first spot's word."""
    words, board = local.board.spots, local.board
    spots: list[Candidate] = local.things["spots"]
    readers = [(first + number, spot.read) for number, spot in enumerate(spots)]
    audit, reads = Audit(), 0
    #: Which generations were seen withdrawn, and when first.
    seen = {word: [(words[word], clock())] for word, _ in readers}
    newest = {word: words[word] for word, _ in readers}
    while not board.stop:
        for word, read in readers:
            withdrawn = words[word]
            if withdrawn != newest[word]:
                newest[word] = withdrawn
                seen[word].append((withdrawn, clock()))
            try:
                rows = read()
            except Exception as error:  # noqa: BLE001 - whatever a library raises is counted
                audit.errors[type(error).__name__] += 1
                time.sleep(_AGAIN)
                continue
            reads += 1
            generation = generation_of(rows)
            if generation < withdrawn:
                audit.stale += 1
                since = next(when for other, when in seen[word] if other > generation)
                audit.longest = max(audit.longest, clock() - since)
        if pause:
            time.sleep(pause)
    audit.reads = reads
    for spot in spots:
        spot.close()
    return audit


class _Operator:
    """One operator, who may have many hands: threads that share how far the database is."""

    def __init__(self, local: Local, places: Sequence[Place], first: int) -> None:
        self._board = local.board
        self._words = local.board.spots
        self._database = places[0].database
        self._first = first
        self._lock = threading.Lock()
        # It goes on from where an operator before it was.
        self._generation = generation_of(self._database.load())
        self.withdrawals = Withdrawals()

    def change(self, candidate: Candidate, spot: int) -> None:
        """Commit, invalidate until it succeeds, and tell the board."""
        with self._lock:  # the generations are committed in their order
            self._generation += 1
            generation = self._generation
            self._database.promote(generation)
        while True:
            try:
                candidate.invalidate()
            except Exception as error:  # noqa: BLE001 - whatever a library raises is counted, and tried again
                with self._lock:
                    self.withdrawals.errors[type(error).__name__] += 1
                if self._board.stop:
                    return
                time.sleep(_AGAIN)
            else:
                break
        with self._lock:
            self.withdrawals.done += 1
            word = self._first + spot
            self._words[word] = max(self._words[word], generation)


def operate(
    local: Local, kind: type[Candidate], places: Sequence[Place], first: int, rounds: int, step: float
) -> Withdrawals:
    """Change and withdraw every spot `rounds` times with each of two hands, one round every `step` seconds.

    In every other round the second hand comes within 4 ms of the first, while the rows are being loaded again: that is
    when a load races an invalidate.
    """
    operator = _Operator(local, places, first)
    begin, failures = clock() + 0.2, []

    def hand(spot: int, *, second: bool) -> None:
        chance = random.Random(spot * 2 + second)  # noqa: S311 - a schedule, no secret
        try:
            candidate = kind(places[spot])
            for turn in range(rounds):
                late = chance.uniform(0, 0.004 if turn % 2 else step) if second else 0.0
                time.sleep(max(0.0, begin + (turn + spot / len(places)) * step + late - clock()))
                operator.change(candidate, spot)
            candidate.close()
        except Exception as error:  # noqa: BLE001 - raised where it is heard
            failures.append(error)

    hands = [
        threading.Thread(target=hand, args=(spot,), kwargs={"second": second})
        for spot in range(len(places))
        for second in (False, True)
    ]
    for thread in hands:
        thread.start()
    for thread in hands:
        thread.join()
    if failures:
        raise failures[0]
    return operator.withdrawals


def open_operator(local: Local, kind: type[Candidate], place: Place, first: int) -> None:
    """Make the candidate that `operate_on` withdraws with: some connect at once, and cannot while Redis hangs."""
    local.things["operator"] = _Operator(local, [place], first), kind(place)


def operate_on(local: Local, step: float) -> Withdrawals:
    """Change and withdraw one spot until the board says stop, about every `step` seconds."""
    operator: _Operator
    candidate: Candidate
    operator, candidate = local.things.pop("operator")
    while not local.board.stop:
        operator.change(candidate, 0)
        time.sleep(step)
    candidate.close()
    return operator.withdrawals
