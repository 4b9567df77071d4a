"""The candidates: one module per library. `CATALOGUE` names them all, in the order of the tables."""

from benchmarks.candidates.aiocache_cache import Aiocache
from benchmarks.candidates.base import Candidate, Place
from benchmarks.candidates.cashews_cache import Cashews, CashewsNear
from benchmarks.candidates.django_cache import DjangoRedis
from benchmarks.candidates.dogpile_cache import Dogpile, DogpileNear
from benchmarks.candidates.glide import GlideNear
from benchmarks.candidates.in_process import InProcess
from benchmarks.candidates.kcg import Ours, OursAsking, OursRead
from benchmarks.candidates.redis_get import RedisGet, RedisTracking
from benchmarks.candidates.theine_cache import TheineNear

CATALOGUE: tuple[type[Candidate], ...] = (
    InProcess,
    RedisGet,
    RedisTracking,
    Dogpile,
    DogpileNear,
    Cashews,
    CashewsNear,
    Aiocache,
    DjangoRedis,
    TheineNear,
    GlideNear,
    Ours,
    OursRead,
    OursAsking,
)


def few() -> tuple[type[Candidate], ...]:
    """Give what a smoke of something slow goes through: one of every sort."""
    return (InProcess, RedisGet, OursRead)


__all__ = [
    "CATALOGUE",
    "Aiocache",
    "Candidate",
    "Cashews",
    "CashewsNear",
    "DjangoRedis",
    "Dogpile",
    "DogpileNear",
    "GlideNear",
    "InProcess",
    "Ours",
    "OursAsking",
    "OursRead",
    "Place",
    "RedisGet",
    "RedisTracking",
    "TheineNear",
    "few",
]
