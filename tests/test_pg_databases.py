"""What tests rely on when they use a database that others have used before them."""

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from tests.pg_databases import Databases, administering
from tests.pg_fixtures import PostgresServer

pytestmark = [pytest.mark.operators, pytest.mark.once]

INSERT = "INSERT INTO kcg.detection_models (model_id, display_name) VALUES ('dark', 'dark')"
VERSION = INSERT + "; INSERT INTO kcg.detection_model_versions (model_id, version, role) VALUES ('dark', '1', 'SHADOW')"
FUNCTION = "CREATE FUNCTION {} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"

TRIGGER = """
CREATE TRIGGER told BEFORE UPDATE ON kcg.detection_models
    FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()
"""


@pytest.fixture(scope="module")
def databases(postgres_server: PostgresServer, pg_template: str) -> Iterator[Databases]:
    """Give databases that no other test uses."""
    databases = Databases(postgres_server, pg_template)
    yield databases
    databases.close()


def oid(server: PostgresServer, name: str) -> int:
    """Give what tells one database from another, whatever their names."""
    with administering(server, name) as cursor:
        cursor.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def next_after(databases: Databases, server: PostgresServer, statements: str) -> tuple[str, bool]:
    """Have a test that does this to its database; give the next one's, and whether it is the same."""
    name = databases.take()
    before = oid(server, name)
    with administering(server, name) as cursor:
        cursor.execute(statements.replace("DATABASE", f'DATABASE "{name}"'))
    databases.give_back(name)
    following = databases.take()
    return following, oid(server, following) == before


@pytest.mark.parametrize(
    "statements",
    [
        "SELECT 1",
        VERSION,
        INSERT + "; DELETE FROM kcg.detection_models",
        "SELECT nextval('kcg.detection_model_versions_id_seq')",
        INSERT + "; CREATE TABLE public.mine AS SELECT 1 AS n; CREATE VIEW public.seen AS SELECT n FROM public.mine",
        FUNCTION.format("public.told()"),
    ],
)
def test_rows_and_what_a_test_made_for_itself_are_gone(
    databases: Databases, postgres_server: PostgresServer, statements: str
) -> None:
    """The next test has the same database, with no rows, no relation but the schema's, and ids from 1 on."""
    name, same = next_after(databases, postgres_server, statements)
    assert same
    with administering(postgres_server, name) as cursor:
        cursor.execute("SELECT count(*) FROM kcg.detection_models")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        assert cursor.fetchone() == (0,)
        cursor.execute(VERSION)
        cursor.execute("SELECT id FROM kcg.detection_model_versions")
        assert cursor.fetchall() == [(1,)]
    databases.give_back(name)


CHANGES = [
    "ALTER TABLE kcg.detection_models ADD COLUMN more int",
    "ALTER TABLE kcg.detection_models ALTER COLUMN display_name DROP NOT NULL",
    "ALTER TABLE kcg.detection_models DISABLE TRIGGER ALL",
    "DROP TABLE kcg.correlation_param_models",
    "DROP INDEX kcg.detection_model_versions_active",
    "CREATE TABLE kcg.mine (n int)",
    "CREATE SCHEMA other",
    "CREATE TYPE public.mood AS ENUM ('calm')",
    FUNCTION.format("kcg.told()"),
    TRIGGER,
    "GRANT SELECT ON kcg.detection_models TO PUBLIC",
    "GRANT USAGE ON SCHEMA kcg TO PUBLIC",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.lower(text) FROM PUBLIC",
    "COMMENT ON TABLE kcg.detection_models IS 'changed'",
    "ALTER DATABASE SET work_mem = '8MB'",
    "GRANT CREATE ON DATABASE TO PUBLIC",
    "ALTER SEQUENCE kcg.detection_model_versions_id_seq INCREMENT 2",
    "SELECT lo_create(0)",
]


def test_every_other_change_is_seen(databases: Databases, postgres_server: PostgresServer) -> None:
    """Whatever stands in a catalog, of the database's own or one that all share, and nothing that was rolled back."""
    name = databases.take()
    with closing(psycopg2.connect(postgres_server.dsn_for(name))) as conn, conn.cursor() as cursor:
        before = databases.state(cursor)
        for change in CHANGES:
            cursor.execute(change.replace("DATABASE", f'DATABASE "{name}"'))
            assert databases.state(cursor) != before, change
            conn.rollback()
            assert databases.state(cursor) == before, change
    databases.give_back(name)


def test_a_database_that_was_changed_is_not_used_again(databases: Databases, postgres_server: PostgresServer) -> None:
    """It is dropped, and the next test has a copy that is as the template is."""
    name, same = next_after(databases, postgres_server, "DROP TABLE kcg.correlation_param_models")
    assert not same
    with administering(postgres_server, name) as cursor:
        cursor.execute("SELECT count(*) FROM kcg.correlation_param_models")
        assert cursor.fetchone() == (0,)
    databases.give_back(name)


def test_whoever_is_still_connected_is_cut_off_and_does_not_find_back(
    databases: Databases, postgres_server: PostgresServer
) -> None:
    """A thread that a test left behind cannot come into the next one's database."""
    name = databases.take()
    left = psycopg2.connect(postgres_server.dsn_for(name))
    with left.cursor() as cursor:
        cursor.execute(INSERT)  # in a transaction, whose locks are held
        databases.give_back(name)
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
    left.close()
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(postgres_server.dsn_for(name))
