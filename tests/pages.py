"""The tables of docs/metrics.md and docs/logging.md, made of the code; `python -m tests.pages` prints them."""

import logging

from kcg_cache.events import EVENTS
from kcg_cache.metrics import COUNTERS, FAMILIES, KNOWN, Family

_ENDS = {"counter": "_total", "gauge": "", "histogram": ""}


def metrics() -> list[str]:
    """Give a row for each family: name, kind, own labels, meaning."""
    return [
        f"| `{family.name}{_ENDS[family.kind]}` | {family.kind} | {_labels(family)} | {_cell(family.help)} |"
        for family in FAMILIES
    ]


def counters() -> list[str]:
    """Give a row for each counter of `cache.metrics`: name, family, meaning."""
    return [f"| `{name}` | {_shown(name)} | {_cell(meaning)} |" for name, meaning in COUNTERS.items()]


def events() -> list[str]:
    """Give a row for each event: name, level, details, limited or not, meaning."""
    return [
        f"| `{name}` | {logging.getLevelName(event.level)} | {', '.join(f'`{each}`' for each in event.details)} | "
        f"{'yes' if event.limited else 'no'} | {_cell(event.meaning)} |"
        for name, event in EVENTS.items()
    ]


def _labels(family: Family) -> str:
    values = [*family.of, *KNOWN.get(family.by, ())]
    if len(family.labels) != 1 or not values:
        return ", ".join(f"`{name}`" for name in family.labels)
    return f"`{family.labels[0]}`: {', '.join(value for (value,) in values)}"


def _shown(name: str) -> str:
    names = [
        family.name for family in FAMILIES if family.by == name or any(name in each for each in family.of.values())
    ]
    return ", ".join(f"`{shown}_total`" for shown in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print("\n".join([*metrics(), "", *counters(), "", *events()]))  # noqa: T201 - what it is for
