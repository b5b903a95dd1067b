"""What a run says while it works: one JSON object a line, for a person's terminal to draw from."""

import json
import time
from collections.abc import Callable
from typing import Any

MARK = "@meta "  # begins a line that is for the terminal's program and not for its reader
Emit = Callable[[str, dict[str, Any]], None]


def print_event(kind: str, fields: dict[str, Any]) -> None:
    """Writes an event to standard output, which the cluster carries to whoever follows the run."""
    print(MARK + json.dumps({"kind": kind} | fields), flush=True)


def parse_event(line: str) -> dict[str, Any] | None:
    """The event in a line, or None where the line is a message for people."""
    if not line.startswith(MARK):
        return None
    try:
        event = json.loads(line.removeprefix(MARK))
    except ValueError:  # a line cut off by a crash
        return None
    return event if isinstance(event, dict) and "kind" in event else None


class Throttle:
    """Lets an action through at most every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last = -float("inf")

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self.seconds:
            return False
        self._last = now
        return True
