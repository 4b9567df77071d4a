"""The rows in PostgreSQL: put there once, changed by an operator, loaded as any service would load them."""

import time
from typing import Any

import orjson
import psycopg2
import psycopg2.extras

from benchmarks.rows import GENERATION_MODEL, Size, make_rows
from kcg_cache import queries
from kcg_cache.postgres import dsn_of_database, execute

_QUERY = queries.load("active_versions")


class Database:
    """One database with the schema and the rows of one size; every process opens its own connection to it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the address: it opens a connection of its own.
        return type(self), (self.dsn,)

    @property
    def connection(self) -> Any:
        """This process's connection, opened at its first use. It commits each statement."""
        if self._connection is None:
            self._connection = psycopg2.connect(self.dsn)
            self._connection.autocommit = True
        return self._connection

    def load(self, delay: float = 0.0) -> list[dict[str, Any]]:
        """Load the rows in plain Python: the query, and orjson for the params; then take `delay` seconds longer."""
        with self.connection.cursor() as cursor:
            cursor.execute(_QUERY)
            rows = [
                {"id": number, "model_id": model, "version": version, "role": role, "params": orjson.loads(params)}
                for number, model, version, role, params in cursor.fetchall()
            ]
        if delay:
            time.sleep(delay)
        return rows

    def promote(self, generation: int) -> None:
        """Commit a change: from now on the database holds this generation."""
        changed = execute(
            self.connection,
            "UPDATE kcg.detection_model_versions SET version = %s WHERE model_id = %s",
            str(generation),
            GENERATION_MODEL,
        )
        if changed != 1:
            raise ValueError(f"{changed} rows of {GENERATION_MODEL} were changed")

    def close(self) -> None:
        """Close this process's connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def make_database(server_dsn: str, name: str, size: Size) -> Database:
    """Make a database with the schema and the rows of one size; one that is there already is made anew."""
    server = Database(server_dsn)
    execute(server.connection, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    execute(server.connection, f'CREATE DATABASE "{name}"')
    server.close()
    database = Database(dsn_of_database(server_dsn, name))
    execute(database.connection, queries.load("schema"))
    rows = make_rows(size)
    with database.connection.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO kcg.detection_models (model_id, display_name, description, is_enabled) VALUES %s",
            [(model, model, "", True) for model in dict.fromkeys(row["model_id"] for row in rows)],
        )
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params) VALUES %s",
            [
                (row["model_id"], row["version"], row["role"], "ACTIVE", orjson.dumps(row["params"]).decode())
                for row in rows
            ],
        )
        cursor.execute("ANALYZE")
    return database
