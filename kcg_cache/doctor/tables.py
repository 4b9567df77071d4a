"""The tables, rights, indexes and triggers. Pure: it looks at rows of sql/doctor_*.sql."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding, unchecked
from kcg_cache.units import size

Rows = Sequence[Mapping[str, Any]]

#: PostgreSQL's categories of type (pg_type.typcategory) that each kind of column may have.
_KINDS = {"number": "N", "text": "SE", "json": "US", "boolean": "B"}
_VERSIONS = "detection_model_versions"
#: A table that is read as a whole on each load, of so many bytes, is no matter.
SMALL = 16_000_000
#: The tables whose changes are told of, and of which changes.
WATCHED = ("detection_models", _VERSIONS, "detection_model_dependencies")
CHANGES = ("insert", "update", "delete", "truncate")
_INSTALL = 'kcg-cache sql notify | psql -v ON_ERROR_STOP=1 --single-transaction "$DSN"'


def columns(columns: Rows, role: str) -> Iterator[Finding]:
    """Look at tables, columns and this role's privileges (sql/doctor_columns.sql)."""
    missing = [f"table {table}" for table in _distinct(each["table_name"] for each in columns if not each["has_table"])]
    missing += [_named(each) for each in columns if each["has_table"] and each["found"] is None]
    other = [
        f"{_named(each)} is {each['found']}, not {each['wanted']}"
        for each in columns
        if each["found"] is not None and each["kind"] not in _KINDS[each["wanted"]]
    ]
    if not all(each["has_schema"] for each in columns):
        missing = ["schema kcg"]
    mend = 'kcg-cache sql schema | psql "$DSN" makes what is missing and leaves the rest; is it the right database?'
    if missing:
        yield Finding("KCG-P07", ERROR, f"there is no {', no '.join(missing)}", mend)
    elif other:
        yield Finding("KCG-P07", ERROR, "; ".join(other), "ALTER TABLE … ALTER COLUMN … TYPE …, as in sql/schema.sql")
    else:
        yield Finding("KCG-P07", OK, f"all {len(columns)} columns of {len(WATCHED)} tables")
    yield _privileges(columns, role)


def _privileges(columns: Rows, role: str) -> Finding:
    there = [each for each in columns if each["found"] is not None]
    if not there:
        return unchecked("KCG-P08", "there are no tables")
    if not all(each["may_use"] for each in there):
        mend = f"GRANT USAGE ON SCHEMA kcg TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA kcg TO {role}"
        return Finding("KCG-P08", ERROR, f"role {role} may not use schema kcg", mend)
    tables = _distinct(each["table_name"] for each in there if not each["may_read"])
    if tables:
        mend = f"GRANT SELECT ON {', '.join(f'kcg.{table}' for table in tables)} TO {role}"
        return Finding("KCG-P08", ERROR, f"role {role} may not read {', '.join(tables)}", mend)
    return Finding("KCG-P08", OK, f"role {role} may read all of them")


def one_primary(indexes: Rows) -> Finding:
    """Look for the unique index that refuses a second ACTIVE PRIMARY of a model (sql/doctor_indexes.sql)."""
    mend = 'kcg-cache sql schema | psql "$DSN" (archive the second PRIMARY first, see KCG-D02)'
    for index in indexes:
        predicate = index["predicate"] or ""
        if index["is_unique"] and index["columns"] == ["model_id"] and "ACTIVE" in predicate and "PRIMARY" in predicate:
            if not index["valid"]:
                seen = f"index {index['name']} is invalid: its build was broken off"
                return Finding("KCG-P09", WARNING, seen, f"REINDEX INDEX kcg.{index['name']}")
            return Finding("KCG-P09", OK, f"index {index['name']}")
    seen = f"no unique index on {_VERSIONS} (model_id) WHERE status = 'ACTIVE' AND role = 'PRIMARY'"
    return Finding("KCG-P09", WARNING, seen, mend)


def plan(plan: Mapping[str, Any], columns: Rows) -> Finding:
    """Look at how the load finds its rows (EXPLAIN in JSON); a small table may well be read as a whole."""
    node = next((node for node in _nodes(plan) if node.get("Relation Name") == _VERSIONS), {})
    how = node.get("Node Type", "a way of its own")
    if "Index Name" in node:
        how += f" by {node['Index Name']}"
    table = max((each["table_bytes"] or 0 for each in columns if each["table_name"] == _VERSIONS), default=0)
    seen = f"{how} on {_VERSIONS}, {size(table)}"
    if how == "Seq Scan" and table > SMALL:
        mend = f"ANALYZE kcg.{_VERSIONS}; is index detection_model_versions_active there? (kcg-cache sql schema)"
        return Finding("KCG-P10", NOTE, f"{seen}: every load reads all of it", mend)
    return Finding("KCG-P10", OK, seen)


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    pending = [plan]
    while pending:
        node = pending.pop()
        yield node
        pending += node.get("Plans", [])


def triggers(triggers: Rows) -> Finding:
    """Look at the triggers that notify (sql/doctor_triggers.sql); one of ENABLE ALWAYS fires for replication, too."""
    if not triggers:
        return Finding("KCG-P11", NOTE, "none is installed: `kcg-cache watch` polls", _INSTALL)
    wrong = []
    for table in WATCHED:
        here = [each for each in triggers if each["table_name"] == table]
        told = {change for each in here if each["enabled"] == "A" for change in CHANGES if each[f"on_{change}"]}
        if len(told) == len(CHANGES):
            continue
        asleep = [f"{each['name']} is {_ENABLED.get(each['enabled'], '?')}" for each in here if each["enabled"] != "A"]
        untold = ", ".join(change.upper() for change in CHANGES if change not in told)
        wrong.append(f"{table}: nothing tells of every {untold}" + (f" ({'; '.join(asleep)})" if asleep else ""))
    if wrong:
        mend = f"{_INSTALL}, or ALTER TABLE kcg.… ENABLE ALWAYS TRIGGER …"
        return Finding("KCG-P11", WARNING, "; ".join(wrong), mend)
    rows = [each["name"] for each in triggers if each["for_each"] == "ROW"]
    if rows:
        seen = f"{', '.join(_distinct(rows))} fires for each row: a large change notifies that often"
        return Finding("KCG-P11", NOTE, seen, _INSTALL)
    return Finding("KCG-P11", OK, f"{len(triggers)} triggers on {len(WATCHED)} tables, always enabled")


_ENABLED = {"D": "disabled", "O": "off under replication", "R": "on under replication only"}


def _named(column: Mapping[str, Any]) -> str:
    return f"column {column['table_name']}.{column['column_name']}"


def _distinct(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
