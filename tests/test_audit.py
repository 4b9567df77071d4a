"""scripts/audit takes only what was looked up for clean."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import audit

pytestmark = [pytest.mark.checkout, pytest.mark.once]

# A pip-audit that answers what a file beside it holds, by service.
FAKE = """
import json, pathlib, sys
service = sys.argv[sys.argv.index("--vulnerability-service") + 1]
answer = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text()).get(service)
if answer is None:
    sys.exit(f"{service} was not reached")
pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).write_text(json.dumps({"dependencies": answer}))
"""
CLEAN = {"name": "redis", "version": "1", "vulns": []}
BAD = {"name": "orjson", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "rich", "skip_reason": "rich was not found"}


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ({"pypi": [CLEAN]}, audit.CLEAN, "1 packages looked up, none with a known vulnerability"),
        ({"pypi": [CLEAN, BAD]}, audit.FOUND, "orjson 2: CVE-1, mended in 3"),
        ({"pypi": [SKIPPED], "osv": [CLEAN]}, audit.CLEAN, "1 packages looked up"),
        ({"pypi": [SKIPPED]}, audit.UNREACHED, "0 packages were looked up, 1 answers were missing"),
        ({"pypi": [SKIPPED, BAD]}, audit.FOUND, "the vulnerability service could not be reached for all"),
        ({}, audit.UNREACHED, "the first: pypi was not reached"),
        ({"pypi": []}, audit.UNREACHED, "0 packages were looked up"),
    ],
)
def test_only_what_was_looked_up_is_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: dict[str, Any], code: int, words: str
) -> None:
    """A mirror without the service knows no package, which pip-audit itself takes for good."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE, encoding="utf-8")
    program.with_suffix(".json").write_text(json.dumps(answers), encoding="utf-8")
    assert audit.main(["demo"], [sys.executable, str(program)]) == code
    assert words in capsys.readouterr().out


def test_a_lock_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """And not clean."""
    assert audit.main(["none"]) == audit.UNUSABLE
    assert "none.lock is not in requirements" in capsys.readouterr().err


def test_a_finding_outweighs_what_was_not_reached() -> None:
    """In whatever order the locks are."""
    assert audit._worse(audit.FOUND, audit.UNREACHED) == audit._worse(audit.UNREACHED, audit.FOUND) == audit.FOUND
    assert audit._worse(audit.CLEAN, audit.UNREACHED) == audit.UNREACHED
