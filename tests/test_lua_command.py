"""`kcg-cache lua`: the Redis scripts, as they are sent to a real server."""

from typing import Any

import pytest

from kcg_cache import lua, queries
from kcg_cache.cli.exits import ExitCode
from tests import test_cli
from tests.schemas import valid
from tests.test_cli import Cli

#: The schema is in the checkout.
pytestmark = pytest.mark.checkout


cli = test_cli.cli


def test_lua_lists_the_scripts_with_their_own_first_sentence(cli: Cli) -> None:
    """Every script is listed with what it says of itself, not with the part that is put before it."""
    listed = cli.json("lua")
    valid("lua", listed)
    assert tuple(each["name"] for each in listed) == lua.names()
    about = {each["name"]: each["about"] for each in listed}
    assert about["invalidate"] == "Delete the entry and the fill lock together, then log it (PROTOCOL R3, R7)."
    assert len(set(about.values())) == len(about)
    shown = cli("lua")
    assert (shown.code, shown.err) == (0, "")
    assert all(name in shown.out for name in lua.names())


@pytest.mark.parametrize("name", lua.names())
def test_lua_prints_a_script_as_it_is_sent(cli: Cli, client: Any, name: str) -> None:
    """Byte for byte: the server knows it by the same SHA-1."""
    ended = cli("lua", name)
    assert (ended.code, ended.err) == (0, "")
    assert client.script_load(ended.out) == lua.load(name).sha
    told = cli.json("lua", name)
    valid("lua", told)
    assert (told["lua"], told["sha1"]) == (ended.out, lua.load(name).sha)
    assert (told["keys"], told["args"], told["reply"]) == tuple(map(list, lua.load(name)[3:]))


@pytest.mark.parametrize("command", ["sql", "lua"])
def test_a_packaged_file_that_is_not_there_is_wrong_usage(cli: Cli, command: str) -> None:
    """One line lists those that are."""
    ended = cli(command, "nothing")
    assert ended.code == ExitCode.USAGE
    assert f"'nothing' is none of {', '.join({'sql': queries, 'lua': lua}[command].names())}" in ended.err
