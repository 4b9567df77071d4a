"""What mutmut made of a module, and what became of each mutant, read from its files.

mutmut numbers the mutants of a function, and the numbers shift with every change of it. Here a mutant is known by
what it changes: the function, the lines as they were, the lines as they are.
"""

import ast
import difflib
import enum
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: Between the class and the method in the names that mutmut makes up.
_SEPARATOR = "ǁ"


class Outcome(enum.Enum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    #: No test calls the function.
    UNTESTED = "no tests"
    #: The tests did not run, or not to their end.
    BROKEN = "broken"


# pytest's exit codes and the signals of the limits, as mutmut notes them; what is not here is BROKEN.
_OUTCOMES = {
    0: Outcome.SURVIVED,
    1: Outcome.KILLED,
    3: Outcome.KILLED,  # pytest's own internal error: it ran into what the mutant did
    5: Outcome.UNTESTED,
    33: Outcome.UNTESTED,
    -24: Outcome.TIMEOUT,
    24: Outcome.TIMEOUT,
}


class Change(NamedTuple):
    """What a mutant changes. Lines are without their indentation, so that moving code does not matter."""

    #: Module and function, such as ``cache.SharedCache.read``.
    where: str
    old: str
    new: str

    @property
    def module(self) -> str:
        """The module's name alone."""
        return self.where.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutant, run or not."""

    #: mutmut's own name for it, to run it again by.
    name: str
    change: Change
    outcome: Outcome


def read(checkout: Path, modules: Sequence[str]) -> list[Mutant]:
    """Give the mutants of modules of `kcg_cache`, from where mutmut ran."""
    found: list[Mutant] = []
    for module in modules:
        path = checkout / "mutants" / "kcg_cache" / f"{module}.py"
        codes: dict[str, int | None] = json.loads(path.with_name(f"{path.name}.meta").read_text())["exit_code_by_key"]
        functions = {name: text for _, name, text in _functions(path.read_text(encoding="utf-8"))}
        for key, code in codes.items():
            name = key.rpartition(".")[2]
            original = f"{name.partition('__mutmut_')[0]}__mutmut_orig"
            plain = _plain_name(name)
            bare = plain.rpartition(".")[2]
            old, new = changed(
                functions[original].replace(original, bare, 1),
                functions[name].replace(name, bare, 1),
            )
            change = Change(f"{module}.{plain}", old, new)
            # "Not checked" is None: mutmut was interrupted.
            outcome = Outcome.BROKEN if code is None else _OUTCOMES.get(code, Outcome.BROKEN)
            found.append(Mutant(key, change, outcome))
    return found


def changed(old: str, new: str) -> tuple[str, str]:
    """Give the lines that differ, from the first to the last, of either text."""
    before, after = stripped(old).split("\n"), stripped(new).split("\n")
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    blocks = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    if not blocks:
        return "", ""
    _, first_old, _, first_new, _ = blocks[0]
    _, _, last_old, _, last_new = blocks[-1]
    return "\n".join(before[first_old:last_old]), "\n".join(after[first_new:last_new])


def stripped(text: str) -> str:
    """Give a text with every line's indentation taken off."""
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def function_text(source: str, name: str) -> str:
    """Give the text of a function, as `stripped` gives it; '' if there is none."""
    return next((stripped(text) for scope, inner, text in _functions(source) if f"{scope}{inner}" == name), "")


def _plain_name(name: str) -> str:
    mangled = name.partition("__mutmut_")[0]
    if _SEPARATOR in mangled:
        return ".".join(mangled.split(_SEPARATOR)[1:])
    return mangled.removeprefix("x_")


def _functions(source: str) -> Iterator[tuple[str, str, str]]:
    """Give the functions and methods of a module: the class and a dot, or ''; the name; the text."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        scope = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for item in inside:
            if isinstance(item, ast.FunctionDef):
                yield scope, item.name, textwrap.dedent("\n".join(lines[item.lineno - 1 : item.end_lineno]))
