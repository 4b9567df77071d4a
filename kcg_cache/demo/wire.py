"""One JSON object per line, both ways: a member of the crew hears on standard input and speaks on standard output.

Descriptors are read and written directly: a thread that waits in a buffered reader would hold up the interpreter's end.
"""

import json
import os
import threading
from typing import Any

_CHUNK = 65536


class Lines:
    """Cuts a stream of bytes into its lines, each one JSON object."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """Give the messages that are complete now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


class Orders:
    """What the play tells this process. When the play is gone, so is this process (`until_told`)."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._lines = Lines()
        self._heard: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any] | None:
        """Wait for the next order; None when there will be none."""
        while not self._heard:
            chunk = os.read(self._descriptor, _CHUNK)
            if not chunk:
                return None
            self._heard = self._lines.feed(chunk)
        return self._heard.pop(0)

    def must(self) -> dict[str, Any]:
        """Wait for the next order; without one, end this process."""
        order = self.next()
        if order is None:
            raise SystemExit(0)
        return order

    def until_told(self) -> threading.Event:
        """Give an event that the next order sets. If there is none, for the play is gone, this process ends at once."""
        told = threading.Event()

        def listen() -> None:
            if self.next() is None:
                # Whatever it is that the main thread waits for: nobody is there any more to hear of it.
                os._exit(0)
            told.set()

        threading.Thread(target=listen, name="demo-orders", daemon=True).start()
        return told


def say(event: str, **facts: Any) -> None:
    """Tell the play one thing; end this process when the play is gone."""
    line = memoryview(json.dumps({"event": event, **facts}).encode() + b"\n")
    try:
        while line:
            line = line[os.write(1, line) :]
    except BrokenPipeError:
        os._exit(0)
