"""``python -m kcg_cache`` and ``kcg-cache``: the command line."""

import sys

from kcg_cache import cli


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
