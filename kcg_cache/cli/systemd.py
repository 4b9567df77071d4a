"""What a service manager is told over ``NOTIFY_SOCKET`` (sd_notify): ready, how it is, still alive, about to end."""

import contextlib
import os
import socket


def notify(*assignments: str) -> None:
    """Send ``READY=1``, ``STATUS=…`` and the like; nothing where no service manager asked for it.

    A manager that cannot be told is no reason to stop: it notices by itself.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # Linux's names without a file
        address = "\0" + address[1:]
    message = "\n".join(each.replace("\n", " ") for each in assignments)
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending,
    ):
        sending.settimeout(1.0)
        sending.sendto(message.encode(errors="replace"), address)
