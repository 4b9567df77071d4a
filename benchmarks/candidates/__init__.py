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

__all__ = ["CATALOGUE", "Candidate", "InProcess", "Ours", "OursAsking", "OursRead", "Place", "RedisGet"]
