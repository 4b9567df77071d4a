"""One target under atheris: ``python -m tests.fuzz.run TARGET [libFuzzer's arguments]``. It ends the process."""

import importlib
import shlex
import sys


def main() -> None:
    """Hand the target over to libFuzzer; only kcg_cache's modules tell it what they have run through."""
    target = sys.argv.pop(1)
    # To merge, libFuzzer starts itself again, through a shell, as what its first argument says.
    sys.argv[0] = shlex.join([sys.executable, "-m", "tests.fuzz.run", target])
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["kcg_cache"]):
        targets = importlib.import_module("tests.fuzz.targets")
    atheris.Setup(sys.argv, targets.TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
