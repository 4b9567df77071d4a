"""What `sql` and `lua` share: packaged files are listed by their first sentence, and written as they are."""

from collections.abc import Iterable

import typer


def first_sentence(text: str) -> str:
    """Give the first sentence of a file's head comment."""
    head = []
    for line in text.splitlines():
        words = line.removeprefix("--").strip()
        if not line.startswith("--") or not words:
            break
        head.append(words)
    sentence, stop, _ = " ".join(head).partition(". ")
    return sentence + stop.strip()


def known(name: str, names: Iterable[str]) -> str:
    """Give `name` back, or raise typer's error of usage, which lists `names`."""
    if name not in names:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(names)}", param_hint="NAME")
    return name
