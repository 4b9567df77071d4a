"""The command: scripts/screens."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.screens import scenes, stage
from tests.screens.drawing import picture

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "screens"


def main(arguments: Sequence[str] | None = None) -> int:
    """Play all scenes; with --record, write their pictures. 0 if every command ended as it should, else 1."""
    parser = argparse.ArgumentParser(
        prog="scripts/screens",
        description="Run the operators' commands on real servers with a real fleet, and show or draw their screens.",
        epilog="Exit codes: 0 every command ended as it should, 1 one did not, 2 wrong usage.",
    )
    parser.add_argument("--record", action="store_true", help="write the pictures into docs/screens")
    options = parser.parse_args(arguments)
    os.environ.setdefault("LANG", "C.UTF-8")
    try:
        with stage.opened() as opened:
            for screen in scenes.play(opened):
                sys.stdout.write(f"$ {screen.command}\n{screen.shown}\n")
                sys.stdout.flush()
                if options.record:
                    DIRECTORY.mkdir(exist_ok=True)
                    drawn = picture(screen.name, screen.command, screen.shown, columns=stage.COLUMNS)
                    (DIRECTORY / f"{screen.name}.svg").write_text(drawn, encoding="utf-8")
    except stage.StageError as error:
        sys.stderr.write(f"scripts/screens: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
