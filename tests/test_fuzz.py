"""The fuzzing targets: every input of the corpus and everything that was ever found, and a short run of the fuzzer."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from kcg_cache import codec
from tests.fuzz import targets
from tests.fuzz.__main__ import CORPUS, NAMES, REGRESSIONS, main
from tests.programs import SOURCE

# What it fuzzes is the code, wherever that is installed: once is enough.
pytestmark = pytest.mark.checkout

INPUTS = [
    *[
        pytest.param(name, path, id=f"{name}-{path.name}")
        for name in NAMES
        for path in sorted((CORPUS / name).iterdir())
    ],
    *[pytest.param(name, path, id=path.name) for name in NAMES for path in sorted(REGRESSIONS.glob(f"{name}-*"))],
]


@pytest.mark.parametrize(("name", "path"), INPUTS)
def test_an_input_that_was_found_shows_no_defect(name: str, path: Path) -> None:
    """Everywhere, also where there is no fuzzer."""
    targets.TARGETS[name](path.read_bytes())


def test_every_target_has_a_corpus_that_is_small() -> None:
    """And nothing lies about that no target is given."""
    assert set(targets.TARGETS) == set(NAMES) == {path.name for path in CORPUS.iterdir()}
    files = [path for directory in (CORPUS, REGRESSIONS) for path in directory.rglob("*") if path.is_file()]
    assert len(files) == len(INPUTS) < 300
    assert sum(path.stat().st_size for path in files) < 200_000
    assert all(any((CORPUS / name).iterdir()) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_target_notices_a_defect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that passes whatever the code does would find nothing: here nothing is decoded as it was encoded."""
    decode = codec.decode
    with pytest.raises(AssertionError):  # noqa: PT012 - which of the inputs shows it is not the point
        monkeypatch.setattr(
            codec, "decode", lambda *arguments, **named: decode(*arguments, **named)[:-1] or ({"a": 2},)
        )
        for path in [*(CORPUS / name).iterdir(), *REGRESSIONS.glob(f"{name}-*")]:
            targets.TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_the_fuzzer_finds_nothing_in_two_thousand_runs(name: str, tmp_path: Path) -> None:
    """From the corpus on, another way each time; what it finds is printed, and stays in the test's directory."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python or machine")
    options = ["--runs", "2000", "--seconds", "0", "--artifacts", str(tmp_path)]  # 0: however long it takes
    command = [sys.executable, "-m", "tests.fuzz", name, *options]
    ended = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        env={"PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    executions = int(ended.stderr.split()[1])
    assert executions >= 2000
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_fuzzer_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And does not pass for a run that found nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main([]) == 2
    assert "atheris is not installed" in capsys.readouterr().err
