"""Choose a TCP port for a server."""

import secrets
import socket
from pathlib import Path

from kcg_cache.errors import EmbeddedError

LOOPBACK = "127.0.0.1"

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _HIGHEST = 20_000, 65_535
_TRIES = 200


def free_port() -> int:
    """Return a port of the loopback that nobody uses now; another may still be faster, so be ready to retry.

    Not one that the kernel gives to outgoing connections. Such a port can be taken while the server is down
    for a restart, even by a client of that same server: one that tries again and again to reach a closed port
    in that range is, sooner or later, connected to itself.

    Raises `EmbeddedError` when no free port was met.
    """
    candidates = _candidates()
    for _ in range(_TRIES):
        # Not `random`: test runners seed it, and workers with one seed would all want the same port.
        port = secrets.choice(candidates)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"No free TCP port on {LOOPBACK} was found in {_TRIES} tries; name one with port=.")


def _candidates() -> range:
    try:
        first, last = (int(word) for word in _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        return range(_LOWEST, 32_768)
    below, above = range(_LOWEST, first), range(last + 1, _HIGHEST + 1)
    longest = max(below, above, key=len)
    return longest if len(longest) >= _TRIES else range(_LOWEST, _HIGHEST + 1)
