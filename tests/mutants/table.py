"""What is mutated: one file of mutations for each rule of the protocol."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RULES = tuple(f"R{number}" for number in range(1, 17))

_NEAR, _SCRIPTS, _CACHE = "tests/test_near.py", "tests/test_scripts.py", "tests/test_cache.py"
_CLIENTS = "tests/test_clients.py"
_STORE, _POSTGRES = "tests/test_store.py", "tests/test_postgres.py"
#: Which tests are to notice a change of a file, cheapest first. All other files: `_CACHE`.
_TESTS: dict[str, tuple[str, ...]] = {
    "kcg_cache/near.py": (_NEAR, _CACHE),
    "kcg_cache/outage.py": (_NEAR, _STORE, _CACHE),
    "kcg_cache/clients.py": (_CLIENTS, _STORE, _SCRIPTS, _CACHE),
    "kcg_cache/connecting.py": (_CLIENTS, _STORE, _SCRIPTS, _CACHE),
    "kcg_cache/redis_errors.py": (_STORE, _SCRIPTS, _CACHE),
    "kcg_cache/store.py": (_STORE, _SCRIPTS, _CACHE),
    "kcg_cache/codec.py": ("tests/test_codec.py", _CACHE),
    "kcg_cache/compression.py": ("tests/test_compression.py", _CACHE),
    "kcg_cache/settings.py": ("tests/test_settings.py", _CACHE),
    "kcg_cache/cache.py": (_CACHE, _POSTGRES),
    "kcg_cache/postgres.py": (_POSTGRES,),
    "sql/snapshot_check.sql": (_POSTGRES,),
}


class StaleError(Exception):
    """A mutation that does not apply to the source as it is."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One part of one rule, taken out."""

    name: str
    rule: str
    #: The part of the rule that is missing afterwards, and what would go wrong without it.
    removes: str
    why: str
    file: str
    old: str
    new: str
    #: Test files or tests, as pytest takes them, in the order in which they run.
    tests: tuple[str, ...]
    #: The argument why no test can notice; '' where one must.
    equivalent: str = ""
    #: Seconds after which the tests count as hanging.
    timeout: float = 120.0

    def apply(self, source: str) -> str:
        """Give the mutated source; raise `StaleError` unless there is exactly one place for it."""
        places = source.count(self.old)
        if places != 1:
            raise StaleError(f"{self.rule} {self.name}: what it replaces is {places} times in {self.file}, not once")
        return source.replace(self.old, self.new)

    def mutated(self, root: Path = ROOT) -> str:
        """Give the mutated text of its file."""
        return self.apply((root / self.file).read_text(encoding="utf-8"))


def load() -> tuple[Mutation, ...]:
    """Give every mutation, rule by rule."""
    found: list[Mutation] = []
    for rule in RULES:
        path = Path(__file__).parent / f"r{int(rule[1:]):02}.toml"
        with path.open("rb") as file:
            found += [_mutation(rule, name, fields) for name, fields in tomllib.load(file).items()]
    return tuple(found)


def _mutation(rule: str, name: str, fields: dict[str, Any]) -> Mutation:
    file = fields["file"]
    default = (_SCRIPTS, _CACHE) if file.endswith(".lua") else _TESTS.get(file, (_CACHE,))
    if rule == "R13":  # the rule about PostgreSQL
        default = tuple(dict.fromkeys((_POSTGRES, *default)))
    return Mutation(name=name, rule=rule, **{"tests": default, **fields, **_tuple(fields)})


def _tuple(fields: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {"tests": tuple(fields["tests"])} if "tests" in fields else {}
