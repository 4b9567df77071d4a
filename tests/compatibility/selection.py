"""A pytest plugin that keeps the tests of one kind of server: ``-p tests.compatibility.selection --real redis``."""

import pytest

#: The fixtures through which a test meets a server of that kind; what modules start for themselves is called so too.
FIXTURES = {
    "redis": {"valkey_server", "server", "valkey"},
    "postgres": {"postgres_server", "postgres"},
    "old redis": set[str](),
}
#: Modules whose tests start their servers themselves, without a fixture.
MODULES = {
    "redis": {"test_clients", "test_demo", "test_doctor_provoked", "test_embedded", "test_topology"},
    "postgres": {"test_embedded", "test_demo"},
    "old redis": {"test_old_redis"},
}
#: Of the modules that are marked `operators` those that ask a server what no others do: rights, transactions, triggers.
ASKING = {"test_changes", "test_committing", "test_doctor_command", "test_notify", "test_roles"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Ask for the kind."""
    parser.addoption("--real", choices=sorted(FIXTURES), required=True, help="the kind of server to keep the tests of")
    parser.addoption("--commands", action="store_true", help="keep the tests of all the operators' commands too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what meets no server of the kind."""
    kind = config.getoption("--real")
    commands = config.getoption("--commands")
    kept = {item: meets(item, kind) and (commands or not is_of_commands(item)) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not kept[item]])
    items[:] = [item for item in items if kept[item]]


def is_of_commands(item: pytest.Item) -> bool:
    """Say whether a test only starts operators' commands, which ask a server nothing that others do not ask it too."""
    return item.get_closest_marker("operators") is not None and _module(item) not in ASKING


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")


def meets(item: pytest.Item, kind: str) -> bool:
    """Say whether a test runs on a real server of this kind."""
    module = _module(item)
    if any(module in modules for other, modules in MODULES.items() if other.startswith("old") and other != kind):
        return False
    if module in MODULES[kind] or FIXTURES[kind].intersection(getattr(item, "fixturenames", ())):
        return True
    # `backend` asks for its server while it runs, by its parameter.
    called = getattr(item, "callspec", None)
    return kind == "redis" and called is not None and called.params.get("backend") == "valkey"
