"""What is in the wheel and the sdist, and what the wheel says of itself."""

import email
import email.message
import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.matrix import artefacts
from tests.matrix.pythons import PROJECT

pytestmark = [pytest.mark.checkout, pytest.mark.once]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, artefacts.Artefact]:
    """Build both, the sdist's wheel from nothing but the sdist."""
    return {one.name: one for one in artefacts.build(tmp_path_factory.mktemp("built"))}


def _digests(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def _files(*roots: str) -> set[str]:
    """Give the files of the checkout below these directories, that are no rest of a run."""
    files = (path for root in roots for path in (PROJECT / root).rglob("*") if path.is_file())
    return {str(path.relative_to(PROJECT)) for path in files if not {"__pycache__"} & {*path.parts}}


def test_the_sdist_builds_the_very_wheel_that_the_checkout_does(built: dict[str, artefacts.Artefact]) -> None:
    """File by file, byte by byte."""
    assert _digests(built["sdist"].wheel) == _digests(built["wheel"].wheel)


def test_the_wheel_holds_the_package_and_nothing_else(built: dict[str, artefacts.Artefact]) -> None:
    """With its types, its scripts and the SQL, each once."""
    names = set(_digests(built["wheel"].wheel))
    package = {name for name in names if name.startswith("kcg_cache/")}
    assert package == _files("kcg_cache") | {f"kcg_cache/{name}" for name in _files("sql")}
    assert "kcg_cache/py.typed" in package
    (info,) = {name.split("/")[0] for name in names - package}
    assert {name.removeprefix(f"{info}/") for name in names - package} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_sdist_holds_what_its_tests_and_scripts_need(built: dict[str, artefacts.Artefact]) -> None:
    """All of the checkout but how CI runs it."""
    root = built["sdist"].tests
    have = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    wanted = _files("kcg_cache", "sql", "tests", "benchmarks", "docs", "deploy", "scripts", "requirements")
    assert wanted <= have
    assert have - wanted == {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}


def test_the_metadata_tell_what_it_is(built: dict[str, artefacts.Artefact]) -> None:
    """Licence, Python, extras and the README, which is shown as it is."""
    with zipfile.ZipFile(built["wheel"].wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata: email.message.Message = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "kcg-cache"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    payload = metadata.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode() == (PROJECT / "README.md").read_text(encoding="utf-8")
    assert metadata.get_all("Provides-Extra")
    for requirement in metadata.get_all("Requires-Dist", []):
        assert "@" not in requirement, "a place of this machine"
