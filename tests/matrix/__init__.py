"""Every supported Python with the newest and the oldest dependencies, wheel and sdist: scripts/matrix."""
