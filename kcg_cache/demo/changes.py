"""What the operator of the demo plays: changes to the models and versions of sql/sample_data.sql.

Played in order and from the start again, each finds the state that the one before it left.
"""

from dataclasses import dataclass
from typing import Any

_ARCHIVE_PRIMARY = """
    UPDATE kcg.detection_model_versions SET status = 'ARCHIVED', updated_at = now()
    WHERE model_id = %s AND role = 'PRIMARY' AND status = 'ACTIVE'
"""
_SET = """
    UPDATE kcg.detection_model_versions SET role = %s, status = %s, updated_at = now()
    WHERE model_id = %s AND version = %s
"""
_ENABLE = "UPDATE kcg.detection_models SET is_enabled = %s WHERE model_id = %s"

#: In the transaction of every change: the number that the audit goes by, in every row that workers may read.
STAMP = """
    UPDATE kcg.detection_model_versions
    SET params = jsonb_set(coalesce(params, '{}'), '{generation}', to_jsonb(%s::bigint))
    WHERE status = 'ACTIVE'
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, which changes one row."""

    sql: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator does in one transaction. It says why in the log of invalidations."""

    what: str
    #: The model, and its PRIMARY version after the change.
    model: str
    version: str
    steps: tuple[Step, ...]
    #: Whether workers decide by another version from now on.
    promotes: bool = False


def _promotion(model: str, version: str, what: str, *more: Step) -> Change:
    # The old PRIMARY first: two at once are refused by the schema.
    archive, promote = Step(_ARCHIVE_PRIMARY, (model,)), Step(_SET, ("PRIMARY", "ACTIVE", model, version))
    return Change(what, model, version, (archive, promote, *more), promotes=True)


CHANGES = (
    _promotion("dark-vessel", "3.3.0", "promote dark-vessel 3.3.0 to PRIMARY, archive 3.2.0"),
    Change(
        "archive SHADOW 2.1.0 of loitering",
        "loitering",
        "2.0.0",
        (Step(_SET, ("SHADOW", "ARCHIVED", "loitering", "2.1.0")),),
    ),
    _promotion("ais-spoofing", "2.1.0-rc1", "promote ais-spoofing 2.1.0-rc1 to PRIMARY, archive 2.0.1"),
    Change("disable drift", "drift", "1.0.2", (Step(_ENABLE, (False, "drift")),)),
    Change(
        "activate DRAFT 1.3.0-draft of gear-conflict as CHALLENGER",
        "gear-conflict",
        "1.2.0",
        (Step(_SET, ("CHALLENGER", "ACTIVE", "gear-conflict", "1.3.0-draft")),),
    ),
    _promotion(
        "dark-vessel",
        "3.2.0",
        "roll dark-vessel back to 3.2.0, 3.3.0 is CHALLENGER again",
        Step(_SET, ("CHALLENGER", "ACTIVE", "dark-vessel", "3.3.0")),
    ),
    Change("enable drift", "drift", "1.0.2", (Step(_ENABLE, (True, "drift")),)),
    _promotion("gear-conflict", "1.3.0-draft", "promote gear-conflict 1.3.0-draft to PRIMARY, archive 1.2.0"),
    Change(
        "activate SHADOW 2.1.0 of loitering",
        "loitering",
        "2.0.0",
        (Step(_SET, ("SHADOW", "ACTIVE", "loitering", "2.1.0")),),
    ),
    _promotion(
        "ais-spoofing",
        "2.0.1",
        "roll ais-spoofing back to 2.0.1, 2.1.0-rc1 is CHALLENGER again",
        Step(_SET, ("CHALLENGER", "ACTIVE", "ais-spoofing", "2.1.0-rc1")),
    ),
    _promotion(
        "gear-conflict",
        "1.2.0",
        "roll gear-conflict back to 1.2.0, 1.3.0-draft is a DRAFT again",
        Step(_SET, ("CHALLENGER", "DRAFT", "gear-conflict", "1.3.0-draft")),
    ),
)
