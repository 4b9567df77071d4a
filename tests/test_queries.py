import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcg_cache import queries
from kcg_cache.errors import ConfigurationError

# Prints what is opened of sql/ at import, and what at first and second use.
OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
from kcg_cache import queries
counts = []
for step in (lambda: None, lambda: queries.load("schema"), lambda: queries.load("schema")):
    step()
    counts.append(sum(str(file).endswith(".sql") for file in opened))
print(*counts)
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """Make `queries` look for its files in two empty directories: the package's and the checkout's."""
    packaged, beside = tmp_path / "kcg_cache" / "sql", tmp_path / "sql"
    for place in (packaged, beside):
        place.mkdir(parents=True)
    monkeypatch.setattr(queries, "_PLACES", (packaged, beside))
    queries._files.cache_clear()
    yield packaged, beside
    queries._files.cache_clear()


def fill(place: Path, *names: str) -> None:
    for name in names:
        (place / f"{name}.sql").write_text(f"-- {name} in {place}\n", encoding="utf-8")


def test_the_files_that_the_library_needs_are_known() -> None:
    """What the other modules load by name is there."""
    needed = {"active_versions", "correlation_models", "dependencies", "sample_data", "schema", "snapshot_check"}
    assert needed <= set(queries.names())


def test_names_are_in_alphabetical_order() -> None:
    """The order of a directory listing does not show."""
    assert list(queries.names()) == sorted(queries.names())


@pytest.mark.parametrize("name", queries.names())
def test_a_known_name_gives_its_files_text(name: str) -> None:
    """`load` and `path` mean the same file, and it is read as UTF-8."""
    assert queries.path(name).name == f"{name}.sql"
    assert queries.load(name) == queries.path(name).read_bytes().decode()


@pytest.mark.parametrize("ask", [queries.load, queries.path])
@pytest.mark.parametrize("name", ["nonsense", "", "schema.sql", "../pyproject", "../sql/schema", "SCHEMA"])
def test_an_unknown_name_is_answered_with_the_known_ones(ask: object, name: str) -> None:
    """A typing error is found at once, and no path leads out of the directory."""
    assert callable(ask)
    with pytest.raises(ConfigurationError) as caught:
        ask(name)
    assert repr(name) in str(caught.value)
    assert ", ".join(queries.names()) in str(caught.value)


def test_a_file_is_read_at_first_use_and_once() -> None:
    """Importing the library costs no look at the files."""
    # Of the library that is under test here, installed or not.
    where = {**os.environ, "PYTHONPATH": str(Path(queries.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-P", "-c", OPENED], env=where, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1", "1"]


def test_the_package_s_own_files_come_first(places: tuple[Path, Path]) -> None:
    """An installed wheel does not read what another package has put beside it."""
    packaged, beside = places
    fill(packaged, "snapshot_check")
    fill(beside, "snapshot_check", "other")
    assert queries.names() == ("snapshot_check",)
    assert queries.path("snapshot_check").parent == packaged


def test_a_checkout_s_files_are_found_beside_the_package(places: tuple[Path, Path]) -> None:
    """An editable install has the files where a DBA looks for them."""
    _, beside = places
    fill(beside, "snapshot_check", "schema")
    assert queries.names() == ("schema", "snapshot_check")
    assert str(beside) in queries.load("schema")


def test_a_directory_of_somebody_else_s_is_not_read(places: tuple[Path, Path]) -> None:
    """A broken installation says so, and where it looked, instead of running foreign SQL."""
    packaged, beside = places
    fill(beside, "schema")
    with pytest.raises(ConfigurationError, match="install it anew") as caught:
        queries.load("schema")
    assert str(packaged) in str(caught.value)
    assert str(beside) in str(caught.value)
