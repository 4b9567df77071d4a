"""How long to wait before a server that failed is asked again."""

from kcg_cache.system import System

#: Seconds before the second try, and the longest between two; half of each is by chance.
FIRST, LONGEST = 0.2, 5.0


class Backoff:
    """How long to wait before the next try: twice as long each time, half of it by chance, so that many spread."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._tries = 0

    @property
    def failing(self) -> bool:
        """Whether a failure was counted since the last `over`."""
        return self._tries > 0

    def next(self) -> float:
        """Count a failure and give the seconds to wait."""
        longest = min(LONGEST, FIRST * 2.0 ** min(self._tries, 16))
        self._tries += 1
        chance = int(self._system.token()[:8], 16) / 2**32
        return longest * (1 + chance) / 2

    def over(self) -> bool:
        """Forget all failures; tell whether there were any."""
        failing, self._tries = self.failing, 0
        return failing
