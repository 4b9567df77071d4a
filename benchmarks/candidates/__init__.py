"""The candidates: one module per library. `CATALOGUE` names them all, in the order of the tables."""

from benchmarks.candidates.base import Candidate, Place
from benchmarks.candidates.in_process import InProcess
from benchmarks.candidates.kcg import Ours, OursAsking, OursRead
from benchmarks.candidates.redis_get import RedisGet

CATALOGUE: tuple[type[Candidate], ...] = (
    InProcess,
    RedisGet,
    Ours,
    OursRead,
    OursAsking,
)


def few() -> tuple[type[Candidate], ...]:
    """Give what a smoke of something slow goes through: ours, and as much of the others as has every kind of answer."""
    return (InProcess, RedisGet, *(kind for kind in CATALOGUE if kind.ours))


__all__ = ["CATALOGUE", "Candidate", "InProcess", "Ours", "OursAsking", "OursRead", "Place", "RedisGet", "few"]
