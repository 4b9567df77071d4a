"""Every JSON document of the command line has a schema, and is as it says."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcg_cache.cli.app import app
from tests import test_cli
from tests.schemas import DIRECTORY, valid
from tests.test_cli import Cli, Database

pytestmark = pytest.mark.operators

#: Commands that share one.
_SHARED = {"promote": "change", "archive": "change", "enable": "change", "disable": "change"}
#: What a game shows is no interface.
_NONE = {"demo"}

cli, database = test_cli.cli, test_cli.database


def _with_json() -> Iterator[str]:
    for command in app.registered_commands:
        assert command.callback is not None
        if "as_json" in inspect.signature(command.callback).parameters:
            yield command.callback.__name__


def test_every_command_with_json_has_a_schema_and_no_schema_is_idle() -> None:
    """Whoever reads a document by program relies on it."""
    wanted = {_SHARED.get(name, name) for name in _with_json() if name not in _NONE}
    assert wanted == {path.stem for path in DIRECTORY.glob("*.json")}


@pytest.mark.parametrize("state", ["empty", "filled", "withdrawn"])
def test_status_is_as_its_schema_says(cli: Cli, database: Database, state: str) -> None:
    """Whatever there is to look at."""
    if state != "empty":
        valid("reload", cli.json("reload", "--dsn", database.dsn))
    if state == "withdrawn":
        valid("invalidate", cli.json("invalidate", "--reason", "a test", "--no-wait"))
    valid("status", cli.json("status"))


def test_show_and_reload_are_as_their_schemas_say(cli: Cli, database: Database) -> None:
    """With a load, and from the shared copy."""
    assert valid("reload", cli.json("reload", "--dsn", database.dsn))["before"] is None
    shown = valid("show", cli.json("show"))
    assert shown["snapshot"]["source"] == "redis"
    assert not valid("reload", cli.json("reload", "--dsn", database.dsn))["changed"]


def test_sql_is_as_its_schema_says(cli: Cli) -> None:
    """The list, and one file."""
    listed = valid("sql", cli.json("sql"))
    one = valid("sql", cli.json("sql", "schema"))
    assert one["name"] in {each["name"] for each in listed}
    assert Path(one["path"]).is_file()
