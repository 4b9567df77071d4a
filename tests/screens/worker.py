"""A worker of the fleet on the pictures: it reads its parameters several times a second until it is ended."""

import time

from kcg_cache import load_active_versions, postgres
from tests.screens.stage import DSN

_EVERY = 0.2


def main() -> None:
    """Read, and read again."""
    with postgres.connect(DSN.get()) as connection:
        while True:
            load_active_versions(connection)
            time.sleep(_EVERY)


if __name__ == "__main__":
    main()
