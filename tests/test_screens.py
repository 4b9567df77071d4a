"""The pictures of the operators' screens: their page, the pictures, and the scenes that they are taken from."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from kcg_cache.cli.app import app
from tests.screens import scenes
from tests.screens.drawing import picture

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operators.md"
PICTURES = ROOT / "docs" / "screens"

pytestmark = [pytest.mark.checkout, pytest.mark.operators]


def test_every_picture_is_of_a_scene_and_on_the_page() -> None:
    """Nothing is shown that is not taken again with the others."""
    shown = re.findall(r"\]\(screens/([\w-]+)\.svg\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(scenes.NAMES)
    assert sorted(path.stem for path in PICTURES.glob("*")) == sorted(scenes.NAMES)


@pytest.mark.parametrize("name", scenes.NAMES)
def test_a_picture_is_an_svg_that_fetches_nothing(name: str) -> None:
    """It begins with its command, and a browser without a network draws it."""
    text = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    svg = ET.fromstring(text)  # noqa: S314 - our own file
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "kcg-cache" in "".join(svg.itertext())


def test_a_picture_shows_colours_and_wide_letters() -> None:
    """Korean letters are two columns wide."""
    drawn = picture("x", "kcg-cache x", "\x1b[31m빨강\x1b[0m|\n", columns=40)
    assert "빨강" in drawn
    assert "kcg-x-matrix" in drawn


def test_every_command_that_the_page_names_is_one() -> None:
    """And takes the options that it is shown with."""
    known = {command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    assert set(re.findall(r"`kcg-cache ([a-z]+)", PAGE.read_text(encoding="utf-8"))) <= known


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may name hosts, which the screens show several of")
def test_the_scenes_can_be_played() -> None:
    """On real servers, every command ends as it should; what they show is not compared."""
    command = [sys.executable, "-m", "tests.screens"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("\n$ kcg-cache") == len(scenes.NAMES) - 1
