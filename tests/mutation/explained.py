"""The survivors that no test can or should notice, each with the reason: ``explained.toml``."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Change

FILE = Path(__file__).parent / "explained.toml"
_FIELDS = {"in", "old", "new", "count"}


class ListError(Exception):
    """The list is not written as it should be."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One change whose mutant may survive."""

    #: The name of the reason, and the reason.
    reason: str
    why: str
    change: Change
    #: How many mutants make this very change, in places of the function that read the same.
    count: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """The survivors beside the list."""

    explained: dict[Explanation, int]
    #: Survivors that the list does not have, or more of one than it says.
    unexplained: list[Change]
    #: Explanations of what did not survive, or of more than did.
    stale: list[Explanation]


def load(path: Path = FILE) -> tuple[Explanation, ...]:
    """Read the list; raises `ListError` that says what is wrong and where."""
    with path.open("rb") as file:
        reasons: dict[str, dict[str, Any]] = tomllib.load(file)
    found: list[Explanation] = []
    for reason, group in reasons.items():
        if set(group) != {"why", "mutants"} or not group["why"] or not group["mutants"]:
            raise ListError(f"[{reason}] has {sorted(group)}; it should say why, and of which mutants")
        for entry in group["mutants"]:
            if not {"in", "old", "new"} <= set(entry) <= _FIELDS:
                raise ListError(f"[{reason}] has an entry of {sorted(entry)}: {entry}")
            change = Change(entry["in"], entry["old"], entry["new"])
            found.append(Explanation(reason, " ".join(group["why"].split()), change, entry.get("count", 1)))
    twice = [change for change, number in Counter(explanation.change for explanation in found).items() if number > 1]
    if twice:
        raise ListError(f"explained twice: {twice[0]}")
    return tuple(found)


def compare(survivors: Iterable[Change], explanations: Sequence[Explanation]) -> Comparison:
    """Hold the survivors against the list, both ways."""
    left = Counter(survivors)
    explained: dict[Explanation, int] = {}
    stale: list[Explanation] = []
    for explanation in explanations:
        there = min(left[explanation.change], explanation.count)
        explained[explanation] = there
        left[explanation.change] -= there
        if there < explanation.count:
            stale.append(explanation)
    return Comparison(explained, list(left.elements()), stale)


def as_entry(change: Change) -> str:
    """Write a change as the list has it, to be put under its reason."""
    return f"  {{ in = {_text(change.where)}, old = {_text(change.old)}, new = {_text(change.new)} }},"


def _text(text: str) -> str:
    if "\n" in text:
        return f"'''\n{text}'''" if "'''" not in text else _basic(text)
    return f"'{text}'" if "'" not in text else _basic(text)


def _basic(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
