"""The wheel installed as a user does, from the package index: with no extra, and what then says which is missing."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.matrix.pythons import Python

#: What is asked of the bare package, with its exit code and the words that must be in what it says.
EXPECTED = (
    (["-c", "import kcg_cache; print(kcg_cache.__all__)"], 0, "load_active_versions"),
    (["-m", "kcg_cache", "status"], 5, "pip install 'kcg-cache[cli]'"),
    (["-m", "kcg_cache", "demo"], 5, "pip install 'kcg-cache[cli]'"),
    (["-c", "import kcg_cache.testing"], 1, "pip install 'kcg-cache[testing]'"),
)


def check(python: Python, wheel: Path, home: Path) -> Iterator[tuple[str, str]]:
    """Install the wheel into a new environment `home`; give what was asked, and what was wrong, if anything."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if uv := shutil.which("uv"):
        variables["UV_PYTHON_DOWNLOADS"] = "never"
        made: list[list[str | Path]] = [[uv, "venv", "--quiet", "--python", python.path, home]]
        made += [[uv, "pip", "install", "--quiet", "--python", home / "bin" / "python", wheel]]
    else:
        made = [[python.path, "-m", "venv", home], [home / "bin" / "python", "-m", "pip", "install", "--quiet", wheel]]
    for command in made:
        subprocess.run(command, env=variables, check=True)
    for arguments, code, words in EXPECTED:
        done = subprocess.run(
            [home / "bin" / "python", *arguments], cwd=home, env=variables, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        wrong = "" if done.returncode == code and words in said else f"exit code {done.returncode}: {said}"
        yield " ".join(arguments), wrong
