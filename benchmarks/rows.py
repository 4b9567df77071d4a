"""The rows that everything is measured on: nested params of floats, lists and Korean text, in three sizes."""

import random
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows, and about how many bytes of JSON the params of each have."""

    name: str
    rows: int
    params_bytes: int


SIZES = {size.name: size for size in (Size("S", 20, 500), Size("M", 200, 1000), Size("L", 2000, 2000))}

#: The model of the first row, whose version is the generation: what a reader's rows are audited by.
GENERATION_MODEL = "0-generation"
_ROLES = ("PRIMARY", "CHALLENGER", "SHADOW")


def make_rows(size: Size, seed: int = 1) -> list[dict[str, Any]]:
    """Make the rows without their ids, in the order in which they are loaded; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - the same rows in every run, no secret
    rows: list[dict[str, Any]] = [
        {"model_id": GENERATION_MODEL, "version": "0", "role": "PRIMARY", "params": _params(chance, size.params_bytes)}
    ]
    rows += [
        {
            "model_id": f"model-{number // 3:05}",
            "version": f"{number}.0",
            "role": _ROLES[number % 3],
            "params": _params(chance, size.params_bytes),
        }
        for number in range(1, size.rows)
    ]
    return rows


def generation_of(rows: Any) -> int:
    """Give the generation that these rows are of."""
    first = rows[0]
    if first["model_id"] != GENERATION_MODEL:
        raise ValueError(f"the first row is of {first['model_id']!r}")
    return int(first["version"])


def _params(chance: random.Random, size: int) -> dict[str, Any]:
    params: dict[str, Any] = {"설명": "대한해협 통항 선박 감시", "enabled": True, "limits": {"speed_kn": [0.5, 32.0]}}
    left, number = size - len(orjson.dumps(params)), 0
    while left > 0:
        key, value = f"특징_{number:03}", _feature(chance)
        left -= len(orjson.dumps({key: value})) - 1
        params[key] = value
        number += 1
    return params


def _feature(chance: random.Random) -> dict[str, Any]:
    return {
        "weights": [round(chance.uniform(-3, 3), 6) for _ in range(8)],
        "threshold": round(chance.random(), 4),
        "window_s": chance.choice([60, 300, 900, 3600]),
        "area": [[round(chance.uniform(124, 132), 5), round(chance.uniform(33, 39), 5)] for _ in range(2)],
        "label": chance.choice(["북방한계선 접근", "조업 금지 구역", "암초 근접", "AIS 단절"]),
        "band": {"low": round(chance.random(), 3), "high": None, "unit": "kn"},
    }
