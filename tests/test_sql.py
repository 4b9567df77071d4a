"""The files in `sql/`, run on a real PostgreSQL."""

import graphlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from psycopg2 import errors, sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

from kcg_cache import queries

pytestmark = pytest.mark.once

TABLES = (
    "kcg.correlation_param_models",
    "kcg.detection_model_dependencies",
    "kcg.detection_model_versions",
    "kcg.detection_models",
)
#: Sorted by bytes. Under a linguistic collation at least one of them stands elsewhere.
TRAPS = ["a-b", "aB", "a_b", "ab", "가"]
#: Collations in which letters come before their case and punctuation hardly counts; a server has some of them or none.
LINGUISTIC = ("en-x-icu", "ko-x-icu", "en_US.utf8", "ko_KR.utf8")

CONTROL = "SELECT system_identifier::text FROM pg_control_system()"


def code(name: str) -> str:
    """Give a file's text without its comments and the bodies of its functions."""
    return re.sub(r"\$(\w*)\$.*?\$\1\$", "", re.sub(r"--.*", "", queries.load(name)), flags=re.DOTALL).strip()


QUERIES = [name for name in queries.names() if code(name).startswith("SELECT")]


def run(conn: Connection, statement: str | sql.Composable, values: Sequence[Any] | None = None) -> None:
    with conn.cursor() as cursor:
        cursor.execute(statement, values)


def rows(conn: Connection, statement: str | sql.Composable, values: Sequence[Any] | None = None) -> list[Any]:
    with conn.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def dicts(conn: Connection, name: str) -> list[dict[str, Any]]:
    """Run a query of `sql/` and give its rows by column name."""
    with conn.cursor() as cursor:
        cursor.execute(queries.load(name))
        columns = [column.name for column in cursor.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def contents(conn: Connection) -> dict[str, list[Any]]:
    """Give every row of every table, as text."""
    return {table: rows(conn, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in TABLES}


def plan(conn: Connection, name: str) -> str:
    """Give the plan of a query of `sql/` as the server explains it."""
    return "\n".join(line for (line,) in rows(conn, "EXPLAIN (VERBOSE) " + queries.load(name)))


def add_model(conn: Connection, model_id: str, *, enabled: bool = True) -> None:
    statement = "INSERT INTO kcg.detection_models (model_id, display_name, is_enabled) VALUES (%s, %s, %s)"
    run(conn, statement, (model_id, model_id, enabled))


def add_version(conn: Connection, model_id: str, version: str, role: str = "PRIMARY", status: str = "ACTIVE") -> None:
    run(
        conn,
        "INSERT INTO kcg.detection_model_versions (model_id, version, role, status) VALUES (%s, %s, %s, %s)",
        (model_id, version, role, status),
    )


def add_edge(conn: Connection, model_id: str, depends_on: str, input_key: str) -> None:
    statement = "INSERT INTO kcg.detection_model_dependencies VALUES (%s, %s, %s)"
    run(conn, statement, (model_id, depends_on, input_key))


def active(conn: Connection) -> list[tuple[str, str]]:
    """Give what active_versions.sql lists, as (model, version)."""
    return [(row["model_id"], row["version"]) for row in dicts(conn, "active_versions")]


@pytest.fixture
def sampled(pg: Connection) -> Connection:
    """Give a connection to a database with the sample data, committed."""
    run(pg, queries.load("sample_data"))
    pg.commit()
    return pg


# The files as files.


@pytest.mark.parametrize("name", queries.names())
def test_a_file_begins_with_what_it_is_who_runs_it_and_how(name: str) -> None:
    """A DBA who opens any of the files learns at its top what running it would do."""
    header = queries.load(name).partition("\n\n")[0]
    assert all(line.startswith("--") for line in header.splitlines())
    for promised in ("-- Who: ", "-- How: ", "-- Again: ", "psql -X", f"-f sql/{name}.sql"):
        assert promised in header


@pytest.mark.parametrize("name", queries.names())
def test_a_file_is_sql_and_nothing_else(name: str) -> None:
    """Drivers take the files as they are: no psql command, no transaction of its own, nothing to interpolate."""
    assert "%" not in queries.load(name)
    assert not re.search(r"^\s*(\\|BEGIN\b|COMMIT\b|SET\b)", code(name), re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_one_statement(pg: Connection, name: str) -> None:
    """Without its final semicolon it stands where only one query may stand."""
    text = queries.load(name).rstrip()
    assert text.endswith(";")
    run(pg, f"SELECT count(*) FROM ({text.removesuffix(';')}\n) AS q")


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_explained_by_the_server(sampled: Connection, name: str) -> None:
    """Every table, column and function that it names is there."""
    assert plan(sampled, name)


@pytest.mark.parametrize("name", queries.names())
def test_a_file_runs_in_psql(pg_dsn: str, name: str) -> None:
    """What its header says works, twice, and without a word on the error channel."""
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("no psql on this machine")
    environment = {**os.environ, "PGCLIENTENCODING": "UTF8", "PGOPTIONS": "-c client_min_messages=warning"}
    for _ in range(2):
        done = subprocess.run(
            [psql, "-X", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-f", queries.path(name), pg_dsn],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


# schema.sql


def test_the_schema_loads_again_without_touching_rows(sampled: Connection) -> None:
    """A second run is safe on a database that is in use."""
    before = contents(sampled)
    run(sampled, queries.load("schema"))
    assert contents(sampled) == before


def test_an_ordinary_role_with_create_on_the_database_can_load_the_schema(pg: Connection, pg_role: str) -> None:
    """No superuser is needed, neither the first time nor the second, and the role owns what it made."""
    run(pg, "DROP SCHEMA kcg CASCADE")
    grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
    run(pg, grant.format(sql.Identifier(pg.info.dbname), sql.Identifier(pg_role)))
    run(pg, sql.SQL("SET ROLE {}").format(sql.Identifier(pg_role)))
    for _ in range(2):
        run(pg, queries.load("schema"))
    run(pg, queries.load("sample_data"))
    owners = rows(pg, "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'kcg'")
    assert owners == [(pg_role,)]
    assert active(pg)


def test_a_model_has_one_active_primary(pg: Connection) -> None:
    """The database refuses what the workers could not decide."""
    add_model(pg, "drift")
    add_version(pg, "drift", "1")
    with pytest.raises(errors.UniqueViolation, match="one_active_primary"):
        add_version(pg, "drift", "2")


def test_a_promotion_archives_the_old_primary_first(pg: Connection) -> None:
    """In that order, the constraint lets an operator pass in one transaction."""
    add_model(pg, "drift")
    add_version(pg, "drift", "1")
    add_version(pg, "drift", "2", "CHALLENGER")
    run(pg, "UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE version = '1'")
    run(pg, "UPDATE kcg.detection_model_versions SET role = 'PRIMARY' WHERE version = '2'")
    assert active(pg) == [("drift", "2")]


def test_everything_but_an_active_primary_may_be_there_many_times(pg: Connection) -> None:
    """Challengers, shadows, drafts and archived primaries are not counted, nor are other models'."""
    for model in ("drift", "loitering"):
        add_model(pg, model)
        add_version(pg, model, "1")
        for number in range(2):
            for role, status in (
                ("CHALLENGER", "ACTIVE"),
                ("SHADOW", "ACTIVE"),
                ("PRIMARY", "DRAFT"),
                ("PRIMARY", "ARCHIVED"),
            ):
                add_version(pg, model, f"{role}-{status}-{number}", role, status)
    assert len(active(pg)) == 2 * 5


def test_a_version_is_there_once(pg: Connection) -> None:
    """A model's version names one set of parameters for good."""
    add_model(pg, "drift")
    add_version(pg, "drift", "1", status="ARCHIVED")
    with pytest.raises(errors.UniqueViolation, match="model_version"):
        add_version(pg, "drift", "1", status="DRAFT")


@pytest.mark.parametrize(("role", "status"), [("primary", "ACTIVE"), ("CANARY", "DRAFT"), ("SHADOW", "active")])
def test_an_unknown_role_or_status_is_refused(pg: Connection, role: str, status: str) -> None:
    """A typing error does not hide a version from the workers."""
    add_model(pg, "drift")
    with pytest.raises(errors.CheckViolation):
        add_version(pg, "drift", "1", role, status)


def test_a_version_belongs_to_a_known_model(pg: Connection) -> None:
    """No version is lost to a typing error in its model's name."""
    with pytest.raises(errors.ForeignKeyViolation):
        add_version(pg, "dirft", "1")


@pytest.mark.parametrize("params", [None, "[]", '"text"', "null", "3", "{}"])
def test_params_may_be_whatever_json_a_real_table_holds(pg: Connection, params: str | None) -> None:
    """The contract says what NULL and a non-object become; the table does not get in its way."""
    add_model(pg, "drift")
    add_version(pg, "drift", "1")
    run(pg, "UPDATE kcg.detection_model_versions SET params = %s", (params,))
    assert [row["params"] for row in dicts(pg, "active_versions")] == [params]


def test_a_model_does_not_depend_on_itself(pg: Connection) -> None:
    """The shortest of all cycles is refused."""
    add_model(pg, "drift")
    with pytest.raises(errors.CheckViolation, match="no_self"):
        add_edge(pg, "drift", "drift", "x")


def test_two_inputs_may_come_from_one_model(pg: Connection) -> None:
    """The same edge under another key is another edge; under the same key it is refused."""
    add_model(pg, "drift")
    add_model(pg, "loitering")
    add_edge(pg, "loitering", "drift", "windows")
    add_edge(pg, "loitering", "drift", "score")
    with pytest.raises(errors.UniqueViolation):
        add_edge(pg, "loitering", "drift", "score")


def test_one_correlation_set_is_the_default(sampled: Connection) -> None:
    """Who names no set gets one, not one of two."""
    with pytest.raises(errors.UniqueViolation, match="one_default"):
        run(sampled, "UPDATE kcg.correlation_param_models SET is_default = true")


# active_versions.sql


def test_active_versions_have_the_contract_s_columns(sampled: Connection) -> None:
    """Names and types are the ones that callers have always had, params being text."""
    for row in dicts(sampled, "active_versions"):
        assert {name: type(value) for name, value in row.items()} == {
            "id": int,
            "model_id": str,
            "version": str,
            "role": str,
            "params": str,
        }


@pytest.mark.parametrize("status", ["DRAFT", "TESTING", "ARCHIVED"])
def test_versions_that_are_not_active_are_left_out(pg: Connection, status: str) -> None:
    """Workers get what an operator has promoted, and no longer than that."""
    add_model(pg, "drift")
    add_version(pg, "drift", "1")
    add_version(pg, "drift", "2", "CHALLENGER", status)
    assert active(pg) == [("drift", "1")]


def test_a_disabled_model_takes_all_its_versions_with_it(pg: Connection) -> None:
    """One switch turns a model off, and on again."""
    add_model(pg, "drift", enabled=False)
    add_model(pg, "loitering")
    for model in ("drift", "loitering"):
        add_version(pg, model, "1")
        add_version(pg, model, "2", "SHADOW")
    assert active(pg) == [("loitering", "1"), ("loitering", "2")]
    run(pg, "UPDATE kcg.detection_models SET is_enabled = true")
    assert len(active(pg)) == 4


def test_roles_come_in_the_order_of_the_contract(pg: Connection) -> None:
    """PRIMARY, CHALLENGER, SHADOW, then any other; equal ranks by id. Case counts."""
    run(pg, "ALTER TABLE kcg.detection_model_versions DROP CONSTRAINT detection_model_versions_role")
    add_model(pg, "drift")
    for version, role in enumerate(
        ["zeta", "SHADOW", "primary", "CHALLENGER", "CANARY", "PRIMARY", "SHADOW", "CHALLENGER", ""]
    ):
        add_version(pg, "drift", str(version), role)
    assert [(row["role"], row["version"]) for row in dicts(pg, "active_versions")] == [
        ("PRIMARY", "5"),
        ("CHALLENGER", "3"),
        ("CHALLENGER", "7"),
        ("SHADOW", "1"),
        ("SHADOW", "6"),
        ("zeta", "0"),
        ("primary", "2"),
        ("CANARY", "4"),
        ("", "8"),
    ]


def test_models_come_in_the_order_of_their_bytes(pg: Connection) -> None:
    """Names in which case, punctuation and script compete have one order."""
    for model in reversed(TRAPS):
        add_model(pg, model)
        add_version(pg, model, "1")
    assert [model for model, _ in active(pg)] == TRAPS


def test_the_order_does_not_depend_on_the_database_s_collation(pg: Connection) -> None:
    """Where ORDER BY alone would give another order, every query still gives the order of the bytes."""
    known = rows(pg, "SELECT collname FROM pg_collation WHERE collname = ANY(%s)", (list(LINGUISTIC),))
    if not known:
        pytest.skip("this server has no linguistic collation")
    for table, column in (
        ("detection_models", "model_id"),
        ("detection_model_versions", "model_id"),
        ("detection_model_dependencies", "model_id"),
        ("detection_model_dependencies", "depends_on"),
        ("detection_model_dependencies", "input_key"),
        ("correlation_param_models", "name"),
    ):
        run(
            pg,
            sql.SQL("ALTER TABLE kcg.{} ALTER COLUMN {} TYPE text COLLATE {}").format(
                sql.Identifier(table), sql.Identifier(column), sql.Identifier(known[0][0])
            ),
        )
    add_model(pg, "hub")
    for name in reversed(TRAPS):
        add_model(pg, name)
        add_version(pg, name, "1")
        add_edge(pg, name, "hub", name)
        add_edge(pg, "hub", name, name)
        run(
            pg,
            "INSERT INTO kcg.correlation_param_models (name, display_name, params) VALUES (%s, '', '{}')",
            (name,),
        )
    plain = rows(pg, "SELECT model_id FROM kcg.detection_model_versions ORDER BY model_id")
    assert [model for (model,) in plain] != TRAPS
    assert [model for model, _ in active(pg)] == TRAPS
    assert [row["name"] for row in dicts(pg, "correlation_models")] == TRAPS
    edges = [tuple(row.values()) for row in dicts(pg, "dependencies")]
    assert edges == sorted(edges, key=lambda edge: [part.encode() for part in edge])


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("active_versions", ["v.model_id"]),
        ("dependencies", ["d.model_id", "d.depends_on", "d.input_key"]),
        ("correlation_models", ["c.name"]),
    ],
)
def test_every_text_that_rows_are_ordered_by_is_compared_by_its_bytes(
    pg: Connection, name: str, columns: list[str]
) -> None:
    """The plan says so also on a server that has no collation to show the difference."""
    # Without indexes: one that is sorted already would hide the sort key.
    run(pg, "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off")
    keys = "".join(re.findall(r"Sort Key: (.*)", plan(pg, name)))
    for column in columns:
        assert re.search(rf'{re.escape(column)}\)?(::text)? COLLATE "C"', keys), keys


def test_active_versions_are_found_through_their_index(sampled: Connection) -> None:
    """However many archived versions pile up, the query does not have to read them."""
    run(sampled, "ANALYZE")
    run(sampled, "SET LOCAL enable_seqscan = off")
    assert "detection_model_versions_active" in plan(sampled, "active_versions")


def test_many_archived_versions_are_not_read(sampled: Connection) -> None:
    """With real proportions the planner takes the index by itself."""
    run(
        sampled,
        "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params) "
        "SELECT 'drift', 'old-' || n, 'PRIMARY', 'ARCHIVED', '{}' FROM generate_series(1, 20000) AS n",
    )
    run(sampled, "ANALYZE")
    assert "detection_model_versions_active" in plan(sampled, "active_versions")


# sample_data.sql


def test_sample_data_loads_again_without_touching_rows(sampled: Connection) -> None:
    """A second run adds nothing and changes nothing."""
    before = contents(sampled)
    assert all(before.values())
    run(sampled, queries.load("sample_data"))
    assert contents(sampled) == before


def test_sample_data_leaves_an_operator_s_changes_alone(sampled: Connection) -> None:
    """A version that was promoted since, under a name that the sample does not know, stays the PRIMARY."""
    run(sampled, "DELETE FROM kcg.detection_model_versions WHERE model_id = 'drift'")
    add_version(sampled, "drift", "operator's own")
    run(sampled, "UPDATE kcg.detection_models SET is_enabled = true, display_name = 'renamed'")
    before = contents(sampled)
    run(sampled, queries.load("sample_data"))
    assert contents(sampled) == before


def test_sample_models_are_a_dozen_with_korean_names_and_one_disabled(sampled: Connection) -> None:
    """The sample looks like the real thing."""
    models = rows(sampled, "SELECT display_name, description, is_enabled FROM kcg.detection_models")
    assert len(models) >= 12
    assert all(re.search("[가-힣]", name) and re.search("[가-힣]", text) for name, text, _ in models)
    assert [enabled for *_, enabled in models].count(False) == 1


def test_sample_versions_are_of_every_role_and_status(sampled: Connection) -> None:
    """Nothing that the schema allows is missing from the sample."""
    versions = rows(sampled, "SELECT role, status FROM kcg.detection_model_versions")
    assert {role for role, _ in versions} == {"PRIMARY", "CHALLENGER", "SHADOW"}
    assert {status for _, status in versions} == {"DRAFT", "TESTING", "ACTIVE", "ARCHIVED"}
    assert {role for role, status in versions if status == "ACTIVE"} == {"PRIMARY", "CHALLENGER", "SHADOW"}


def test_every_enabled_sample_model_has_its_primary(sampled: Connection) -> None:
    """The demo's workers find something to run for each of them, and nothing of the disabled one."""
    primaries = [row["model_id"] for row in dicts(sampled, "active_versions") if row["role"] == "PRIMARY"]
    enabled = rows(sampled, "SELECT model_id FROM kcg.detection_models WHERE is_enabled")
    assert primaries == sorted(model for (model,) in enabled)
    hidden = rows(
        sampled,
        "SELECT count(*) FROM kcg.detection_model_versions JOIN kcg.detection_models USING (model_id) "
        "WHERE status = 'ACTIVE' AND NOT is_enabled",
    )
    assert hidden == [(1,)]


@pytest.mark.parametrize("table", ["kcg.detection_model_versions", "kcg.correlation_param_models"])
def test_all_sample_params_are_objects(sampled: Connection, table: str) -> None:
    """And none is empty."""
    for (text,) in rows(sampled, f"SELECT params::text FROM {table}"):
        params = json.loads(text)
        assert isinstance(params, dict)
        assert params


def test_sample_params_have_korean_text_lists_and_nested_objects(sampled: Connection) -> None:
    """What is hard to carry is in the sample."""
    texts = [row["params"] for row in dicts(sampled, "active_versions")]
    values = [value for text in texts for value in json.loads(text).values()]
    assert {type(value) for value in values} >= {int, float, str, list, dict, bool, type(None)}
    assert any(re.search("[가-힣]", text) for text in texts)


def test_sample_dependencies_have_an_order(sampled: Connection) -> None:
    """They form no cycle, and one model takes two inputs from another."""
    graph: dict[str, set[str]] = {}
    edges = [(row["model_id"], row["depends_on"]) for row in dicts(sampled, "dependencies")]
    for model, needed in edges:
        graph.setdefault(model, set()).add(needed)
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) > len(graph)
    assert len(set(edges)) < len(edges)


def test_dependencies_are_every_edge_in_order(sampled: Connection) -> None:
    """Also the edges of a disabled model."""
    edges = [tuple(row.values()) for row in dicts(sampled, "dependencies")]
    assert edges == sorted(rows(sampled, "SELECT * FROM kcg.detection_model_dependencies"))
    assert "vessel-type-legacy" in {model for model, *_ in edges}


def test_correlation_models_are_the_active_sets(sampled: Connection) -> None:
    """The second dataset has rows of another shape, and leaves out what is not active."""
    sets = dicts(sampled, "correlation_models")
    assert [one["name"] for one in sets] == ["aggressive", "conservative", "default"]
    assert [one["name"] for one in sets if one["is_default"]] == ["default"]
    assert all(isinstance(one["params"], str) for one in sets)


# snapshot_check.sql


def check(conn: Connection) -> dict[str, Any]:
    """Ask the question, and see to it that there is one answer."""
    (answer,) = dicts(conn, "snapshot_check")
    return answer


def has_xid(conn: Connection) -> bool:
    """Tell whether the transaction has an id, without giving it one."""
    return bool(rows(conn, "SELECT pg_current_xact_id_if_assigned() IS NOT NULL")[0][0])


def become(conn: Connection, role: str) -> None:
    run(conn, sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


def test_the_check_names_the_database(pg: Connection) -> None:
    """The answer's columns, their types, and which cluster and database this is."""
    (identifier,) = rows(pg, CONTROL)[0]
    pg.rollback()
    pg.autocommit = True
    assert check(pg) == {
        "isolation": "read committed",
        "has_xid": False,
        "in_recovery": False,
        "system_identifier": identifier,
        "database": pg.info.dbname,
        "alone": True,
    }


def test_in_autocommit_every_check_is_alone(pg: Connection) -> None:
    """Each is a transaction of its own, whatever the session has written before."""
    pg.autocommit = True
    run(pg, "SET default_transaction_isolation = 'repeatable read'")
    for model in ("drift", "loitering"):
        answer = check(pg)
        assert (answer["alone"], answer["has_xid"], answer["isolation"]) == (True, False, "repeatable read")
        add_model(pg, model)


def test_in_an_open_transaction_the_check_is_not_alone(pg: Connection) -> None:
    """Whether something was read since BEGIN is not known, so the answer is the careful one."""
    assert check(pg)["alone"] is False
    run(pg, "SELECT 1")
    assert check(pg)["alone"] is False


def test_a_write_shows(pg: Connection) -> None:
    """From the first write to the end of the transaction, and no longer."""
    assert check(pg)["has_xid"] is False
    add_model(pg, "drift")
    assert check(pg)["has_xid"] is True
    pg.commit()
    assert check(pg)["has_xid"] is False


def test_a_write_under_a_savepoint_shows(pg: Connection) -> None:
    """Before and after RELEASE, and even after ROLLBACK TO: then nothing is seen, but nobody can tell."""
    run(pg, "SAVEPOINT a")
    assert check(pg)["has_xid"] is False
    add_model(pg, "drift")
    assert check(pg)["has_xid"] is True
    run(pg, "SAVEPOINT b; RELEASE SAVEPOINT b")
    assert check(pg)["has_xid"] is True
    run(pg, "ROLLBACK TO SAVEPOINT a")
    assert check(pg)["has_xid"] is True


def test_somebody_else_s_write_does_not_show(pg: Connection, pg_connect: Callable[[], Connection]) -> None:
    """Only this connection's own transaction is asked about."""
    other = pg_connect()
    add_model(other, "drift")
    assert check(other)["has_xid"] is True
    assert check(pg)["has_xid"] is False


@pytest.mark.parametrize("level", ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("mode", ["READ WRITE", "READ ONLY", "READ ONLY DEFERRABLE"])
def test_the_check_works_at_every_level(pg: Connection, level: str, mode: str) -> None:
    """It tells the level, in transactions that may write and in those that may not."""
    run(pg, f"SET TRANSACTION ISOLATION LEVEL {level} {mode.replace(' DEF', ', DEF')}")
    answer = check(pg)
    assert (answer["isolation"], answer["has_xid"], answer["alone"]) == (level.lower(), False, False)


def test_the_check_assigns_no_transaction_id(pg: Connection) -> None:
    """Asking twice gives the same answer: the question is no write."""
    for _ in range(2):
        assert check(pg)["has_xid"] is False
    assert has_xid(pg) is False


def test_a_role_without_any_rights_may_ask(pg: Connection, pg_role: str) -> None:
    """What PUBLIC may do is enough, also to learn the system identifier."""
    expected = check(pg)
    become(pg, pg_role)
    assert check(pg) == expected
    assert expected["system_identifier"]


def test_a_role_that_may_not_ask_for_the_identifier_gets_the_rest(pg: Connection, pg_role: str) -> None:
    """And its transaction goes on: an error would have aborted it."""
    run(pg, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    expected = check(pg)
    become(pg, pg_role)
    assert check(pg) == {**expected, "system_identifier": None}
    assert rows(pg, "SELECT 1") == [(1,)]


def test_the_right_to_a_function_is_asked_for_in_a_branch_that_is_not_taken(pg: Connection, pg_role: str) -> None:
    """Why the check goes a long way round: the short way fails in the branch that it does not take."""
    run(pg, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    become(pg, pg_role)
    with pytest.raises(errors.InsufficientPrivilege, match="pg_control_system"):
        run(pg, f"SELECT CASE WHEN now() IS NULL THEN ({CONTROL}) END")


def test_a_server_without_the_function_gives_no_identifier(pg: Connection) -> None:
    """A look-alike that has no pg_control_system() is no error either."""
    run(pg, "ALTER FUNCTION pg_catalog.pg_control_system() RENAME TO pg_no_control_system")
    assert check(pg)["system_identifier"] is None


def test_the_check_asks_postgresql_and_not_the_search_path(pg: Connection) -> None:
    """Functions of the same names that stand before PostgreSQL's own are not called."""
    pg.autocommit = True
    expected = check(pg)
    run(pg, "CREATE SCHEMA shadow")
    for name, kind, value in (
        ("now()", "timestamptz", "'-infinity'"),
        ("statement_timestamp()", "timestamptz", "'infinity'"),
        ("pg_is_in_recovery()", "bool", "true"),
        ("current_database()", "name", "'elsewhere'"),
        ("pg_current_xact_id_if_assigned()", "xid8", "'7'"),
        ("current_setting(text)", "text", "'serializable'"),
        ("ts_stat(text)", "text", "'0'"),
        ("array_to_tsvector(text[])", "tsvector", "'0'"),
    ):
        run(pg, f"CREATE FUNCTION shadow.{name} RETURNS {kind} LANGUAGE sql AS $$ SELECT {value}::{kind} $$")
    run(pg, "SET search_path = shadow, pg_catalog")
    assert check(pg) == expected
